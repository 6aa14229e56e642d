"""The configured store: reached, written, read, and able to decide races between writers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lnln.data.retries import SECONDS_VARIABLE
from lnln.doctor.child import NoAnswerError, ask
from lnln.doctor.finding import Finding, wrong
from lnln.errors import RefusedError

# A request is signed with its time; AWS refuses what is 15 minutes off.
MAX_SKEW_SECONDS = 300
# For a request that fails at first; what keeps failing so long is down.
_RETRY_SECONDS = 3


def store(url: str) -> list[Finding]:
    return _bucket(url) if url.startswith("s3://") else _folder(url)


def _folder(url: str) -> list[Finding]:
    from lnln.data.store import Store

    path = f"doctor-{uuid.uuid4().hex}"
    try:
        found = Store(url)
        with _without_trace(found.url):
            found.write(path, b"")
            found.remove(path)
            abilities = found.probe()
    except (RefusedError, OSError) as error:
        mend = "name one with --store or LNLN_STORE, or give this user the right to write there"
        return [
            wrong("store", " ".join(str(error).split()), expected="a folder that can be written, or s3://…", mend=mend)
        ]
    return [_abilities(url, abilities.conditional_create, abilities.conditional_update)]


@contextmanager
def _without_trace(url: str) -> Iterator[None]:
    """Folders on the way to the store `url` that are absent now, and empty afterwards, are removed again."""
    folder = Path(url)
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            for each in absent:
                each.rmdir()


def _bucket(url: str) -> list[Finding]:
    try:
        found = ask("lnln.doctor.ask_store", url, environment={SECONDS_VARIABLE: str(_RETRY_SECONDS)})
    except NoAnswerError as error:
        return [_failure(url, error)]
    findings = [_abilities(url, found["conditional_create"], found["conditional_update"])]
    if abs(found["skew_seconds"]) > MAX_SKEW_SECONDS:
        text = f"this machine's clock is {found['skew_seconds']:+.0f} s off that of {url}; have NTP set it"
        findings.append(Finding("store", "note", text))
    return findings


def _abilities(url: str, conditional_create: bool, conditional_update: bool) -> Finding:
    missing = {"create": conditional_create, "update": conditional_update}
    names = " and ".join(f"conditional {name}" for name, is_there in missing.items() if not is_there)
    if not names:
        return Finding("store", "fine", f"{url} can be written, and decides races between writers")
    return wrong(
        "store",
        f"{url} lacks {names}: of two writers at one moment both believe they were first",
        expected="a server that honours If-None-Match and If-Match",
        mend="use one that does (AWS, Ceph, MinIO, or a proxy that passes both headers on), or let one process at a "
        "time publish, commit or tune",
    )


def _failure(url: str, error: NoAnswerError) -> Finding:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    bucket = url.removeprefix("s3://").partition("/")[0]
    expected, mend = _EXPECTED.get(error.kind, ("a store that can be written and read", "lnln --store URL doctor"))
    said = {"endpoint": endpoint, "bucket": bucket, "url": url}
    return wrong("store", _short(error.reason), expected=expected.format(**said), mend=mend.format(**said))


_EXPECTED: dict[str, tuple[str, str]] = {
    "unreachable": (
        "a server that answers at {endpoint}",
        "unreachable: start it, or set AWS_ENDPOINT_URL; curl -I {endpoint} says whether it listens",
    ),
    "silent": (
        "a server that answers at {endpoint}",
        "unreachable: start it, or set AWS_ENDPOINT_URL; curl -I {endpoint} says whether it listens",
    ),
    "credentials": (
        "credentials that {endpoint} knows",
        "wrong credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN with temporary ones), "
        "or give the machine a role; aws sts get-caller-identity says whose they are",
    ),
    "forbidden": (
        "the rights of infra/object-store/policy.json on {bucket}",
        "wrong credentials: these are known but may not do this; give them that policy",
    ),
    "region": ("the region of {bucket}", "set AWS_DEFAULT_REGION to it"),
    "clock": ("a clock that is right", "set it: timedatectl set-ntp true"),
    "bucket": ("a bucket {bucket}", "create it: aws s3api create-bucket --bucket {bucket}"),
    "certificate": (
        "a certificate of {endpoint} that this machine trusts",
        "set AWS_CA_BUNDLE to the certificate of who signed it",
    ),
    "lost": ("a store that keeps what is written", "ask who runs {endpoint}"),
}


def _short(reason: str) -> str:
    return reason if len(reason) <= 300 else f"{reason[:299]}…"
