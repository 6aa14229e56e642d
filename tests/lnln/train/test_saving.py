from __future__ import annotations

import time
from pathlib import Path

import pytest

from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.train import saving
from lnln.train.saving import Patience


@pytest.fixture
def patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patience:
    monkeypatch.setattr(saving, "FIRST_PAUSE_SECONDS", 0.01)
    store = Store(tmp_path / "store")
    store.write("runs/r/run.json", b"{}")
    return Patience(store, "runs/r", 0.5)


def failing(times: int, error: Exception) -> list[Exception | None]:
    return [error] * times + [None]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StoreFailedError("store x: away")])
def test_what_fails_for_a_while_is_written_in_the_end(patience: Patience, error: Exception) -> None:
    left = failing(3, error)

    def write() -> str:
        if (fault := left.pop(0)) is not None:
            raise fault
        return "done"

    assert patience.write("it", write, after=2) == "done" and left == []


def test_patience_has_an_end_that_says_all(patience: Patience) -> None:
    def write() -> None:
        raise OSError(28, "No space left on device")

    begun = time.monotonic()
    with pytest.raises(RefusedError) as refused:
        patience.write("the checkpoint of epoch 4", write, after=3)
    assert 0.5 <= time.monotonic() - begun < 5
    said = str(refused.value)
    assert "\n" not in said and said.startswith("the checkpoint of epoch 4 cannot be written: ")
    assert "No space left on device" in said and f"MiB are free in {patience.store.url}" in said
    assert said.endswith("make room, and the same command continues after epoch 3")
    with pytest.raises(RefusedError, match="continues from the start"):
        Patience(patience.store, "runs/r", 0).write("it", write, after=0)


def test_other_faults_are_not_waited_for(patience: Patience) -> None:
    def write() -> None:
        raise ValueError("mine")

    begun = time.monotonic()
    with pytest.raises(ValueError, match="mine"):
        patience.write("it", write, after=0)
    assert time.monotonic() - begun < 0.4


def test_a_run_that_was_removed_is_not_written_again(patience: Patience) -> None:
    patience.store.remove("runs/r/run.json")
    with pytest.raises(RefusedError, match=r"runs/r was removed while the run trained"):
        patience.write("it", lambda: patience.store.write("runs/r/x", b""), after=1)
    assert not patience.store.exists("runs/r/x")
