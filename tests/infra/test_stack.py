"""The whole cluster on this machine, and what a team does with it: deploy, run the chain, run it again, cancel, pull.

The tests share one stack, and go through its life in order.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.stack import stack
from infra.stack.parts import Layout, client_environment
from tests.command import LNLN
from tests.finished_run import TINY
from tests.infra.stacks import processes_of

# The first test of the module waits for the stack too.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = [each["name"] for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]
CONFIG: dict[str, Any] = {**TINY, "train": {"batch_size": 16, "epochs": 2}}
OVERRIDES = [f"{part}.{key}={json.dumps(value)}" for part, values in CONFIG.items() for key, value in values.items()]
CHAIN = {"corpus": "sample", "overrides": OVERRIDES, "num_workers": 2, "publish_as": "sample-lnln"}
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class Stack:
    """A stack that is up, as its users have it: through addresses."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.environment = client_environment(layout)
        self.store = self.environment["LNLN_STORE"]

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Prefect's answer to a GET, or with `body` to a POST."""
        url = f"{self.environment['PREFECT_API_URL']}/{path}"
        return ask(url, body, {})

    def ray(self, path: str) -> Any:
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        return ask(self.layout.url("ray-dashboard", path), None, {"Authorization": f"Bearer {token}"})

    def actors(self, name: str) -> list[dict[str, Any]]:
        found = self.ray("/api/v0/actors?detail=1&limit=1000")["data"]["result"]["result"]
        return [actor for actor in found if actor["class_name"] == name]

    def dask(self, what: str) -> int:
        return int(ask(self.layout.url("dask-status", "/json/counts.json"), None, {})[what])

    def start(self, flow: str, deployment: str, parameters: dict[str, Any]) -> str:
        """The id of a new run, which the Prefect worker takes up."""
        found = self.api(f"deployments/name/{flow}/{deployment}")
        state = {"type": "SCHEDULED", "message": "by a test"}
        body = {"parameters": parameters, "state": state, "idempotency_key": secrets.token_hex(8)}
        made = self.api(f"deployments/{found['id']}/create_flow_run", body)
        return str(made["id"])

    def cancel(self, run: str) -> None:
        answer = self.api(f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
        assert answer["status"] == "ACCEPT"

    def end_of(self, run: str, seconds: float = 240) -> dict[str, Any]:
        """The run, once it has ended; on its way to CANCELLED it may be CRASHED for a moment."""

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.api(f"flow_runs/{run}")
            return found if found["state"]["type"] in FINAL else None

        found: dict[str, Any] = self.wait(ended, seconds)
        return found

    def run(self, flow: str, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """A run that ended well."""
        found = self.end_of(self.start(flow, deployment, parameters))
        assert found["state"]["type"] == "COMPLETED", f"{found['state']}\n{self.log('prefect-worker')}"
        return found

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """By their keys, those of a run and of the runs that it called."""
        runs = {"operator": "or_", "id": {"any_": [run]}, "parent_flow_run_id": {"any_": [run]}}
        return {each["key"]: each for each in self.api("artifacts/filter", {"flow_runs": runs, "limit": 200})}

    def lnln(self, *arguments: str | Path) -> str:
        """What `lnln --json` of a shell that has read `stack.env` said."""
        command = '. "$0"; exec "$@"'
        words = ["sh", "-c", command, self.layout.folder / "stack.env", LNLN, "--json", *arguments]
        done = subprocess.run(words, capture_output=True, text=True, timeout=280, cwd=self.layout.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self, part: str) -> str:
        return (self.layout.folder / "log" / f"{part}.log").read_text()[-5000:]

    def wait(self, look: Callable[[], Any], seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < deadline, self.log("prefect-worker")
            time.sleep(0.5)
        return found


def ask(url: str, body: dict[str, Any] | None, headers: dict[str, str]) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:  # Prefect's database is locked, on a machine that is busy
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(1)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Nodes of one CPU each, so that the two workers of a run cannot be on one."""
    folder = tmp_path_factory.mktemp("team") / "stack"
    try:
        yield Stack(stack.up(folder, cpus_per_node=1, timeout_seconds=240))
    finally:
        stack.down(folder)


@pytest.fixture(scope="module")
def chain(team: Stack) -> dict[str, Any]:
    """The first run of the chain."""
    return team.run("nightly", "nightly", CHAIN)


def test_every_part_works_and_every_deployment_is_there(team: Stack) -> None:
    assert {sight.state for sight in stack.status(team.layout.folder)} == {"works"}

    def ready() -> list[dict[str, Any]]:
        """A deployment is, from when a worker has first asked for its runs."""
        found: list[dict[str, Any]] = team.api("deployments/filter", {})
        return found if all(each["status"] == "READY" for each in found) else []

    found = team.wait(ready, 60)
    assert sorted(each["name"] for each in found) == sorted(DEPLOYMENTS)
    for each in found:
        assert each["description"] and each["tags"]
        assert [schedule["active"] for schedule in each["schedules"]] == [False]
        assert all(one["description"] for one in each["parameter_openapi_schema"]["properties"].values())
    assert "2 nodes, 2 CPUs" in team.lnln("doctor")
    before = [(sight.name, sight.pid) for sight in stack.status(team.layout.folder)]
    started = time.monotonic()
    stack.up(team.layout.folder)
    assert time.monotonic() - started < 60
    assert [(sight.name, sight.pid) for sight in stack.status(team.layout.folder)] == before


def test_the_chain_from_a_corpus_to_a_published_model(team: Stack, chain: dict[str, Any]) -> None:
    assert chain["name"] == "nightly chain of sample"
    workers = team.actors("RayTrainWorker")
    assert len(workers) == 2 and len({worker["node_id"] for worker in workers}) == 2
    found = team.artifacts(chain["id"])
    for key in (
        "features-sample",
        "views-sample",
        "train-sample",
        "experiment-sample",
        "curve-sample",
        "nightly-sample",
    ):
        assert key in found
    assert found["curve-sample"]["type"] == "image" and found["curve-sample"]["data"].startswith("data:image/svg+xml")
    assert "/reports/sample-lnln/index.html" in found["report-sample-lnln"]["data"]
    assert found["progress-train-sample"]["type"] == "progress" and found["progress-train-sample"]["data"] == 100
    assert {row["new"] for row in json.loads(found["nightly-sample"]["data"])} == {"yes"}
    assert not [key for key in found if key.startswith("failure")]
    names = {run["name"] for run in team.api("flow_runs/filter", {})}
    assert {"features of sample", "views of sample", "train on sample"} <= names


def test_a_published_model_is_pulled_and_answers(team: Stack, chain: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    team.lnln("pull", "sample-lnln@best", folder)
    assert (folder / "model.safetensors").is_file()
    assert "sentiment" in team.lnln("predict", folder, "what a film")


def test_the_same_chain_again_does_nothing_and_says_so(team: Stack, chain: dict[str, Any]) -> None:
    before = contents(team)
    again = team.run("nightly", "nightly", CHAIN)
    after = contents(team)
    assert {path for path in after if after[path] != before.get(path)} <= {
        path for path in after if re.fullmatch(r"sample/(card.*|README.md|features/current.json)", path)
    }
    found = team.artifacts(again["id"])
    assert "nothing is new, nothing was done" in found["nightly-sample"]["description"]
    assert again["state"]["message"] == "nothing is new, nothing was done"
    assert again["total_run_time"] < 60
    assert len(team.actors("RayTrainWorker")) == 2  # those of the first


def contents(team: Stack) -> dict[str, str]:
    """The ETag of each file of the store."""
    from s3fs import S3FileSystem

    client = S3FileSystem(
        key="x", secret="x", endpoint_url=team.environment["AWS_ENDPOINT_URL"], use_listings_cache=False
    )
    prefix = team.store.removeprefix("s3://")
    return {path.removeprefix(f"{prefix}/"): info["ETag"] for path, info in client.find(prefix, detail=True).items()}


def test_a_training_that_is_cancelled_leaves_nothing_on_ray(team: Stack, chain: dict[str, Any]) -> None:
    run = team.start("train", "train", {**cancelled(), "num_workers": 2})
    running = team.wait(
        lambda: len([one for one in team.actors("RayTrainWorker") if one["state"] == "ALIVE"]) == 2, 180
    )
    assert running
    team.cancel(run)
    team.wait(lambda: team.api(f"flow_runs/{run}")["state"]["type"] == "CANCELLED", 120)
    team.wait(lambda: not living(team), 60)
    assert not [key for key in team.artifacts(run) if key.startswith("failure")]
    jobs = team.ray("/api/jobs/")
    assert jobs and all(job["status"] != "RUNNING" for job in jobs)


def cancelled() -> dict[str, Any]:
    overrides = [*OVERRIDES, "train.epochs=2000", "train.seed=7"]
    return {"corpus": "sample", "overrides": overrides}


def living(team: Stack) -> list[str]:
    names = ("RayTrainWorker", "TrainController", "SynchronizationActor")
    return [name for name in names for actor in team.actors(name) if actor["state"] != "DEAD"]


def test_views_that_are_cancelled_leave_nothing_on_dask(team: Stack, chain: dict[str, Any]) -> None:
    overrides = [*OVERRIDES, "train.epochs=1500", "corruption.num_stored_draws=1500"]
    run = team.start("views", "views", {"corpus": "sample", "overrides": overrides})
    team.wait(lambda: team.dask("tasks") > 0, 90)
    team.cancel(run)
    team.wait(lambda: team.api(f"flow_runs/{run}")["state"]["type"] == "CANCELLED", 120)
    team.wait(lambda: team.dask("tasks") == 0 and team.dask("processing") == 0, 30)


def test_a_failure_says_what_to_do(team: Stack, chain: dict[str, Any]) -> None:
    ended = team.end_of(team.start("views", "views", {"corpus": "absent"}))
    assert ended["state"]["type"] == "FAILED" and "holds no corpus 'absent'" in ended["state"]["message"]
    told = team.wait(lambda: team.artifacts(ended["id"]).get("failure-views"), 30)["data"]
    assert "holds no corpus" in told and "would be refused again" in told


def test_down_ends_all_and_up_has_what_was_stored(team: Stack, chain: dict[str, Any]) -> None:
    folder = team.layout.folder
    before = contents(team)
    ended = stack.down(folder)
    assert len(ended) == len(stack.status(folder))
    assert not processes_of(folder)
    assert not list((folder / "run").glob("*.json"))
    layout = stack.up(folder, deploy=False, timeout_seconds=240)
    assert layout.ports == team.layout.ports
    assert contents(team).keys() == before.keys()
    runs = {run["name"] for run in team.api("flow_runs/filter", {})}
    assert "nightly chain of sample" in runs
    assert "sample-lnln" in team.lnln("models")
