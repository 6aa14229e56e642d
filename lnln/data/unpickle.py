"""Read a pickle of NumPy arrays and plain Python values, and nothing else.

A pickle may name any function of the machine and have it called. Here every name leads to a stand-in of this module
or to a refusal, so not even NumPy runs on what the file says. Large arrays stay in the file (`FileArray`): one that
nobody looks at is never read.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from lnln.data.file_array import FileArray, Span
from lnln.errors import RefusedError

# Bytes from which on the data of an array is left in the file.
LARGE_BYTES = 1 << 20

# `bytes(n)` and `bytearray(n)` are not among them: they take as much memory as they like. Nor is `str`, since the text
# of lists in lists doubles with every level.
_BUILTINS: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, complex, list, tuple, dict, set, frozenset)
}


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
# Those that number the value on the stack.
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
# Those that state how many bytes follow: how they state it.
_COUNTED = {
    "BINBYTES": struct.Struct("<I"),
    "BINBYTES8": struct.Struct("<Q"),
    "BYTEARRAY8": struct.Struct("<Q"),
    "BINSTRING": struct.Struct("<i"),
    "BINUNICODE": struct.Struct("<I"),
    "BINUNICODE8": struct.Struct("<Q"),
}
_TEXTS = ("BINSTRING", "BINUNICODE", "BINUNICODE8")


def load_pickle(path: Path) -> Any:
    """The value in a pickle file: arrays, and dicts, lists, tuples, strings, numbers around them.

    An array of LARGE_BYTES or more comes as a FileArray, an object array as a list. RefusedError, in one line, for any
    other global, a truncated or damaged file, or bytes after its end.
    """
    try:
        with path.open("rb") as file:
            small, large = _without_large_values(file, path)
        return _plain(_Unpickler(small, large).load(), {})
    except RefusedError as error:
        raise RefusedError(f"pickle {path} is refused: {error}") from None
    except FileNotFoundError:
        raise RefusedError(f"there is no file {path}") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise RefusedError(f"{path} needs more memory than there is; import it on a larger machine") from error
    except Exception as error:  # a damaged pickle fails in any way it likes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RefusedError(f"{path} is no whole pickle: {reason}; copy or download it again") from error


def _without_large_values(file: BinaryIO, path: Path) -> tuple[BinaryIO, list[_Large]]:
    """The pickle with a persistent id in the place of each large value, and those values by their ids.

    Refused here, since the reader of pickles would do what they say: ids that the pickle has of its own, and a number
    for a value that is larger than the file. The reader numbers what it refers to again in a table as long as the
    largest number, so ten bytes could ask for all memory; an honest pickle has no more numbers than bytes.
    """
    num_bytes = os.fstat(file.fileno()).st_size
    small, large = io.BytesIO(), list[_Large]()
    num_copied = 0

    def copy_until(end: int) -> None:
        file.seek(num_copied)
        small.write(file.read(end - num_copied))

    while code := file.read(1):
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None or opcode.name == "STOP":
            break
        if opcode.name in ("PERSID", "BINPERSID"):
            raise RefusedError("it refers to a persistent id, which only another program can know")
        if opcode.name == "FRAME":  # says where pieces of the file end, which no longer holds
            begin = file.tell() - 1
            copy_until(begin)
            num_copied = begin + 9
            file.seek(num_copied)
        elif counted := _COUNTED.get(opcode.name):
            (size,) = counted.unpack(_exactly(file, counted.size))
            if size < LARGE_BYTES:
                _exactly(file, size)
                continue
            begin = file.tell()
            if size > num_bytes - begin:
                raise EOFError(f"it states {size} bytes where {num_bytes - begin} are left")
            copy_until(begin - counted.size - 1)
            small.write(b"J" + struct.pack("<i", len(large)) + b"Q")
            span = Span(path, begin, size, is_utf8=opcode.name.startswith("BINUNICODE"))
            large.append(_Large(span, is_text=opcode.name in _TEXTS))
            num_copied = begin + size
            file.seek(num_copied)
        elif opcode.name == "STRING":  # its reader takes ASCII alone, and Python 2 wrote more
            file.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(file)
            if opcode.name in _PUTS and int(argument) > num_bytes:
                raise RefusedError(f"it numbers a value {argument}, which a file of {num_bytes} bytes has no use for")
    end = file.tell()
    copy_until(end)
    if code == b"." and file.read(1):
        raise RefusedError("it goes on after its end; copy or download it again")
    small.seek(0)
    return small, large


def _exactly(file: BinaryIO, size: int) -> bytes:
    if size < 0:
        raise ValueError("it states a negative number of bytes")
    data = file.read(size)
    if len(data) != size:
        raise EOFError(f"it states {size} bytes where {len(data)} are left")
    return data


class _Unpickler(pickle.Unpickler):
    def __init__(self, small: BinaryIO, large: list[_Large]) -> None:
        super().__init__(small, encoding="latin1")
        self._large = large

    def persistent_load(self, index: int) -> _Large:
        return self._large[index]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        shown = repr(f"{module}.{name}"[:100])
        raise RefusedError(f"it names {shown}, and only NumPy arrays and plain Python values are read")


class _Large:
    """Stands for large bytes, or a large text, until the whole file is read; no key of a dict and in no set."""

    __slots__ = ("is_text", "span")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __init__(self, span: Span, *, is_text: bool) -> None:
        self.span, self.is_text = span, is_text

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it sets the state of bytes")

    def value(self) -> bytes | str:
        data = self.span.read()
        if self.is_text:
            return data.decode("utf-8", "surrogatepass") if self.span.is_utf8 else data.decode("latin1")
        return data.decode("utf-8").encode("latin1") if self.span.is_utf8 else data


class _StandIn:
    """What a pickle gets for a function it names. It cannot be changed by the pickle, only called."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError("it sets the state of a function")


class _DType:
    """Stands for a `numpy.dtype`: bool, int, unsigned, float, text, bytes or object; nothing with fields."""

    __slots__ = ("_order", "_spec")

    def __init__(self, spec: Any) -> None:
        if not isinstance(spec, str) or not re.fullmatch(r"[|<>=]?(b1|[iu][1248]|f[248]|[US][1-9]\d{0,6}|O8?)", spec):
            said = repr(spec[:40]) if isinstance(spec, str) else type(spec).__name__
            raise RefusedError(f"it has an array of type {said}, expected numbers or text")
        self._spec = spec.lstrip("|<>=")
        self._order = spec[0] if spec[0] in "<>" else "="

    def __setstate__(self, state: Any) -> None:
        order, subarray, names, fields = state[1:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in (subarray, names, fields)):
            raise RefusedError("it has an array with fields, expected numbers or text")
        self._order = order

    @property
    def is_object(self) -> bool:
        return self._spec.startswith("O")

    def real(self) -> np.dtype[Any]:
        return np.dtype(self._spec).newbyteorder("=" if self._order == "|" else self._order)  # type: ignore[arg-type]


class _Array:
    """Stands for a `numpy.ndarray` until the whole file is read."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: NDArray[Any] | FileArray | list[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any] | FileArray | list[Any]:
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise RefusedError("it has an array without a type or a shape")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise RefusedError("it has an array whose shape is not of whole numbers of 0 or more")
    count = math.prod(shape)
    if dtype.is_object:
        if not isinstance(data, list) or len(shape) != 1 or len(data) != count:
            raise RefusedError("it has an object array that is no plain list")
        return data
    if isinstance(data, _Large):
        return _file_array(data.span, dtype.real(), shape, "F" if order == "F" else "C")
    if isinstance(data, str):  # as Python 2 wrote it
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise RefusedError("it has an array without data")
    real = dtype.real()
    if len(data) != count * real.itemsize:
        raise RefusedError(f"it has an array of shape {shape} and type {real} in {len(data)} bytes")
    values = np.frombuffer(data, real) if count else np.zeros(0, real)
    values.flags.writeable = False
    return values.reshape(shape, order="F" if order == "F" else "C")


def _file_array(span: Span, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> NDArray[Any] | FileArray:
    num_bytes = math.prod(shape) * dtype.itemsize
    # A byte takes one or two as text; how many, one sees when it is read.
    fits = num_bytes <= span.num_bytes <= 2 * num_bytes if span.is_utf8 else num_bytes == span.num_bytes
    if not fits:
        raise RefusedError(f"it has an array of shape {shape} and type {dtype} in {span.num_bytes} bytes")
    array = FileArray(span, dtype, shape or (1,), order)
    return array if shape else array.read().reshape(())


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise RefusedError("it has an array of another class than numpy.ndarray")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """axes: where order is `K`, how the axes of the array lie among those of the data."""
    array = _Array()
    array.value = _array(data, dtype, shape, order)
    if order == "K":
        is_order = isinstance(axes, tuple) and all(type(axis) is int for axis in axes)
        if not is_order or sorted(axes) != list(range(len(shape))):
            raise RefusedError("it has an array whose axes are in no order")
        values = array.value.read() if isinstance(array.value, FileArray) else array.value
        if not isinstance(values, np.ndarray):
            raise RefusedError("it has an object array that is no plain list")
        array.value = values.transpose(axes)
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    values = _array(data, dtype, (1,), "C")
    if not isinstance(values, np.ndarray):
        raise RefusedError("it has a NumPy scalar that is an object, or far too large")
    return values[0].item()


def _bytes_from_text(text: Any, codec: Any) -> bytes | _Large:
    """How protocols 0 to 2 write bytes: `_codecs.encode(text, "latin1")`, and no other codec."""
    if isinstance(text, _Large) and text.is_text and codec == "latin1":
        return _Large(text.span, is_text=False)
    if not isinstance(text, str) or codec != "latin1":
        raise RefusedError("it calls '_codecs.encode' for something other than bytes")
    return text.encode("latin1")


def _no_bytes(*arguments: Any) -> bytes:
    """How protocols 0 to 2 write the empty bytes: `bytes()`."""
    if arguments:
        raise RefusedError("it calls 'bytes' with an argument")
    return b""


_NDARRAY = object()
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _StandIn(lambda spec, *_: _DType(spec)),
    ("_codecs", "encode"): _StandIn(_bytes_from_text),
    ("builtins", "bytes"): _StandIn(_no_bytes),
    ("__builtin__", "bytes"): _StandIn(_no_bytes),
    **{
        (f"numpy.{core}.{module}", name): _StandIn(function)
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("multiarray", "_frombuffer", _from_buffer),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """`value` with every stand-in replaced by its array; what is shared, or contains itself, stays so."""
    if isinstance(value, _Array):
        return _plain(value.value, done)
    if isinstance(value, _Large):
        return done[id(value)] if id(value) in done else done.setdefault(id(value), value.value())
    if isinstance(value, (_DType, _StandIn)) or value is _NDARRAY:
        raise RefusedError("it holds a NumPy function or type as a value")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            copy: Any = done.setdefault(id(value), {})
            copy.update({key: _plain(item, done) for key, item in value.items()})
        elif isinstance(value, list):
            copy = done.setdefault(id(value), [])
            copy.extend(_plain(item, done) for item in value)
        else:
            done[id(value)] = tuple(_plain(item, done) for item in value)
    return done[id(value)]
