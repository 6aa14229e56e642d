from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.data.manifest import SplitEntry, ViewManifest
from lnln.data.schema import MODALITIES, Ragged
from lnln.data.shard_files import encode_parquet, read_parquet
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from lnln.data.view_shards import (
    _COLUMNS,
    ViewShard,
    decode_view_shard,
    encode_view_shard,
    read_view_shard,
    write_view_shard,
)
from lnln.errors import RefusedError


def make_masks(lengths: list[tuple[int, int, int]], seed: int = 0) -> ViewShard:
    random = np.random.default_rng(seed)
    return ViewShard(
        utterance_id=[f"v$_${i}" for i in range(len(lengths))],
        missing_rates=random.random((len(lengths), 3)).astype(np.float32),
        kept={
            m: Ragged.from_lengths(random.random(sum(row[i] for row in lengths)) < 0.5, [row[i] for row in lengths])
            for i, m in enumerate(MODALITIES)
        },
    )


def assert_same(left: ViewShard, right: ViewShard) -> None:
    assert left.utterance_id == right.utterance_id
    np.testing.assert_array_equal(left.missing_rates, right.missing_rates)
    for modality in MODALITIES:
        np.testing.assert_array_equal(left.kept[modality].values, right.kept[modality].values)
        np.testing.assert_array_equal(left.kept[modality].offsets, right.kept[modality].offsets)
        assert left.kept[modality].values.dtype == np.bool_


LENGTHS = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))


@settings(max_examples=60, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=10))
def test_round_trip(lengths: list[tuple[int, int, int]]) -> None:
    masks = make_masks(lengths)
    assert_same(decode_view_shard(encode_view_shard(masks.utterance_id, masks)), masks)
    assert encode_view_shard(masks.utterance_id, masks) == encode_view_shard(masks.utterance_id, masks)


def test_bits_are_lowest_first_and_begin_anew() -> None:
    kept = Ragged.from_lengths(np.array([1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1], bool), [9, 0, 2])
    masks = ViewShard(["a", "b", "c"], np.zeros((3, 3), np.float32), dict.fromkeys(MODALITIES, kept))
    table = read_parquet(encode_view_shard(masks.utterance_id, masks), "x", _COLUMNS, [])
    assert table.column("kept_text").to_pylist() == [bytes([0b1001, 1]), b"", bytes([0b10])]


def test_a_view_is_a_small_part_of_its_features() -> None:
    masks = make_masks([(30, 400, 500)] * 200)
    assert len(encode_view_shard(masks.utterance_id, masks)) < 200 * (400 * 74 + 500 * 35) * 4 / 1000


def test_written_read_verified(tmp_path: Path) -> None:
    store, masks = Store(tmp_path), make_masks([(3, 0, 9)] * 5)
    entry = write_view_shard(store, "c/views/f/v", "test", masks.utterance_id, masks)
    assert write_view_shard(store, "c/views/f/v", "test", masks.utterance_id, masks) == entry
    assert_same(read_view_shard(store, entry), masks)
    manifest = ViewManifest("c", "f", "v", {}, {}, {"test": SplitEntry(5, (entry,))})
    assert damaged_shards(store, manifest) == []
    with pytest.raises(RefusedError, match="has 5 rows, its manifest says 6"):
        read_view_shard(store, replace(entry, num_rows=6))
    (tmp_path / entry.path).write_bytes(b"x")
    assert damaged_shards(store, manifest) == [entry.path]
    with pytest.raises(RefusedError, match="run `lnln corrupt c` again"):
        read_view_shard(store, entry)


@pytest.mark.parametrize("length", [8, 17, -1])
def test_lengths_that_contradict_the_bits_are_refused(length: int) -> None:
    masks = make_masks([(9, 9, 9)])
    table = read_parquet(encode_view_shard(masks.utterance_id, masks), "x", _COLUMNS, [])
    index = table.schema.get_field_index("audio_length")
    wrong = table.set_column(index, "audio_length", pa.array([length], pa.int32()))
    with pytest.raises(RefusedError, match="given: its masks do not have the lengths"):
        decode_view_shard(encode_parquet([wrong], []), name="given")
