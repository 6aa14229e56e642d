"""What a store in a bucket can do: `python -m lnln.doctor.ask_store s3://bucket/prefix`. See `child.py`.

It writes, reads, dates and removes small files of its own, so each right that a writer needs is tried.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import botocore.exceptions as botocore

from lnln.data import s3_client
from lnln.data.store import Store
from lnln.doctor.child import NoAnswerError, answer
from lnln.errors import RefusedError

_CONNECT_SECONDS, _READ_SECONDS = 3, 5

_NO_CREDENTIALS = (botocore.NoCredentialsError, botocore.PartialCredentialsError, botocore.CredentialRetrievalError)
_UNREACHABLE = (botocore.HTTPClientError, botocore.ConnectionError)

# What a server answers to keys that it does not know, that do not fit or that are no longer good.
_BAD_CREDENTIALS = frozenset({
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
})  # fmt: skip
_OTHER_KINDS = {
    "AccessDenied": "forbidden",
    "AllAccessDisabled": "forbidden",
    "AuthorizationHeaderMalformed": "region",
    "IllegalLocationConstraintException": "region",
    "PermanentRedirect": "region",
    "RequestTimeTooSkewed": "clock",
    "NoSuchBucket": "bucket",
}


def look(url: str) -> dict[str, Any]:
    """conditional_create, conditional_update, skew_seconds (of the clock here); NoAnswerError says what failed."""
    s3_client.CONNECT_TIMEOUT_SECONDS, s3_client.READ_TIMEOUT_SECONDS = _CONNECT_SECONDS, _READ_SECONDS
    store, path = Store(url), f"doctor-{uuid.uuid4().hex}"
    try:
        store.write(path, b"lnln doctor")
        try:
            store.read(path)
            skew = time.time() - store.clock()
            abilities = store.probe()
        finally:
            store.remove(path)
    except FileNotFoundError as error:
        raise NoAnswerError(f"what was written is not there: {error}", "lost") from error
    except RefusedError as error:
        raise NoAnswerError(" ".join(str(error).split()), kind_of(error)) from error
    return {
        "conditional_create": abilities.conditional_create,
        "conditional_update": abilities.conditional_update,
        "skew_seconds": skew,
    }


def kind_of(error: BaseException) -> str:
    """credentials, forbidden, region, clock, bucket, certificate or unreachable; empty where it is none of these."""
    if "no such bucket" in str(error):
        return "bucket"
    for cause in _causes(error):
        if isinstance(cause, botocore.ClientError):
            code = str(cause.response.get("Error", {}).get("Code", ""))
            if code in _BAD_CREDENTIALS:
                return "credentials"
            status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return _OTHER_KINDS.get(code, "forbidden" if status == 403 else "")
        if isinstance(cause, _NO_CREDENTIALS):
            return "credentials"
        if isinstance(cause, botocore.NoRegionError):
            return "region"
        if isinstance(cause, botocore.SSLError):
            return "certificate"
        if isinstance(cause, _UNREACHABLE):
            return "unreachable"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


if __name__ == "__main__":
    answer(look)
