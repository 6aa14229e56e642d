"""View shards: the masks of one view, one Parquet file beside each feature shard, a thousandth of its size.

A row has `utterance_id`, the three missing rates (`rate_text`, ...), the steps of each modality (`text_length`, ...)
and its mask (`kept_text`, ...): one bit per step, set where the step is kept, lowest bit first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lnln.data.manifest import ShardEntry
from lnln.data.schema import MODALITIES, Modality, Ragged, Split
from lnln.data.shard_files import check_num_rows, encode_parquet, fetch_shard, put_shard, read_parquet
from lnln.data.store import Store
from lnln.errors import RefusedError

_COLUMNS: dict[str, pa.DataType] = {
    "utterance_id": pa.string(),
    **{f"rate_{modality}": pa.float32() for modality in MODALITIES},
    **{f"{modality}_length": pa.int32() for modality in MODALITIES},
    **{f"kept_{modality}": pa.binary() for modality in MODALITIES},
}


class HasMasks(Protocol):
    """missing_rates: (N, 3) float32. kept: by modality, True where a step is kept."""

    @property
    def missing_rates(self) -> NDArray[np.float32]: ...
    @property
    def kept(self) -> Mapping[Modality, Ragged]: ...


@dataclass(frozen=True)
class ViewShard:
    """N utterances of a view: their ids, missing rates (N, 3) float32 and masks (bool, True where kept)."""

    utterance_id: list[str]
    missing_rates: NDArray[np.float32]
    kept: dict[Modality, Ragged]


def encode_view_shard(utterance_ids: Sequence[str], masks: HasMasks) -> bytes:
    """Masks as the bytes of one Parquet file: equal masks, equal bytes."""
    assert len(utterance_ids) == len(masks.missing_rates) and len(utterance_ids)
    columns: dict[str, Any] = {"utterance_id": pa.array(list(utterance_ids), pa.string())}
    for index, modality in enumerate(MODALITIES):
        columns[f"rate_{modality}"] = pa.array(masks.missing_rates[:, index].astype(np.float32))
    for modality in MODALITIES:
        columns[f"{modality}_length"] = pa.array(masks.kept[modality].lengths.astype(np.int32))
    for modality in MODALITIES:
        columns[f"kept_{modality}"] = _packed(masks.kept[modality])
    schema = pa.schema([pa.field(name, _COLUMNS[name], nullable=False) for name in columns])
    return encode_parquet([pa.Table.from_arrays(list(columns.values()), schema=schema)], split_bytes_of=[])


def decode_view_shard(data: bytes, *, name: str = "view shard") -> ViewShard:
    """The inverse of `encode_view_shard`; RefusedError, by `name`, where the file contradicts itself."""
    table = read_parquet(data, name, _COLUMNS, []).combine_chunks()
    if any(column.null_count for column in table.columns):
        raise RefusedError(f"{name} has empty rows, expected none")
    return ViewShard(
        utterance_id=table.column("utterance_id").to_pylist(),
        missing_rates=np.stack([table.column(f"rate_{m}").to_numpy() for m in MODALITIES], axis=1),
        kept={
            m: _unpacked(table.column(f"kept_{m}"), table.column(f"{m}_length").to_numpy().astype(np.int64), name)
            for m in MODALITIES
        },
    )


def write_view_shard(
    store: Store, folder: str, split: Split, utterance_ids: Sequence[str], masks: HasMasks
) -> ShardEntry:
    """Write the masks of one feature shard under `folder`; a second time changes nothing."""
    return put_shard(store, folder, split, encode_view_shard(utterance_ids, masks), len(utterance_ids))


def read_view_shard(store: Store, entry: ShardEntry) -> ViewShard:
    """The masks of one shard; RefusedError where size, SHA-256 or rows are not what the manifest states."""
    shard = decode_view_shard(fetch_shard(store, entry), name=f"shard {store.url}/{entry.path}")
    check_num_rows(store, entry, len(shard.utterance_id))
    return shard


def _packed(kept: Ragged) -> pa.Array:
    """Each sequence in whole bytes of its own, end to end."""
    lengths = kept.lengths
    num_bytes = (lengths + 7) // 8
    bits = np.zeros(int(num_bytes.sum()) * 8, bool)
    bits[_is_step(lengths, num_bytes)] = kept.values
    packed = np.packbits(bits, bitorder="little")
    offsets = np.concatenate([[0], np.cumsum(num_bytes)]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(kept), [None, pa.py_buffer(offsets), pa.py_buffer(packed)])


def _unpacked(column: Any, lengths: NDArray[np.int64], name: str) -> Ragged:
    rows = column.combine_chunks()
    offsets = np.frombuffer(rows.buffers()[1], np.int32, len(rows) + 1, rows.offset * 4)
    num_bytes = np.diff(offsets)
    if not np.array_equal(num_bytes, (lengths + 7) // 8) or (lengths < 0).any():
        raise RefusedError(f"{name}: its masks do not have the lengths it states")
    packed = np.frombuffer(rows.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    bits = np.unpackbits(packed, bitorder="little").astype(bool)
    return Ragged.from_lengths(bits[_is_step(lengths, num_bytes)], lengths)


def _is_step(lengths: NDArray[np.int64], num_bytes: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Of all bits those that are a step: each sequence begins with a byte of its own, whose last bits may be none."""
    runs = np.stack([lengths, num_bytes * 8 - lengths], axis=1)
    is_step: NDArray[np.bool_] = np.repeat(np.tile([True, False], len(lengths)), runs.ravel())
    return is_step
