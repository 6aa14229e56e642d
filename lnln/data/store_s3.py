"""A store on an S3-compatible server, through s3fs. A PUT is whole or absent; the server settles races.

A writer leaves a random token in the object's metadata. So after a refused conditional write (AWS, moto:
FileExistsError; Ceph: EINVAL; a race: EBUSY) it can tell whether another was first or its own request had
arrived and only the answer was lost.
"""

from __future__ import annotations

import errno
import os
import random
import secrets
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import botocore.exceptions
from fsspec.asyn import sync

from lnln.data.store import StoreAbilities
from lnln.errors import RefusedError

_MAX_ATTEMPTS = 60
# 409 (a race, or "try again") and 412 (condition not met) as s3fs passes them on; FileExistsError besides.
_LOST_OR_RETRY = {errno.EINVAL, errno.EBUSY, errno.EEXIST}


class S3:
    """Objects under `bucket/prefix`. Credentials, region and endpoint come from the environment, as AWS tools do it."""

    errors: tuple[type[Exception], ...] = (
        OSError,
        botocore.exceptions.BotoCoreError,
        botocore.exceptions.ClientError,
    )

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._has_bucket = False

    @cached_property
    def _fs(self) -> Any:
        from s3fs import S3FileSystem

        # Ceph and other servers do not know the checksums that newer clients send unasked.
        checksums = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        return S3FileSystem(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
            config_kwargs={
                "connect_timeout": 5,
                "read_timeout": 60,
                "retries": {"max_attempts": 2},
                "request_checksum_calculation": checksums,
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def _key(self, path: str) -> str:
        return self._prefix + path

    def _name(self, path: str) -> str:
        return f"{self._bucket}/{self._key(path)}"

    def read(self, path: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(self._name(path)))
        except FileNotFoundError:
            self._require_bucket()
            raise

    def exists(self, path: str) -> bool:
        return self._head(path) is not None

    def create(self, path: str, data: bytes) -> bool:
        for attempt in range(_MAX_ATTEMPTS):
            if self._head(path) is not None:
                return False
            if self._put_if(path, data, {"IfNoneMatch": "*"}):
                return True
            _wait(attempt)
        raise RefusedError(f"s3://{self._name(path)}: the server kept refusing to create it; try again later")

    def write(self, path: str, data: bytes) -> None:
        # One PUT: Ceph ignores conditions on multipart uploads, and their ETag is no checksum.
        try:
            self._fs.pipe_file(self._name(path), data, chunksize=max(len(data), 1))
        except FileNotFoundError:
            self._require_bucket()
            raise

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        for attempt in range(_MAX_ATTEMPTS):
            before, etag = self._read_with_etag(path)
            after = change(before)
            if after == before:
                return after
            # AWS wants the ETag as it gave it, in quotes; Ceph wants it without.
            conditions: list[dict[str, str]] = (
                [{"IfNoneMatch": "*"}] if etag is None else [{"IfMatch": etag}, {"IfMatch": etag.strip('"')}]
            )
            for condition in conditions:
                if self._put_if(path, after, condition):
                    return after
                head = self._head(path)
                if (head and head["ETag"]) != etag:
                    break
            _wait(attempt)
        raise RefusedError(f"s3://{self._name(path)}: others kept changing it; try again later")

    def open(self, path: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self._fs.open(self._name(path), "rb"))
        except FileNotFoundError:
            self._require_bucket()
            raise

    def upload(self, source: Path, path: str) -> None:
        if not source.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        try:
            self._fs.put_file(str(source), self._name(path))
        except FileNotFoundError:
            self._require_bucket()
            raise

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            self._fs.get_file(self._name(path), str(temporary))
            temporary.replace(target)
        except FileNotFoundError:
            self._require_bucket()
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._key(path))

    def arrow(self, path: str) -> tuple[Any, str]:
        from pyarrow.fs import FSSpecHandler, PyFileSystem

        return PyFileSystem(FSSpecHandler(self._fs)), self._name(path)

    def probe(self) -> StoreAbilities:
        path = f".probe-{secrets.token_hex(8)}"
        self.write(path, b"first")
        try:
            stale = {"IfMatch": '"00000000000000000000000000000000"'}
            return StoreAbilities(
                conditional_create=not self._put_if(path, b"second", {"IfNoneMatch": "*"}),
                conditional_update=not self._put_if(path, b"third", stale),
            )
        finally:
            self.remove(path)

    def _put_if(self, path: str, data: bytes, condition: dict[str, str]) -> bool:
        """One conditional PUT: True if the object is now the one this call sent."""
        token = secrets.token_hex(16)
        metadata = {"writer": token}
        try:
            self._fs.pipe_file(self._name(path), data, chunksize=max(len(data), 1), Metadata=metadata, **condition)
        except FileNotFoundError:
            # If-Match on an object that has gone, or no bucket.
            self._require_bucket()
            return False
        except OSError as error:
            if error.errno == errno.ENOSYS:
                # The server knows no conditions at all; `probe` has said so.
                self.write(path, data)
                return True
            if not isinstance(error, FileExistsError) and error.errno not in _LOST_OR_RETRY:
                raise
            head = self._head(path)
            return head is not None and head.get("Metadata", {}).get("writer") == token
        return True

    def _head(self, path: str) -> dict[str, Any] | None:
        try:
            return cast(dict[str, Any], self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._key(path)))
        except FileNotFoundError:
            self._require_bucket()
            return None

    def _read_with_etag(self, path: str) -> tuple[bytes | None, str | None]:
        async def get() -> tuple[bytes, str]:
            response = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=self._key(path))
            async with response["Body"] as body:
                return await body.read(), response["ETag"]

        try:
            return cast(tuple[bytes, str], sync(self._fs.loop, get))
        except FileNotFoundError:
            self._require_bucket()
            return None, None

    def _require_bucket(self) -> None:
        """A missing bucket answers like a missing object: tell them apart, once."""
        if self._has_bucket:
            return
        try:
            self._fs.call_s3("head_bucket", Bucket=self._bucket)
        except FileNotFoundError:
            raise RefusedError(f"store s3://{self._bucket}: there is no such bucket; create it first") from None
        except PermissionError:
            # It exists; looking at it is another permission than using it.
            pass
        self._has_bucket = True


def _wait(attempt: int) -> None:
    """Grow from 10 ms to 1 s, with chance in it, so that those who collided do not collide again."""
    time.sleep(random.uniform(0.5, 1.0) * min(1.0, 0.01 * 2 ** min(attempt, 7)))
