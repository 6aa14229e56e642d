"""Twenty publishers at once: no version is lost or overwritten, every alias is right at the end."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import lnln
from lnln.data.store import Store
from lnln.model_store import damaged_files, publish, pull, resolve
from lnln.model_store.catalog import read_model
from lnln.models import LNLN
from tests.faulty_proxy import FaultyProxy
from tests.finished_run import finished_run, small_corpus
from tests.lnln.conftest import RunStore
from tests.lnln.model_store.publishers import CONTEXT, publish_alone, publish_at_once

NUM_PUBLISHERS = 20


def many_runs(store: Store, template: str, num: int = NUM_PUBLISHERS) -> list[str]:
    """Runs that differ by id and scores, not by a model that would take long to make: the later, the lower its MAE and
    its correlation."""
    made: dict[str, Any] = store.read_json(f"runs/{template}/run.json")
    result: dict[str, Any] = store.read_json(f"runs/{template}/result.json")
    files = {name: store.read(f"runs/{template}/model/{name}") for name in result["files"]}
    runs = []
    for number in range(num):
        run = f"{template}-{number}"
        for name, data in files.items():
            store.write(f"runs/{run}/model/{name}", data)
        score, correlation = 2.0 - number / 100, 0.5 - number / 100
        validation = {"0.0": {"mae": score, "corr": correlation}}
        store.write_json(f"runs/{run}/run.json", made)
        store.write_json(f"runs/{run}/result.json", {**result, "score": score, "validation": validation})
        runs.append(run)
    return runs


def check_race(store: Store, runs: Sequence[str], versions: Sequence[str]) -> None:
    """versions: what publishing each of `runs` returned."""
    model = read_model(store, "race")
    assert model is not None and len(model.versions) == len(runs)
    by_run = {version.run_id: version.version for version in model.versions}
    assert list(versions) == [by_run[run] for run in runs]
    assert sorted(by_run.values(), key=lambda v: int(v[1:])) == [f"v{i + 1}" for i in range(len(runs))]
    assert resolve(store, "race").run_id == runs[-1] and resolve(store, "race@best-corr").run_id == runs[0]
    stands: dict[str, str] = {}
    for move in model.history:
        assert stands.get(move.alias) == move.before
        stands[move.alias] = move.after
    assert stands == model.aliases
    assert not [path for version in model.versions for path in damaged_files(store, version)]


def test_twenty_threads(run_store: RunStore) -> None:
    runs = many_runs(run_store.store, run_store.worse)
    barrier = threading.Barrier(NUM_PUBLISHERS)

    def one(run: str) -> str:
        barrier.wait()
        return publish(run_store.store, run, "race")

    with ThreadPoolExecutor(NUM_PUBLISHERS) as pool:
        versions = list(pool.map(one, runs))
    check_race(run_store.store, runs, versions)
    assert [publish(run_store.store, run, "race") for run in runs[:5]] == versions[:5]


@pytest.mark.slow
def test_twenty_processes(run_store: RunStore) -> None:
    runs = many_runs(run_store.store, run_store.worse)
    check_race(run_store.store, runs, publish_at_once(run_store.store, runs, "race"))


@pytest.mark.slow
def test_twenty_processes_on_s3_and_what_comes_of_it(
    s3_endpoint: str, s3_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    store = Store(s3_store_url)
    runs = many_runs(store, finished_run(store, small_corpus(store, tmp_path)))
    check_race(store, runs, publish_at_once(store, runs, "race"))
    folder = pull(store, "race@best", tmp_path / "pulled")
    assert isinstance(LNLN.from_pretrained(folder), LNLN)
    assert isinstance(lnln.load("race@v3", store=s3_store_url), LNLN)
    with FaultyProxy(s3_endpoint, seed=0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        again = Store(s3_store_url)
        assert pull(again, "race@best", tmp_path / "pulled") == folder
        asked = {path.rpartition("/")[2] for _, path in proxy.requests}
    assert asked == {"catalog.json"}, "a second pull asks what `best` is, and for nothing else"


@pytest.mark.slow
def test_publishers_that_are_killed_leave_whole_versions_or_none(run_store: RunStore) -> None:
    store, chance = run_store.store, random.Random(0)
    runs = many_runs(store, run_store.worse, 12)
    for run in runs[:8]:
        process = CONTEXT.Process(target=publish_alone, args=(store.url, run, "race", dict(os.environ)))
        process.start()
        time.sleep(chance.uniform(0.02, 0.25))
        process.kill()
        process.join(10)
        if (model := read_model(store, "race")) is not None:
            assert not [path for version in model.versions for path in damaged_files(store, version)]
    for run in runs:
        publish(store, run, "race")
    model = read_model(store, "race")
    assert model is not None
    assert sorted(version.run_id for version in model.versions) == sorted(runs)
    assert [version.version for version in model.versions] == [f"v{i + 1}" for i in range(len(runs))]
    assert resolve(store, "race").run_id == runs[-1] and resolve(store, "race@best-corr").run_id == runs[0]
    assert not [path for version in model.versions for path in damaged_files(store, version)]
