"""What all shard files share: Parquet made so that equal tables give equal bytes, a name that says its content,
and a reader that accepts nothing but what the manifest lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from lnln.data.manifest import ShardEntry
from lnln.data.schema import Split
from lnln.data.store import Store
from lnln.errors import RefusedError

# Bytes of a file, as they lie in it, and rows that are decoded in one go.
_DECODED_BYTES = 4 << 20
_DECODED_ROWS = 1 << 16


def shard_path(folder: str, split: Split, sha256: str) -> str:
    """Where the shard with these bytes lies."""
    return f"{folder}/{split}/part-{sha256[:12]}.parquet"


def put_shard(store: Store, folder: str, split: Split, data: bytes, num_rows: int) -> ShardEntry:
    """Write encoded rows as `<folder>/<split>/part-<start of their SHA-256>.parquet`."""
    sha256 = hashlib.sha256(data).hexdigest()
    entry = ShardEntry(shard_path(folder, split, sha256), num_rows, len(data), sha256)
    # Written again even if it is there: the same bytes, or the mending of damaged ones.
    store.write(entry.path, data)
    return entry


def fetch_shard(store: Store, entry: ShardEntry) -> bytes:
    """The bytes of one shard, once they are known to be those that the manifest lists."""
    name = f"shard {store.url}/{entry.path}"
    try:
        data = store.read(entry.path)
    except FileNotFoundError:
        raise RefusedError(f"{name} is missing; {_how_to_mend(entry)}") from None
    if len(data) != entry.num_bytes:
        raise RefusedError(f"{name} has {len(data)} bytes, its manifest says {entry.num_bytes}; {_how_to_mend(entry)}")
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != entry.sha256:
        raise RefusedError(
            f"{name} has SHA-256 {sha256[:12]}…, its manifest says {entry.sha256[:12]}…; {_how_to_mend(entry)}"
        )
    return data


def check_num_rows(store: Store, entry: ShardEntry, num_rows: int) -> None:
    if num_rows != entry.num_rows:
        raise RefusedError(
            f"shard {store.url}/{entry.path} has {num_rows} rows, its manifest says {entry.num_rows}; "
            f"{_how_to_mend(entry)}"
        )


def encode_parquet(groups: Iterable[pa.Table], split_bytes_of: list[str]) -> bytes:
    """Tables of one schema, at least one, as a Parquet file: one row group each, taken one after the other.

    split_bytes_of: the columns of floats whose first bytes are stored together, then their second ones, and so on.
    """
    rest = iter(groups)
    first = next(rest)
    # The system's memory grows in place, and is given back at once.
    sink = pa.BufferOutputStream(pa.system_memory_pool())
    with pq.ParquetWriter(
        sink,
        first.schema,
        version="2.6",
        use_dictionary=False,
        compression="zstd",
        compression_level=3,
        use_byte_stream_split=split_bytes_of,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(first, row_group_size=first.num_rows)
        del first
        for group in rest:
            writer.write_table(group, row_group_size=group.num_rows)
    return bytes(sink.getvalue())


def read_schema(data: bytes, name: str) -> pa.Schema:
    """The columns that a Parquet file in memory states, and its metadata; RefusedError where it is none."""
    try:
        return pq.read_schema(pa.BufferReader(data))
    except MemoryError:  # Arrow's is one of its own errors too, and says nothing of the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
        raise RefusedError(f"{name} is no whole Parquet file: {' '.join(str(error).split())}") from error


def read_parquet(
    data: bytes,
    name: str,
    required: Mapping[str, pa.DataType],
    optional: list[str],
    columns: list[str] | None = None,
) -> pa.Table:
    """The columns of a Parquet file in memory; RefusedError names it where it is none, or has other columns."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        schema = file.schema_arrow
        for column, expected in required.items():
            index = schema.get_field_index(column)
            found = schema.field(index).type if index >= 0 else None
            if found is None or not _is_like(found, expected):
                raise RefusedError(f"{name}: column {column} must be {expected}, got {found or 'none'}")
        wanted = [*required, *(column for column in optional if column in schema.names)]
        # In this thread: one of Arrow's may still hold `data` when the interpreter ends, which aborts the process.
        # A batch of rows at a time: decoding takes several times what it gives.
        num_rows = min(max(1, file.metadata.num_rows * _DECODED_BYTES // len(data)), _DECODED_ROWS)
        batches = list(file.iter_batches(num_rows, columns=columns or wanted, use_threads=False))
        table = pa.Table.from_batches(batches) if batches else file.read(columns=columns or wanted, use_threads=False)
        table.validate(full=True)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of a column's name
        raise RefusedError(f"{name} is no whole Parquet file: {' '.join(str(error).split())}") from error
    return table


def _is_like(found: pa.DataType, expected: pa.DataType) -> bool:
    """Equal but for what other writers choose: large offsets, the name and nullability of list elements."""
    if pa.types.is_list(expected):
        is_list = pa.types.is_list(found) or pa.types.is_large_list(found)
        return bool(is_list and found.value_type == expected.value_type)
    if pa.types.is_string(expected):
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    return bool(found == expected)


def _how_to_mend(entry: ShardEntry) -> str:
    corpus, kind = entry.path.split("/")[:2]
    if kind == "simulated":
        return f"run `lnln simulate {corpus}` again, with the options that made it"
    return (
        f"run `lnln corrupt {corpus}` again, with the config that asked for it"
        if kind == "views"
        else f"import or extract corpus {corpus} again"
    )
