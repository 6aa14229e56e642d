"""Dask workers that are killed in the middle of an import, of making views and of simulating text: the bytes are those
of a quiet run."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lnln.config import Config, CorruptionConfig, TrainConfig
from lnln.data.digest import digest_file
from lnln.data.store import Store
from lnln.verify import verify
from pipelines import ingest
from pipelines.corrupt import corrupt
from pipelines.execute import dask_client
from pipelines.ingest import import_corpus
from pipelines.settings import Settings
from pipelines.simulate import simulate
from pipelines.simulators import load_provider
from tests.corpora import mmsa_content
from tests.dask_processes import dask_processes

if TYPE_CHECKING:
    from distributed import Client

pytestmark = pytest.mark.slow

CONFIG = Config(
    corruption=CorruptionConfig(rates=(0.0, 0.5, 1.0), validation_rates=(0.0, 0.5)), train=TrainConfig(epochs=2)
)
# Of what is killed in the middle, it is the text encoder's work that is done first.
PROVIDER = load_provider("regressor", ["text_encoder=tiny", "num_steps=2"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "corpus.pkl"
    path.write_bytes(pickle.dumps(mmsa_content((200, 40, 40))))
    return path


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """About a hundred of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "SHARD_BYTES", 500)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> dict[str, tuple[int, str]]:
    """The size and SHA-256 of every file that one process leaves."""
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    import_corpus(store, source, "tiny")
    corrupt(store, "tiny", CONFIG)
    simulate(store, "tiny", PROVIDER)
    return digests(store)


def digests(store: Store) -> dict[str, tuple[int, str]]:
    root = Path(store.url)
    return {
        str(path.relative_to(root)): digest_file(path)
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")  # what a killed process was writing
    }


def num_shards(store: Store, kind: str) -> int:
    return sum(1 for _ in Path(store.url, "tiny", kind).rglob("part-*.parquet"))


@contextmanager
def killing(kill: Callable[[], None], store: Store, kind: str, at: int) -> Iterator[list[int]]:
    """`kill` is called once there are `at` shards; what is yielded gets the number that there were right after."""
    found: list[int] = []

    def watch() -> None:
        while num_shards(store, kind) < at:
            if ended.wait(0.002):
                return
        kill()
        found.append(num_shards(store, kind))

    ended = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def run_through_deaths(
    store: Store, source: Path, client: Client, kill: Callable[[], None], expected: dict[str, tuple[int, str]]
) -> None:
    """Import, views and simulated text, each with a death in the middle of it."""
    stages: dict[str, Callable[[], object]] = {
        "features": lambda: import_corpus(store, source, "tiny", client),
        "views": lambda: corrupt(store, "tiny", CONFIG, client),
        "simulated": lambda: simulate(store, "tiny", PROVIDER, client),
    }
    for kind, run_stage in stages.items():
        total = sum(name.startswith(f"tiny/{kind}/") and name.endswith(".parquet") for name in expected)
        with killing(kill, store, kind, total // 4) as found:
            run_stage()
        assert len(found) == 1 and total // 4 <= found[0] < total, "killed in the middle of the stage"
    assert digests(store) == expected
    assert verify(store, "tiny")


def test_workers_of_a_local_cluster(tmp_path: Path, source: Path, undisturbed: dict[str, tuple[int, str]]) -> None:
    with dask_client(Settings(dask="local")) as client:
        assert client is not None
        died: list[int] = []

        def kill() -> None:
            """One of those that are there; Dask starts another in its place."""
            deadline = time.monotonic() + 60
            while not (alive := [pid for pid in client.run(os.getpid).values() if pid not in died]):
                assert time.monotonic() < deadline
            os.kill(alive[0], signal.SIGKILL)
            died.append(alive[0])

        run_through_deaths(Store(tmp_path / "store"), source, client, kill, undisturbed)
        assert len(set(died)) == 3


def test_workers_that_are_commands_of_their_own(
    tmp_path: Path, source: Path, undisturbed: dict[str, tuple[int, str]]
) -> None:
    """Nobody starts those that die again, but for one that joins late."""
    with (
        dask_processes(tmp_path, num_workers=2) as processes,
        dask_client(Settings(dask=processes.address)) as client,
    ):
        assert client is not None
        client.wait_for_workers(2, timeout=60)
        died: list[int] = []

        def kill() -> None:
            processes.workers[len(died)].kill()
            died.append(processes.workers[len(died)].wait())
            processes.add_worker()

        run_through_deaths(Store(tmp_path / "store"), source, client, kill, undisturbed)
        assert died == [-signal.SIGKILL] * 3
