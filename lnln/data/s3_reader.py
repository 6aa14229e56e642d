"""An object of a bucket as a seekable stream, piece by piece."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any, NamedTuple

# What one request asks for. A request that breaks is made again for its piece alone.
PIECE_BYTES = 8 << 20


class Piece(NamedTuple):
    """Some bytes of an object that has `num_bytes`; its ETag says which content they belong to."""

    data: bytes
    num_bytes: int
    etag: str


class ChangedError(OSError):
    """The object is another than when reading began."""


class Reader(io.RawIOBase):
    """An object, piece by piece; the last piece is kept. fetch: the piece that begins at a position."""

    def __init__(self, first: Piece, fetch: Callable[[int], bytes]) -> None:
        self._num_bytes = first.num_bytes
        self._start, self._data = 0, first.data
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._num_bytes}[whence]
        if origin + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._num_bytes or not len(buffer):
            return 0
        if not self._start <= self._position < self._start + len(self._data):
            start = self._position - self._position % PIECE_BYTES
            self._start, self._data = start, self._fetch(start)
        begin = self._position - self._start
        data = self._data[begin : begin + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
