"""The quarantine table: equal rows are equal bytes, and nothing but what was written is read."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.data.manifest import Extraction, FeatureManifest, ShardEntry, commit_features, read_features
from lnln.data.quarantine import Quarantined, put_quarantine, read_quarantine
from lnln.data.shard_files import encode_parquet
from lnln.data.shards import write_shard
from lnln.data.store import Store
from lnln.data.verify import damaged_shards, listed_files
from lnln.errors import RefusedError
from lnln.gc import find_garbage
from tests.lnln.data.features import make_manifest, make_utterances

ROWS = (
    Quarantined("v$_$1", "decode", "Raw/v/1.mp4 is no media file"),
    Quarantined("v$_$10", "table", "label must be a number or blank, got '你好'"),
    Quarantined("v$_$2", "file", "there is no Raw/v/2.*"),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def manifest_with(store: Store, entry: ShardEntry | None) -> FeatureManifest:
    shards = [write_shard(store, "c/features/f1", "train", make_utterances())]
    return replace(make_manifest(shards), extraction=Extraction({}, {"clips": 3}, entry, 1))


def test_rows_come_back_sorted(store: Store) -> None:
    entry = put_quarantine(store, "c/features/f1", ROWS[::-1])
    assert entry is not None and entry.num_rows == 3 and entry.path.startswith("c/features/f1/quarantine-")
    manifest = manifest_with(store, entry)
    assert read_quarantine(store, manifest) == list(ROWS)
    commit_features(store, manifest)
    assert read_quarantine(store, read_features(store, "c")) == list(ROWS)


def test_no_rows_are_no_file(store: Store) -> None:
    assert put_quarantine(store, "c/features/f1", []) is None
    assert list(Path(store.url).iterdir()) == []
    assert read_quarantine(store, manifest_with(store, None)) == []
    assert read_quarantine(store, make_manifest()) == []


rows = st.builds(Quarantined, st.text(max_size=9), st.sampled_from(["table", "decode", "audio"]), st.text(max_size=30))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(rows, min_size=1, max_size=6), seed=st.integers(0, 99))
def test_order_changes_no_byte(store: Store, rows: Sequence[Quarantined], seed: int) -> None:
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    entry = put_quarantine(store, "c/features/f1", rows)
    assert entry == put_quarantine(store, "c/features/f1", shuffled)
    assert read_quarantine(store, manifest_with(store, entry)) == sorted(rows)


@pytest.mark.parametrize("how", ["a bit", "gone", "cut"])
def test_damage_is_refused_and_listed(store: Store, how: str) -> None:
    entry = put_quarantine(store, "c/features/f1", ROWS)
    assert entry is not None
    manifest = manifest_with(store, entry)
    assert damaged_shards(store, manifest) == []
    path = Path(store.url) / entry.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data if how == "a bit" else data[:-1])
    assert damaged_shards(store, manifest) == [entry.path]
    with pytest.raises(RefusedError, match=entry.path):
        read_quarantine(store, manifest)
    assert put_quarantine(store, "c/features/f1", ROWS) == entry
    assert read_quarantine(store, manifest) == list(ROWS)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"utterance_id": ["a"], "stage": ["file"]}, "column reason must be string, got none"),
        ({"utterance_id": ["a"], "stage": ["file"], "reason": [1]}, "column reason must be string, got int64"),
        ({"utterance_id": ["a"], "stage": ["file"], "reason": [None]}, "column reason must be string, got null"),
        ({"utterance_id": ["a", None], "stage": ["file"] * 2, "reason": ["b"] * 2}, "has empty fields, expected none"),
    ],
)
def test_another_table_is_refused(store: Store, columns: dict[str, list[object]], reason: str) -> None:
    """One that has the size and digest that the manifest states."""
    data = encode_parquet([pa.table(columns)], split_bytes_of=[])
    entry = ShardEntry(
        "c/features/f1/quarantine-0.parquet", len(columns["stage"]), len(data), hashlib.sha256(data).hexdigest()
    )
    store.write(entry.path, data)
    with pytest.raises(RefusedError, match=reason):
        read_quarantine(store, manifest_with(store, entry))


def test_another_number_of_rows_is_refused(store: Store) -> None:
    entry = put_quarantine(store, "c/features/f1", ROWS)
    assert entry is not None
    with pytest.raises(RefusedError, match="has 3 rows, its manifest says 4"):
        read_quarantine(store, manifest_with(store, replace(entry, num_rows=4)))


def test_gc_takes_a_table_that_no_manifest_names(store: Store) -> None:
    entry, stray = put_quarantine(store, "c/features/f1", ROWS), put_quarantine(store, "c/features/f1", ROWS[:1])
    assert entry is not None and stray is not None
    manifest = manifest_with(store, entry)
    assert listed_files(manifest)[-1] == entry
    used = [shard.path for split in manifest.splits.values() for shard in split.shards]
    assert find_garbage(store, 0).paths == sorted({entry.path, stray.path, *used})
    commit_features(store, manifest)
    assert find_garbage(store, 0).paths == [stray.path]
