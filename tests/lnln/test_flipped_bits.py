"""A bit that flips in any file of a corpus is noticed by whoever reads that file, who names it; or it changes nothing,
as an `e` that becomes `E` in a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from lnln.config import Config
from lnln.data.manifest import FeatureManifest, ViewManifest, list_corpora, list_views, read_features, read_view
from lnln.data.shards import read_labels, read_lengths, read_shard, read_split
from lnln.data.store import Store
from lnln.data.view_shards import read_view_shard
from lnln.errors import RefusedError
from lnln.verify import verify
from pipelines.corrupt import corrupt
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_pickle


class Made(NamedTuple):
    """A store with two corpora whose names differ in one bit, and what was made in the first."""

    store: Store
    features: FeatureManifest
    views: list[ViewManifest]

    def file(self, path: str) -> Path:
        return Path(self.store.url) / path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("flipped")
    store = Store(folder / "store")
    config = Config.from_dict({"corruption": {"rates": [0.5], "validation_rates": [0.5], "num_stored_draws": 1}})
    for corpus in ("a1", "a0"):
        features = import_corpus(store, mmsa_pickle(folder / "made.pkl", num=(3, 2, 2)), corpus)
        views = corrupt(store, corpus, config)
    return Made(store, features, views)


@contextmanager
def flipped(file: Path, byte: int, bit: int) -> Iterator[None]:
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[byte] ^= 1 << bit
    file.write_bytes(damaged)
    try:
        yield
    finally:
        file.write_bytes(whole)


def share_caught(file: Path, path: str, read: Callable[[], object], step: int = 1) -> float:
    """Flip every `step`-th bit, one at a time: the share that `read` refuses, by name. No other may change anything."""
    whole, num_caught = read(), 0
    bits = range(0, 8 * file.stat().st_size, step)
    for bit in bits:
        with flipped(file, *divmod(bit, 8)):
            try:
                assert read() == whole, f"bit {bit}"
            except RefusedError as error:
                assert path in str(error) and "\n" not in str(error), error
                num_caught += 1
    return num_caught / len(bits)


def test_manifests(made: Made) -> None:
    features, view = made.features, made.views[0]
    manifests: dict[str, Callable[[], object]] = {
        f"{features.folder}/manifest.json": lambda: read_features(made.store, "a0"),
        f"{view.folder}/manifest.json": lambda: read_view(made.store, "a0", features.feature_id, view.view_id),
    }
    for path, read in manifests.items():
        assert share_caught(made.file(path), path, read, step=23) > 0.98


def test_pointers_and_lists(made: Made) -> None:
    """They state no checksum: what they name must be there, in order, and once."""
    store, feature_id = made.store, made.features.feature_id

    def corpora() -> object:
        return [read_features(store, corpus).digest() for corpus in list_corpora(store)], list_corpora(store)

    def views() -> object:
        listed = list_views(store, "a0", feature_id)
        verify(store, "a0")
        return listed

    lists: dict[str, Callable[[], object]] = {
        "a0/features/current.json": lambda: read_features(store, "a0"),
        "corpora.json": corpora,
        f"a0/views/{feature_id}/index.json": views,
    }
    for path, read in lists.items():
        assert share_caught(made.file(path), path, read) == 1


def test_shards(made: Made) -> None:
    store, features, view = made.store, made.features, made.views[0]
    shard, masks = features.splits["valid"].shards[0], view.splits["valid"].shards[0]
    readers: list[tuple[str, Callable[[], object]]] = [
        (shard.path, lambda: len(read_shard(store, shard, features.dims))),
        (shard.path, lambda: read_lengths(store, shard)[0]),
        (shard.path, lambda: read_split(store, features, "valid").utterance_id),
        (shard.path, lambda: read_labels(store, features, "valid").tolist()),
        (masks.path, lambda: read_view_shard(store, masks).utterance_id),
    ]
    for path, read in readers:
        assert share_caught(made.file(path), path, read, step=61) == 1


def test_verify_names_every_file(made: Made) -> None:
    manifests: list[FeatureManifest | ViewManifest] = [made.features, *made.views]
    shards = [shard.path for manifest in manifests for split in manifest.splits.values() for shard in split.shards]
    assert len(shards) > 5
    for path in [*shards, *(f"{manifest.folder}/manifest.json" for manifest in manifests)]:
        for byte in range(0, made.file(path).stat().st_size, 97):
            with flipped(made.file(path), byte, byte % 8), pytest.raises(RefusedError) as refused:
                verify(made.store, "a0")
            assert path in str(refused.value)
    assert verify(made.store)["corpora"] == 2
