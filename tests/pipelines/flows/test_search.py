"""The `search` flow, on an API of the test's own: a job of a Ray cluster that is followed and cancelled, or here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Cancelling
from prefect.testing.utilities import prefect_test_harness

from lnln.config import load_config
from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.flows.search import search, search_on_cluster, summary
from tests.finished_run import TINY, small_corpus
from tests.made_study import PAPER, complete, failed, made_study, pruned
from tests.tuning.jobs_server import Job, JobsServer, jobs_server
from tuning import jobs
from tuning.record import load_study, save_study
from tuning.space import DEFAULT_SPACE, Space
from tuning.sweep import study_id_for

SPACE: dict[str, Any] = {"adversarial": {"low": 0.1, "high": 3.0, "zero": 0.1}}
STUDY = made_study(complete(0, 1.2, parameters=PAPER), complete(1, 1.1), pruned(2, 1.5), failed(3))


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsServer]:
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.01)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with jobs_server() as made:
        yield made


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    """Parameters of the flow: a corpus, a config that trains for seconds, a folder as the store."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "train": {"batch_size": 16, "epochs": 2}, "tune": {"epochs": 1}}))
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    return {"corpus": "small", "num_trials": 3, "config": str(path), "store": store.url}


def study_id(given: dict[str, Any], space: Space = DEFAULT_SPACE) -> str:
    manifest = read_features(Store(given["store"]), "small")
    return study_id_for("small", manifest.feature_id, load_config(given["config"]), space)


def record(given: dict[str, Any], space: Space = DEFAULT_SPACE) -> str:
    """A study of three trials and a failed one, as the job leaves it in the store."""
    made = replace(STUDY, study_id=study_id(given, space), corpus="small")
    save_study(Store(given["store"]), made)
    return made.study_id


@pytest.mark.slow
def test_a_study_on_a_cluster(
    api: None, server: JobsServer, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_on_cluster, "retry_delay_seconds", 0)
    on_cluster = {**given, "ray_jobs_address": server.address, "space": SPACE, "num_trials": 9}
    made_id = record(given, Space.from_dict(SPACE))
    server.next_job = Job(["RUNNING", "RUNNING", "SUCCEEDED"], logs=["", "trial 0: 1.2\n"], exit_code=0)
    server.answers = {"/api/version": [503, 503]}  # it does not answer at first, so the task is tried again
    found = search(**on_cluster, max_minutes=3)
    assert found["study_id"] == made_id
    assert found["num_trials"] == {"complete": 2, "pruned": 1, "failed": 1, "interrupted": 0, "running": 0}
    assert found["best"]["number"] == 1 and found["best"]["values"]["mae"] == 1.1
    [request] = server.submitted
    assert "--minutes 3" in request["entrypoint"] and "--trials 9" in request["entrypoint"]

    with get_client(sync_client=True) as client:
        assert "search on small" in {flow_run.name for flow_run in client.read_flow_runs()}
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%-small")))
    texts = {artifact.key: str(artifact.data) for artifact in artifacts}
    assert texts.keys() == {"study-small", "search-small"}
    assert f"lnln choose {made_id}" in texts["search-small"]

    server.next_job = Job(["FAILED"], message="lnln: corpus 'small' is unknown", exit_code=1)
    with pytest.raises(RefusedError, match="corpus 'small' is unknown"):
        search(**on_cluster)  # the first job ended by its time limit, so this is another one
    names = [request["submission_id"] for request in server.submitted]
    assert names == [names[0], f"{names[0]}.2"]  # what a cluster refuses is not tried again


@pytest.mark.slow
def test_a_run_that_is_cancelled_stops_its_job(api: None, server: JobsServer, given: dict[str, Any]) -> None:
    server.next_job = Job(["RUNNING"])
    on_cluster = {**given, "ray_jobs_address": server.address}
    [stop] = search.on_cancellation_hooks
    with get_client(sync_client=True) as client:
        flow_run = client.create_flow_run(search, parameters=on_cluster)
        here = client.create_flow_run(search, parameters=given)
        stop(flow=search, flow_run=here, state=Cancelling())  # nothing to stop
        assert server.num_requests == 0
        with pytest.raises(RefusedError, match="has no job"):
            stop(flow=search, flow_run=flow_run, state=Cancelling())
        jobs.submit_study(
            server.address,
            store_url=given["store"],
            corpus="small",
            config=load_config(given["config"]),
            num_trials=3,
            follow=False,
        )
        stop(flow=search, flow_run=flow_run, state=Cancelling())
    [job] = server.jobs.values()
    assert job.states == ["STOPPED"]


@pytest.mark.slow
def test_a_study_here(api: None, given: dict[str, Any]) -> None:
    found = search(**{**given, "num_trials": 1})
    study = load_study(Store(given["store"]), found["study_id"])
    assert [trial.state for trial in study.trials] == ["complete"] and study.trials[0].is_configured
    assert found["best"]["parameters"] == study.trials[0].parameters
    with pytest.raises(RefusedError, match="the space is empty"):
        search(**given, space={})
    with pytest.raises(RefusedError, match="1 trial or more"):
        search(**{**given, "num_trials": 0})


def test_the_summary_says_what_may_be_said() -> None:
    said = summary(STUDY)
    assert "| mae | 1.1000 | 1.2000 |" in said and "trial 0, as configured" in said
    assert "2 complete, 1 pruned, 1 failed; each trial trains with one seed" in said
    without = summary(replace(STUDY, trials=STUDY.trials[1:], seeds=(1, 2)))
    assert "as configured |" not in without and "with 2 seeds" in without
    with pytest.raises(RefusedError, match="no complete trial"):
        summary(replace(STUDY, trials=()))
