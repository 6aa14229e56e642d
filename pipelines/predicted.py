"""A part of many predictions: a Parquet file with a row per utterance of one feature shard, which tells if it is whole.

    data = encode_part("test", utterances, columns, label_range, made_of)
    num_rows = whole_rows(data, made_of)              # None: damaged, or made of something else

| column | is |
| --- | --- |
| `source` | the split of the corpus, or where the feature shard lies |
| `utterance_id` | as the shard has it |
| `sentiment` | in the units of the labels that the model was trained on |
| `label_text` | the same in words |
| `completeness` | the model's estimate of 1 - missing rate of text; null where it makes none |
| `missing_text`, `missing_audio`, `missing_vision` | 1: the utterance has none; else the share that a view took of it |
| `notes` | what was done to the input |
| `label` | the known one; null where there is none |

Its metadata says what it was made of. Pages have checksums, and what is read from a whole file gives equal bytes when
it is written again: so whoever finds a part can tell whether it may stay, be it that nobody lived to note its SHA-256.
Another version of pyarrow may write other bytes, and then makes parts again that were sound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from lnln.data.schema import MODALITIES, Utterances
from lnln.data.shard_files import encode_parquet, read_parquet, read_schema
from lnln.errors import RefusedError
from lnln.predict import Columns, describe

_COLUMNS: dict[str, pa.DataType] = {
    "source": pa.string(),
    "utterance_id": pa.string(),
    "sentiment": pa.float32(),
    "label_text": pa.string(),
    "completeness": pa.float32(),
    **{f"missing_{modality}": pa.float32() for modality in MODALITIES},
    "notes": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "label": pa.float32(),
}
_NULLABLE = ("completeness", "label")
_SCHEMA = pa.schema([pa.field(name, kind, nullable=name in _NULLABLE) for name, kind in _COLUMNS.items()])
_MADE_OF = "lnln.made_of"


def encode_part(
    source: str,
    utterances: Utterances,
    said: Columns,
    label_range: tuple[float, float],
    made_of: Mapping[str, Any],
) -> bytes:
    """Predictions as the bytes of one Parquet file.

    label_range: of the model, whose words are used. made_of: JSON values that say of what, so that two parts with equal
    ones are as good as each other.
    """
    num = len(utterances)
    estimated = pa.nulls(num, pa.float32()) if said.completeness is None else said.completeness
    arrays = {
        "source": pa.array([source] * num, pa.string()),
        "utterance_id": pa.array(utterances.utterance_id, pa.string()),
        "sentiment": pa.array(said.sentiment),
        "label_text": pa.array([describe(value, label_range) for value in said.sentiment.tolist()], pa.string()),
        "completeness": pa.array(estimated, pa.float32(), from_pandas=True),
        **{f"missing_{modality}": pa.array(said.missing[:, i]) for i, modality in enumerate(MODALITIES)},
        "notes": pa.array([list(notes) for notes in said.notes], _COLUMNS["notes"]),
        "label": pa.array(utterances.label, pa.float32(), from_pandas=True),
    }
    return _encode(pa.Table.from_arrays([arrays[name] for name in _COLUMNS], schema=_SCHEMA), made_of)


def whole_rows(data: bytes, made_of: Mapping[str, Any]) -> int | None:
    """How many rows the part has; None where it is damaged, or was made of something else."""
    try:
        stated = (read_schema(data, "part").metadata or {}).get(_MADE_OF.encode())
        if stated != _canonical(made_of).encode():
            return None
        table = read_parquet(data, "part", _COLUMNS, []).combine_chunks()
        again = _encode(pa.Table.from_arrays(table.columns, schema=_SCHEMA), made_of)
    except (RefusedError, pa.ArrowException):
        return None
    return table.num_rows if again == data else None


def _encode(table: pa.Table, made_of: Mapping[str, Any]) -> bytes:
    return encode_parquet([table.replace_schema_metadata({_MADE_OF: _canonical(made_of)})], split_bytes_of=[])


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
