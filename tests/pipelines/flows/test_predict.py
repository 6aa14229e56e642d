"""The `predict` flow, on an API of the test's own: a corpus, or shards; what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.dataset
import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness

from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.flows import predict as predict_module
from pipelines.flows.predict import predict
from tests.finished_run import finished_run, small_corpus


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.slow
def test_a_corpus_and_its_shards(api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", "none")
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path)
    run = finished_run(store, manifest)
    made = predict(run, corpus="small", split="all", missing_rate=[0.5, 0, 1], mask_seed=2, store=store.url)
    assert made["num_utterances"] == 66 and made["folder"].startswith(f"{store.url}/reports/predictions-")
    assert made["view"]["rates"] == [0.5, 0, 1] and made["view"]["seed"] == 2
    assert predict(run, corpus="small", split="all", missing_rate=[0.5, 0, 1], mask_seed=2, store=store.url) == {
        **made,
        "num_new": 0,
    }
    shard = f"{store.url}/{manifest.splits['test'].shards[0].path}"
    of_files = predict(run, shards=[shard], out=str(tmp_path / "said"), store=store.url)
    rows = pyarrow.dataset.dataset(str(tmp_path / "said"), format="parquet").to_table()
    assert of_files["num_utterances"] == len(rows) == manifest.splits["test"].shards[0].num_rows
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="predictions-%")))
        artifacts = {artifact.key: f"{artifact.description} {artifact.data}" for artifact in found}
        assert f"predict by {run}" in {flow_run.name for flow_run in client.read_flow_runs()}
    assert artifacts.keys() == {"predictions-small", "predictions-files"}
    assert "66" in artifacts["predictions-small"] and shard not in artifacts["predictions-small"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "of a corpus or of shards, got corpus None and shards None"),
        ({"corpus": "small", "shards": ["x"]}, "of a corpus or of shards, got corpus small"),
        (
            {"corpus": "small", "missing_rate": [0.5, 0.5]},
            r"one number or those of text, audio, vision, got \[0.5, 0.5\]",
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        predict.fn("model", **parameters)


def test_a_deployment_writes_to_what_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", "none")
    monkeypatch.setattr(predict_module, "deployment", SimpleNamespace(id="1234"))
    with pytest.raises(RefusedError, match="a folder that outlives its run, got the relative one said"):
        predict.fn("model", corpus="small", out="said", store=str(tmp_path))


@pytest.mark.slow
def test_an_unknown_model_is_refused(api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", "none")
    with pytest.raises(RefusedError, match="no run and no model"):
        predict("model", corpus="small", out=str(tmp_path / "said"), store=str(tmp_path))
