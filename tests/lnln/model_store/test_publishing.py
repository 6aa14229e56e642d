"""Publishing runs, pulling and loading models."""

from __future__ import annotations

import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml

import lnln
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, evaluate_suites
from lnln.model_store import Origin, damaged_files, list_models, load, open_model, publish, pull
from lnln.model_store.catalog import read_model, resolve
from lnln.model_store.scores import TEN_RATES_MASK_SEEDS
from lnln.models import LNLN
from tests.extracted_corpus import CONFIG, extracted_corpus
from tests.finished_run import finished_run, small_corpus
from tests.lnln.conftest import RunStore

FILES = {
    "README.md",
    "config.json",
    "features.json",
    "lineage.json",
    "manifest.json",
    "metrics.json",
    "model.safetensors",
    "tokenizer.json",
}


def test_published_run_comes_back_whole(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    assert publish(store, run_store.worse, "small-lnln") == "v1"
    folder = pull(store, "small-lnln@best", tmp_path / "pulled")
    assert folder == tmp_path / "pulled"
    assert {entry.name for entry in folder.iterdir()} == FILES
    assert (folder / "model.safetensors").read_bytes() == store.read(f"runs/{run_store.worse}/model/model.safetensors")
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["run_id"] == run_store.worse and lineage["manifest_digest"] == run_store.manifest.digest()
    assert lineage["selection"]["value"] == 1.3 and lineage["language"] == "en"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"] is None and metrics["validation"]["0.0"] == {"mae": 1.3}
    assert isinstance(LNLN.from_pretrained(folder), LNLN)


def test_publishing_twice_gives_the_same_version_whatever_was_scored_between(run_store: RunStore) -> None:
    store = run_store.store
    assert publish(store, run_store.worse, "small-lnln") == "v1"
    evaluate(store, run_store.worse)
    assert publish(store, run_store.worse, "small-lnln") == "v1"
    assert publish(store, run_store.better, "small-lnln") == "v2"
    assert resolve(store, "small-lnln").run_id == run_store.better
    assert publish(store, run_store.worse, "other-name") == "v1"
    assert [model.name for model in list_models(store)] == ["other-name", "small-lnln"]


def test_a_run_of_a_study_says_which_trial_it_is_of(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    publish(store, run_store.worse, "small-lnln", origin=Origin("small-lnln-0123456789ab", 7))
    publish(store, run_store.better, "small-lnln", origin=Origin("small-lnln-0123456789ab", None))
    for version, trial in (("v1", 7), ("v2", None)):
        entry = resolve(store, f"small-lnln@{version}")
        folder = pull(store, f"small-lnln@{version}", tmp_path / version)
        assert (entry.study_id, entry.trial) == ("small-lnln-0123456789ab", trial)
        lineage = json.loads((folder / "lineage.json").read_text())
        assert lineage["study"] == {"study_id": "small-lnln-0123456789ab", "trial": trial}
        assert "small-lnln-0123456789ab" in (folder / "README.md").read_text()
    # The same run again is the same version, with the lineage it has.
    assert publish(store, run_store.worse, "small-lnln") == "v1"
    assert resolve(store, "small-lnln@v1").trial == 7


def test_validation_scores_of_all_metrics_are_in_the_catalog(run_store: RunStore) -> None:
    store = run_store.store
    path = f"runs/{run_store.worse}/result.json"
    by_rate = {"0.0": {"mae": 1.0, "corr": 0.5, "acc7": 0.4, "loss": 3.0}, "0.5": {"mae": 1.5, "corr": 0.25}}
    store.write_json(path, {**store.read_json(path), "score": 1.25, "validation": by_rate})
    publish(store, run_store.worse, "small-lnln")
    version = resolve(store, "small-lnln@best-corr")
    assert version.validation_scores == {"mae": 1.25, "corr": 0.375} and version.selection_score == 1.25


def test_scores_on_other_corpora_are_published_with_those_on_its_own(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    small_corpus(store, tmp_path, "another")
    own = evaluate(store, run_store.worse)
    other = evaluate(store, run_store.worse, "another")
    publish(store, run_store.worse, "small-lnln")
    folder = pull(store, "small-lnln", tmp_path / "pulled")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"]["evaluation_id"] == own.evaluation_id
    assert {name: each["evaluation_id"] for name, each in metrics["other_corpora"].items()} == {
        "another": other.evaluation_id
    }
    card = (folder / "README.md").read_text()
    assert card.index("### On `small`") < card.index("### On `another`")


def test_the_suite_that_models_are_compared_on_comes_before_the_views_of_the_config(
    run_store: RunStore, tmp_path: Path
) -> None:
    store = run_store.store
    evaluate(store, run_store.worse)
    suite = evaluate_suites(store, run_store.worse, ["ten_rates"])["ten_rates"]
    assert suite.mask_seeds == TEN_RATES_MASK_SEEDS
    publish(store, run_store.worse, "small-lnln")
    metrics = json.loads((pull(store, "small-lnln", tmp_path / "pulled") / "metrics.json").read_text())
    assert metrics["test"]["evaluation_id"] == suite.evaluation_id and len(metrics["test"]["rates"]) == 10


def test_a_second_pull_reads_no_file_of_the_model(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    publish(store, run_store.worse, "small-lnln")
    folder = pull(store, "small-lnln", tmp_path / "pulled")
    written = {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()}
    shutil.rmtree(f"{store.url}/{resolve(store, 'small-lnln').folder}")
    assert pull(store, "small-lnln", folder) == folder
    assert {entry.name: entry.stat().st_mtime_ns for entry in folder.iterdir()} == written
    (folder / "config.json").unlink()
    with pytest.raises(RefusedError, match=r"config\.json is absent"):
        pull(store, "small-lnln", folder)


def test_loaded_model_says_what_the_run_says(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    model = lnln.load("small-lnln@v1", store=run_store.store.url)
    assert not model.training
    folder = pull(run_store.store, "small-lnln@v1", tmp_path / "pulled")
    for reference in (run_store.worse, "small-lnln", str(folder)):
        other = load(reference, run_store.store)
        for name, value in other.state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize(
    "reference",
    ["", "nothing", "small-lnln@best", "no/such/folder", "..", "../x@v1", "A@b", "a@@", "x" * 300, "ä", "."],
)
def test_unknown_references_are_refused_in_one_line(run_store: RunStore, reference: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        open_model(run_store.store, reference)
    assert "\n" not in str(refusal.value)


def test_unfinished_and_unknown_runs_are_not_published(run_store: RunStore) -> None:
    run_store.store.remove(f"runs/{run_store.worse}/result.json")
    for run in (run_store.worse, "nothing"):
        with pytest.raises(RefusedError):
            publish(run_store.store, run, "small-lnln")
    assert read_model(run_store.store, "small-lnln") is None and list_models(run_store.store) == []


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "catalog.json", "a b", "é", "x" * 65])
def test_bad_names_are_refused_before_anything_is_written(run_store: RunStore, name: str) -> None:
    with pytest.raises(RefusedError, match="model name"):
        publish(run_store.store, run_store.worse, name)
    assert not run_store.store.exists("models/catalog.json")


def test_damaged_run_is_not_published(run_store: RunStore) -> None:
    _flip(run_store.store, f"runs/{run_store.worse}/model/model.safetensors")
    with pytest.raises(RefusedError, match=r"model\.safetensors is damaged"):
        publish(run_store.store, run_store.worse, "small-lnln")
    assert list_models(run_store.store) == []


def test_damage_in_the_model_store_is_named_and_mended_by_publishing_again(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    publish(store, run_store.worse, "small-lnln")
    version = resolve(store, "small-lnln")
    assert damaged_files(store, version) == []
    _flip(store, f"{version.folder}/model.safetensors")
    store.remove(f"{version.folder}/config.json")
    with pytest.raises(RefusedError, match=r"(model\.safetensors is damaged|config\.json is absent)"):
        pull(store, "small-lnln", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    assert damaged_files(store, version) == [
        f"{version.folder}/{name}" for name in ("config.json", "model.safetensors")
    ]
    assert publish(store, run_store.worse, "small-lnln") == "v1"
    assert damaged_files(store, version) == []


def test_damaged_manifest_is_refused(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    publish(store, run_store.worse, "small-lnln")
    path = f"{resolve(store, 'small-lnln').folder}/manifest.json"
    content = store.read_json(path)
    content["files"]["config.json"]["sha256"] = "0" * 64
    store.write_json(path, content)
    with pytest.raises(RefusedError, match=r"manifest\.json is damaged"):
        pull(store, "small-lnln", tmp_path / "pulled")
    store.remove(path)
    with pytest.raises(RefusedError, match=r"manifest\.json is absent"):
        pull(store, "small-lnln", tmp_path / "pulled")


def test_damaged_cache_is_mended(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    opened = open_model(run_store.store, "small-lnln")
    (opened.folder / "model.safetensors").write_bytes(b"damaged")
    assert open_model(run_store.store, "small-lnln").weights_sha256 == opened.weights_sha256


def test_damaged_pulled_folder_is_refused_by_file(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    folder = pull(run_store.store, "small-lnln", tmp_path / "pulled")
    (folder / "config.json").write_text("{}")
    with pytest.raises(RefusedError, match=r"config\.json"):
        open_model(run_store.store, str(folder))


def test_a_publisher_that_dies_leaves_no_version(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store, write = run_store.store, Store.write

    def die(self: Store, path: str, data: bytes) -> None:
        if path.endswith("manifest.json"):
            raise KeyboardInterrupt
        write(self, path, data)

    monkeypatch.setattr(Store, "write", die)
    with pytest.raises(KeyboardInterrupt):
        publish(store, run_store.worse, "small-lnln")
    assert list_models(store) == []
    monkeypatch.undo()
    monkeypatch.setenv("LNLN_CACHE", store.url + "-cache")
    assert publish(store, run_store.worse, "small-lnln") == "v1"
    assert damaged_files(store, resolve(store, "small-lnln")) == []


def test_pullers_of_one_folder_agree(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    barrier = threading.Barrier(6)

    def one(_: int) -> Path:
        barrier.wait()
        return pull(run_store.store, "small-lnln", tmp_path / "pulled")

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(one, range(6))) == {tmp_path / "pulled"}
    assert {entry.name for entry in (tmp_path / "pulled").iterdir()} == FILES
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".pulled")]


def _flip(store: Store, path: str) -> None:
    data = bytearray(store.read(path))
    data[len(data) // 2] ^= 1
    store.write(path, bytes(data))


def _replace_model_file(run_store: RunStore, name: str, data: bytes) -> None:
    import hashlib

    folder = f"runs/{run_store.worse}"
    run_store.store.write(f"{folder}/model/{name}", data)
    result = run_store.store.read_json(f"{folder}/result.json")
    result["files"][name] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    run_store.store.write_json(f"{folder}/result.json", result)


def test_a_model_of_an_extracted_corpus_says_how_to_extract(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store
    run_id = finished_run(store, extracted_corpus(store, tmp_path))
    publish(store, run_id, "clips-lnln")
    folder = pull(store, "clips-lnln", tmp_path / "pulled")
    card = (folder / "README.md").read_text()
    assert "audio `tones` version 3" in card and "lnln predict clips-lnln clip.mp4" in card
    (config,) = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    assert yaml.safe_load(config) == CONFIG
    assert json.loads((folder / "lineage.json").read_text())["extraction"] == CONFIG
    assert open_model(store, str(folder)).features["extraction"] == CONFIG

    publish(store, run_store.worse, "small-lnln")
    imported = pull(store, "small-lnln", tmp_path / "imported")
    card = (imported / "README.md").read_text()
    assert "clip.mp4" not in card and "```yaml" not in card
    assert "extraction" not in json.loads((imported / "lineage.json").read_text())
