from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lnln.data.name_list import add_name, read_names
from lnln.data.store import Store
from lnln.errors import RefusedError


def test_names_are_sorted_and_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_names(store, "x.json") == []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: add_name(store, "x.json", name), "dbcadbé"))
    assert read_names(store, "x.json") == ["a", "b", "c", "d", "é"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"null"])
def test_damage_is_refused(data: bytes, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("x.json", data)
    with pytest.raises(RefusedError, match=r"x\.json must hold a list of names"):
        read_names(store, "x.json")
    with pytest.raises(RefusedError, match=r"x\.json"):
        add_name(store, "x.json", "a")
    assert store.read("x.json") == data
