"""What a pickle may and may not hold. Hostile files are made by hand, opcode by opcode."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.data import file_array, unpickle
from lnln.data.file_array import FileArray, row_blocks
from lnln.data.unpickle import load_pickle
from lnln.errors import RefusedError


@pytest.fixture(params=["in memory", "in the file"], autouse=True)
def where_arrays_are(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test of this module with the arrays read at once, and with all but the smallest left in the file."""
    if request.param == "in the file":
        monkeypatch.setattr(unpickle, "LARGE_BYTES", 30)
        monkeypatch.setattr(file_array, "BLOCK_BYTES", 17)
    return str(request.param)


def load(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    return load_pickle(path)


def refusal(tmp_path: Path, data: bytes) -> str:
    with pytest.raises(RefusedError) as error:
        load(tmp_path, data)
    assert "\n" not in str(error.value) and "x.pkl" in str(error.value)
    return str(error.value)


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6, dtype=">i4"),
    np.array([True, False]),
    np.zeros((0, 5), np.float16),
    np.array(3.5),
    np.array(["a", "ünï", ""]),
    np.array([b"ab", b"c"]),
    np.arange(10, dtype=np.uint8)[::2],
    np.full((2, 2), -np.inf),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays(array: np.ndarray[Any, Any], protocol: int, tmp_path: Path) -> None:
    found = load(tmp_path, pickle.dumps({"a": array, "again": [array]}, protocol))
    for there in (found["a"], found["again"][0]):
        assert there.dtype == array.dtype and there.shape == array.shape and there.ndim == array.ndim
        values = there.read() if isinstance(there, FileArray) else there
        np.testing.assert_array_equal(values, array)
        assert not values.flags.writeable
        if array.ndim:
            rows = list(row_blocks(there))
            assert len(there) == len(array) == sum(map(len, rows))
            np.testing.assert_array_equal(np.concatenate([array[:0], *rows]), array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values(protocol: int, tmp_path: Path) -> None:
    value = {
        "texts": ["a", None, "é"],
        "numbers": (1, -2.5, 10**30, True, 1j),
        "bytes": b"\x00\xff",
        "sets": [{1, 2}, frozenset("ab")],
        3: {"deep": [[[]]]},
    }
    assert load(tmp_path, pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_scalars_and_object_arrays(protocol: int, tmp_path: Path) -> None:
    value = [np.float32(1.5), np.int64(-3), np.bool_(True), np.array(["x", None, 3.0], object)]
    assert load(tmp_path, pickle.dumps(value, protocol)) == [1.5, -3, True, ["x", None, 3.0]]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_read_when_asked_for(protocol: int, order: str, where_arrays_are: str, tmp_path: Path) -> None:
    """In blocks, from wherever they lie in the file, however the protocol writes bytes; and never before."""
    arrays = {
        name: np.asarray(np.random.default_rng(i).normal(size=(70, 3, i + 1)), dtype, order)  # type: ignore[call-overload]
        for i, (name, dtype) in enumerate([("a", "f4"), ("b", ">f8"), ("c", "f2")])
    }
    found = load(tmp_path, pickle.dumps({**arrays, "text": "é" * 40, "bytes": b"\xff\0" * 40}, protocol))
    # Protocol 0 writes bytes as text that ends with the line: those are read at once.
    stays = where_arrays_are == "in the file" and protocol > 0
    assert {type(found[name]) for name in arrays} == {FileArray if stays else np.ndarray}
    assert found["text"] == "é" * 40 and found["bytes"] == b"\xff\0" * 40
    for _ in range(2):
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.concatenate(list(row_blocks(found[name]))), array)
    if stays:
        (tmp_path / "x.pkl").write_bytes((tmp_path / "x.pkl").read_bytes()[:100])
        for name in arrays:
            with pytest.raises(RefusedError, match="changed while it was read"):
                list(row_blocks(found[name]))


def test_large_values_are_no_keys(where_arrays_are: str, tmp_path: Path) -> None:
    for value in ({"k" * 300: 1}, {("k" * 300, 2): 1}, {"k" * 300}):
        if where_arrays_are == "in the file":
            assert "unhashable" in refusal(tmp_path, pickle.dumps(value))
        else:
            assert load(tmp_path, pickle.dumps(value)) == value


def test_large_text_of_python_2(tmp_path: Path) -> None:
    data = b"\xffabc" * 100
    assert load(tmp_path, b"T" + struct.pack("<i", len(data)) + data + b".") == data.decode("latin1")
    refusal(tmp_path, b"T" + struct.pack("<i", -300) + data + b".")


def test_ids_of_the_pickle_do_not_lead_to_its_large_values(tmp_path: Path) -> None:
    large = b"\x8e" + struct.pack("<Q", 400) + b"x" * 400
    for reference in (b"J\0\0\0\0Q.", b"K\0Q.", b"P0\n."):
        assert "persistent id" in refusal(tmp_path, b"\x80\x04" + large + b"0" + reference)


def test_the_state_of_large_bytes_is_not_set(where_arrays_are: str, tmp_path: Path) -> None:
    large = b"\x8e" + struct.pack("<Q", 400) + b"x" * 400
    data = b"\x80\x04" + large + b"}\x8c\x04span" + b"K\1sb."
    assert ("state of bytes" in refusal(tmp_path, data)) == (where_arrays_are == "in the file")


@pytest.mark.parametrize("text", ["日" * 40, "a" * 20 + "\ud800" * 20, "é" * 39])
def test_text_that_is_no_bytes_is_no_data(text: str, where_arrays_are: str, tmp_path: Path) -> None:
    """What a pickle of protocol 2 says is an array's data need not be: characters beyond latin-1, or too few."""
    encoded = text.encode("utf-8", "surrogatepass")
    state = b"(I1\n(I40\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntRI00\nc_codecs\nencode\n(X"
    data = _array(state=state + struct.pack("<I", len(encoded)) + encoded + b"S'latin1'\ntRtb")
    if where_arrays_are == "in memory" or len(encoded) > 80:
        assert "x.pkl" in refusal(tmp_path, data)
    else:
        with pytest.raises(RefusedError, match=r"x\.pkl"):
            load(tmp_path, data).read()


def test_names_of_numpy_1_and_2(tmp_path: Path) -> None:
    data = pickle.dumps(np.arange(3), 2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    np.testing.assert_array_equal(load(tmp_path, old), np.arange(3))


def test_python_2_pickle(tmp_path: Path) -> None:
    """Strings of Python 2, among them an array's data, come as bytes of latin-1."""
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n"
        b"(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\xff'\ntb."
    )
    np.testing.assert_array_equal(load(tmp_path, data), np.array([1, 255], np.uint8))


def test_shared_and_circular_values_stay_so(tmp_path: Path) -> None:
    shared = [np.arange(2)]
    circular: list[Any] = [shared, shared]
    circular.append(circular)
    found = load(tmp_path, pickle.dumps(circular))
    assert found[0] is found[1] and found[2] is found
    laughs: list[Any] = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    load(tmp_path, pickle.dumps(laughs))


class _Touch:
    """On unpickling, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_is_named_and_not_run(protocol: int, tmp_path: Path) -> None:
    message = refusal(tmp_path, pickle.dumps({"train": [1, _Touch(tmp_path / "touched")]}, protocol))
    assert "mkdir'" in message and "only NumPy arrays" in message
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.getattr", "builtins.open"),
        *("builtins.__import__", "builtins.bytearray", "__builtin__.apply", "builtins.print"),
        *("numpy.load", "numpy.core.multiarray.scalar.__call__", "numpy.testing._private.utils.runstring"),
        *("numpy._core.multiarray.fromfile", "numpy.lib.npyio.load", "numpy.matrix", "numpy.ma.core.MaskedArray"),
        *("torch._utils._rebuild_tensor_v2", "collections.OrderedDict", "copyreg._reconstructor", "x.y\u2028z"),
        *("lnln.data.unpickle._array", "pandas.core.frame.DataFrame", "functools.partial", "types.CodeType"),
    ],
)
@pytest.mark.parametrize("is_called", [True, False])
def test_other_globals_are_refused_by_name(name: str, is_called: bool, tmp_path: Path) -> None:
    module, _, function = name.rpartition(".")
    # STACK_GLOBAL of two strings, then an empty tuple and REDUCE.
    data = b"\x80\x04" + b"".join(_short_text(text) for text in (module, function)) + b"\x93"
    message = refusal(tmp_path, data + (b")R." if is_called else b"."))
    assert repr(name) in message


def _short_text(text: str) -> bytes:
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def test_ordered_dict_is_refused(tmp_path: Path) -> None:
    assert "collections.OrderedDict" in refusal(tmp_path, pickle.dumps(OrderedDict(a=1)))


def _array(reconstruct: bytes = b"cnumpy\nndarray\n", state: bytes = b"") -> bytes:
    return b"cnumpy.core.multiarray\n_reconstruct\n(" + reconstruct + b"(I0\ntS'b'\ntR" + state + b"."


FLOATS = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_array(b"cnumpy\ndtype\n"), "another class than numpy.ndarray"),
        (_array(b"N"), "another class than numpy.ndarray"),
        (_array(state=b"(I1\n(I5\nt" + FLOATS + b"I00\nS'abcd'\ntb"), "in 4 bytes"),
        (_array(state=b"(I1\n(I-1\nt" + FLOATS + b"I00\nS''\ntb"), "shape"),
        (_array(state=b"(I1\n(I99999999999\nI99999999999\nt" + FLOATS + b"I00\nS''\ntb"), "in 0 bytes"),
        (_array(state=b"(I1\n(I1\ntNI00\nS'abcd'\ntb"), "without a type"),
        (_array(state=b"(I1\n(I1\nt" + FLOATS + b"I00\nI7\ntb"), "without data"),
        (_array(state=b"(I1\n(I1\nt" + FLOATS + b"I00\n]tb"), "without data"),
        (_array(state=b"I1\nb"), "x.pkl"),
        (_array(state=b"(tb"), "x.pkl"),
        (b"cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR.", "type 'V8'"),
        (b"cnumpy\ndtype\n(S'M8'\nI0\nI1\ntR.", "type 'M8'"),
        (b"cnumpy\ndtype\n(S'U0'\nI0\nI1\ntR.", "type 'U0'"),
        (b"cnumpy\ndtype\n(I7\nI0\nI1\ntR.", "type int"),
        (FLOATS + b"(I3\nS'<'\nN(S'a'\ntNI-1\nI-1\nI0\ntb.", "fields"),
        (FLOATS + b".", "type as a value"),
        (b"cnumpy\nndarray\n.", "type as a value"),
        (b"cnumpy\nndarray\n)R.", "x.pkl"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(dS'a'\nI1\nsb.", "state of a function"),
        (b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR.", "_codecs.encode"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR]tR.", "x.pkl"),
        (b"cbuiltins\nbytes\n(I9\ntR.", "'bytes' with an argument"),
        (b"cbuiltins\ndict\n(dS'a'\nI1\nsb.", "x.pkl"),
        (b"Phello\n.", "persistent"),
        (b"\x80\x04\x82\x01.", "x.pkl"),
        (b"\x80\xff.", "protocol"),
    ],
)
def test_crafted_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, data)


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc.")
    refusal(tmp_path, b"\x80\x04r\xff\xff\xff\xff.")


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"train": {"audio": np.ones((3, 4)), "id": ["a", "b", "c"]}})
    for size in range(len(data)):
        assert "no whole pickle" in refusal(tmp_path, data[:size])
    assert "after its end" in refusal(tmp_path, data + b"\0")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_garbage_is_refused_or_plain(tmp_path: Path, data: bytes) -> None:
    try:
        load(tmp_path, data)
    except RefusedError as error:
        assert "\n" not in str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_refused_or_plain(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"a": np.arange(5, dtype=np.float32), "b": ["x", None], "c": np.array(["é"])}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        load(tmp_path, bytes(whole))
    except RefusedError as error:
        assert "\n" not in str(error)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="there is no file"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(RefusedError, match="cannot be read: Is a directory"):
        load_pickle(tmp_path)


@pytest.mark.parametrize("put", [b"r\x00\x00\x00\x10", b"p268435456\n"])
def test_a_few_bytes_cannot_ask_for_all_memory(tmp_path: Path, put: bytes) -> None:
    for start in (b"]", b"S'\\xff'\n"):
        path = tmp_path / "small.pkl"
        path.write_bytes(b"\x80\x02" + start + put + b".")
        with pytest.raises(RefusedError, match="numbers a value 268435456"):
            load_pickle(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1), (1, 0, 2)])
def test_axes_in_another_order(tmp_path: Path, protocol: int, axes: tuple[int, ...]) -> None:
    """Neither rows nor columns first: NumPy writes the order of the axes beside the data, in protocol 5."""
    array = np.arange(24, dtype=np.float64).reshape(3, 4, 2).transpose(axes)
    path = tmp_path / "axes.pkl"
    path.write_bytes(pickle.dumps({"array": array}, protocol))
    found = load_pickle(path)["array"]
    np.testing.assert_array_equal(found.read() if isinstance(found, FileArray) else found, array, strict=True)


def test_text_of_lists_in_lists_is_made_by_nobody(tmp_path: Path) -> None:
    """Each of 60 levels holds the one before it twice: as text, a billion gigabytes."""
    levels = b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60))
    path = tmp_path / "bomb.pkl"
    for call in (b"\x80\x02cbuiltins\nstr\n%s\x85R.", b"\x80\x02cnumpy\ndtype\n%s\x85R."):
        path.write_bytes(call % levels)
        with pytest.raises(RefusedError):
            load_pickle(path)
