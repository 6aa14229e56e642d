from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lnln.config import Config
from lnln.data.lock import only_one
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.runs import Run, run_folder, run_id_for
from lnln.train.controller import read_history
from lnln.train.launch import train
from lnln.train.seeds import (
    SeedsFailedError,
    _controllers,
    _end_training,
    finished_seeds,
    train_seeds,
    with_seed,
)
from lnln.train.session import ray_session
from tests.command import LNLN
from tests.finished_run import TINY, finished_run, small_corpus

SLOW = pytest.mark.slow

# 20 steps an epoch.
CONFIG = Config.from_dict({**TINY, "train": {"epochs": 6, "batch_size": 2, "learning_rate": 1e-3}})


@pytest.mark.parametrize(
    ("seeds", "options", "said"),
    [
        ([], {}, "got none"),
        ([1, 2, 1], {}, "expected different seeds, one or more, got 1, 2, 1"),
        ([1, -2], {}, "train.seed"),
        ([1, 2], {"num_parallel": 0}, "1 or more, got 0"),
        ([1, 2], {"num_workers": 0}, "1 or more, got 0"),
        ([1, 2], {"num_workers": (3, 2)}, "3 to 2"),
        ([1, 2], {"num_workers": 2, "gpus_per_worker": 0.5}, "cannot share a GPU"),
        ([1, 2], {"gpus_per_worker": 2.0}, "up to 1, got 2"),
    ],
)
def test_what_no_seed_could_be_trained_with_is_refused_at_once(
    store: Store, manifest: FeatureManifest, no_ray: None, seeds: list[int], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RefusedError, match=said) as refused:
        train_seeds(store, "small", CONFIG, seeds, **options)
    assert not isinstance(refused.value, SeedsFailedError)
    assert not Path(store.url, "runs").exists()


def test_an_unknown_corpus_is_refused_at_once(store: Store, no_ray: None) -> None:
    with pytest.raises(RefusedError, match="no corpus 'nothing'"):
        train_seeds(store, "nothing", CONFIG, [1, 2])


def test_finished_seeds_are_returned_without_ray_and_a_damaged_one_stops_no_other(
    store: Store, manifest: FeatureManifest, no_ray: None
) -> None:
    ids = {seed: finished_run(store, manifest, seed=seed, score=seed / 10) for seed in (1, 2, 3)}
    config = Config.from_dict(TINY)
    lines: list[str] = []
    runs = train_seeds(store, "small", config, [3, 1], progress=lines.append)
    assert [run.run_id for run in runs] == [ids[3], ids[1]] and lines == []
    assert finished_seeds(store, "small", config, [4, 3, 1]) == [3, 1]

    store.write(f"runs/{ids[2]}/result.json", b"{}")
    with pytest.raises(SeedsFailedError, match=f"^seed 2 failed: .*{ids[2]} is damaged") as failed:
        train_seeds(store, "small", config, [3, 2, 1])
    assert {seed: run.run_id for seed, run in failed.value.runs.items()} == {3: ids[3], 1: ids[1]}
    assert list(failed.value.reasons) == [2]


def test_seeds_that_failed_are_named_with_why() -> None:
    assert str(SeedsFailedError({}, {7: "a; b"})) == "seed 7 failed: a; b"
    several = SeedsFailedError({}, {7: "a", 8: "b", 9: "a"})
    assert str(several) == "seeds 7, 8 and 9 failed: 7: a; 8: b; 9: a"


def untimed(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in run.history]


def assert_same(mine: Run, theirs: Run) -> None:
    assert mine.run_id == theirs.run_id and mine.config == theirs.config
    assert mine.files == theirs.files and untimed(mine) == untimed(theirs)
    assert (mine.score, mine.best_epoch, mine.validation) == (theirs.score, theirs.best_epoch, theirs.validation)


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with ray_session(3):
            yield


@pytest.fixture(scope="module")
def single_runs(running_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """What `lnln train --seed` makes of each, one after the other."""
    folder = tmp_path_factory.mktemp("single")
    store = Store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LNLN_CACHE", str(folder / "cache"))
        small_corpus(store, folder)
        return {seed: train(store, "small", with_seed(CONFIG, seed), progress=None) for seed in (1, 2)}


def num_free_in_the_end() -> float:
    """Cores that are free once what has ended has let go of its own."""
    import ray

    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    return float(ray.available_resources().get("CPU", 0.0))


@SLOW
def test_an_interrupt_ends_all_runs_which_continue_at_once_and_one_that_fails_stops_no_other(
    store: Store, manifest: FeatureManifest, single_runs: dict[int, Run]
) -> None:
    import ray

    assert num_free_in_the_end() == 3
    lines: list[str] = []
    free: list[float] = []
    mutex = threading.Lock()

    def interrupt(line: str) -> None:
        free.append(ray.available_resources().get("CPU", 0))
        with mutex:  # two runs may say it at the same time
            is_first = "epoch 2/6" in line and not any("epoch 2/6" in each for each in lines)
            lines.append(line)
        if is_first:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_seeds(store, "small", CONFIG, [1, 2, 3], num_parallel=2, progress=interrupt)
    assert ray.is_initialized() and lines[0] == "3 seeds, 2 at a time"
    assert free[0] == 3 and min(free) < 3, "what waits for room would not see what is taken"
    assert not [thread for thread in threading.enumerate() if thread.name == "runs of seeds"]
    assert num_free_in_the_end() == 3, "a worker lives"
    assert finished_seeds(store, "small", CONFIG, [1, 2, 3]) == []

    lines.clear()
    held = run_id_for(with_seed(CONFIG, 4), "small", manifest)
    with (
        only_one(store, run_folder(held), "the test"),
        pytest.raises(SeedsFailedError, match=f"^seed 4 failed: run {held} is being run by another") as failed,
    ):
        train_seeds(store, "small", CONFIG, [4, 1, 2], num_parallel=3, progress=lines.append)
    assert list(failed.value.runs) == [1, 2] and list(failed.value.reasons) == [4]
    for seed, run in failed.value.runs.items():
        assert_same(run, single_runs[seed])
        assert any(line.startswith(f"seed {seed}: epoch 6/6") for line in lines)
    assert all(line.startswith("seed ") for line in lines)
    # The last to start was there before the first to end.
    begun = [index for index, line in enumerate(lines) if " with 1 worker" in line]
    assert len(begun) == 2 and begun[1] < min(index for index, line in enumerate(lines) if ": finished" in line)
    assert ray.is_initialized() and not [each for each in threading.enumerate() if each.name == "runs of seeds"]

    lines.clear()
    runs = train_seeds(store, "small", CONFIG, [2, 1], progress=lines.append)
    assert [run.config.train.seed for run in runs] == [2, 1] and lines == []


@SLOW
def test_a_lost_controller_leaves_its_place_to_the_next_seed(
    store: Store, manifest: FeatureManifest, running_ray: None
) -> None:

    lost: list[str] = []

    def kill(line: str) -> None:
        if "epoch 1/6" in line and not lost:
            lost.extend(_controllers())
            for actor_id in lost:
                _end_training(actor_id, is_late=True)

    with pytest.raises(SeedsFailedError, match=r"^seed 5 failed: .*controller was lost") as failed:
        train_seeds(store, "small", CONFIG, [5, 6], num_parallel=1, progress=kill)
    assert list(failed.value.runs) == [6] and len(lost) == 1
    assert num_free_in_the_end() == 3, "a place is lost"


def started(store: Store, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [LNLN, "--store", store.url, "--json", "train", "small", "--config", str(folder / "config.yaml")]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def processes_of(session: int) -> dict[int, str]:
    """Those that live, by their ids."""
    listed = subprocess.run(["ps", "-eo", "sess=,pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [row.split(maxsplit=3) for row in listed.splitlines()]
    return {int(row[1]): row[3] for row in rows if row[0] == str(session) and not row[2].startswith("Z")}


@SLOW
def test_the_command_that_is_interrupted_leaves_nothing_and_its_runs_continue(
    store: Store, manifest: FeatureManifest, single_runs: dict[int, Run], tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG.to_dict()))  # JSON is YAML
    folders = [f"runs/{single_runs[seed].run_id}" for seed in (1, 2)]
    process = started(store, tmp_path, "--seeds", "1,2", "--parallel", "2")
    try:
        deadline = time.monotonic() + 100
        while max(len(read_history(store, folder)) for folder in folders) < 1:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130 and out == "" and "Traceback" not in err, err
        deadline = time.monotonic() + 60
        while left := processes_of(process.pid):
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
    finally:
        for pid in processes_of(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    lines: list[str] = []
    for run in train_seeds(store, "small", CONFIG, [1, 2], progress=lines.append):
        assert_same(run, single_runs[run.config.train.seed])
    assert any("continuing after epoch" in line for line in lines)


def test_the_runs_have_the_ids_of_single_runs(store: Store, manifest: FeatureManifest) -> None:
    from lnln.config import config_for

    for seed in (0, 1111, 2**62):
        chosen = config_for("small", None, [f"train.seed={seed}"])
        assert with_seed(config_for("small", None, []), seed) == chosen
    assert read_features(store, "small") == manifest
