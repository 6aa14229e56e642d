"""Publishing runs, pulling and loading models."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lnln
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.model_store import damaged_files, list_models, load, open_model, publish, pull
from lnln.model_store.catalog import read_model, resolve
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


def test_card_has_valid_metadata_and_the_table(run_store: RunStore, tmp_path: Path) -> None:
    evaluate(run_store.store, run_store.worse)
    publish(run_store.store, run_store.worse, "small-lnln")
    card = (pull(run_store.store, "small-lnln", tmp_path / "pulled") / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["language"] == ["en"] and "pytorch_model_hub_mixin" in metadata["tags"]
    assert {entry["type"] for entry in metadata["model-index"][0]["results"][0]["metrics"]} >= {"mae", "acc7"}
    assert "predict the train mean" in body and "| 0.5 |" in body and "synthetic" not in body


def test_synthetic_corpus_is_stated(run_store: RunStore, tmp_path: Path) -> None:
    path = f"runs/{run_store.worse}/model/features.json"
    features = {**run_store.store.read_json(path), "synthetic": True}
    _replace_model_file(run_store, "features.json", json.dumps(features).encode())
    publish(run_store.store, run_store.worse, "small-lnln")
    card = (pull(run_store.store, "small-lnln", tmp_path / "pulled") / "README.md").read_text()
    assert "corpus is synthetic" in card and "- synthetic" in card


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


def test_twenty_publishers_at_once(run_store: RunStore) -> None:
    runs = _many_runs(run_store.store, run_store, 20)
    with ThreadPoolExecutor(20) as pool:
        versions = list(pool.map(lambda run: publish(run_store.store, run, "race"), [*runs, *runs[:5]]))
    _check_race(run_store.store, runs, versions)


@pytest.mark.slow
def test_twenty_publishing_processes(run_store: RunStore) -> None:
    runs = _many_runs(run_store.store, run_store, 20)
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        versions = list(pool.map(_publish, [run_store.store.url] * 25, [*runs, *runs[:5]]))
    _check_race(run_store.store, runs, versions)


@pytest.mark.slow
def test_everything_on_s3(s3_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    store = Store(s3_store_url)
    manifest = small_corpus(store, tmp_path)
    first = finished_run(store, manifest)
    runs = _many_runs(store, RunStore(store, manifest, first, first), 20)
    with ThreadPoolExecutor(20) as pool:
        versions = list(pool.map(lambda run: publish(store, run, "race"), runs))
    _check_race(store, runs, versions)
    folder = pull(store, "race@best", tmp_path / "pulled")
    assert {entry.name for entry in folder.iterdir()} == FILES
    assert isinstance(lnln.load("race@v3", store=s3_store_url), LNLN)


def _publish(url: str, run: str) -> str:
    return publish(Store(url), run, "race")


def _many_runs(store: Store, run_store: RunStore, num: int) -> list[str]:
    """Runs that differ by id, score and one small file, not by a model that would take long to make."""
    template = run_store.worse
    made: dict[str, Any] = store.read_json(f"runs/{template}/run.json")
    result: dict[str, Any] = store.read_json(f"runs/{template}/result.json")
    files = {name: store.read(f"runs/{template}/model/{name}") for name in result["files"]}
    runs = []
    for number in range(num):
        run = f"{template}-{number}"
        for name, data in files.items():
            store.write(f"runs/{run}/model/{name}", data)
        store.write_json(f"runs/{run}/run.json", made)
        store.write_json(f"runs/{run}/result.json", {**result, "score": 2.0 - number / 100})
        runs.append(run)
    return runs


def _check_race(store: Store, runs: list[str], versions: list[str]) -> None:
    model = read_model(store, "race")
    assert model is not None and len(model.versions) == len(runs)
    by_run = {version.run_id: version.version for version in model.versions}
    assert versions == [by_run[run] for run in [*runs, *runs[:5]][: len(versions)]]
    assert sorted(by_run.values(), key=lambda v: int(v[1:])) == [f"v{i + 1}" for i in range(len(runs))]
    assert resolve(store, "race").run_id == runs[-1]
    assert not [path for version in model.versions for path in damaged_files(store, version)]


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
