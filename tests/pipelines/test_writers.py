"""Two processes that import the same corpus at the same moment: one set of shards, one manifest, both end well."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from lnln.data.digest import read_digest
from lnln.data.manifest import list_corpora, read_features
from lnln.data.schema import SPLITS
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from pipelines import ingest, unfinished
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content

pytestmark = pytest.mark.slow

SHARD_BYTES = 500
NUM_ROUNDS = 4


def write(urls: Sequence[str], source: Path, start: Barrier, digests: Queue[str]) -> None:
    """In a process of its own: import `source` into each of the stores, as soon as the other one is ready to.

    In every other round it notes each shard it has written, in the file that the other one removes at its end.
    """
    ingest.SHARD_BYTES = SHARD_BYTES
    for number, url in enumerate(urls):
        unfinished.SAVE_EVERY_SECONDS = 0 if number % 2 else 1e9
        start.wait(60)
        digests.put(f"{url} {import_corpus(Store(url), source, 'tiny').digest()}")


def race(urls: Sequence[str], sources: Sequence[Path]) -> dict[str, set[str]]:
    """By store, the digests of the manifests that the writers, one for each source, were left with."""
    spawn = multiprocessing.get_context("spawn")
    start, digests = spawn.Barrier(len(sources)), spawn.Queue()
    writers = [spawn.Process(target=write, args=(urls, source, start, digests)) for source in sources]
    for writer in writers:
        writer.start()
    found: dict[str, set[str]] = {url: set() for url in urls}
    try:
        for _ in range(len(urls) * len(sources)):
            url, digest = digests.get(timeout=120).split(" ")
            found[url].add(digest)
        for writer in writers:
            writer.join(60)
    finally:
        for writer in writers:
            writer.kill()
    assert [writer.exitcode for writer in writers] == [0] * len(writers)
    return found


def contents(store: Store) -> dict[str, tuple[int, str]]:
    found = {}
    for file in store.list_files():
        with store.open(file.path) as stream:
            found[file.path] = read_digest(stream)
    return found


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Two corpora of one name, in about twenty shards each."""
    paths = []
    for seed in (0, 1):
        path = tmp_path / f"source-{seed}.pkl"
        path.write_bytes(pickle.dumps(mmsa_content((50, 10, 10), seed)))
        paths.append(path)
    return paths


@pytest.fixture(params=["folder", "S3"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Empty stores, one for each round."""
    base = request.getfixturevalue("s3_store_url") if request.param == "S3" else str(tmp_path / "store")
    return [f"{base}/{number}" for number in range(NUM_ROUNDS if request.param == "folder" else NUM_ROUNDS // 2)]


def test_two_writers_of_one_source(
    urls: list[str], sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", SHARD_BYTES)
    alone = Store(tmp_path / "alone")
    manifest = import_corpus(alone, sources[0], "tiny")
    assert sum(len(split.shards) for split in manifest.splits.values()) > 15
    for url, digests in race(urls, [sources[0]] * 2).items():
        assert digests == {manifest.digest()}
        assert contents(Store(url)) == contents(alone)


def test_two_writers_of_two_sources(
    urls: list[str], sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", SHARD_BYTES)
    alone = [Store(tmp_path / f"alone-{number}") for number in range(2)]
    manifests = [import_corpus(store, source, "tiny") for store, source in zip(alone, sources, strict=True)]
    by_id = {manifest.feature_id: manifest for manifest in manifests}
    for url, digests in race(urls, sources).items():
        assert digests == {manifest.digest() for manifest in manifests}
        store = Store(url)
        assert list_corpora(store) == ["tiny"]
        in_use = read_features(store, "tiny")
        assert in_use == by_id[in_use.feature_id]
        for manifest in manifests:
            assert read_features(store, "tiny", manifest.feature_id) == manifest
            assert damaged_shards(store, manifest) == []
            assert [len(read_split(store, manifest, split)) for split in SPLITS] == [50, 10, 10]
        assert contents(store).keys() == contents(alone[0]).keys() | contents(alone[1]).keys()
