"""The weights that are best on test are there whenever a run may continue, and never where test must not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.checkpoint import describe_file, load_weights
from lnln.config import Config
from lnln.data.store import Store
from lnln.runs import selected_on_test, selection_file
from lnln.train.controller import RunNotes
from lnln.train.published_selection import keep_weights, prune_weights
from lnln.train.worker import TrainJob

FOLDER = "runs/r/selected-on-test"


def record(epoch: int, mae: float, corr: float) -> dict[str, Any]:
    return {"epoch": epoch, "test": {"mae": mae, "corr": corr}}


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor([value])}


def names(store: Store) -> set[str]:
    folder = Path(store.url) / FOLDER
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_weights_are_kept_for_as_long_as_a_metric_wants_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    history: list[dict[str, Any]] = []
    scores = [(1.0, 0.1), (0.9, 0.0), (1.1, 0.2), (0.8, 0.3), (0.9, 0.2)]
    kept = [{1}, {1, 2}, {2, 3}, {4}, {4}]
    for epoch, ((mae, corr), expected) in enumerate(zip(scores, kept, strict=True), start=1):
        history.append(record(epoch, mae, corr))
        keep_weights(store, "runs/r", history, weights(mae))
        prune_weights(store, "runs/r", history, is_over=False)
        assert names(store) == {selection_file(each) for each in expected}
    path = Path(store.url) / FOLDER / selection_file(4)
    assert history[3]["selection_weights"] == describe_file(path)
    assert float(load_weights(path)["weight"]) == pytest.approx(0.8)
    assert "selection_weights" not in history[4]


@settings(max_examples=60, deadline=None)
@given(
    tries=st.lists(
        st.tuples(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6), st.integers(0, 2)),
        min_size=1,
        max_size=4,
    )
)
def test_a_killed_run_finds_what_its_history_refers_to(
    tries: list[tuple[list[tuple[int, int]], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each try trains some epochs, of which the last are written but not yet known, and is killed. What is trained
    again may score otherwise, as on another machine."""
    store = Store(tmp_path_factory.mktemp("killed"))
    notes = RunNotes(store.url, "runs/r")
    store.write("runs/r/ray/checkpoint_manager_snapshot.json", b"{}")
    known: list[dict[str, Any]] = []
    for attempt, (scores, num_unknown) in enumerate(tries):
        history = [dict(entry) for entry in known]
        for mae, corr in scores:
            history.append(record(len(history) + 1, mae, corr))
            keep_weights(store, "runs/r", history, weights(100 * attempt + len(history)))
            reported = [dict(entry) for entry in history]
            while len(known) < len(history) - num_unknown:
                known.append(reported[len(known)])
                notes.after_report(None, [{"record": known[-1]}], None)
                wanted = {selection_file(epoch) for epoch in selected_on_test(known).values()}
                assert wanted <= names(store)
                for entry in known:
                    if selection_file(entry["epoch"]) in wanted:
                        assert "selection_weights" in entry
    prune_weights(store, "runs/r", known, is_over=True)
    wanted = {selection_file(epoch) for epoch in selected_on_test(known).values()}
    assert names(store) == wanted


def test_what_another_writer_has_not_finished_stays_until_the_run_is_over(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    history = [record(1, 1.0, 0.0), record(2, 0.5, 0.5)]
    unfinished = ".epoch-0003.safetensors.0123.part"
    for name in (unfinished, selection_file(1), selection_file(2), selection_file(3)):
        store.write(f"{FOLDER}/{name}", b"")
    prune_weights(store, "runs/r", history, is_over=False)
    assert names(store) == {unfinished, selection_file(2), selection_file(3)}
    prune_weights(store, "runs/r", history, is_over=True)
    assert names(store) == {selection_file(2)}


def test_a_run_that_keeps_no_such_weights_leaves_no_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    history = [{"epoch": 1, "validation": {"0.0": {"mae": 1.0}}}]
    keep_weights(store, "runs/r", history, weights(0.0))
    prune_weights(store, "runs/r", history, is_over=True)
    assert names(store) == set() and "selection_weights" not in history[0]


@pytest.mark.parametrize(
    ("selection", "folder", "looks"),
    [("published", "runs/r", True), ("published", None, False), ("validation", "runs/r", False)],
)
def test_neither_a_trial_nor_an_ordinary_run_looks_at_test(selection: str, folder: str | None, looks: bool) -> None:
    config = Config.from_dict({"train": {"selection": selection}})
    assert TrainJob("store", "small", "feature", config, folder).looks_at_test is looks
