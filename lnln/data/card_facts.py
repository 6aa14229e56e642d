"""What a dataset card says beyond the manifest: the columns of the shards, and counts from their small ones.

Only the end of each Parquet file and its columns `label` and `raw_text` are fetched, never the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.schema import MODALITIES, Split
from lnln.data.store import Store
from lnln.errors import RefusedError

# What the splits are called where others read them.
SPLIT_NAMES: dict[Split, str] = {
    "train": "train",
    "valid": "validation",
    "test": "test",
    "unassigned": "unassigned",
}

_DTYPES = {pa.string(): "string", pa.large_string(): "string", pa.int32(): "int32", pa.float32(): "float32"}


@dataclass(frozen=True)
class Column:
    """One column of the feature shards. dtype: string, int32 or float32, of each element where it is a list."""

    name: str
    dtype: str
    is_list: bool
    meaning: str


@dataclass(frozen=True)
class SplitFacts:
    """labels: (N,) float32, NaN where unlabelled. num_transcripts: rows with `raw_text`. num_bytes: once decoded."""

    labels: NDArray[np.float32]
    num_transcripts: int
    num_bytes: int


@dataclass(frozen=True)
class CorpusFacts:
    """The same columns in every shard; `splits` in the manifest's order."""

    columns: tuple[Column, ...]
    splits: Mapping[Split, SplitFacts]


def gather_facts(store: Store, manifest: FeatureManifest) -> CorpusFacts:
    """Reads a little of every shard that `manifest` lists. RefusedError where one is missing or none of ours."""
    schema: pa.Schema | None = None
    splits: dict[Split, SplitFacts] = {}
    for split, entry in manifest.splits.items():
        read = [_read(store, shard) for shard in entry.shards]
        schema = schema or read[0][0]
        splits[split] = SplitFacts(
            labels=np.concatenate([facts.labels for _, facts in read]),
            num_transcripts=sum(facts.num_transcripts for _, facts in read),
            num_bytes=sum(facts.num_bytes for _, facts in read),
        )
    assert schema is not None, "features have a split"
    return CorpusFacts(tuple(_column(field, manifest) for field in schema), splits)


def _read(store: Store, entry: ShardEntry) -> tuple[pa.Schema, SplitFacts]:
    try:
        with store.open(entry.path) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            table = file.read(columns=["label", "raw_text"], use_threads=False)
            sizes = [file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups)]
            schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise RefusedError(f"shard {store.url}/{entry.path} cannot be described: {reason}") from error
    labels = np.asarray(table.column("label").combine_chunks().to_numpy(zero_copy_only=False), np.float32)
    num_transcripts = table.num_rows - table.column("raw_text").null_count
    return schema, SplitFacts(labels, num_transcripts, num_bytes=sum(sizes))


def _column(field: pa.Field, manifest: FeatureManifest) -> Column:
    is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
    element = field.type.value_type if is_list else field.type
    return Column(field.name, _DTYPES[element], is_list, _meaning(field.name, manifest))


def _meaning(column: str, manifest: FeatureManifest) -> str:
    for modality in MODALITIES:
        if column == modality:
            kind, dim = "language" if modality == "text" else modality, manifest.dims[modality]
            return f"{kind} features, {dim} numbers a step, step after step: {column}_length × {dim} values"
    return {
        "utterance_id": "name of the utterance; MMSA's corpora write video$_$clip",
        "raw_text": "transcript; null: there is none",
        "label": "sentiment of the whole utterance; null: not labelled",
        "label_text": "sentiment by the text alone; null: not labelled",
        "label_audio": "sentiment by the audio alone; null: not labelled",
        "label_vision": "sentiment by the vision alone; null: not labelled",
        "text_ids": f"token ids of {manifest.tokenizer.name}, with [CLS] and [SEP]; empty: no text",
        "text_length": "steps of text; 0: there is none",
        "audio_length": "steps of audio; 0: there is none",
        "vision_length": "steps of vision; 0: there is none",
    }[column]
