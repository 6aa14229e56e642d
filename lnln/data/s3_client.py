"""A client of an S3-compatible server that is patient: every request goes through `patiently`, which makes it again as
`lnln/data/retries.py` says, and through nothing else that does.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import botocore.exceptions
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from lnln.data.retries import Patience

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 60
# Pieces or parts under way at once: they bound the memory, and one connection does not fill a fast line.
_NUM_PARALLEL = 4

T = TypeVar("T")


class PatientFileSystem(S3FileSystem):  # type: ignore[misc]
    """s3fs with `patiently` in place of its own retries. Arrow and Ray get it as it is."""

    # s3fs's loop, which is left for the body of an answer alone: it knows no chance and no end by time.
    retries = 5

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.has_answered = False

    @property
    def server(self) -> str:
        return self.endpoint_url or "S3"

    async def _call_s3(self, method: str, *more: dict[str, Any], **arguments: Any) -> Any:
        async def call(client: Any) -> Any:
            verb = getattr(client, method)
            return await verb(**self._get_s3_method_kwargs(verb, *more, **arguments))

        try:
            return await patiently(self, call)
        except botocore.exceptions.ClientError as error:
            raise translate_boto_error(error) from error

    call_s3 = sync_wrapper(_call_s3)


async def patiently(filesystem: PatientFileSystem, request: Callable[[Any], Awaitable[T]]) -> T:
    """What `request`, given a client of aiobotocore, returns; made again where that may help.

    Raises ClientError for what the server refuses, GaveUpError for a server that keeps failing.
    """
    patience = Patience(filesystem.server, is_known=filesystem.has_answered)
    while True:
        try:
            answer = await request(await filesystem.set_session())
        except Exception as error:
            filesystem.has_answered |= isinstance(error, botocore.exceptions.ClientError)
            await patience.wait_after(error)
        else:
            filesystem.has_answered = True
            return answer


def filesystem() -> PatientFileSystem:
    """One for what the environment says, in this process: a client costs half a second, and a connection to begin."""
    settings = (
        os.getpid(),
        CONNECT_TIMEOUT_SECONDS,
        READ_TIMEOUT_SECONDS,
        *sorted(item for item in os.environ.items() if item[0].startswith("AWS_")),
    )
    with _making:
        if settings not in _made:
            _made[settings] = PatientFileSystem(
                endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
                config_kwargs={
                    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                    "read_timeout": READ_TIMEOUT_SECONDS,
                    "retries": {"total_max_attempts": 1},
                    # Ceph and other servers do not know the checksums that newer clients send unasked.
                    "request_checksum_calculation": os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required"),
                },
                use_listings_cache=False,
                skip_instance_cache=True,
            )
        return _made[settings]


_made: dict[tuple[object, ...], PatientFileSystem] = {}
_making = threading.Lock()


async def in_parallel(work: Callable[[int], Awaitable[T]], starts: Sequence[int]) -> list[T]:
    """What `work` returns for each of `starts`, in order; a few at a time. The first failure ends the others."""
    places = asyncio.Semaphore(_NUM_PARALLEL)

    async def one(start: int) -> T:
        async with places:
            return await work(start)

    tasks = [asyncio.ensure_future(one(start)) for start in starts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def status_of(error: botocore.exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
