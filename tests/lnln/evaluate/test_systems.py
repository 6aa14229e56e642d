"""Trainings that differ in their seed alone are one system, with a title that says what sets it apart."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from lnln.errors import RefusedError
from lnln.evaluate.systems import score_systems
from lnln.model_store import publish, pull
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content
from tests.finished_run import TINY, finished_run, small_corpus
from tests.lnln.conftest import RunStore
from tests.simulated_run import READING, SDUMC, simulated, simulated_run


def _with(**model: Any) -> dict[str, Any]:
    return {"model": {**TINY["model"], **model}}


def test_seeds_are_one_system_and_configs_another(run_store: RunStore) -> None:
    store = run_store.store
    reference = finished_run(store, run_store.manifest, seed=3, **_with(mode="reference"))
    systems = score_systems(store, [run_store.better, reference, run_store.worse], ["absent"])
    assert [system.title for system in systems] == ["LNLN", "LNLN, mode=reference"]
    assert systems[0].names == (run_store.worse, run_store.better) and systems[0].seeds == (1, 2)
    assert [each.name for each in systems[0].evaluations["absent"]] == list(systems[0].names)
    assert systems[1].seeds == (3,) and systems[1].first.corpus == "small"
    said = systems[0].predictions(store, "absent")
    assert len(said) == 2 and said[0].sentiment.shape == (6, 14)


def test_networks_that_look_at_other_things_are_told_apart_by_what_they_share(
    run_store: RunStore,
) -> None:
    store, manifest = run_store.store, run_store.manifest
    simulated(store)
    runs = [
        run_store.worse,
        simulated_run(store, manifest),
        simulated_run(store, manifest, loss={"missing_sentiment": 0.0}),
        simulated_run(store, manifest, {**SDUMC, "sdumc": {**SDUMC["sdumc"], "imagination": False}}),
        simulated_run(store, manifest, READING),
    ]
    titles = ["LNLN", "SDUMC", "SDUMC, missing_sentiment=0.0", "SDUMC, imagination=False"]
    for order in (runs, runs[::-1]):
        systems = score_systems(store, order, ["text_missing"])
        found = {system.names[0]: system.title for system in systems}
        assert [found[run].replace(", query_dim=8, rank_dim=4", "") for run in runs[:4]] == titles
        assert found[runs[4]] == "LNLN, simulated_text=when_missing"


def test_a_run_and_its_published_copy_are_one_training(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    publish(store, run_store.better, "small-lnln")
    pull(store, "small-lnln", tmp_path / "copy")
    names = [run_store.better, "small-lnln", str(tmp_path / "copy"), run_store.worse]
    (system,) = score_systems(store, names, ["absent"])
    assert system.seeds == (1, 2)


def test_titles_of_ones_own(run_store: RunStore) -> None:
    (system,) = score_systems(run_store.store, [f"ours={run_store.worse}", f"ours={run_store.better}"], ["absent"])
    assert system.title == "ours"
    with pytest.raises(RefusedError, match="differs from it in its seed alone, is called 'ours'"):
        score_systems(run_store.store, [f"ours={run_store.worse}", f"theirs={run_store.better}"], ["absent"])


def test_one_config_on_two_corpora_is_two_systems(run_store: RunStore, tmp_path: Path) -> None:
    manifest = small_corpus(run_store.store, tmp_path, "other")
    other = finished_run(run_store.store, manifest, seed=1)
    systems = score_systems(run_store.store, [run_store.worse, other], ["absent"])
    assert [system.title for system in systems] == [f"LNLN: {run_store.worse}", f"LNLN: {other}"]
    # On one corpus they differ in what they were trained on, not in their views.
    assert [each.first.corpus for each in systems] == ["small", "other"]


def test_models_of_two_corpora_that_are_scored_on_one_are_two_systems(run_store: RunStore, tmp_path: Path) -> None:
    """They differ in more than their seed, whatever their configs say."""
    store = run_store.store
    features = mmsa_content()
    features["train"]["regression_labels"] = -features["train"]["regression_labels"]
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(features))
    other = finished_run(store, import_corpus(store, tmp_path / "other.pkl", "other"), seed=2)
    systems = score_systems(store, [run_store.worse, other], ["absent"], "small")
    assert [system.names for system in systems] == [(run_store.worse,), (other,)]
    assert len({system.title for system in systems}) == 2
    titled = score_systems(store, [f"A={run_store.worse}", f"B={other}"], ["absent"], "small")
    assert [system.title for system in titled] == ["A", "B"]
