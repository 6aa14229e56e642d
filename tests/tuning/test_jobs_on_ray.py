"""A study on a real Ray cluster: submitted from a laptop that is closed, seen to its end from another, and stopped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lnln.data.store import Store
from tests.command import LNLN, Outcome
from tests.finished_run import TINY, small_corpus
from tests.ray_head import RayHead, ray_head
from tuning.record import load_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="/proc: Linux"),
    pytest.mark.skipif(importlib.util.find_spec("opencensus") is None, reason="a dashboard: ray[default]"),
]

NUM_TRIALS = 1


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(num_cpus=2) as made:
        yield made


@dataclass
class Laptop:
    """`lnln tune small --submit`, with one study in `store`."""

    head: RayHead
    store: Store
    folder: Path

    def start(self, num_trials: int, name: str) -> subprocess.Popen[bytes]:
        """The command in a process of its own, whose lines go to the file `name`."""
        with (self.folder / name).open("wb") as err:
            return subprocess.Popen(
                self._command(num_trials), stdout=subprocess.DEVNULL, stderr=err, env=self._environment()
            )

    def run(self, num_trials: int, *options: str, environment: Mapping[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            [*self._command(num_trials), *options],
            capture_output=True,
            text=True,
            timeout=150,
            env={**self._environment(), **(environment or {})},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def wait_for(self, name: str, process: subprocess.Popen[bytes], has_said: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 120
        while not has_said(said := (self.folder / name).read_text()):
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        return said

    def _command(self, num_trials: int) -> list[str]:
        options = ["--config", str(self.folder / "tiny.yaml"), "--parallel", "1", "--submit", self.head.address]
        return [LNLN, "--store", self.store.url, "--json", "tune", "small", "--trials", str(num_trials), *options]

    def _environment(self) -> dict[str, str]:
        # RAY_ADDRESS of a laptop that has another cluster too.
        other = {"RAY_ADDRESS": "127.0.0.1:1", "OMP_NUM_THREADS": "1"}
        return {**os.environ, **self.head.environment, **other}


@pytest.fixture
def laptop(head: RayHead, tmp_path: Path) -> Laptop:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    values = {**TINY, "train": {"batch_size": 16}, "tune": {"epochs": 1, "pruning": "none"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    return Laptop(head, store, tmp_path)


def test_a_laptop_may_be_closed_and_another_one_opened(laptop: Laptop) -> None:
    first = laptop.start(NUM_TRIALS, "first")
    try:
        said = laptop.wait_for("first", first, lambda text: "submitted job " in text and text.endswith("\n"))
    finally:
        first.kill()
        first.wait()
    job = said.partition("submitted job ")[2].partition(" to ")[0]
    second = laptop.run(NUM_TRIALS)
    found = second.json
    assert f"job {job} is running" in second.err or f"job {job} is pending" in second.err
    numbers = [line.split()[1] for line in second.err.splitlines() if line.startswith("trial ")]
    assert numbers == ["0"], second.err
    study = load_study(laptop.store, found["study_id"])
    assert [trial.state for trial in study.trials] == ["complete"] * NUM_TRIALS
    assert "Traceback" not in second.err and "raylet" not in second.err

    third = laptop.run(NUM_TRIALS)
    assert third.json["study_id"] == study.study_id
    assert third.err == f"study {study.study_id} has 1 of 1 trials; more --trials continue it\n"
    assert load_study(laptop.store, study.study_id) == study

    more = laptop.start(50, "more")
    try:
        laptop.wait_for("more", more, lambda _: any(_drivers_of(laptop.store.url)))
        stopped = laptop.run(50, "--stop")
        assert stopped.code == 0 and "the same command without --stop continues the study" in stopped.err
        assert more.wait(timeout=30) == 1
    finally:
        more.kill()
        more.wait()
    assert "was stopped; the same command continues the study" in (laptop.folder / "more").read_text()
    assert not any(_drivers_of(laptop.store.url))
    kept = load_study(laptop.store, study.study_id)
    assert kept.trials[:NUM_TRIALS] == study.trials and len(kept.of_state("complete")) < 50


def test_who_is_not_let_in_is_told(laptop: Laptop) -> None:
    for environment, said in (
        ({"RAY_AUTH_TOKEN": "0" * 32}, "does not take our token"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token; set RAY_AUTH_MODE=token"),
    ):
        assert said in laptop.run(NUM_TRIALS, environment=environment).refusal
    assert not list(Path(laptop.store.url).glob("studies/*"))


def test_what_the_job_refuses_is_said_here(laptop: Laptop) -> None:
    """What only the cluster finds out, here that there are no GPUs, with the reason and nothing of Ray."""
    refused = laptop.run(NUM_TRIALS, "--gpus-per-worker", "0.5")
    assert "failed (" in refused.refusal and "GPU" in refused.refusal
    assert refused.refusal.endswith("the same command continues the study")
    assert [line.split()[:2] for line in refused.err.splitlines()[1:-1]] == [["trial", "0"]]


def _drivers_of(store_url: str) -> Iterator[int]:
    """Processes of jobs that search in this store."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if store_url in words and "config.yaml" in words:
            yield int(path.parent.name)
