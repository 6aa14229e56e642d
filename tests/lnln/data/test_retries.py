"""Which failures are worth another try, and that trying ends: by number, and by time."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import aiohttp
import pytest
from botocore import exceptions as botocore
from botocore.parsers import ResponseParserError

from lnln.data.retries import (
    MAX_ATTEMPTS,
    MAX_ATTEMPTS_UNHEARD,
    MAX_DELAY_SECONDS,
    GaveUpError,
    Patience,
    delay_seconds,
    is_transient,
    retry_seconds,
)
from lnln.errors import RefusedError


def refused(status: int, code: str) -> botocore.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.ClientError(answer, "PutObject")


def unconnected() -> botocore.EndpointConnectionError:
    key: Any = None
    cause = aiohttp.ClientConnectorError(key, OSError(111, "Connection refused"))
    return botocore.EndpointConnectionError(endpoint_url="http://127.0.0.1:9", error=cause)


@pytest.mark.parametrize(
    "error",
    [
        refused(503, "SlowDown"),
        refused(503, "503"),  # to a HEAD, which has no body to say more
        refused(429, "TooManyRequests"),
        refused(500, "InternalError"),
        refused(502, "502"),
        refused(504, "504"),
        refused(400, "RequestTimeout"),
        refused(400, "BadDigest"),
        unconnected(),
        botocore.EndpointConnectionError(endpoint_url="x", error=ConnectionResetError(104, "reset")),
        botocore.ConnectionClosedError(endpoint_url="x"),
        botocore.ConnectTimeoutError(endpoint_url="x"),
        botocore.ReadTimeoutError(endpoint_url="x"),
        botocore.ResponseStreamingError(error="cut"),
        botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        ResponseParserError("no XML"),
        aiohttp.ClientPayloadError("not all"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_what_may_go_well_later_is_tried_again(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        refused(403, "AccessDenied"),
        refused(403, "SignatureDoesNotMatch"),
        refused(403, "InvalidAccessKeyId"),
        refused(403, "RequestTimeTooSkewed"),
        refused(404, "NoSuchKey"),
        refused(404, "NoSuchBucket"),
        refused(404, "404"),
        refused(409, "ConditionalRequestConflict"),
        refused(412, "PreconditionFailed"),
        refused(416, "InvalidRange"),
        refused(400, "InvalidArgument"),
        refused(501, "NotImplemented"),
        botocore.NoCredentialsError(),
        botocore.SSLError(endpoint_url="x", error=ssl.SSLCertVerificationError("self-signed")),
        botocore.ParamValidationError(report="x"),
        FileNotFoundError(2, "none"),
        OSError(28, "No space left on device"),
        ValueError("x"),
    ],
    ids=repr,
)
def test_what_would_come_again_is_raised_at_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", never)
    assert not is_transient(error)
    with pytest.raises(type(error)) as raised:
        asyncio.run(Patience("s3://b").wait_after(error))
    assert raised.value is error


async def never(seconds: float) -> None:
    raise AssertionError(f"waited {seconds} s")


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        monkeypatch.setattr("lnln.data.retries.time.monotonic", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def fail_for_ever(patience: Patience, error: Exception, each_takes: float = 0, clock: Clock | None = None) -> int:
    """How many attempts were made."""

    async def attempts() -> int:
        for attempt in range(1, 1000):
            if clock:
                clock.now += each_takes
            try:
                await patience.wait_after(error)
            except GaveUpError as given_up:
                assert given_up.__cause__ is error
                return attempt
        raise AssertionError("never ends")

    return asyncio.run(attempts())


def test_attempts_are_bounded_and_waits_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert fail_for_ever(Patience("s3://b"), refused(503, "SlowDown")) == MAX_ATTEMPTS == len(clock.waits) + 1
    assert clock.waits == sorted(clock.waits[:6]) + clock.waits[6:] and max(clock.waits) <= MAX_DELAY_SECONDS
    assert 8 < sum(clock.waits) < 25


def test_no_attempt_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # Each attempt hangs for its whole read timeout: the second begins, the fourth no more.
    assert fail_for_ever(Patience("s3://b", seconds=60), TimeoutError(), each_takes=25, clock=clock) == 4
    assert fail_for_ever(Patience("s3://b", seconds=0), refused(503, "SlowDown")) == 1
    assert fail_for_ever(Patience("s3://b", seconds=0.3), refused(503, "SlowDown")) in (2, 3, 4)


def test_a_wrong_address_is_said_soon_and_a_restart_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert fail_for_ever(Patience("s3://b", is_known=False), unconnected()) == MAX_ATTEMPTS_UNHEARD
    assert fail_for_ever(Patience("s3://b", is_known=True), unconnected()) == MAX_ATTEMPTS
    assert fail_for_ever(Patience("s3://b", is_known=False), refused(503, "SlowDown")) == MAX_ATTEMPTS


def test_waits_are_spread_by_chance() -> None:
    for num_failed in (1, 3, 8, 10_000):
        drawn = [delay_seconds(num_failed) for _ in range(200)]
        assert max(drawn) / min(drawn) > 1.5 and min(drawn) >= 0.05 and max(drawn) <= MAX_DELAY_SECONDS


def test_giving_up_says_what_failed_how_often_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)

    async def give_up(patience: Patience) -> str:
        while True:
            try:
                await patience.wait_after(refused(503, "SlowDown"))
            except GaveUpError as error:
                return str(error.strerror)

    said = asyncio.run(give_up(Patience("s3://b", seconds=60)))
    assert said.startswith("SlowDown: said so (failed 10 times in ")
    assert "LNLN_S3_RETRY_SECONDS above 60 waits longer" in said and "\n" not in said
    assert "failed once;" in asyncio.run(give_up(Patience("s3://b", seconds=0)))


def test_the_time_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LNLN_S3_RETRY_SECONDS", raising=False)
    assert retry_seconds() == 60
    monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "2.5")
    assert retry_seconds() == 2.5
    for wrong in ("soon", "-1", "nan"):
        monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", wrong)
        with pytest.raises(RefusedError, match="LNLN_S3_RETRY_SECONDS must be a number of seconds from 0 on, got"):
            retry_seconds()
