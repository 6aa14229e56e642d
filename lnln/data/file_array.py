"""Arrays that stay in the file they lie in: a large pickle is read piece by piece, and what nobody asks for never is.

for block in array.blocks():        # some MB of rows at a time
    ...
whole = array.read()
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError

# Bytes of an array that are in memory at one time while it is read in blocks.
BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Span:
    """`num_bytes` of a file from `begin` on. is_utf8: they are text, whose characters stand for bytes of latin-1, as
    pickles of protocols 0 to 2 write bytes."""

    path: Path
    begin: int
    num_bytes: int
    is_utf8: bool = False

    def read(self) -> bytes:
        """The bytes as they lie in the file; RefusedError where it has become shorter."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            data = file.read(self.num_bytes)
        if len(data) != self.num_bytes:
            raise _changed(self.path)
        return data


@dataclass(frozen=True)
class FileArray:
    """An array of numbers or text in a file, read when it is asked for. order: `C`, or `F` for columns first."""

    span: Span
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str = "C"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The rows in order, as many of them at a time as BLOCK_BYTES hold, read-only.

        All at once where columns come first. RefusedError where the file is no longer what it was.
        """
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        num_rows = len(self) if self.order == "F" else max(1, BLOCK_BYTES // row_bytes)
        with self.span.path.open("rb", buffering=0) as file:
            file.seek(self.span.begin)
            reader = _Latin1Reader(file, self.span) if self.span.is_utf8 else _Reader(file, self.span.num_bytes)
            for first in range(0, len(self), num_rows):
                count = min(num_rows, len(self) - first)
                data = reader.read(count * row_bytes)
                if len(data) != count * row_bytes:
                    raise _changed(self.span.path)
                values = np.frombuffer(data, self.dtype)
                values.flags.writeable = False
                yield values.reshape((count, *self.shape[1:]), order="F" if self.order == "F" else "C")
            if reader.read(1):
                raise _changed(self.span.path)

    def read(self) -> NDArray[Any]:
        """The whole array, read-only."""
        rows = list(self.blocks())
        values = rows[0] if len(rows) == 1 else np.concatenate(rows)
        values.flags.writeable = False
        return values


def row_blocks(array: NDArray[Any] | FileArray) -> Iterator[NDArray[Any]]:
    """The rows of `array` in order, some MB of them at a time."""
    if isinstance(array, FileArray):
        yield from array.blocks()
        return
    num_rows = max(1, BLOCK_BYTES // max(1, array.itemsize * math.prod(array.shape[1:])))
    for first in range(0, len(array), num_rows):
        yield array[first : first + num_rows]


class _Reader:
    """Bytes of a file, no more than `num_bytes` of them."""

    def __init__(self, file: BinaryIO | Any, num_bytes: int) -> None:
        self._file, self._num_left = file, num_bytes

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        size = min(size, self._num_left)
        pieces = []
        while size and (piece := self._file.read(size)):
            pieces.append(piece)
            size -= len(piece)
            self._num_left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Latin1Reader:
    """The bytes of latin-1 that UTF-8 text in a file stands for."""

    def __init__(self, file: BinaryIO | Any, span: Span) -> None:
        self._reader, self._path = _Reader(file, span.num_bytes), span.path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end. RefusedError for text that is not UTF-8, or not latin-1."""
        try:
            while len(self._ready) < size and (piece := self._reader.read(BLOCK_BYTES)):
                self._ready += self._decoder.decode(piece).encode("latin1")
        except UnicodeError as error:
            raise RefusedError(
                f"pickle {self._path} is refused: it has an array whose data is no bytes written as text "
                f"({error}); copy or download it again"
            ) from error
        data = bytes(memoryview(self._ready)[:size])
        del self._ready[:size]
        return data


def _changed(path: Path) -> RefusedError:
    return RefusedError(
        f"{path} is damaged or changed while it was read: an array has not as many values as it states; import it "
        "again once it is whole"
    )
