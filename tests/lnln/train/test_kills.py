"""Runs that are killed, starved and cut off in the middle, and end as if nothing had been."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from lnln.config import Config
from lnln.data.store import Store
from lnln.runs import (
    Run,
    damaged_selection_weights,
    load_run,
    selection_file,
    selection_weights,
)
from tests.faulty_proxy import FaultyProxy
from tests.finished_run import small_corpus
from tests.lnln.train.started_run import StartedRun, make_config, started, untimed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

EPOCHS = 4


def config_of_all() -> Config:
    """With all that a checkpoint may hold; 10 steps an epoch."""
    return make_config(epochs=EPOCHS, batch_size=4, average_decay=0.9, num_checkpoints=3, selection="published")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Store]:
    """A run of two workers."""
    folder = tmp_path_factory.mktemp("undisturbed")
    store = Store(folder / "store")
    small_corpus(store, folder)
    with pytest.MonkeyPatch.context() as patch, started_in(patch, store, config_of_all(), 2) as run:
        out, err = run.end()
        assert run.process.returncode == 0 and out.strip() == run.run_id, err
        assert run.remaining() == []
    return load_run(store, run.run_id), store


@contextmanager
def started_in(
    patch: pytest.MonkeyPatch, store: Store, config: Config, num_workers: int | tuple[int, int] = 1
) -> Iterator[StartedRun]:
    patch.setenv("OMP_NUM_THREADS", "1")
    with started(store, "small", config, num_workers) as run:
        yield run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    return store


def assert_as_undisturbed(store: Store, undisturbed: tuple[Run, Store]) -> None:
    theirs, their_store = undisturbed
    mine = load_run(store, theirs.run_id)
    assert untimed(mine) == untimed(theirs) and mine.files == theirs.files
    assert (mine.best_epoch, mine.score, mine.num_workers) == (theirs.best_epoch, theirs.score, theirs.num_workers)
    assert selection_weights(mine) == selection_weights(theirs) != {}
    assert damaged_selection_weights(store, mine) == []
    kept = {path.name for path in Path(store.url, mine.folder, "selected-on-test").iterdir()}
    assert kept == {selection_file(epoch) for epoch in selection_weights(mine)}
    checkpoints, as_before = (
        {path.name for path in Path(each.url, mine.folder, "ray").glob("epoch-*")} for each in (store, their_store)
    )
    assert checkpoints == as_before and len(checkpoints) <= 3
    assert {f"epoch-{EPOCHS:04d}", f"epoch-{mine.best_epoch:04d}"} <= checkpoints


def has_trained(run: StartedRun, epochs: int) -> bool:
    return run.store.exists(f"{run.folder}/run.json") and run.num_epochs >= epochs


def test_a_lost_worker_costs_an_epoch_and_nothing_else(
    store: Store, undisturbed: tuple[Run, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0

    def goes_on(epochs: int) -> bool:
        nonlocal most
        most = max(most, len(run.checkpoints()))
        return run.num_epochs >= epochs and len(run.workers()) == 2

    with started_in(monkeypatch, store, config_of_all(), 2) as run:
        run.wait_for(partial(goes_on, 2))
        os.kill(run.workers()[0], signal.SIGKILL)
        run.wait_for(partial(goes_on, EPOCHS - 1))
        out, err = run.end()
        assert run.process.returncode == 0 and out == f"{run.run_id}\n", err
        assert run.remaining() == []
    said = re.findall(r"^worker [01] was lost \(its process ended\); continuing after epoch (\d)$", err, re.MULTILINE)
    assert len(said) == 1 and int(said[0]) >= 1, err
    assert len(err.splitlines()) == 1 + EPOCHS + 1, err
    assert most <= 3 + 1, "the one that is being written is one more than are kept"
    assert_as_undisturbed(store, undisturbed)


def test_a_killed_driver_leaves_nothing_and_the_same_call_continues(
    store: Store, undisturbed: tuple[Run, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_in(monkeypatch, store, config_of_all(), 2) as run:
        run.wait_for(partial(has_trained, run, 1))
        time.sleep(random.uniform(0, 1))  # anywhere in what follows
        run.kill()
        assert run.remaining() == []
        done = run.num_epochs
        # What Ray did not get to know is in the way of nothing.
        store.write(f"{run.folder}/ray/epoch-0777/state.json", b"{")
        store.write(f"{run.folder}/selected-on-test/epoch-0777.safetensors", b"{")
    with started_in(monkeypatch, store, config_of_all(), 2) as run:
        out, err = run.end()
        assert run.process.returncode == 0 and out == f"{run.run_id}\n", err
    known = re.search(r"continuing after epoch (\d) with 2 workers", err)
    assert known is not None and int(known[1]) >= done, "an epoch that ended is not trained again"
    assert_as_undisturbed(store, undisturbed)


@contextmanager
def small_disk(folder: Path, num_mebibytes: int) -> Iterator[Path]:
    """A file system of this size at `folder`."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_mebibytes}m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all that is free, however much others write meanwhile."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
    return path


def test_a_full_disk_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(epochs=200, batch_size=2, num_checkpoints=1)
    monkeypatch.setenv("LNLN_PATIENCE_SECONDS", "15")
    with small_disk(tmp_path / "disk", 64) as disk:
        store = Store(disk / "store")
        small_corpus(store, tmp_path)
        with started_in(monkeypatch, store, config) as run:
            run.wait_for(lambda: run.num_epochs >= 1)
            filler = fill(disk)
            run.wait_for(lambda: "trying again for 15 s" in run.said())
            filler.unlink()
            run.wait_for(lambda: "was written after" in run.said())
            emptied = run.num_epochs
            run.wait_for(lambda: run.num_epochs > emptied + 1)
            fill(disk)
            _, err = run.end()
        *earlier, last = err.splitlines()
        assert run.process.returncode == 1 and "Traceback" not in err
        refused = re.fullmatch(
            r"refused: the checkpoint of epoch (\d+) cannot be written: .*No space left on device.*"
            r"MiB are free in .*; make room, and the same command continues after epoch (\d+)",
            last,
        )
        assert refused is not None and int(refused[1]) == int(refused[2]) + 1, err
        assert sum("trying again for 15 s" in line for line in earlier) == 2, err
        assert f"epoch-{int(refused[1]):04d}" not in run.checkpoints()
        assert list(disk.rglob("*.part")) == []


def test_a_store_that_is_away_is_waited_for_and_then_refused(
    tmp_path: Path, s3_store_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(epochs=200, batch_size=2, num_checkpoints=1)
    store = Store(s3_store_url)  # which this process goes on to ask past the proxy
    small_corpus(store, tmp_path)
    monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "1")
    monkeypatch.setenv("LNLN_PATIENCE_SECONDS", "12")
    with FaultyProxy(s3_endpoint, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with started_in(monkeypatch, store, config) as run:
            run.wait_for(lambda: run.num_epochs >= 1)
            proxy.kinds, proxy.rate = ("reset",), 1.0
            run.wait_for(lambda: "trying again for 12 s" in run.said())
            proxy.be_good()
            run.wait_for(lambda: "was written after" in run.said())
            known = run.num_epochs
            run.wait_for(lambda: run.num_epochs > known + 1)
            proxy.kinds, proxy.rate = ("reset",), 1.0
            _, err = run.end()
            known = run.num_epochs
    *earlier, last = err.splitlines()
    assert run.process.returncode == 1 and "Traceback" not in err
    refused = re.fullmatch(
        r"refused: the checkpoint of epoch (\d+) cannot be written: store s3://.*; make room, and the same command "
        r"continues after epoch (\d+)",
        last,
    )
    assert refused is not None and int(refused[2]) in (known, known + 1), err
    assert sum("trying again for 12 s" in line for line in earlier) == 2, err
