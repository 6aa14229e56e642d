"""Read a pickle of NumPy arrays and plain Python values, and nothing else.

A pickle may name any function of the machine and have it called. Here every name leads to a stand-in of this module
or to a refusal, so not even NumPy runs on what the file says. Arrays are read-only views of the file's own bytes,
without a copy: an array that nobody looks at costs nothing more.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError

# Harmless whatever they are called with. `bytes(n)` and `bytearray(n)` are not: they take as much memory as they like.
_BUILTINS: dict[str, type] = {
    kind.__name__: kind for kind in (bool, int, float, complex, str, list, tuple, dict, set, frozenset)
}


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
# Those that number the value on the stack.
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


def load_pickle(path: Path) -> Any:
    """The value in a pickle file: arrays, and dicts, lists, tuples, strings, numbers around them.

    Object arrays come as lists. RefusedError, in one line, for any other global, a truncated or damaged file, or
    bytes after its end.
    """
    try:
        with path.open("rb") as file:
            _refuse_far_memo(file, path.stat().st_size)
            value = _plain(_Unpickler(file, encoding="latin1").load(), {})
            if file.read(1):
                raise RefusedError("it goes on after its end; copy or download it again")
            return value
    except RefusedError as error:
        raise RefusedError(f"pickle {path} is refused: {error}") from None
    except FileNotFoundError:
        raise RefusedError(f"there is no file {path}") from None
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle fails in any way it likes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RefusedError(f"{path} is no whole pickle: {reason}; copy or download it again") from error


def _refuse_far_memo(file: BinaryIO, num_bytes: int) -> None:
    """A pickle numbers what it refers to again, and the reader allots a table as long as the largest number: ten bytes
    could ask for all memory. An honest one has no more numbers than bytes."""
    while code := file.read(1):
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None or opcode.name == "STOP":
            break
        if opcode.name == "STRING":  # its reader takes ASCII alone, and Python 2 wrote more
            file.readline()
            continue
        argument = opcode.arg.reader(file) if opcode.arg is not None else None
        if opcode.name in _PUTS and argument is not None and int(argument) > num_bytes:
            raise RefusedError(f"it numbers a value {argument}, which a file of {num_bytes} bytes has no use for")
    file.seek(0)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        shown = repr(f"{module}.{name}"[:100])
        raise RefusedError(f"it names {shown}, and only NumPy arrays and plain Python values are read")


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
            raise RefusedError(f"it has an array of type {str(spec)[:40]!r}, expected numbers or text")
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
        self.value: NDArray[Any] | list[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any] | list[Any]:
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple):
        raise RefusedError("it has an array without a type or a shape")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise RefusedError(f"it has an array of shape {str(shape)[:60]}")
    count = math.prod(shape)
    if dtype.is_object:
        if not isinstance(data, list) or len(shape) != 1 or len(data) != count:
            raise RefusedError("it has an object array that is no plain list")
        return data
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


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise RefusedError("it has an array of another class than numpy.ndarray")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.value = _array(data, dtype, shape, order)
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    values = _array(data, dtype, (1,), "C")
    if isinstance(values, list):
        raise RefusedError("it has a NumPy scalar that is an object")
    return values[0].item()


def _bytes_from_text(text: Any, codec: Any) -> bytes:
    """How protocols 0 to 2 write bytes: `_codecs.encode(text, "latin1")`, and no other codec."""
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
