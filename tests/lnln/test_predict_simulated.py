"""Predictions of what reads simulated text, for sentences, shards and whole corpora."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest

from lnln.corruption import ViewSpec
from lnln.corruption.noise import NoiseSource
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.schema import Ragged, Utterances
from lnln.data.shards import encode_shard, read_split
from lnln.data.simulated_text import commit_simulation, read_simulation
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluate.predictions import read_predictions
from lnln.model_store import publish, pull
from lnln.predict import Predictor, predict
from pipelines import ingest
from pipelines.execute import StageFailedError
from pipelines.ingest import import_corpus
from pipelines.predict import predict_corpus, predict_files
from tests.corpora import mmsa_pickle
from tests.simulated_run import READING, SDUMC, simulated, simulated_corpus, simulated_run

MODELS = pytest.mark.parametrize("model", [SDUMC, READING], ids=["sdumc", "lnln"])
NO_TEXT = (1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "SHARD_BYTES", 1000)
        manifest = simulated_corpus(Store(folder / "store"), folder)
    assert len(manifest.splits["test"].shards) > 1
    return folder / "store"


@pytest.fixture
def store(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(template, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def manifest(store: Store) -> FeatureManifest:
    return read_features(store, "small")


def without_text(utterances: Utterances) -> Utterances:
    none = Ragged.from_lengths(np.empty(0, np.int32), [0] * len(utterances))
    return dataclasses.replace(utterances, text=none, raw_text=[None] * len(utterances))


@MODELS
def test_a_sentence_has_neither_audio_nor_simulated_text(store: Store, manifest: FeatureManifest, model: Any) -> None:
    [made] = Predictor.open(store, simulated_run(store, manifest, model)).predict_texts(["a great movie"])
    assert made.missing == ("audio", "vision", "simulated_text") and made.notes == ()
    assert json.loads(json.dumps(made.to_dict()))["missing"][-1] == "simulated_text"


@MODELS
def test_without_text_the_models_own_simulator_is_heard(
    store: Store, manifest: FeatureManifest, model: Any, tmp_path: Path
) -> None:
    publish(store, simulated_run(store, manifest, model), "reader")
    predictor = Predictor.open(Store(tmp_path / "elsewhere"), str(pull(store, "reader", tmp_path / "pulled")))
    test = without_text(read_split(store, manifest, "test"))
    (tmp_path / "test.parquet").write_bytes(encode_shard(test))
    made = predictor.predict_shard(tmp_path / "test.parquet")
    has_audio = test.audio.lengths > 0
    assert not has_audio.all() and has_audio.any()
    for prediction, has in zip(made, has_audio, strict=True):
        assert ("simulated_text" in prediction.missing) != has and "text" in prediction.missing
        assert prediction.notes == (
            "no text, so simulated text is read" if has else "no text, and no simulated text either",
        )
    alone = predictor.predict_utterances(test.take([3]))
    assert alone[0].sentiment == pytest.approx(made[3].sentiment, abs=1e-5)
    rows = predict(Store(tmp_path / "elsewhere"), str(tmp_path / "pulled"), [str(tmp_path / "test.parquet"), "fine"])
    assert len(rows) == len(test) + 1


@MODELS
def test_a_corpus_is_predicted_as_it_is_scored(
    store: Store, manifest: FeatureManifest, model: Any, tmp_path: Path
) -> None:
    run_id = simulated_run(store, manifest, model)
    for rate in (0.5, NO_TEXT):
        made = predict_corpus(store, run_id, "small", str(tmp_path / f"said-{rate}"), rate=rate)
        table = pyarrow.dataset.dataset(made.url, format="parquet").to_table()
        said = read_predictions(store, evaluate(store, run_id, rates=[rate]))
        assert table["utterance_id"].to_pylist() == said.utterance_id
        np.testing.assert_allclose(table["sentiment"].to_numpy(), said.sentiment[0], atol=1e-5)
        again = predict_corpus(store, run_id, "small", str(tmp_path / f"said-{rate}"), rate=rate)
        assert again.num_new == 0
    assert all(note == ["no text, so simulated text is read"] for note in table["notes"].to_pylist()[1:])


def test_text_that_is_erased_in_part_is_told_by_its_share(store: Store, manifest: FeatureManifest) -> None:
    run_id = simulated_run(store, manifest, {**SDUMC, "text_missing_share": 0.5})
    predictor = Predictor.open(store, run_id)
    test = read_split(store, manifest, "test")
    columns = predictor.predict_columns(test, ViewSpec.evaluation(0.5, seed=0))
    share = columns.missing[:, 0]
    assert 0 < (share >= 0.5).sum() < len(share)
    assert [bool(notes) for notes in columns.notes] == (share >= 0.5).tolist()
    noise = ViewSpec.evaluation(1.0, seed=0, protocol="noise")
    noisy = predictor.predict_columns(test, noise, NoiseSource.of(manifest))
    assert [bool(notes) for notes in noisy.notes] == (test.text.lengths <= 2).tolist()


def test_damaged_or_foreign_simulated_text_stops_what_reads_it(
    store: Store, manifest: FeatureManifest, tmp_path: Path
) -> None:
    run_id = simulated_run(store, manifest)
    made = read_simulation(store, "small", manifest.feature_id)
    first, *rest = made.splits["test"].shards
    store.write(first.path, b"damaged")
    with pytest.raises((RefusedError, StageFailedError)):
        predict_corpus(store, run_id, "small", str(tmp_path / "said"))
    entry = dataclasses.replace(made.splits["test"], shards=tuple(rest))
    wrong = dataclasses.replace(made, splits={**made.splits, "test": entry})
    commit_simulation(store, wrong, anew=True)
    with pytest.raises(RefusedError, match=r"not of the same utterances as split test.*lnln simulate small"):
        predict_corpus(store, run_id, "small", str(tmp_path / "other"))


def test_another_corpus_needs_no_simulated_text_of_its_own(
    store: Store, manifest: FeatureManifest, tmp_path: Path
) -> None:
    run_id = simulated_run(store, manifest)
    other = import_corpus(store, mmsa_pickle(tmp_path / "other.pkl", seed=5), "other")
    made = predict_corpus(store, run_id, "other", rate=NO_TEXT)
    table = pyarrow.dataset.dataset(made.url, format="parquet").to_table()
    said = read_predictions(store, evaluate(store, run_id, "other", rates=[NO_TEXT]))
    np.testing.assert_allclose(table["sentiment"].to_numpy(), said.sentiment[0], atol=1e-5)
    simulated(store, "other")
    assert predict_corpus(store, run_id, "other", rate=NO_TEXT).url == made.url
    files = predict_files(store, run_id, [f"{store.url}/{e.path}" for e in other.splits["test"].shards], rate=NO_TEXT)
    assert files.num_utterances == len(table)


def test_what_was_heard_cannot_be_simulated_from_features(
    store: Store, manifest: FeatureManifest, tmp_path: Path
) -> None:
    made = read_simulation(store, "small", manifest.feature_id)
    heard = {"name": "recognition", "version": 1, "knobs": {}, "models": {}}
    commit_simulation(store, dataclasses.replace(made, simulation_id="0" * 12, provider=heard, files={}))
    run_id = simulated_run(store, manifest)
    test = without_text(read_split(store, manifest, "test"))
    said = Predictor.open(store, run_id).predict_utterances(test)
    assert all("no simulated text either; it is made of sound, by `lnln simulate`" in each.notes[0] for each in said)
    import_corpus(store, mmsa_pickle(tmp_path / "other.pkl", seed=5), "other")
    with pytest.raises(RefusedError, match="lnln simulate other --provider recognition"):
        predict_corpus(store, run_id, "other")
