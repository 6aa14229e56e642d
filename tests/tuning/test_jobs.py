"""A study as a job of a Ray cluster: submitted once, followed through all that breaks, and what is refused."""

from __future__ import annotations

import io
import itertools
import json
import shlex
import socket
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.config import Config, load_config
from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from tests.finished_run import TINY, small_corpus
from tests.made_study import complete, failed, made_study, pruned
from tests.tuning.jobs_server import Job, JobsServer, jobs_server
from tuning import jobs
from tuning.jobs import UnreachableError, stop_study, submit_study
from tuning.record import save_study
from tuning.space import DEFAULT_SPACE, Range, Space, load_space
from tuning.sweep import study_id_for

REMOTE = "http://head.example:8265"
CONFIG = Config.from_dict({**TINY, "tune": {"epochs": 1}})
_seeds = itertools.count(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("jobs")
    made = Store(folder / "store")
    small_corpus(made, folder)
    return made


@pytest.fixture
def server() -> Iterator[JobsServer]:
    with jobs_server() as made:
        yield made


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOOK_SECONDS", 0.01)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


class Caller:
    """Calls with the arguments of one study of its own, `seed`, and what was said to each."""

    def __init__(self, store: Store, address: str, seed: int) -> None:
        self.config = replace(CONFIG, tune=replace(CONFIG.tune, seed=seed))
        self.address, self.store, self.said = address, store, list[str]()
        feature_id = read_features(store, "small").feature_id
        self.study_id = study_id_for("small", feature_id, self.config, DEFAULT_SPACE)

    def submit(self, **more: Any) -> list[str]:
        self.said = []
        submit_study(self.address, **{**self._arguments(), **more})
        return self.said

    def stop(self, **more: Any) -> list[str]:
        self.said = []
        stop_study(self.address, **{**self._arguments(), **more})
        return self.said

    def record(self, *trials: Any) -> None:
        save_study(self.store, replace(made_study(*trials), study_id=self.study_id))

    def _arguments(self) -> dict[str, Any]:
        return {
            "store_url": self.store.url,
            "corpus": "small",
            "config": self.config,
            "num_trials": 3,
            "say": self.said.append,
        }


@pytest.fixture
def caller(store: Store, server: JobsServer) -> Caller:
    return Caller(store, server.address, seed=next(_seeds))


def with_storage(url: str) -> Config:
    return replace(CONFIG, tune=replace(CONFIG.tune, storage_url=url))


@pytest.mark.parametrize(
    ("address", "arguments", "said"),
    [
        ("head:8265", {}, r"such as http://HOST:8265, got 'head:8265'"),
        ("ray://head:10001", {}, "such as http://HOST:8265"),
        ("http://", {}, "such as http://HOST:8265"),
        ("http://head:many", {}, "such as http://HOST:8265"),
        ("", {}, "such as http://HOST:8265, got ''"),
        ("http://me:secret@head:8265", {}, "must not hold a user or a password$"),
        (REMOTE, {}, r"is a folder of this machine, which the cluster at http://head\.example:8265 does not see"),
        (REMOTE, {"config": with_storage("postgresql://me:secret@db/x")}, "holds a password"),
        (REMOTE, {"store_url": "s3://b/p", "config": with_storage("sqlite:////srv/x.db")}, "a file that the cluster"),
        ("http://127.0.0.1:9", {"config": with_storage("sqlite:///x.db")}, "a file that the cluster"),
        ("http://127.0.0.1:9", {"num_trials": 0}, "1 trial or more, got 0"),
        ("http://127.0.0.1:9", {"corpus": "absent"}, "absent"),
        ("http://127.0.0.1:9", {"space": Space({"adversarial": Range(0.1, 0.2)})}, r"loss\.adversarial is 0\.8"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(
    store: Store, address: str, arguments: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"store_url": store.url, "corpus": "small", "config": CONFIG, "num_trials": 3}
    with pytest.raises(RefusedError, match=said) as refusal:
        submit_study(address, **{**given, **arguments})
    assert "\n" not in str(refusal.value) and "secret" not in str(refusal.value)
    assert not isinstance(refusal.value, UnreachableError)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.0.1"])
def test_a_cluster_of_this_machine_may_have_its_folders(store: Store, host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        caller = Caller(store, f"http://{host}:{free.getsockname()[1]}", seed=1)
        with pytest.raises(UnreachableError, match=rf"answers at {caller.address.replace('[', '.').replace(']', '.')}"):
            caller.submit(config=with_storage("sqlite:////srv/x.db"))


def test_nobody_there_is_said_in_one_line(store: Store) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        caller = Caller(store, f"http://127.0.0.1:{free.getsockname()[1]}", seed=1)
        with pytest.raises(UnreachableError, match=r"\(Connection refused\); give the address") as error:
            caller.submit()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "no dashboard of a Ray cluster answers"),
        (500, "no dashboard of a Ray cluster answers"),
        (None, "no dashboard of a Ray cluster answers"),
        (200, "no dashboard of a Ray cluster answers"),  # text that is no JSON
        (401, "wants a token; set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN here"),
        (403, "does not take our token"),
    ],
)
def test_an_answer_that_is_no_dashboards(server: JobsServer, caller: Caller, status: int | None, said: str) -> None:
    server.answers["/api/version"] = [status] * 3
    with pytest.raises(RefusedError, match=said) as error:
        caller.submit()
    assert "\n" not in str(error.value)
    assert not server.submitted


def test_what_is_sent_makes_the_same_study_and_holds_no_secret(
    server: JobsServer, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # `ray` itself would ask there instead
    space = Space({"adversarial": Range(0.1, 3.0, zero=0.1), "learning_rate": Range(1e-5, 1e-3)})
    caller.record(complete(0, 1.0))
    caller.submit(space=space, num_workers=2, gpus_per_worker=1 / 3, max_minutes=1.5, follow=False)

    [request] = server.submitted
    assert request["runtime_env"].keys() == {"working_dir"}
    assert not request.keys() & {"entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_resources"}
    threads, _, command = request["entrypoint"].partition("; exec ")
    words = shlex.split(command)
    assert threads == "unset OMP_NUM_THREADS"
    assert words[:4] == ["lnln", "--store", caller.store.url, "tune"] and words[-2:] == [">", "/dev/null"]
    options = dict(zip(words[5:-2:2], words[6:-2:2], strict=True))
    assert options == {
        "--trials": "3",
        "--config": "config.yaml",
        "--space": "space.yaml",
        "--workers": "2",
        "--gpus-per-worker": str(1 / 3),
        "--minutes": "1.5",
    }
    assert float(options["--gpus-per-worker"]) == 1 / 3

    [package] = server.packages.values()
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        assert set(archive.namelist()) == {"config.yaml", "space.yaml"}
        folder = Path(caller.store.url).parent / "sent"
        archive.extractall(folder)
        sent = b"".join(archive.read(name) for name in archive.namelist())
    assert load_config(str(folder / "config.yaml")) == caller.config
    assert load_space(folder / "space.yaml") == space
    assert b"hush" not in sent and "hush" not in json.dumps([server.submitted, server.headers])

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    caller.submit(num_trials=4, follow=False)
    assert server.submitted[1]["entrypoint"].startswith("export OMP_NUM_THREADS=3; exec lnln")


def test_names_with_spaces_stay_one_word(server: JobsServer, tmp_path: Path) -> None:
    spaced = Store(tmp_path / "a store; rm -rf x")
    small_corpus(spaced, tmp_path)
    Caller(spaced, server.address, seed=1).submit(follow=False)
    assert shlex.split(server.submitted[0]["entrypoint"].partition("exec ")[2])[2] == spaced.url


def test_one_job_at_a_time_and_none_for_what_is_done(server: JobsServer, caller: Caller, tmp_path: Path) -> None:
    server.next_job = Job(["PENDING"])
    caller.submit(follow=False)
    [name] = server.jobs
    caller.submit(follow=False)
    assert list(server.jobs) == [name] and "pending" in caller.said[0]

    caller.record(complete(0, 1.0), pruned(1, 2.0), failed(2))  # two count
    for ended in ("STOPPED", "FAILED", "SUCCEEDED"):  # the last by its time limit
        list(server.jobs.values())[-1].states = [ended]
        caller.submit(follow=False)
    assert list(server.jobs) == [name, f"{name}.2", f"{name}.3", f"{name}.4"]

    caller.record(complete(0, 1.0), pruned(1, 2.0), failed(2), complete(3, 1.0))
    list(server.jobs.values())[-1].states = ["FAILED"]
    assert caller.submit() == [f"study {caller.study_id} has 3 of 3 trials; more --trials continue it"]
    assert len(server.jobs) == 4
    caller.submit(num_trials=4, follow=False)
    assert len(server.jobs) == 5 and not list(server.jobs)[-1].startswith(name)

    other = Store(tmp_path / "other")  # the same study of another store is another job
    small_corpus(other, tmp_path)
    assert caller.submit(store_url=other.url, follow=False)[0].startswith("submitted")


@pytest.mark.parametrize("answer", [500, 503, None])
def test_an_answer_that_is_lost_makes_no_second_job(server: JobsServer, caller: Caller, answer: int | None) -> None:
    """None: the job is made, and nobody hears of it. Otherwise, as while a head starts, none is made at first."""
    server.answers = {"/api/jobs/": [404, answer]}  # first it is asked whether there is one
    caller.record(complete(0, 1.0))
    said = caller.submit()
    assert len(server.submitted) == len(server.jobs) == 1
    assert any(f"could not answer ({answer}: " in each for each in said) is (answer is not None)


def test_somebody_else_submits_at_the_same_moment(server: JobsServer, caller: Caller) -> None:
    caller.record(complete(0, 1.0))
    caller.submit(follow=False)
    [name] = server.jobs
    server.answers = {f"/api/jobs/{name}": [404]}  # not there yet when it is asked for
    caller.submit()
    assert len(server.submitted) == 1


LINES = ["trial 0: 1.2", "", "déjà vu", "trial 1 failed: {x}", "trial 2: 1.0"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 60), max_size=6).map(sorted),
    broken=st.lists(st.sampled_from([None, 500, 502]), max_size=3),
    ends_whole=st.booleans(),
)
def test_each_line_is_said_once_and_in_order(
    server: JobsServer, caller: Caller, cuts: list[int], broken: list[int | None], ends_whole: bool
) -> None:
    """However the log grows, in the middle of a line too, and whatever breaks meanwhile."""
    caller.record(complete(0, 1.0))
    server.jobs.clear()
    server.answers.clear()
    server.next_job = Job(["PENDING", *["RUNNING"] * len(cuts), "SUCCEEDED"], exit_code=0)
    caller.submit(follow=False)
    [name] = server.jobs
    text = "2026-11-21 INFO job_manager.py:568 -- Runtime env is setting up.\n"
    text += f"Running entrypoint for job {name}: lnln tune\n" + "\n".join(LINES) + "\n" * ends_whole
    server.jobs[name].logs = ["", *(text[:cut] for cut in cuts), text]
    server.answers = {f"{name}/logs": list(broken)}
    server.jobs[name].states = ["RUNNING"] * (len(broken) + len(cuts) + 2) + ["SUCCEEDED"]
    said = caller.submit()
    connection = [each for each in said if "the cluster at" in each or each.endswith("trying again for 600 s")]
    assert [each for each in said[1:] if each not in connection] == [each for each in LINES if each]
    assert len(connection) == (2 if broken else 0)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Job(["STOPPED"]), "was stopped; the same command continues the study"),
        (
            Job(["FAILED"], message="failed with exit code 1, last:\nx\nlnln: all 3 trials failed\n", exit_code=1),
            r"failed \(all 3 trials failed\)",
        ),
        (Job(["FAILED"], message="...\nTraceback\nKeyError: 'x'\n", exit_code=1), r"failed \(KeyError: 'x'\)"),
        (Job(["FAILED"], message="sh: lnln: not found", exit_code=127), "no command `lnln` where the head"),
        (Job(["FAILED"], message="trial 3 done", exit_code=-9), "ended by signal 9"),
        (Job(["FAILED"], message="trial 3 done", exit_code=137), "ended by signal 9"),
        (Job(["FAILED"], message="runtime_env setup failed:\n no space"), r"\(runtime_env setup failed: no space\)"),
        (Job(["FAILED"], message="", exit_code=1), "no reason given"),
    ],
)
def test_a_job_that_fails_says_why(server: JobsServer, caller: Caller, job: Job, said: str) -> None:
    server.next_job = replace(job, states=["RUNNING", *job.states], logs=["one\nlnln: all 3 trials failed\n"])
    with pytest.raises(RefusedError, match=said) as refusal:
        caller.submit()
    assert caller.said[1:] == ["one"] and "\n" not in str(refusal.value)


def test_a_log_that_went_with_its_machine_does_not_hide_the_end(server: JobsServer, caller: Caller) -> None:
    server.next_job = Job(["FAILED"], message="Job supervisor actor died: its node is dead")
    server.answers = {"/logs": [500] * 99}
    with pytest.raises(RefusedError, match="its node is dead"):
        caller.submit()


def test_a_study_that_is_not_in_the_store_is_no_success(server: JobsServer, caller: Caller) -> None:
    with pytest.raises(RefusedError, match=r"left no study .* same version of lnln here and there"):
        caller.submit()


def test_a_cluster_that_is_gone_is_given_up(
    server: JobsServer, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLN_PATIENCE_SECONDS", "0.2")
    server.next_job = Job(["RUNNING"])
    server.answers = {"/logs": [None, 500, 200, *[503] * 999]}
    with pytest.raises(UnreachableError, match=r"could not answer .*, for 0\.2 s; the same command goes on from here"):
        caller.submit()
    server.answers = {"/logs": [404]}
    with pytest.raises(RefusedError, match=r"refused \(404: "):
        caller.submit()


def test_a_head_that_was_started_anew_has_forgotten(server: JobsServer, caller: Caller) -> None:
    server.next_job = Job(["RUNNING"])
    caller.submit(follow=False)
    [name] = server.jobs
    server.jobs[name].logs = ["first\n", "first\n"]

    def forget(text: str) -> None:
        if text == "first":
            server.jobs.clear()

    with pytest.raises(RefusedError, match=r"knows job .* no more"):
        caller.submit(say=forget)


def test_closing_the_laptop_leaves_the_job(server: JobsServer, caller: Caller) -> None:
    server.next_job = Job(["RUNNING"], logs=["first\n"])
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        if text == "first":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caller.submit(say=interrupt)
    assert "goes on at" in said[-1] and "--stop" in said[-1]
    [job] = server.jobs.values()
    assert job.states == ["RUNNING"]


def test_stopping(server: JobsServer, caller: Caller) -> None:
    with pytest.raises(RefusedError, match="has no job small-lnln-"):
        caller.stop()
    server.next_job = Job(["RUNNING"])
    caller.submit(follow=False)
    [name] = server.jobs
    with pytest.raises(RefusedError, match="has no job"):
        caller.stop(num_trials=99)
    assert server.jobs[name].states == ["RUNNING"]
    assert caller.stop() == [f"job {name} is stopped; the same command without --stop continues the study"]
    assert caller.stop() == [f"job {name} had ended before (stopped)"]
    caller.submit(follow=False)
    assert list(server.jobs) == [name, f"{name}.2"]
    caller.stop()
    assert server.jobs[f"{name}.2"].states == ["STOPPED"]


def test_other_versions_of_ray_are_said(server: JobsServer, caller: Caller) -> None:
    server.ray_version = "2.58.0"
    caller.record(complete(0, 1.0))
    assert caller.submit()[0].endswith("here and 2.58.0 on the cluster, which runs the study with its own")
