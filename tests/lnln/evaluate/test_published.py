"""Scores that were selected on test are the right ones, say so everywhere, and lead to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lnln.cli import show
from lnln.cli.console import Console
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluations import PUBLISHED_SELECTION, Evaluation
from lnln.model_store import publish, resolve
from lnln.runs import load_run, selected_on_test
from lnln.verify import verify
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore
from tests.published_run import published_run


@pytest.fixture
def run_id(run_store: RunStore) -> str:
    return published_run(run_store.store, run_store.manifest)


def test_every_metric_is_of_its_own_epoch(run_store: RunStore, run_id: str) -> None:
    made = evaluate(run_store.store, run_id, selection="published", rates=[0.0, 0.5, 1.0], mask_seeds=[0, 1])
    assert made.epochs == {name: 2 if name in ("mae", "corr") else 3 for name in made.metrics()}
    # The weights of epoch n are those of the run with seed n.
    by_epoch = {
        epoch: evaluate(
            run_store.store,
            finished_run(run_store.store, run_store.manifest, seed=epoch),
            rates=[0.0, 0.5, 1.0],
            mask_seeds=[0, 1],
        )
        for epoch in (2, 3)
    }
    for metric, epoch in made.epochs.items():
        of_epoch = by_epoch[epoch]
        assert [view.scores[metric] for view in made.views] == [view.scores[metric] for view in of_epoch.views]
        assert made.mean[metric] == of_epoch.mean[metric]
        if metric in of_epoch.intervals:
            assert made.intervals[metric] == of_epoch.intervals[metric]
            assert made.rate_intervals[metric] == of_epoch.rate_intervals[metric]
        for baseline, margins in of_epoch.margins.items():
            assert made.margins[baseline].get(metric) == margins.get(metric)
    assert made.baselines == by_epoch[2].baselines
    assert made.mean["mae"] != by_epoch[3].mean["mae"], "else this shows nothing"


def test_it_is_stored_and_read_back_and_apart_from_the_model_itself(
    run_store: RunStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, made = evaluate(run_store.store, run_id), evaluate(run_store.store, run_id, selection="published")
    assert own.evaluation_id != made.evaluation_id and own.model["weights_sha256"] != made.model["weights_sha256"]
    record = json.loads(run_store.store.read(f"runs/{run_id}/evaluations/{made.evaluation_id}.json"))
    assert record["selection"] == "published" and record["note"] == PUBLISHED_SELECTION
    assert Evaluation.from_dict(record) == made
    assert own.selection == "validation" and own.note == "" and own.epochs == {}
    monkeypatch.setattr("lnln.evaluate.run.predict_views", lambda *_, **__: pytest.fail("computed again"))
    assert evaluate(run_store.store, run_id, selection="published") == made
    assert evaluate(run_store.store, run_id) == own


def test_the_printed_table_says_so(run_store: RunStore, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    show.evaluation(Console(), evaluate(run_store.store, run_id))
    assert "selected on test" not in capsys.readouterr().out
    show.evaluation(Console(), evaluate(run_store.store, run_id, selection="published"))
    out = capsys.readouterr().out
    assert f"These scores are {PUBLISHED_SELECTION}." in out
    assert f"{run_id} (selected on test) on small test" in out
    assert "epoch, selected on test" in out


def test_other_models_are_refused(run_store: RunStore, run_id: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"not trained with train\.selection published") as refused:
        evaluate(run_store.store, run_store.better, selection="published")
    assert "\n" not in str(refused.value)
    publish(run_store.store, run_id, "small-lnln")
    with pytest.raises(RefusedError, match=f"stay in run {run_id}"):
        evaluate(run_store.store, "small-lnln@best", selection="published")
    with pytest.raises(RefusedError, match="selection is one of validation, published, got 'test'"):
        evaluate(run_store.store, run_id, selection="test")


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_weights_are_refused_by_name(run_store: RunStore, run_id: str, damage: str) -> None:
    store, path = run_store.store, f"runs/{run_id}/selected-on-test/epoch-0003.safetensors"
    assert verify(store, run_id)["weights selected on test"] == 2
    if damage == "missing":
        store.remove(path)
    else:
        store.write(path, store.read(path)[:-1] + b"\x01")
    with pytest.raises(RefusedError, match=rf"{path}.*train again"):
        evaluate(store, run_id, selection="published")
    with pytest.raises(RefusedError, match=path):
        verify(store, run_id)
    assert evaluate(store, run_id).selection == "validation"


def test_a_run_without_scores_on_test_is_refused(run_store: RunStore) -> None:
    run_id = finished_run(run_store.store, run_store.manifest, train={"seed": 1, "selection": "published"})
    with pytest.raises(RefusedError, match="lacks the scores on test"):
        evaluate(run_store.store, run_id, selection="published")


def test_nothing_of_it_is_published(run_store: RunStore, run_id: str) -> None:
    store = run_store.store
    selected = evaluate(store, run_id, selection="published")
    publish(store, run_id, "small-lnln")
    version = resolve(store, "small-lnln@best")
    metrics = json.loads(store.read(f"{version.folder}/metrics.json"))
    assert metrics["test"] is None
    assert version.selection_score == load_run(store, run_id).score
    assert version.weights_sha256 == load_run(store, run_id).files["model.safetensors"]["sha256"]
    # Not even where somebody puts it in the place of the model's own.
    own = evaluate(store, run_id)
    record = store.read(f"runs/{run_id}/evaluations/{selected.evaluation_id}.json")
    store.write(f"runs/{run_id}/evaluations/{own.evaluation_id}.json", record)
    publish(store, run_id, "another-lnln")
    version = resolve(store, "another-lnln@best")
    assert json.loads(store.read(f"{version.folder}/metrics.json"))["test"] is None


def test_the_best_epoch_of_a_metric_is_the_first_of_equals() -> None:
    history = [
        {"epoch": 1, "test": {"mae": 1.0, "corr": 0.1, "acc7": 0.5}},
        {"epoch": 2, "test": {"mae": 0.9, "corr": 0.1, "acc7": 0.5}},
        {"epoch": 3, "test": {"mae": 0.9, "corr": 0.3, "acc7": 0.4}},
    ]
    assert selected_on_test(history) == {"mae": 2, "corr": 3, "acc7": 1}
    assert selected_on_test(history[:1]) == {"mae": 1, "corr": 1, "acc7": 1}
    assert selected_on_test([{"epoch": 1, "validation": {}}]) == selected_on_test([]) == {}
