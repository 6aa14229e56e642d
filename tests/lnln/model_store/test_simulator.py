from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.model_inputs import model_inputs, with_simulation_in_use
from lnln.data.shards import read_split
from lnln.data.simulated_text import commit_simulation, read_simulation
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, evaluate_suites
from lnln.model_store import load, open_model, publish, pull, read_lineage, resolve
from lnln.model_store.simulator import simulate, simulator_of, text_source
from lnln.runs import load_run, run_id_for
from tests.corpora import mmsa_pickle
from tests.finished_run import TINY, finished_run, small_corpus
from tests.simulated_run import NUM_STEPS, READING, SDUMC, simulated, simulated_corpus, simulated_run

MODELS = pytest.mark.parametrize("model", [SDUMC, READING], ids=["sdumc", "lnln"])


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    simulated_corpus(Store(folder / "store"), folder)
    return folder / "store"


@pytest.fixture
def store(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(template, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def manifest(store: Store) -> FeatureManifest:
    return read_features(store, "small")


@MODELS
def test_the_id_in_use_becomes_part_of_what_a_run_is(store: Store, manifest: FeatureManifest, model: Any) -> None:
    run = load_run(store, simulated_run(store, manifest, model))
    in_use = read_simulation(store, "small", manifest.feature_id)
    assert run.config.model.simulation == in_use.simulation_id
    named = with_simulation_in_use(store, manifest, run.config)
    assert run_id_for(named, "small", manifest) == run.run_id
    other = simulated(store, num_steps=2)
    assert simulated_run(store, manifest, model) != run.run_id  # the other one is in use now
    kept = {**model, "simulation": in_use.simulation_id}
    assert simulated_run(store, manifest, kept) == run.run_id and other.simulation_id != in_use.simulation_id


def test_without_simulated_text_it_is_refused_with_the_command(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path)
    with pytest.raises(RefusedError, match="lnln simulate small"):
        simulated_run(store, manifest)
    with pytest.raises(RefusedError, match="lnln simulate small"):
        simulated_run(store, manifest, {**READING, "simulation": "0123456789ab"})
    with pytest.raises(RefusedError, match="text_only reads no simulated text"):
        simulated_run(store, manifest, {**READING, "name": "text_only"})


@MODELS
def test_a_published_model_says_its_simulation_and_brings_its_simulator(
    store: Store, manifest: FeatureManifest, model: Any, tmp_path: Path
) -> None:
    run_id = simulated_run(store, manifest, model)
    publish(store, run_id, "reader")
    lineage = read_lineage(store, resolve(store, "reader"))
    in_use = read_simulation(store, "small", manifest.feature_id)
    assert lineage["simulation"]["simulation_id"] == in_use.simulation_id
    assert lineage["simulation"]["provider"]["knobs"]["num_steps"] == NUM_STEPS
    folder = pull(store, "reader", tmp_path / "pulled")
    assert {"simulator.json", "simulator.safetensors"} <= {path.name for path in folder.iterdir()}
    assert load(str(folder), store).spec.simulated_text_dim == 32
    (folder / "simulator.safetensors").write_bytes(b"damaged")
    with pytest.raises(RefusedError, match=r"damaged or missing simulator\.safetensors"):
        open_model(store, str(folder))


@MODELS
def test_text_missing_is_scored_with_the_stored_simulated_text(
    store: Store, manifest: FeatureManifest, model: Any
) -> None:
    run_id = simulated_run(store, manifest, model)
    found = evaluate_suites(store, run_id, ["text_missing", "ten_rates"], mask_seeds=[0])
    assert found["text_missing"].rates == (0.0, (1.0, 0.0, 0.0)) and len(found["text_missing"].views) == 2
    assert found["text_missing"].trained_on == "" and "regressor" in found["text_missing"].model["simulated_text"]
    assert found["text_missing"] == evaluate_suites(store, run_id, ["text_missing"], mask_seeds=[0])["text_missing"]


@MODELS
def test_what_was_trained_without_its_corpus_is_simulated_by_what_came_along(
    store: Store, manifest: FeatureManifest, model: Any, tmp_path: Path
) -> None:
    run_id = simulated_run(store, manifest, model)
    opened = open_model(store, run_id)
    source = text_source(store, opened, manifest)
    assert source is not None and source.simulation is not None and source.identity == ""
    stored = evaluate(store, run_id, rates=[0.0, (1, 0, 0)])
    test = read_split(store, manifest, "test")
    there, made = source.add(store, "test", test), simulate(opened, test)
    assert there.simulated_text is not None and made.simulated_text is not None
    np.testing.assert_allclose(there.simulated_text.values, made.simulated_text.values, rtol=1e-5, atol=1e-6)
    assert (made.simulated_text.lengths == np.where(test.audio.lengths > 0, NUM_STEPS, 0)).all()
    shutil.rmtree(Path(store.url) / "small" / "simulated")
    source = text_source(store, opened, manifest)
    assert source is not None and source.simulation is None and source.identity
    again = evaluate(store, run_id, rates=[0.0, (1, 0, 0)])
    assert again.evaluation_id != stored.evaluation_id and "came with the model" in again.model["simulated_text"]
    for metric, value in stored.mean.items():
        assert again.mean[metric] == pytest.approx(value, abs=1e-4)


def test_another_corpus_is_read_with_the_simulator_of_the_model(
    store: Store, manifest: FeatureManifest, tmp_path: Path
) -> None:
    from pipelines.ingest import import_corpus

    run_id = simulated_run(store, manifest)
    import_corpus(store, mmsa_pickle(tmp_path / "other.pkl", seed=5), "other")
    found = evaluate(store, run_id, "other", rates=[(1, 0, 0)])
    assert any("simulated text: by the regressor that came with the model" in each for each in found.carries_over)
    simulated(store, "other")  # learned from that corpus's text: not what the model was trained to read
    again = evaluate(store, run_id, "other", rates=[(1, 0, 0)])
    assert again.evaluation_id == found.evaluation_id


def test_where_nothing_was_learned_the_corpus_must_have_been_heard_alike(
    store: Store, manifest: FeatureManifest, tmp_path: Path
) -> None:
    """As of the providers that hear the sound."""
    from pipelines.ingest import import_corpus

    made = read_simulation(store, "small", manifest.feature_id)
    heard = {"name": "recognition", "version": 1, "knobs": {"speech": "a"}, "models": {}, "packages": {"x": "1"}}
    commit_simulation(store, dataclasses.replace(made, simulation_id="0" * 12, provider=heard, files={}))
    run_id = simulated_run(store, manifest)
    opened = open_model(store, run_id)
    assert simulator_of(opened) is None
    other = import_corpus(store, mmsa_pickle(tmp_path / "other.pkl", seed=5), "other")
    simulated(store, "other")
    with pytest.raises(RefusedError, match="lnln simulate other --provider recognition --set speech=a"):
        text_source(store, opened, other)
    theirs = read_simulation(store, "other", other.feature_id)
    alike = {**heard, "packages": {"x": "2"}}
    commit_simulation(store, dataclasses.replace(theirs, simulation_id="1" * 12, provider=alike, files={}))
    source = text_source(store, opened, other)
    assert source is not None and source.simulation is not None and source.simulation.simulation_id == "1" * 12
    nothing = simulate(opened, read_split(store, other, "test")).simulated_text
    assert nothing is not None and nothing.lengths.max() == 0


def test_damage_is_said_and_not_gone_around(store: Store, manifest: FeatureManifest) -> None:
    run_id = simulated_run(store, manifest)
    made = read_simulation(store, "small", manifest.feature_id)
    store.write(made.splits["test"].shards[0].path, b"damaged")
    with pytest.raises(RefusedError, match=r"part-|SHA-256"):
        evaluate(store, run_id)
    store.write(f"{made.folder}/manifest.json", b"{}")
    with pytest.raises(RefusedError, match="lnln simulate small"):
        evaluate(store, run_id)


def test_a_simulator_of_other_widths_is_refused(store: Store, manifest: FeatureManifest, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(open_model(store, simulated_run(store, manifest)).folder, folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    features = json.loads((folder / "features.json").read_text())
    features["spec"]["simulated_text_dim"] = 31
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(RefusedError, match="simulated_text_dim 32, its model takes 31"):
        simulator_of(open_model(store, str(folder)))
    del features["simulation"]
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(RefusedError, match="does not say which simulated text"):
        text_source(store, open_model(store, str(folder)), manifest)


def test_a_model_that_reads_none_has_no_source(store: Store, manifest: FeatureManifest) -> None:
    run_id = finished_run(store, manifest)
    assert text_source(store, open_model(store, run_id), manifest) is None
    inputs = model_inputs(store, manifest, load_run(store, run_id).config.model)
    assert inputs.simulation is None and inputs.spec() == manifest.spec() and TINY["model"]["hidden_dim"] == 16
    assert inputs.read_split(store, "test").simulated_text is None
