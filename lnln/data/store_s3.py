"""A store on an S3-compatible server, through s3fs. A PUT is whole or absent; the server settles races.

Every request goes through `patiently`, which makes it again as `lnln/data/retries.py` says. A writer leaves a random
token in the object's metadata. So after a refused conditional write (412, or 409 in a race) it can tell whether another
was first or its own request had arrived and only the answer was lost.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import botocore.exceptions
from fsspec.asyn import sync
from s3fs.errors import translate_boto_error

from lnln.data import s3_reader
from lnln.data.retries import BrokenAnswerError
from lnln.data.s3_client import PatientFileSystem, filesystem, in_parallel, patiently, status_of
from lnln.data.s3_reader import ChangedError, Piece, Reader
from lnln.data.store import StoreAbilities, StoredFile, UnfinishedUpload
from lnln.errors import RefusedError, StoreFailedError

log = logging.getLogger(__name__)

# Above this a file goes to the server in parts, with retries of each. AWS takes 10,000 parts at most.
MULTIPART_BYTES = 64 << 20
PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
# Rounds of read, change and conditional write that others may win before this one gives up.
_MAX_ROUNDS = 60
# Times that an object may be replaced under a reader before it gives up.
_MAX_READS = 5
_LOST_OR_AGAIN = {409, 412}
_NOT_FOUND, _EMPTY_RANGE, _NOT_IMPLEMENTED = 404, 416, 501

T = TypeVar("T")


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
    def _fs(self) -> PatientFileSystem:
        return filesystem()

    def read(self, path: str) -> bytes:
        pieces, _ = self._wait_for(lambda: self._fetch(path, lambda _, data: data))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def exists(self, path: str) -> bool:
        return self._head(path) is not None

    def create(self, path: str, data: bytes) -> bool:
        for attempt in range(_MAX_ROUNDS):
            if self._head(path) is not None:
                return False
            if self._put_if(path, data, {"IfNoneMatch": "*"}):
                return True
            _wait(attempt)
        raise RefusedError(f"s3://{self._name(path)}: the server kept refusing to create it; try again later")

    def write(self, path: str, data: bytes) -> None:
        if len(data) > MULTIPART_BYTES:
            return self._write_in_parts(path, len(data), lambda first, end: data[first:end])
        return self._wait_for(lambda: self._put(path, data))

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        for attempt in range(_MAX_ROUNDS):
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
        first = self._wait_for(lambda: self._piece(path, 0))

        def fetch(start: int) -> bytes:
            try:
                return self._wait_for(lambda: self._piece(path, start, of=first)).data
            except FileNotFoundError:
                raise
            except self.errors as error:  # outside of the store's own verbs, so said here
                reason = getattr(error, "strerror", None) or str(error)
                raise StoreFailedError(f"s3://{self._name(path)} cannot be read on: {reason}") from error

        return cast(BinaryIO, io.BufferedReader(Reader(first, fetch)))

    def upload(self, source: Path, path: str) -> None:
        if not source.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        num_bytes = source.stat().st_size
        if num_bytes <= MULTIPART_BYTES:
            return self.write(path, source.read_bytes())
        with source.open("rb") as file:
            return self._write_in_parts(path, num_bytes, lambda first, end: os.pread(file.fileno(), end - first, first))

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
        try:
            with temporary.open("xb") as file:

                def put_down(start: int, data: bytes) -> int:
                    file.seek(start)
                    return file.write(data)

                lengths, _ = self._wait_for(lambda: self._fetch(path, put_down))
                file.truncate(sum(lengths))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        self._ask(lambda client: client.delete_object(**self._object(path)))

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

    def clock(self) -> float:
        answer = self._ask(lambda client: client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1))
        try:
            return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
        except (KeyError, ValueError):
            return time.time()

    def list_files(self, follow_links: bool) -> Iterator[StoredFile]:
        for page in self._pages("list_objects_v2", {"ContinuationToken": "NextContinuationToken"}):
            for entry in page.get("Contents", []):
                path = entry["Key"].removeprefix(self._prefix)
                if path and not path.endswith("/"):  # a console makes such a key for a folder
                    yield StoredFile(path, entry["Size"], entry["LastModified"].timestamp())

    def remove_unchanged(self, file: StoredFile) -> bool:
        # No condition on the DELETE, since Ceph knows none: what is written between these two requests is removed too.
        head = self._head(file.path)
        # A listing states fractions of a second, an object's own headers do not.
        if head is None or head["LastModified"].timestamp() > file.modified + 1:
            return False
        self.remove(file.path)
        return True

    def list_uploads(self) -> Iterator[UnfinishedUpload]:
        markers = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        for page in self._pages("list_multipart_uploads", markers):
            for entry in page.get("Uploads", []):
                path = entry["Key"].removeprefix(self._prefix)
                yield UnfinishedUpload(path, entry["UploadId"], entry["Initiated"].timestamp())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        where = {**self._object(upload.path), "UploadId": upload.upload_id}
        with contextlib.suppress(FileNotFoundError):  # finished or aborted since
            self._ask(lambda client: client.abort_multipart_upload(**where))

    def _key(self, path: str) -> str:
        return self._prefix + path

    def _name(self, path: str) -> str:
        return f"{self._bucket}/{self._key(path)}"

    def _object(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(path)}

    def _ask(self, request: Callable[[Any], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """The answer to one request, as `patiently`; FileNotFoundError, PermissionError or OSError if refused."""
        return self._wait_for(lambda: patiently(self._fs, request))

    def _wait_for(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, run on s3fs's event loop. What the server refuses comes as one of Python's own errors; a
        missing bucket, which answers like a missing object, as RefusedError."""
        try:
            return cast(T, sync(self._fs.loop, work))
        except botocore.exceptions.ClientError as error:
            translated = translate_boto_error(error)
            if isinstance(translated, FileNotFoundError):
                self._require_bucket()
            raise translated from error

    def _pages(self, verb: str, markers: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Every answer of a listing. markers: argument of the next request -> field of the answer before it."""
        begin: dict[str, str] = {}
        while True:
            page = self._page(verb, begin)
            yield page
            if not page.get("IsTruncated"):
                return
            begin = {argument: page[field] for argument, field in markers.items()}

    def _page(self, verb: str, begin: dict[str, str]) -> dict[str, Any]:
        return self._ask(lambda client: getattr(client, verb)(Bucket=self._bucket, Prefix=self._prefix, **begin))

    def _head(self, path: str) -> dict[str, Any] | None:
        try:
            return self._ask(lambda client: client.head_object(**self._object(path)))
        except FileNotFoundError:
            return None

    def _require_bucket(self) -> None:
        """A missing bucket answers like a missing object: tell them apart, once."""
        if self._has_bucket:
            return
        try:
            sync(self._fs.loop, patiently, self._fs, lambda client: client.head_bucket(Bucket=self._bucket))
        except botocore.exceptions.ClientError as error:
            if status_of(error) == _NOT_FOUND:
                raise RefusedError(f"store s3://{self._bucket}: there is no such bucket; create it first") from None
            # Else it exists: looking at it is another permission than using it.
        self._has_bucket = True

    # Reading: pieces of one content, each asked for until it is whole.

    async def _fetch(self, path: str, take: Callable[[int, bytes], T]) -> tuple[list[T], str]:
        """What `take`, given the start and the bytes of each piece of an object, returned; and its ETag."""
        for _ in range(_MAX_READS):
            first = await self._piece(path, 0)
            begun = [take(0, first.data)]

            async def rest(start: int, first: Piece = first) -> T:
                return take(start, (await self._piece(path, start, of=first)).data)

            try:
                return begun + await in_parallel(
                    rest, range(len(first.data), first.num_bytes, s3_reader.PIECE_BYTES)
                ), first.etag
            except ChangedError:
                continue
        raise ChangedError(errno.ESTALE, f"replaced {_MAX_READS} times while it was read; read it again")

    async def _piece(self, path: str, start: int, of: Piece | None = None) -> Piece:
        """At most s3_reader.PIECE_BYTES from `start` on, of the same content as `of`."""
        asked = {"Range": f"bytes={start}-{start + s3_reader.PIECE_BYTES - 1}"}

        async def get(client: Any) -> Piece:
            try:
                answer = await client.get_object(**self._object(path), **asked)
            except botocore.exceptions.ClientError as error:
                if start or status_of(error) != _EMPTY_RANGE:
                    raise
                answer = await client.get_object(**self._object(path))  # an empty object has no first byte
            async with answer["Body"] as body:
                data = await body.read()
            if len(data) != answer["ContentLength"]:
                raise BrokenAnswerError(f"{len(data)} of {answer['ContentLength']} bytes came")
            within = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
            if within is None:  # all of it, from a server that knows no ranges
                return Piece(data[start : start + s3_reader.PIECE_BYTES] if start else data, len(data), answer["ETag"])
            piece = Piece(data, int(within[2]), answer["ETag"])
            if int(within[1]) != start or len(data) != min(s3_reader.PIECE_BYTES, piece.num_bytes - start):
                raise BrokenAnswerError(f"asked for {asked['Range']}, got {within[0]} with {len(data)} bytes")
            return piece

        piece = await patiently(self._fs, get)
        if of is not None and (piece.etag, piece.num_bytes) != (of.etag, of.num_bytes):
            raise ChangedError(errno.ESTALE, "it was replaced while it was read; read it again")
        return piece

    def _read_with_etag(self, path: str) -> tuple[bytes | None, str | None]:
        try:
            pieces, etag = self._wait_for(lambda: self._fetch(path, lambda _, data: data))
        except FileNotFoundError:
            return None, None
        return b"".join(pieces), etag

    # Writing.

    async def _put(self, path: str, data: bytes, **more: Any) -> None:
        """One PUT. Sent again after a lost answer it writes the same bytes."""
        await patiently(self._fs, lambda client: client.put_object(**self._object(path), Body=data, **more))

    def _put_if(self, path: str, data: bytes, condition: dict[str, str]) -> bool:
        """One conditional PUT: True if the object is now the one this call sent.

        Never in parts: Ceph ignores conditions on those, and their ETag is no checksum.
        """
        token = secrets.token_hex(16)
        try:
            sync(self._fs.loop, self._put, path, data, Metadata={"writer": token}, **condition)
        except botocore.exceptions.ClientError as error:
            status = status_of(error)
            if status == _NOT_IMPLEMENTED:
                # The server knows no conditions at all; `probe` has said so.
                self.write(path, data)
                return True
            if status == _NOT_FOUND:
                # If-Match on an object that has gone, or no bucket.
                self._require_bucket()
                return False
            if status not in _LOST_OR_AGAIN:
                raise translate_boto_error(error) from error
            return self._is_written_by(token, self._head(path))
        return True

    def _is_written_by(self, token: str, head: dict[str, Any] | None) -> bool:
        return head is not None and head.get("Metadata", {}).get("writer") == token

    def _write_in_parts(self, path: str, num_bytes: int, cut: Callable[[int, int], bytes]) -> None:
        """cut: the bytes [first, end). The object appears when its last part is there; what fails leaves no parts."""
        size = max(PART_BYTES, -(-num_bytes // _MAX_PARTS))
        token = secrets.token_hex(16)

        async def write() -> None:
            begun = await patiently(
                self._fs,
                lambda client: client.create_multipart_upload(**self._object(path), Metadata={"writer": token}),
            )
            upload = {**self._object(path), "UploadId": begun["UploadId"]}

            async def put(first: int) -> dict[str, Any]:
                part = {"PartNumber": first // size + 1}
                data = cut(first, min(first + size, num_bytes))
                answer = await patiently(self._fs, lambda client: client.upload_part(**upload, **part, Body=data))
                return {**part, "ETag": answer["ETag"]}

            try:
                parts = await in_parallel(put, range(0, num_bytes, size))
                await patiently(
                    self._fs,
                    lambda client: client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}),
                )
            except BaseException as error:
                if await self._is_complete(path, error, token):
                    return
                await self._abort(upload)
                raise

        self._wait_for(write)

    async def _is_complete(self, path: str, error: BaseException, token: str) -> bool:
        """Whether an upload that the server no longer knows is an object by now: its completion, answered in vain."""
        if not isinstance(error, botocore.exceptions.ClientError) or status_of(error) != _NOT_FOUND:
            return False
        try:
            head = await patiently(self._fs, lambda client: client.head_object(**self._object(path)))
        except botocore.exceptions.ClientError:
            return False
        return self._is_written_by(token, head)

    async def _abort(self, upload: dict[str, str]) -> None:
        """Best effort: what it leaves, `lnln gc` finds."""
        try:
            await patiently(self._fs, lambda client: client.abort_multipart_upload(**upload))
        except self.errors:
            log.warning(
                "s3://%s/%s: parts of an upload may remain; `lnln gc` removes them", self._bucket, upload["Key"]
            )


def _wait(attempt: int) -> None:
    """Grow from 10 ms to 1 s, with chance in it, so that those who collided do not collide again."""
    time.sleep(random.uniform(0.5, 1.0) * min(1.0, 0.01 * 2 ** min(attempt, 7)))
