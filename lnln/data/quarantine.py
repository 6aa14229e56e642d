"""The clips that an extraction could not use: who, at which stage, and why. A table beside the feature shards.

    entry = put_quarantine(store, folder, [Quarantined("v$_$1", "decode", "Raw/v/1.mp4 is no media file")])
    read_quarantine(store, manifest)             # of the features that `manifest` describes; [] where there are none

One Parquet file, `<folder>/quarantine-<start of its SHA-256>.parquet`, which the manifest lists like a shard. Its rows
are sorted, so equal rows are equal bytes, whatever order they were found in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass

import pyarrow as pa

from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.shard_files import check_num_rows, encode_parquet, fetch_shard, read_parquet
from lnln.data.store import Store
from lnln.errors import RefusedError

_COLUMNS: dict[str, pa.DataType] = {"utterance_id": pa.string(), "stage": pa.string(), "reason": pa.string()}


@dataclass(frozen=True, order=True)
class Quarantined:
    """One clip, or one file, that is not among the utterances.

    utterance_id: of a file that no clip is listed for, its path below the clip folder. stage: `table` (its row in
    label.csv), `file`, `decode`, or the modality whose extractor failed. reason: one sentence, the same each time.
    """

    utterance_id: str
    stage: str
    reason: str


def put_quarantine(store: Store, folder: str, rows: Iterable[Quarantined]) -> ShardEntry | None:
    """Write the table under `folder`; a second time changes nothing. None, and no file, where there are no rows."""
    columns = list(zip(*map(astuple, sorted(rows)), strict=True))
    if not columns:
        return None
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()])
    table = pa.table([pa.array(column, pa.string()) for column in columns], schema=schema)
    data = encode_parquet([table], split_bytes_of=[])
    sha256 = hashlib.sha256(data).hexdigest()
    entry = ShardEntry(f"{folder}/quarantine-{sha256[:12]}.parquet", table.num_rows, len(data), sha256)
    # Written again even if it is there: the same bytes, or the mending of damaged ones.
    store.write(entry.path, data)
    return entry


def read_quarantine(store: Store, manifest: FeatureManifest) -> list[Quarantined]:
    """What `put_quarantine` wrote, sorted. RefusedError where the table is missing, or not as the manifest states."""
    entry = None if manifest.extraction is None else manifest.extraction.quarantine
    if entry is None:
        return []
    name = f"{store.url}/{entry.path}"
    table = read_parquet(fetch_shard(store, entry), name, _COLUMNS, [])
    check_num_rows(store, entry, table.num_rows)
    if any(table.column(column).null_count for column in _COLUMNS):
        raise RefusedError(f"{name} has empty fields, expected none; extract corpus {manifest.corpus} again")
    try:
        return [Quarantined(**row) for row in table.to_pylist()]
    except UnicodeDecodeError as error:
        raise RefusedError(f"{name} has text that is not UTF-8: {error.reason}") from error
