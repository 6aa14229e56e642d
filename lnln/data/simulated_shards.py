"""Shards of simulated text: one Parquet file beside each feature shard, of the same utterances in the same order.

A row has `utterance_id`, `simulated_text` (row-major `length * dim` float32, no padding) and `simulated_text_length`, 0
where nothing could be simulated; and `simulated_raw_text` where speech was recognised, null where none was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from lnln.data.manifest import ShardEntry
from lnln.data.schema import Ragged, Split
from lnln.data.shard_files import check_num_rows, encode_parquet, fetch_shard, put_shard, read_parquet, read_schema
from lnln.data.store import Store
from lnln.errors import RefusedError

# Bytes of steps in one row group: what a reader decodes at once.
ROW_GROUP_BYTES = 48 << 20

_FLOATS = pa.list_(pa.field("element", pa.float32(), nullable=False))
_COLUMNS: dict[str, pa.DataType] = {
    "utterance_id": pa.string(),
    "simulated_text": _FLOATS,
    "simulated_text_length": pa.int32(),
}
_RAW_TEXT = "simulated_raw_text"
_DIM = "lnln.simulated_text_dim"


@dataclass(frozen=True)
class SimulatedRows:
    """Of N utterances: steps, float32 (total steps, dim); raw_text: the recognised words, None where none are kept."""

    utterance_id: list[str]
    steps: Ragged
    raw_text: list[str | None] | None = None

    def __post_init__(self) -> None:
        assert len(self.steps) == len(self.utterance_id) and self.steps.values.ndim == 2
        assert self.raw_text is None or len(self.raw_text) == len(self.utterance_id)

    @property
    def dim(self) -> int:
        return int(self.steps.values.shape[1])

    @classmethod
    def concatenate(cls, parts: Sequence[SimulatedRows]) -> SimulatedRows:
        texts = [part.raw_text for part in parts if part.raw_text is not None]
        return cls(
            [name for part in parts for name in part.utterance_id],
            Ragged.concatenate([part.steps for part in parts]),
            [text for part in texts for text in part] if len(texts) == len(parts) else None,
        )


def encode_simulated_shard(rows: SimulatedRows) -> bytes:
    """Rows, at least one, as the bytes of one Parquet file: equal rows, equal bytes."""
    assert len(rows.utterance_id) and rows.dim and np.isfinite(rows.steps.values).all()
    groups = (_table(rows, first, last) for first, last in _row_groups(rows.steps))
    return encode_parquet(groups, split_bytes_of=["simulated_text.list.element"])


def decode_simulated_shard(data: bytes, dim: int | None = None, *, name: str = "shard") -> SimulatedRows:
    """The inverse of `encode_simulated_shard`; `name` is what a refusal calls it.

    dim: that of a step, by default what the file states. RefusedError where the file is none of ours, contradicts
    itself, has steps of another width, or values that are not finite.
    """
    stated = (read_schema(data, name).metadata or {}).get(_DIM.encode(), b"")
    if not stated.isdigit() or not int(stated):
        raise RefusedError(f"{name} does not say how many dimensions a step of simulated text has")
    if dim is not None and int(stated) != dim:
        raise RefusedError(f"{name}: simulated text has {int(stated)} dimensions, expected {dim}")
    table = read_parquet(data, name, _COLUMNS, [_RAW_TEXT]).combine_chunks()
    if any(table.column(column).null_count for column in _COLUMNS):
        raise RefusedError(f"{name} has empty rows, expected none")
    parts = [_rows(batch, int(stated), name) for batch in table.to_batches() if batch.num_rows]
    if not parts:
        raise RefusedError(f"{name} holds no utterances")
    return SimulatedRows.concatenate(parts)


def write_simulated_shard(store: Store, folder: str, split: Split, rows: SimulatedRows) -> ShardEntry:
    """Write the simulated text of one feature shard under `folder`; a second time changes nothing."""
    return put_shard(store, folder, split, encode_simulated_shard(rows), len(rows.utterance_id))


def read_simulated_shard(store: Store, entry: ShardEntry, dim: int) -> SimulatedRows:
    """One shard; RefusedError where size, SHA-256, rows or width are not what the manifest states."""
    rows = decode_simulated_shard(fetch_shard(store, entry), dim, name=f"shard {store.url}/{entry.path}")
    check_num_rows(store, entry, len(rows.utterance_id))
    return rows


def _row_groups(steps: Ragged) -> Iterator[tuple[int, int]]:
    """Runs of rows [first, last) of about ROW_GROUP_BYTES each, at least one row."""
    num_bytes = steps.lengths * steps.values.itemsize * steps.values.shape[1]
    group = (np.cumsum(num_bytes) - num_bytes) // ROW_GROUP_BYTES
    return pairwise([0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(steps)])


def _table(rows: SimulatedRows, first: int, last: int) -> pa.Table:
    steps = rows.steps.rows(first, last)
    offsets = steps.offsets * rows.dim
    assert offsets[-1] <= np.iinfo(np.int32).max, "a row group is far smaller than 2^31 values"
    values = np.ascontiguousarray(steps.values, np.float32).reshape(-1)
    columns = {
        "utterance_id": pa.array(rows.utterance_id[first:last], pa.string()),
        "simulated_text": pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values), type=_FLOATS),
        "simulated_text_length": pa.array(steps.lengths.astype(np.int32)),
    }
    fields = [pa.field(name, _COLUMNS[name], nullable=False) for name in columns]
    if rows.raw_text is not None:
        columns[_RAW_TEXT] = pa.array(rows.raw_text[first:last], pa.string())
        fields.append(pa.field(_RAW_TEXT, pa.string()))
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata={_DIM: str(rows.dim)}))


def _rows(batch: pa.RecordBatch, dim: int, name: str) -> SimulatedRows:
    lengths = batch.column("simulated_text_length").to_numpy().astype(np.int64)
    column = batch.column("simulated_text")
    num_values = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = column.flatten()
    if values.null_count:
        raise RefusedError(f"{name}: a sequence has empty values, expected none")
    wrong = np.flatnonzero(num_values != lengths * dim)
    if len(wrong):
        row = int(wrong[0])
        raise RefusedError(
            f"{name}: utterance {batch.column('utterance_id')[row]} has {num_values[row]} values for {lengths[row]} "
            f"steps of {dim} dimensions"
        )
    steps = np.asarray(values.to_numpy(zero_copy_only=True), np.float32).reshape(int(lengths.sum()), dim)
    if not np.isfinite(steps).all():
        raise RefusedError(f"{name} has values that are NaN or infinite, expected finite ones; simulate it again")
    try:
        texts = batch.column(_RAW_TEXT).to_pylist() if _RAW_TEXT in batch.schema.names else None
        return SimulatedRows(batch.column("utterance_id").to_pylist(), Ragged.from_lengths(steps, lengths), texts)
    except UnicodeDecodeError as error:
        raise RefusedError(f"{name} has text that is not UTF-8: {error.reason}") from error
