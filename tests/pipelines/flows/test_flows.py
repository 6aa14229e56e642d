"""The data flows, run on an API of the test's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness

from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.flows import features as features_module
from pipelines.flows.features import artifact_key, features, settings_of_run
from pipelines.flows.views import views
from tests.clips import write_clip
from tests.corpora import mmsa_pickle


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
def test_the_sample_to_features_and_views_on_a_local_cluster(
    api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LNLN_DASK", "DASK_SCHEDULER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    url = str(tmp_path / "store")
    made = features("sample", store=url)
    manifest = read_features(Store(url), "sample")
    assert made == {
        "corpus": "sample",
        "feature_id": manifest.feature_id,
        "manifest": f"sample/features/{manifest.feature_id}/manifest.json",
        "digest": manifest.digest(),
        "num_utterances": {"train": 240, "valid": 60, "test": 60},
    }
    overrides = ["corruption.rates=[0.0, 0.5]", "train.epochs=1", "corruption.validation_rates=[0.5]"]
    assert len(views("sample", overrides=overrides, store=url)["view_ids"]) == 3

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%-sample")))
        keys = {artifact.key for artifact in found}
        assert keys == {"features-sample", "views-sample", "progress-features-sample", "progress-views-sample"}
        assert {artifact.data for artifact in found if artifact.type == "progress"} == {100.0}
        assert {run.name for run in client.read_flow_runs()} == {"features of sample", "views of sample"}


@pytest.mark.slow
def test_a_pickle_and_refusals(api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", "none")
    monkeypatch.setenv("LNLN_STORE", str(tmp_path / "store"))
    source = mmsa_pickle(tmp_path / "tiny.pkl", num=(12, 4, 5))
    made = features("My_tiny.corpus", source=str(source), text="ids", tokenizer="bert-base-chinese")
    assert made["num_utterances"] == {"train": 12, "valid": 4, "test": 5} and "num_quarantined" not in made
    assert read_features(Store(tmp_path / "store"), "My_tiny.corpus").tokenizer.name == "bert-base-chinese"
    with pytest.raises(RefusedError, match="no MMSA pickle"):
        features("other", source=str(tmp_path / "absent.pkl"))
    with pytest.raises(RefusedError, match="holds no corpus 'other'"):
        views("other")
    with pytest.raises(RefusedError, match="unknown config key"):
        views("My_tiny.corpus", overrides=["corruption.rate=1"])


@pytest.mark.slow
def test_clips_and_what_is_left_out(api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", "none")
    folder, url = tmp_path / "clips", str(tmp_path / "store")
    (folder / "Raw" / "v").mkdir(parents=True)
    write_clip(folder / "Raw" / "v" / "1.mkv", seconds=0.4)
    (folder / "Raw" / "v" / "2.mkv").write_bytes(b"no clip")
    (folder / "label.csv").write_text("video_id,clip_id,text,label,mode\nv,1,good,1,train\nv,2,bad,-1,test\n")
    overrides = ["audio.name=none", "vision.name=none"]
    made = features("Own_clips", clips=str(folder), overrides=overrides, store=url)
    assert made["num_utterances"] == {"train": 1} and made["num_quarantined"] == 1
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%-own-clips")))
        artifacts = {artifact.key: artifact for artifact in found}
    shown = {"features-own-clips", "extraction-own-clips", "quarantine-own-clips"}
    assert artifacts.keys() == {*shown, "progress-features-own-clips"}
    [row] = json.loads(str(artifacts["quarantine-own-clips"].data))
    assert row["utterance_id"] == "v$_$2" and row["reason"]
    assert "clips quarantined" in str(artifacts["extraction-own-clips"].data)
    assert "raw clips" in str(artifacts["features-own-clips"].description)
    with pytest.raises(RefusedError, match="no extractor of audio is called 'x'"):
        features("other", clips=str(folder), overrides=["audio.name=x"], store=url)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"source": "a.pkl", "clips": "folder"}, "from a pickle or from clips, got source a.pkl and clips folder"),
        ({"text": "ids"}, "no source is given"),
        ({"clips": "folder", "tokenizer": "bert-base-chinese"}, "no source is given"),
        ({"source": "a.pkl", "extractors": "sims"}, "no clips are given"),
        ({"overrides": ["vision.rate_hz=5"]}, "no clips are given"),
    ],
)
def test_parameters_that_would_be_ignored_are_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        features.fn("other", **parameters)


def test_artifact_keys_are_what_prefect_takes() -> None:
    assert artifact_key("features", "mosi") == "features-mosi"
    assert artifact_key("views", "My_tiny.corpus-") == "views-my-tiny-corpus"


@pytest.mark.parametrize(
    ("store", "is_refused"), [("./store", True), ("store", True), ("s3://bucket/x", False), ("/srv/store", False)]
)
def test_a_deployment_needs_a_store_that_outlives_it(
    monkeypatch: pytest.MonkeyPatch, store: str, is_refused: bool
) -> None:
    monkeypatch.setenv("LNLN_STORE", store)
    assert settings_of_run(None).store == store
    monkeypatch.setattr(features_module, "deployment", SimpleNamespace(id="1234"))
    if is_refused:
        with pytest.raises(RefusedError, match="store that outlives its run"):
            settings_of_run(None)
    else:
        assert settings_of_run(None).store == store
    assert settings_of_run("s3://other/place").store == "s3://other/place"
