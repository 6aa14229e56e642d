"""When a request to a server is made again, and when it is given up.

    patience = Patience("s3://bucket/lnln")
    while True:
        try:
            return await request()
        except Exception as error:
            await patience.wait_after(error)        # raises where waiting does not help, or has not

This is the only layer of retries: botocore is told to try once, and s3fs's own loop is passed by
(`lnln/data/s3_client.py`). Else they multiply: five of s3fs times three of botocore are 15 attempts. What remains below
is aiohttp, which makes a request a second time, at once, where a connection breaks before an answer comes.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import time

import aiohttp
import botocore.exceptions as botocore
from botocore.parsers import ResponseParserError

from lnln.errors import RefusedError

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 10
# Where nobody listens, and nobody has since this process began: a wrong address, more likely than a restart.
MAX_ATTEMPTS_UNHEARD = 3
# After the n-th failure 0.1 * 2^n seconds, at most 5: ten attempts take about 17 s.
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
SECONDS_VARIABLE = "LNLN_S3_RETRY_SECONDS"
DEFAULT_SECONDS = 60.0

# Answers that ask for another try although their status alone does not.
_TRANSIENT_CODES = frozenset({
    "BadDigest",
    "IncompleteBody",
    "InternalError",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
})  # fmt: skip
_NOT_IMPLEMENTED = 501
_TRANSIENT_ERRORS: tuple[type[BaseException], ...] = (
    botocore.ConnectionError,
    botocore.HTTPClientError,
    botocore.IncompleteReadError,
    botocore.ChecksumError,
    botocore.FlexibleChecksumError,
    botocore.ResponseStreamingError,
    ResponseParserError,  # an answer that was cut short, or came from a proxy on the way, may be no XML
    aiohttp.ClientError,
    asyncio.TimeoutError,
    ConnectionError,
)


class BrokenAnswerError(ConnectionError):
    """An answer that arrived but is not whole, or not of one piece with those before it."""


class GaveUpError(OSError):
    """A server that kept failing. The error that it failed with last is the cause."""


class Patience:
    """What one request may still take: MAX_ATTEMPTS in all, and none begins later than `seconds` after the first
    failure.

    server: what a refusal calls it. seconds: default LNLN_S3_RETRY_SECONDS, else 60; 0 means one attempt. is_known:
    the server has answered before.
    """

    def __init__(self, server: str, *, seconds: float | None = None, is_known: bool = True) -> None:
        self._server = server
        self._seconds = retry_seconds() if seconds is None else seconds
        self._is_known = is_known
        self._num_failed = 0
        self._first_failed = 0.0

    async def wait_after(self, error: Exception) -> None:
        """Sleep before the next attempt. Raises `error` if it would come again, GaveUpError if nothing is left."""
        if not is_transient(error):
            raise error
        now = time.monotonic()
        if not self._num_failed:
            self._first_failed = now
        self._num_failed += 1
        delay = delay_seconds(self._num_failed)
        most = MAX_ATTEMPTS_UNHEARD if not self._is_known and nobody_listens(error) else MAX_ATTEMPTS
        if self._num_failed >= most or now + delay > self._first_failed + self._seconds:
            raise self._given_up(error, now) from error
        log.log(
            logging.WARNING if self._num_failed == MAX_ATTEMPTS // 2 else logging.DEBUG,
            "%s: %s; attempt %d of %d follows in %.1f s",
            self._server,
            _reason(error),
            self._num_failed + 1,
            most,
            delay,
        )
        await asyncio.sleep(delay)

    def _given_up(self, error: Exception, now: float) -> GaveUpError:
        times = "once" if self._num_failed == 1 else f"{self._num_failed} times in {now - self._first_failed:.0f} s"
        return GaveUpError(
            errno.EIO,
            f"{_reason(error)} (failed {times}; see that the server is well and run the same command again, "
            f"{SECONDS_VARIABLE} above {self._seconds:g} waits longer)",
        )


def is_transient(error: BaseException) -> bool:
    """Whether the same request may go well later: throttling, failures of the server or of the connection, and answers
    that were cut short. Not: what is forbidden, absent, ill-formed or unknown to the server, nor a bad certificate."""
    if isinstance(error, botocore.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        is_failure = status == 429 or (status >= 500 and status != _NOT_IMPLEMENTED)
        return is_failure or error.response.get("Error", {}).get("Code") in _TRANSIENT_CODES
    if isinstance(error, botocore.SSLError):
        return False
    return isinstance(error, _TRANSIENT_ERRORS)


def nobody_listens(error: BaseException) -> bool:
    """Whether no connection came about: refused, no route, no such name."""
    return isinstance(error, botocore.EndpointConnectionError) and isinstance(
        error.kwargs.get("error"), aiohttp.ClientConnectorError
    )


def delay_seconds(num_failed: int) -> float:
    """How long to wait after so many failures: doubling, with chance in it, so that those who were turned away
    together do not come back together."""
    return random.uniform(0.5, 1.0) * float(min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(num_failed - 1, 10)))


def retry_seconds() -> float:
    """LNLN_S3_RETRY_SECONDS, else 60; RefusedError where that is no number from 0 on."""
    text = os.environ.get(SECONDS_VARIABLE) or str(DEFAULT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise RefusedError(f"{SECONDS_VARIABLE} must be a number of seconds from 0 on, got {text!r}")
    return seconds


def _reason(error: Exception) -> str:
    if isinstance(error, botocore.ClientError):
        stated = error.response.get("Error", {})
        return f"{stated.get('Code', 'unknown error')}: {stated.get('Message') or error}"
    return " ".join(str(error).split()) or type(error).__name__
