from __future__ import annotations

import json
from pathlib import Path

import pytest

from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.train.controller import RunNotes, mend_state, read_history, remove_orphans

STATE = "runs/r/ray/checkpoint_manager_snapshot.json"
COPY = "runs/r/ray-state.json"


def ray_state(*names: str) -> bytes:
    return json.dumps({"ray_version": "2", "checkpoint_results": [{"checkpoint_dir_name": n} for n in names]}).encode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for epoch in (1, 2, 3):
        store.write(f"runs/r/ray/epoch-000{epoch}/state.json", b"{}")
    return store


def test_a_whole_state_stays(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0002"))
    store.write(COPY, ray_state("epoch-0001"))
    mend_state(store, "runs/r")
    assert store.read(STATE) == ray_state("epoch-0002")
    assert store.read(COPY) == ray_state("epoch-0002"), "else the next kill would bring back a removed checkpoint"


@pytest.mark.parametrize("damaged", [b"", b"{", ray_state("epoch-0002")[:-9], b"[]", b"{}"])
def test_a_state_cut_short_is_replaced_by_the_copy(store: Store, damaged: bytes) -> None:
    store.write(STATE, damaged)
    store.write(COPY, ray_state("epoch-0001"))
    mend_state(store, "runs/r")
    assert store.read(STATE) == ray_state("epoch-0001")


def test_without_a_copy_the_run_starts_again(store: Store) -> None:
    mend_state(store, "runs/r")
    store.write(STATE, b"{")
    mend_state(store, "runs/r")
    assert not store.exists(STATE)


def test_a_missing_checkpoint_is_refused_by_name(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0002", "epoch-0009"))
    with pytest.raises(RefusedError, match=r"epoch-0009 is missing.*remove .*runs/r"):
        mend_state(store, "runs/r")


def test_orphans_are_removed_and_nothing_else(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0002"))
    store.write(COPY, ray_state("epoch-0002"))
    store.write("runs/r/ray/other/file", b"")
    remove_orphans(store, "runs/r")
    kept = [store.exists(f"runs/r/ray/epoch-000{epoch}/state.json") for epoch in (1, 2, 3)]
    assert kept == [False, True, False] and store.exists("runs/r/ray/other/file") and not store.exists(COPY)


def test_epochs_are_noted_once(store: Store) -> None:
    notes = RunNotes(store.url, "runs/r")
    assert read_history(store, "runs/r") == []
    for epoch, value in ((1, "a"), (2, "b"), (3, "c"), (2, "again")):
        store.write(STATE, ray_state(f"epoch-000{epoch}"))
        notes.after_report(None, [{"record": {"epoch": epoch, "value": value}}, {}], None)
    assert read_history(store, "runs/r") == [{"epoch": 1, "value": "a"}, {"epoch": 2, "value": "again"}]
    assert store.read(COPY) == store.read(STATE)
