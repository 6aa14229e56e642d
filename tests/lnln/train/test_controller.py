from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lnln.checkpoint import Checkpoint, save_checkpoint, upload_checkpoint
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.train.controller import RunNotes, has_trained, mend_state, newest_epoch, read_history, remove_orphans

STATE = "runs/r/ray/checkpoint_manager_snapshot.json"
COPY = "runs/r/ray-state.json"


def ray_state(*names: str) -> bytes:
    return json.dumps({"ray_version": "2", "checkpoint_results": [{"checkpoint_dir_name": n} for n in names]}).encode()


def put_checkpoint(store: Store, folder: Path, epoch: int, best_epoch: int) -> None:
    weights = {"w": torch.full((2,), float(epoch))}
    save_checkpoint(
        folder / f"{epoch}", Checkpoint(weights, None, {"w/step": torch.ones(1)}, {"best_epoch": best_epoch})
    )
    upload_checkpoint(folder / f"{epoch}", store, f"runs/r/ray/epoch-{epoch:04d}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three epochs, of which the first is the best."""
    store = Store(tmp_path / "store")
    for epoch in (1, 2, 3):
        put_checkpoint(store, tmp_path / "local", epoch, best_epoch=1)
    return store


def kept(store: Store) -> list[int]:
    return sorted(int(path.name[-4:]) for path in Path(store.url, "runs/r/ray").glob("epoch-*"))


def flip(store: Store, path: str) -> None:
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.write(path, bytes(data))


def test_a_whole_state_stays(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0001", "epoch-0002"))
    store.write(COPY, ray_state("epoch-0001"))
    assert mend_state(store, "runs/r") is None
    assert store.read(STATE) == ray_state("epoch-0001", "epoch-0002")
    assert store.read(COPY) == store.read(STATE), "else the next kill would bring back a removed checkpoint"
    assert kept(store) == [1, 2], "what Ray did not get to know is an orphan"
    assert newest_epoch(store, "runs/r") == 2


@pytest.mark.parametrize("damaged", [b"", b"{", ray_state("epoch-0002")[:-9], b"[]", b"{}", None])
def test_a_state_cut_short_is_replaced_by_the_copy(store: Store, damaged: bytes | None) -> None:
    if damaged is not None:
        store.write(STATE, damaged)
    store.write(COPY, ray_state("epoch-0001"))
    assert newest_epoch(store, "runs/r") == 1
    mend_state(store, "runs/r")
    assert store.read(STATE) == ray_state("epoch-0001")


def test_epochs_that_will_be_trained_again_are_forgotten(store: Store) -> None:
    history = [{"epoch": epoch} for epoch in (1, 2, 3)]
    store.write_json("runs/r/history.json", history)
    store.write(STATE, ray_state("epoch-0001", "epoch-0002"))
    mend_state(store, "runs/r")
    assert read_history(store, "runs/r") == history[:2]
    store.remove(STATE)
    store.remove(COPY)
    mend_state(store, "runs/r")
    assert read_history(store, "runs/r") == [] and not has_trained(store, "runs/r")


def test_what_ray_could_not_remove_is_removed_after_the_next_epoch(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0001"))
    RunNotes(store.url, "runs/r").after_report({}, [{"record": {"epoch": 2}}], None)
    assert kept(store) == [1, 3], "what is newer may be in the making"


def test_without_a_copy_the_run_starts_again(store: Store) -> None:
    mend_state(store, "runs/r")
    store.write(STATE, b"{")
    assert mend_state(store, "runs/r") is None
    assert not store.exists(STATE) and kept(store) == [] and newest_epoch(store, "runs/r") == 0


def test_a_missing_checkpoint_is_refused_by_name(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0009"))
    with pytest.raises(RefusedError, match=r"epoch-0009: state\.json is missing.*remove .*runs/r") as refused:
        mend_state(store, "runs/r")
    assert "\n" not in str(refused.value)
    assert kept(store) == [1, 2, 3], "nothing is removed by a run that does not begin"


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "missing", "empty"])
def test_a_run_goes_back_behind_a_damaged_checkpoint(store: Store, file: str, damage: str) -> None:
    latest = {"checkpoint_dir_name": "epoch-0003"}
    state = {**json.loads(ray_state("epoch-0002", "epoch-0003", "epoch-0001")), "latest_checkpoint_result": latest}
    store.write(STATE, json.dumps({**state, "checkpoint_report_indices": [1, 2, 0]}).encode())
    path = f"runs/r/ray/epoch-0003/{file}"
    if damage == "flipped":
        flip(store, path)
    elif damage == "missing":
        store.remove(path)
    else:
        store.write(path, b"")
    said = mend_state(store, "runs/r")
    assert said is not None and said.startswith(f"checkpoint epoch-0003: {file} ")
    mended = json.loads(store.read(STATE))
    assert [result["checkpoint_dir_name"] for result in mended["checkpoint_results"]] == ["epoch-0002", "epoch-0001"]
    assert mended["latest_checkpoint_result"] == {"checkpoint_dir_name": "epoch-0002"}
    assert mended["checkpoint_report_indices"] == [1, 0] and kept(store) == [1, 2]
    assert store.read(COPY) == store.read(STATE) and newest_epoch(store, "runs/r") == 2


def test_a_run_whose_best_checkpoint_is_damaged_could_not_end(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0001", "epoch-0002", "epoch-0003"))
    flip(store, "runs/r/ray/epoch-0001/model.safetensors")
    with pytest.raises(RefusedError, match=r"epoch-0001: model\.safetensors .* no older one"):
        mend_state(store, "runs/r")


def test_a_store_that_is_away_is_not_taken_for_damaged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(STATE, ray_state("epoch-0001", "epoch-0002"))
    folder = Path(store.url, "runs/r/ray/epoch-0002")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()  # reading it fails as reading from a bad disk does
    with pytest.raises(StoreFailedError):
        mend_state(store, "runs/r")
    assert store.read(STATE) == ray_state("epoch-0001", "epoch-0002") and kept(store) == [1, 2, 3]


def test_orphans_are_removed_and_nothing_else(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0002"))
    store.write(COPY, ray_state("epoch-0002"))
    store.write("runs/r/ray/other/file", b"")
    remove_orphans(store, "runs/r", [2])
    assert kept(store) == [2] and store.exists("runs/r/ray/other/file") and not store.exists(COPY)


def test_what_a_run_ended_with_is_kept_although_ray_could_not_note_it(store: Store) -> None:
    store.write(STATE, ray_state("epoch-0002")[:-5])
    store.write(COPY, ray_state("epoch-0002"))
    remove_orphans(store, "runs/r", [1, 3])
    assert kept(store) == [1, 2, 3]
    assert store.read(STATE) == ray_state("epoch-0002"), "whoever exports the model again needs it"


def test_epochs_are_noted_once(store: Store) -> None:
    notes = RunNotes(store.url, "runs/r")
    assert read_history(store, "runs/r") == []
    for epoch, value in ((1, "a"), (2, "b"), (3, "c"), (2, "again")):
        store.write(STATE, ray_state(f"epoch-000{epoch}"))
        notes.after_report(None, [{"record": {"epoch": epoch, "value": value}}, {}], None)
    assert read_history(store, "runs/r") == [{"epoch": 1, "value": "a"}, {"epoch": 2, "value": "again"}]
    assert store.read(COPY) == store.read(STATE)
