"""Training of what reads simulated text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lnln.config import Config
from lnln.data.manifest import FeatureManifest, SplitEntry
from lnln.data.simulated_text import commit_simulation
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate_suites
from lnln.model_store import publish
from lnln.report import report
from lnln.runs import is_finished, load_run, run_folder
from lnln.train.launch import check, train
from lnln.train.seeds import finished_seeds
from tests.simulated_run import READING, SDUMC, simulated, simulated_run

SLOW = pytest.mark.slow
TRAIN = {"epochs": 2, "batch_size": 8, "learning_rate": 0.002}


def make_config(model: dict[str, Any] = SDUMC, **train: Any) -> Config:
    return Config.from_dict(
        {
            "model": model,
            "train": {**TRAIN, **train},
            "corruption": {"rates": [0.0, 0.5], "validation_rates": [0.0, 0.5], "num_stored_draws": 0},
        }
    )


def test_a_corpus_without_simulated_text_is_refused_before_anything_starts(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    for config in (make_config(), make_config(READING)):
        with pytest.raises(RefusedError, match="lnln simulate small"):
            train(store, "small", config)
        with pytest.raises(RefusedError, match="lnln simulate small"):
            finished_seeds(store, "small", config, [1])
    assert not (Path(store.url) / "runs").exists()


def test_a_finished_run_is_known_by_the_simulated_text_in_use(store: Store, manifest: FeatureManifest) -> None:
    made = simulated(store)
    values = make_config().to_dict()
    run_id = simulated_run(store, manifest, values.pop("model"), **{k: values[k] for k in ("train", "corruption")})
    assert is_finished(store, run_id)
    assert train(store, "small", make_config()).run_id == run_id
    assert store.read_json(f"{run_folder(run_id)}/run.json")["config"]["model"]["simulation"] == made.simulation_id
    assert finished_seeds(store, "small", make_config(), [1111, 7]) == [1111]
    simulated(store, num_steps=2)
    assert finished_seeds(store, "small", make_config(), [1111]) == []


def test_simulated_text_of_too_few_splits_is_refused(store: Store, manifest: FeatureManifest) -> None:
    made = simulated(store)
    splits: dict[Any, SplitEntry] = {split: entry for split, entry in made.splits.items() if split != "valid"}
    commit_simulation(store, dataclasses.replace(made, splits=splits, simulation_id="0" * 12))
    config = make_config({**SDUMC, "simulation": "0" * 12})
    with pytest.raises(RefusedError, match="lacks split valid"):
        check(store, manifest, config, 1, None)


@SLOW
@pytest.mark.parametrize(
    ("model", "train_keys", "num_workers"),
    [
        (SDUMC, {"accumulation_steps": 2, "average_decay": 0.5}, 2),
        (SDUMC, {"frozen": "encoder", "selection": "published"}, 1),
        (READING, {}, 2),
    ],
    ids=["sdumc", "sdumc-frozen", "lnln"],
)
def test_it_is_trained_scored_published_and_reported(
    store: Store, manifest: FeatureManifest, tmp_path: Path, model: Any, train_keys: dict[str, Any], num_workers: int
) -> None:
    simulated(store)
    run = train(store, "small", make_config(model, **train_keys), num_workers=num_workers, progress=None)
    assert run.num_workers == num_workers and len(run.history) == 2
    terms = set(run.history[0]["loss"])
    if model is SDUMC:
        assert {"full_sentiment", "missing_sentiment", "text_hidden", "text_query", "fused", "rank_contrast"} <= terms
    else:
        assert {"completeness", "adversarial", "reconstruction", "sentiment"} <= terms
    again = train(store, "small", make_config(model, **train_keys), num_workers=num_workers)
    assert again == load_run(store, run.run_id)
    evaluate_suites(store, run.run_id, ["text_missing"])
    assert publish(store, run.run_id, "reader") == "v1"
    page = report(store, ["reader@v1"], tmp_path / "report", suites=["text_missing"])
    assert "Missing text" in page.read_text() and "L+A+V" in page.read_text()
