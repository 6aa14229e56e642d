"""What this machine and the configured services can do, and what is wrong: `lnln doctor`.

Each check looks at one thing, changes nothing that outlasts it, and gives one finding. Services are asked over plain
sockets and HTTP, so the check works, and says so, where their client libraries do not.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lnln.errors import RefusedError

TIMEOUT_SECONDS = 5.0
MIN_FREE_BYTES = 2 * 1024**3
# Versions that are known not to work together: package, first bad version, what breaks.
CONFLICTS = (("fastapi", (0, 151), "Prefect's server refuses its own client; pip install 'fastapi<0.151'"),)

# What the extra `media` installs, with the modules that are in it; and what OpenFace calls its program.
MEDIA_PACKAGES = {"av": "av", "librosa": "librosa", "soundfile": "soundfile", "opencv-python-headless": "cv2"}
OPENFACE_PROGRAMS = ("FeatureExtraction", "FaceLandmarkVidMulti")


@dataclass(frozen=True)
class Finding:
    """One line of the report: `fine`, `note` (works, but worth knowing) or `wrong`."""

    topic: str
    level: Literal["fine", "note", "wrong"]
    text: str


def examine(store_url: str | None = None) -> list[Finding]:
    """All checks, in the order of the path; a check never raises."""
    from lnln.data.store import default_store

    url = store_url or default_store()
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _machine,
        _text_encoder,
        _clips,
        lambda: _store(url),
        _dask,
        lambda: [_service("Ray", os.environ.get("RAY_ADDRESS"), "Ray is started on this machine for each run")],
        _prefect,
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    found = ", ".join(f"{name} {metadata.version(name)}" for name in ("lnln", "torch", "ray", "distributed", "prefect"))
    findings = [Finding("packages", "fine", f"Python {sys.version.split()[0]}, {found}")]
    for package, first_bad, consequence in CONFLICTS:
        version = metadata.version(package)
        if tuple(int(part) for part in version.split(".")[:2]) >= first_bad:
            findings.append(Finding("packages", "wrong", f"{package} {version}: {consequence}"))
    return findings


def _machine() -> list[Finding]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    findings = [Finding("machine", "fine", f"{os.cpu_count()} cores, {memory:.0f} GiB of memory")]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        findings.append(Finding("GPU", "fine", names))
    else:
        findings.append(Finding("GPU", "note", "none that torch can use; training runs on the CPU"))
    free = shutil.disk_usage(".").free
    level: Literal["fine", "wrong"] = "fine" if free >= MIN_FREE_BYTES else "wrong"
    findings.append(Finding("disk", level, f"{free / 1024**3:.1f} GiB free in the working folder"))
    return findings


def _text_encoder() -> list[Finding]:
    from lnln.data.wordpiece import tokenizer_bytes

    try:
        num_bytes = len(tokenizer_bytes())
    except (RefusedError, OSError) as error:
        return [Finding("text encoder", "wrong", str(error))]
    return [Finding("text encoder", "fine", f"minilm is installed ({num_bytes:,} bytes of tokenizer)")]


def _clips() -> list[Finding]:
    """Whether raw clips can be read, which is an extra; and what else extractors could use, which nobody needs."""
    missing = [name for name, module in MEDIA_PACKAGES.items() if find_spec(module) is None]
    found = ", ".join(f"{name}{_version(name)}" for name in MEDIA_PACKAGES if name not in missing)
    if missing:
        text = f"cannot be read without {', '.join(missing)}: pip install 'lnln[media]'"
        clips = Finding("clips", "note", f"{text} ({found} there)" if found else text)
    else:
        clips = Finding("clips", "fine", f"can be read: {found}")
    openface = next((path for name in OPENFACE_PROGRAMS if (path := shutil.which(name))), None)
    others = [
        f"openSMILE{_version('opensmile')} (for research only)"
        if find_spec("opensmile")
        else "no openSMILE (pip install 'lnln[opensmile]')",
        f"OpenFace at {openface}" if openface else f"no OpenFace ({OPENFACE_PROGRAMS[0]} is not on the path)",
    ]
    return [clips, Finding("more extractors", "fine", ", ".join(others))]


def _version(package: str) -> str:
    """With a blank before it; nothing where its module came with another package."""
    try:
        return f" {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def _store(url: str) -> list[Finding]:
    from lnln.data.store import Store

    try:
        store, path = Store(url), f"doctor-{uuid.uuid4().hex}"
        with _without_trace(store.url):
            store.write(path, b"")
            store.remove(path)
            abilities = store.probe()
    except (RefusedError, OSError) as error:
        return [Finding("store", "wrong", " ".join(str(error).split()))]
    missing = [
        name
        for name, there in (
            ("conditional create", abilities.conditional_create),
            ("conditional update", abilities.conditional_update),
        )
        if not there
    ]
    if missing:
        return [Finding("store", "note", f"{url} lacks {' and '.join(missing)}: do not let two writers race")]
    return [Finding("store", "fine", f"{url} can be written, and decides races between writers")]


@contextmanager
def _without_trace(url: str) -> Iterator[None]:
    """Folders on the way to the store `url` that are absent now, and empty afterwards, are removed again."""
    folder = Path(url)
    absent = [] if "://" in url else [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            for each in absent:
                each.rmdir()


def _dask() -> list[Finding]:
    """By the rule of `pipelines/settings.py`: LNLN_DASK first, where `none` and `local` are no addresses."""
    chosen = os.environ.get("LNLN_DASK") or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if chosen == "none":
        return [Finding("Dask", "fine", "jobs run in the process that starts them")]
    if chosen == "local":
        return [Finding("Dask", "fine", "jobs run on a cluster that is started on this machine")]
    return [_service("Dask", chosen, "jobs run on this machine")]


def _service(topic: str, address: str | None, otherwise: str) -> Finding:
    if not address:
        return Finding(topic, "fine", f"no address configured: {otherwise}")
    if address in ("auto", "local"):
        return Finding(topic, "fine", f"address {address!r}")
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_SECONDS):
            return Finding(topic, "fine", f"{address} answers")
    except (OSError, ValueError) as error:
        return Finding(topic, "wrong", f"{address} does not answer: {error}")


def _prefect() -> list[Finding]:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return [Finding("Prefect", "fine", "no API configured: flows start their own")]
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=TIMEOUT_SECONDS) as reply:
            return [Finding("Prefect", "fine", f"{url} answers with {reply.status}")]
    except (OSError, ValueError) as error:
        return [Finding("Prefect", "wrong", f"{url} does not answer: {error}")]
