"""Several drivers on one study: at once, one after another that was killed, and after one that was stopped for long.

Each is a process of its own. Most run trials that are no trainings, so that there is time for many ends; the last runs
`tune` itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lnln.data.lease import LEASE_FILE
from lnln.data.store import Store
from tests.finished_run import TINY, small_corpus
from tuning.record import load_study
from tuning.storage import open_storage

pytestmark = pytest.mark.slow

ID = "sample-lnln-0123456789ab"

# Says what it does: `begins N` when a trial runs, `ends N` when it is saved, `refused ...` where it may not.
DRIVER = """
import sys, time
import optuna
from optuna.trial import TrialState
from lnln.data import lease
from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.storage import open_storage

study_id, url, database, num_trials, seconds, lease.LEASE_SECONDS = *sys.argv[1:4], *map(float, sys.argv[4:])
optuna.logging.set_verbosity(optuna.logging.ERROR)
try:
    with open_storage(Store(url), study_id, database) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name=study_id, load_if_exists=True)
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        while len(study.get_trials(states=(TrialState.COMPLETE,))) < num_trials:
            trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
            print("begins", trial.number, flush=True)
            for step in range(10):
                time.sleep(seconds / 10)
                trial.report(trial.params["x"], step)
            study.tell(trial, trial.params["x"])
            storage.save()
            print("ends", trial.number, flush=True)
except RefusedError as refusal:
    print("refused", refusal, flush=True)
    sys.exit(3)
"""


class Driver:
    """Runs trials until the study has `num_trials`, each for `seconds`."""

    def __init__(self, arguments: list[str], cache: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, ID, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LNLN_CACHE": str(cache)},
        )
        self.lines: list[str] = []

    def until(self, begin: str) -> None:
        """Read on to the first line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(begin):
                return
        pytest.fail(f"no line {begin!r} in {self.lines}")

    def end(self) -> int:
        """Its exit status: 0, or 3 where it was refused."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Place:
    """A store, a database or none, and a cache for each of two machines."""

    def __init__(self, folder: Path, store: str, database: str, stack: ExitStack) -> None:
        self.folder, self.store, self.database, self._stack = folder, store, database, stack

    def drive(self, num_trials: int, *, machine: str = "one", seconds: float = 0.2, lease_seconds: float = 8) -> Driver:
        arguments = [self.store, self.database, *map(str, (num_trials, seconds, lease_seconds))]
        driver = Driver(arguments, self.folder / f"cache-{machine}")
        self._stack.callback(driver.kill)
        return driver

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """As a driver that comes after all others finds them."""
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("LNLN_CACHE", str(self.folder / "cache-last"))
            with open_storage(Store(self.store), ID, self.database) as storage:
                return optuna.load_study(storage=storage.optuna, study_name=ID).trials


def _stop(pid: int, folder: Path) -> None:
    """SIGSTOP, not while it has the lock that others need: of a file below `folder`, or of the whole database."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        while _state(pid) != "T":
            time.sleep(0.01)
        if not list(folder.rglob(f".{LEASE_FILE}.lock")) and not list(folder.rglob("*.db-journal")):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.02)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(params=["folder", "bucket", "database"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    store, database = str(tmp_path / "store"), ""
    if request.param == "bucket":
        store = request.getfixturevalue("s3_store_url")
    if request.param == "database":
        database = f"sqlite:///{tmp_path / 'optuna.db'}"
    with ExitStack() as stack:
        yield Place(tmp_path, store, database, stack)


def _ended(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("ends")]


def _require_complete(trials: list[optuna.trial.FrozenTrial], ended: list[str]) -> None:
    """Three, which are those that drivers said to have ended; the one that was interrupted has failed. Of a journal in
    a bucket, another machine has seen no trial that had not ended."""
    complete = [trial.number for trial in trials if trial.state == TrialState.COMPLETE]
    assert [f"ends {number}" for number in complete] == ended
    assert len(complete) == 3
    assert [trial.state for trial in trials if trial.number not in complete] in ([], [TrialState.FAIL])


def test_of_two_at_once_one_is_refused_and_nothing_is_lost(place: Place) -> None:
    drivers = [place.drive(4, machine=machine, seconds=1) for machine in ("one", "other")]
    assert sorted(driver.end() for driver in drivers) == [0, 3]
    first, second = sorted(drivers, key=lambda driver: driver.process.returncode)
    assert _ended(first.lines) == [f"ends {number}" for number in range(4)]
    assert len(second.lines) == 1
    assert second.lines[0].startswith(f"refused study {ID}")
    assert f"is being run by another process (process {first.process.pid} on " in second.lines[0]
    assert [trial.state for trial in place.trials()] == [TrialState.COMPLETE] * 4


def test_a_killed_one_is_followed_at_once(place: Place) -> None:
    first = place.drive(3, seconds=1)
    first.until("begins 1")
    first.process.kill()
    second = place.drive(3, lease_seconds=600)  # nobody waits for the dead
    assert second.end() == 0
    assert _ended(second.lines) == ["ends 2", "ends 3"]
    complete, failed = TrialState.COMPLETE, TrialState.FAIL
    assert [trial.state for trial in place.trials()] == [complete, failed, complete, complete]


@pytest.mark.parametrize("place", ["bucket"], indirect=True)
def test_a_stopped_one_that_was_followed_writes_nothing_more(place: Place) -> None:
    first = place.drive(3, seconds=1)
    first.until("begins 1")
    _stop(first.process.pid, place.folder)
    second = place.drive(3, machine="other", lease_seconds=2)
    assert second.end() == 0
    before = place.trials()
    first.process.send_signal(signal.SIGCONT)
    assert first.end() == 3
    assert first.lines[-1].startswith(f"refused study {ID}"), first.lines
    assert _ended(first.lines) == ["ends 0"]
    assert place.trials() == before
    _require_complete(before, ["ends 0", *_ended(second.lines)])


def test_one_that_is_stopped_and_goes_on_while_another_works_disturbs_nobody(place: Place) -> None:
    """It goes on in the middle of the other's trials."""
    first = place.drive(3, seconds=1)
    first.until("begins 0")
    _stop(first.process.pid, place.folder)
    second = place.drive(3, machine="other", seconds=1, lease_seconds=2)
    second.until("begins")
    first.process.send_signal(signal.SIGCONT)
    assert first.end() == 3
    assert _ended(first.lines) == []
    assert second.end() == 0
    _require_complete(place.trials(), _ended(second.lines))


@pytest.mark.parametrize("place", ["folder", "database"], indirect=True)
def test_one_killed_again_and_again_at_any_moment_ends_in_the_end(place: Place) -> None:
    """However often, and wherever in its writing: each number of trials is reached once, and no trial twice."""
    for seconds in (0.02, 0.11, 0.17):
        driver = place.drive(3, seconds=0.1)
        driver.until("begins")
        time.sleep(seconds)
        driver.kill()
    last = place.drive(3, seconds=0.1)
    assert last.end() == 0
    trials = place.trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 3
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    assert len({trial.params["x"] for trial in complete}) == 3
    assert all(trial.value == trial.params["x"] for trial in complete)


TUNE = """
import json, sys
from lnln.config import Config
from lnln.data import lease
from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.sweep import tune

lease.LEASE_SECONDS = 3.0
try:
    tune(Store(sys.argv[1]), "small", Config.from_dict(json.loads(sys.argv[2])), num_trials=3)
except RefusedError as refusal:
    print("refused", refusal, file=sys.stderr)
    sys.exit(3)
"""


def test_a_search_that_was_followed_while_it_was_stopped_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Ray and trainings, which go on while it is stopped."""
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    monkeypatch.setattr("lnln.data.lease.LEASE_SECONDS", 3.0)
    with ExitStack() as stack:
        search, err = _search(store, stack, tmp_path / "err")
        _wait_for(err, "trial 0 with", search)
        _stop(search.pid, tmp_path)
        (folder,) = (tmp_path / "store" / "studies").iterdir()
        storage = stack.enter_context(open_storage(store, folder.name, ""))
        names = ("study.json", "trials.parquet", "optuna.journal")
        before = {name: (folder / name).read_bytes() for name in names}
        search.send_signal(signal.SIGCONT)
        assert search.wait(timeout=150) == 3, err.read_text()
        storage.confirm()
        assert {name: (folder / name).read_bytes() for name in names} == before
    first, last = err.read_text().splitlines()
    assert first.startswith("trial 0 with") and first.endswith("1 of 3 done")
    assert last.startswith(f"refused study {folder.name} was taken over by another process (process {os.getpid()} on")
    (trial,) = load_study(store, folder.name).of_state("complete")
    with open_storage(store, folder.name, "") as storage:
        kept, *others = optuna.load_study(storage=storage.optuna, study_name=folder.name).trials
    assert (kept.state, kept.value) == (TrialState.COMPLETE, trial.values["mae"])
    assert all(other.state in (TrialState.RUNNING, TrialState.WAITING) for other in others)


def _search(store: Store, stack: ExitStack, err: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A driver in a process group of its own, and the file with what it says."""
    made = {**TINY, "train": {"batch_size": 64}, "tune": {"epochs": 1, "max_concurrent_trials": 1}}
    with err.open("wb") as file:
        search = subprocess.Popen(
            [sys.executable, "-c", TUNE, store.url, json.dumps(made)],
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    stack.callback(search.wait, timeout=30)
    stack.callback(_kill_group, search.pid)
    return search, err


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _wait_for(err: Path, begin: str, search: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 150
    while not any(line.startswith(begin) for line in err.read_text().splitlines()):
        assert search.poll() is None and time.monotonic() < deadline, err.read_text()
        time.sleep(0.05)
