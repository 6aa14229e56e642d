"""Shards: one Parquet file of utterances, readable by pandas, DuckDB and Hugging Face `datasets` as it is.

    entry = write_shard(store, manifest_folder, "train", utterances)
    utterances = read_split(store, manifest, "train")

Sequences are non-null lists without padding; audio and vision are row-major `length * dim` float32. Text is `text_ids`,
or language features in `text` with `text_length`, like audio. No dictionary, byte-stream-split and zstd on floats:
smaller than by Parquet's defaults; docs/performance.md has what reading with every check costs. Equal utterances give
equal bytes, and the file's name is its content's SHA-256, so a job done twice writes the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lnln.data.extractors import Extractors, identity_of
from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.read_ahead import read_ahead
from lnln.data.schema import MODALITIES, Modality, Ragged, Split, Utterances
from lnln.data.shard_files import check_num_rows, encode_parquet, fetch_shard, put_shard, read_parquet, read_schema
from lnln.data.store import Store
from lnln.errors import RefusedError

# Bytes of sequences in one row group: what a reader decodes at once.
ROW_GROUP_BYTES = 48 << 20

_FLOATS = pa.list_(pa.field("element", pa.float32(), nullable=False))
_FRAMES: dict[str, pa.DataType] = {
    "audio": _FLOATS,
    "vision": _FLOATS,
    "audio_length": pa.int32(),
    "vision_length": pa.int32(),
}
_NAMES: dict[str, pa.DataType] = {"utterance_id": pa.string(), "raw_text": pa.string(), "label": pa.float32()}
_IDS: dict[str, pa.DataType] = {"text_ids": pa.list_(pa.field("element", pa.int32(), nullable=False))}
_TEXT_FEATURES: dict[str, pa.DataType] = {"text": _FLOATS, "text_length": pa.int32()}
_NULLABLE = ("raw_text", "label")
# Labels are kept in float32: a rounding above the end of the scale is no mistake.
_LABEL_TOLERANCE = 1e-4
# Key of the file's metadata that says what made the features, where lnln itself did.
_EXTRACTORS = "lnln.extractors"


def encode_shard(utterances: Utterances, extractors: Extractors | None = None) -> bytes:
    """Utterances as the bytes of one Parquet file. Deterministic for one version of pyarrow.

    extractors: the records of what made the features of clips, as the manifest has them; the file keeps what
    `identity_of` takes of them, so that it can be told what it is away from its manifest.
    """
    assert len(utterances), "a shard has utterances"
    made_by = {} if extractors is None else {_EXTRACTORS: json.dumps(identity_of(extractors), sort_keys=True)}
    groups = (_table(utterances.rows(first, last), made_by) for first, last in _row_groups(utterances))
    return encode_parquet(groups, split_bytes_of=[f"{m}.list.element" for m in _framed(utterances.text_dim > 0)])


def read_extractors(data: bytes, *, name: str = "shard") -> dict[Modality, dict[str, Any]] | None:
    """What `encode_shard` was told of the extractors, None where it was told nothing.

    RefusedError where the file is no Parquet file, or this part of it is damaged.
    """
    text = (read_schema(data, name).metadata or {}).get(_EXTRACTORS.encode())
    if text is None:
        return None
    try:
        value = json.loads(text)
        is_sound = isinstance(value, dict) and all(isinstance(made, dict) for made in value.values())
    except (ValueError, RecursionError):
        is_sound = False
    if not is_sound:
        raise RefusedError(f"{name}: its metadata {_EXTRACTORS} is damaged; extract the clips again")
    return {modality: value[modality] for modality in MODALITIES if modality in value}


def decode_shard(data: bytes, dims: Mapping[Modality, int] | None = None, *, name: str = "shard") -> Utterances:
    """Utterances from the bytes of a feature shard; `name` is what a refusal calls it.

    dims of audio, vision and language features (not of ids) default, each, to what the file states. RefusedError where
    the file is none of ours, contradicts itself, or has other dims.
    """
    return Utterances.concatenate(_decode(data, dims, name))


def _decode(data: bytes, dims: Mapping[Modality, int] | None, name: str) -> list[Utterances]:
    """What `decode_shard` returns, in one or more parts that are read-only views of what Arrow has decoded."""
    schema = read_schema(data, name)
    stated = _stated_dims(schema.metadata)
    framed = _framed(_has_text_features(schema) if dims is None else dims.get("text", 0) > 0)
    dims = stated if dims is None else {**stated, **dims}
    table = read_parquet(data, name, _required(framed), [f"label_{modality}" for modality in MODALITIES])
    for modality in framed:
        if dims.get(modality, 0) < 1:
            raise RefusedError(f"{name} does not say how many {modality} dimensions it has")
        if stated.get(modality, dims[modality]) != dims[modality]:
            raise RefusedError(f"{name}: {modality} has {stated[modality]} dimensions, expected {dims[modality]}")
    parts = [_utterances(batch, dims, name) for batch in table.to_batches() if batch.num_rows]
    if not parts:
        raise RefusedError(f"{name} holds no utterances")
    return parts


def write_shard(
    store: Store, folder: str, split: Split, utterances: Utterances, extractors: Extractors | None = None
) -> ShardEntry:
    """Write one shard under `folder` by a name that says its content; a second time changes nothing.

    extractors: as `encode_shard`.
    """
    return put_shard(store, folder, split, encode_shard(utterances, extractors), len(utterances))


def read_shard(store: Store, entry: ShardEntry, dims: Mapping[Modality, int]) -> Utterances:
    """The utterances of one shard; RefusedError where size, SHA-256, rows or dims are not what the manifest states."""
    return Utterances.concatenate(_read_parts(store, entry, dims))


def _read_parts(store: Store, entry: ShardEntry, dims: Mapping[Modality, int]) -> list[Utterances]:
    parts = _decode(fetch_shard(store, entry), dims, _name(store, entry))
    check_num_rows(store, entry, sum(map(len, parts)))
    return parts


def iterate_shards(store: Store, manifest: FeatureManifest, split: Split) -> Iterator[Utterances]:
    """The shards of one split in corpus order, a few of them read ahead.

    RefusedError where a shard is not what the manifest states, has features that are not finite, or a label outside
    the manifest's range: nothing that reads them could do better than to fail later.
    """
    for parts in _iterate_parts(store, manifest, split):
        yield Utterances.concatenate(parts)


def _iterate_parts(store: Store, manifest: FeatureManifest, split: Split) -> Iterator[list[Utterances]]:
    entries = shard_entries(manifest, split)
    return read_ahead(lambda entry: _read_sound_parts(store, entry, manifest), entries)


def read_split(store: Store, manifest: FeatureManifest, split: Split) -> Utterances:
    """All utterances of one split, in corpus order. RefusedError as `iterate_shards`.

    Each shard is copied to its place as soon as it is decoded: the split is in memory once, and a few shards beside it.
    """
    parts_of_shards = _iterate_parts(store, manifest, split)  # refuses a split that is not there
    names: list[str] = []
    texts: list[str | None] = []
    labels: list[NDArray[np.float32]] = []
    modality_labels: dict[Modality, list[NDArray[np.float32]]] = {}
    gathered = {modality: _Gathered(_expected_steps(manifest, split, modality)) for modality in MODALITIES}
    for parts in parts_of_shards:
        for part in parts:
            names += part.utterance_id
            texts += part.raw_text
            labels.append(part.label)
            for modality in MODALITIES:
                gathered[modality].add(part.sequences(modality))
            for modality, own in part.modality_labels.items():
                modality_labels.setdefault(modality, []).append(own)
    expected = manifest.splits[split].num_utterances
    if len(names) != expected:
        raise RefusedError(
            f"split {split} of {store.url}/{manifest.folder} has {len(names)} utterances, its manifest says "
            f"{expected}; import the corpus again"
        )
    return Utterances(
        utterance_id=names,
        raw_text=texts,
        label=np.concatenate(labels),
        **{modality: gathered[modality].all() for modality in MODALITIES},
        modality_labels={modality: np.concatenate(parts) for modality, parts in modality_labels.items()},
    )


def _expected_steps(manifest: FeatureManifest, split: Split, modality: Modality) -> int:
    """Steps of a split by its manifest, which states their mean to six digits."""
    return round(manifest.lengths[split][modality].mean * manifest.splits[split].num_utterances)


class _Gathered:
    """Sequences of many parts, each copied to its place in one array; that grows where there are more than expected."""

    def __init__(self, expected_steps: int) -> None:
        self._expected_steps, self._num_steps = expected_steps, 0
        self._values: NDArray[Any] | None = None
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, part: Ragged) -> None:
        end = self._num_steps + len(part.values)
        if self._values is None:
            self._values = np.empty((max(end, self._expected_steps), *part.values.shape[1:]), part.values.dtype)
        elif end > len(self._values):
            self._values.resize((end, *part.values.shape[1:]), refcheck=False)
        self._values[self._num_steps : end] = part.values
        self._num_steps = end
        self._lengths.append(part.lengths)

    def all(self) -> Ragged:
        assert self._values is not None, "a split has shards"
        return Ragged.from_lengths(self._values[: self._num_steps], np.concatenate(self._lengths))


def read_labels(store: Store, manifest: FeatureManifest, split: Split) -> NDArray[np.float32]:
    """(N,) labels of one split, NaN where unlabelled; nothing else is decoded. RefusedError as `iterate_shards`."""

    def read(entry: ShardEntry) -> NDArray[np.float32]:
        table = _columns(store, entry, ["utterance_id", "label"])
        labels = _floats(table.column("label").combine_chunks())
        _refuse_labels(labels, table.column("utterance_id").to_pylist(), "label", manifest, _name(store, entry))
        return labels

    return np.concatenate(list(read_ahead(read, shard_entries(manifest, split))))


def read_lengths(store: Store, entry: ShardEntry) -> tuple[list[str], dict[Modality, NDArray[np.int64]]]:
    """Utterance ids and steps per modality of one shard; audio, vision and language features are not decoded."""
    table = _columns(store, entry, ["utterance_id", "text_ids", "text_length", "audio_length", "vision_length"])
    lengths: dict[Modality, NDArray[np.int64]] = {
        modality: table.column(f"{modality}_length").to_numpy().astype(np.int64)
        for modality in MODALITIES
        if f"{modality}_length" in table.column_names
    }
    if "text_ids" in table.column_names:
        lengths["text"] = _list_lengths(table.column("text_ids").combine_chunks())
    return table.column("utterance_id").to_pylist(), lengths


def shard_entries(manifest: FeatureManifest, split: Split) -> tuple[ShardEntry, ...]:
    """The shards of `split`; RefusedError where the features have none."""
    if split not in manifest.splits or not manifest.splits[split].shards:
        raise RefusedError(f"corpus {manifest.corpus!r} has no split {split!r}; it has {', '.join(manifest.splits)}")
    return manifest.splits[split].shards


def _read_sound_parts(store: Store, entry: ShardEntry, manifest: FeatureManifest) -> list[Utterances]:
    """What `read_shard` returns, in parts; refused where features are not finite or labels out of range."""
    parts, name = _read_parts(store, entry, manifest.dims), _name(store, entry)
    for part in parts:
        for modality in _framed(manifest.text_dim > 0):
            frames = part.sequences(modality)
            is_finite = np.isfinite(frames.values)
            if not is_finite.all():
                step = int(is_finite.all(axis=1).argmin())
                row = int(np.searchsorted(frames.offsets, step, side="right")) - 1
                raise RefusedError(
                    f"{name}, utterance {part.utterance_id[row]}: {modality} has values that are NaN or infinite, "
                    f"expected finite ones; run {_import_command(manifest)} again, which sets them to 0"
                )
        columns = {"label": part.label, **{f"label_{m}": v for m, v in part.modality_labels.items()}}
        for column, labels in columns.items():
            _refuse_labels(labels, part.utterance_id, column, manifest, name)
    return parts


def _refuse_labels(
    labels: NDArray[np.float32], utterance_ids: list[str], column: str, manifest: FeatureManifest, name: str
) -> None:
    """RefusedError where a label lies outside the range of the manifest; NaN is no label."""
    low, high = manifest.label_range
    is_wrong = (labels < low - _LABEL_TOLERANCE) | (labels > high + _LABEL_TOLERANCE)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise RefusedError(
            f"{name}, utterance {utterance_ids[row]}: {column} is {labels[row]:g}, expected {low:g} to {high:g}; "
            f"correct it where it came from and run {_import_command(manifest)} again"
        )


def _import_command(manifest: FeatureManifest) -> str:
    if manifest.extraction is not None:
        return f"`lnln extract DIR --corpus {manifest.corpus}`"
    return f"`lnln import PICKLE --corpus {manifest.corpus}{' --text features' if manifest.text_dim else ''}`"


def _columns(store: Store, entry: ShardEntry, columns: list[str]) -> pa.Table:
    """Those of `columns` that the shard has, be its text ids or features."""
    data, name = fetch_shard(store, entry), _name(store, entry)
    required = _required(_framed(_has_text_features(read_schema(data, name))))
    table = read_parquet(data, name, required, [], [column for column in columns if column in required])
    check_num_rows(store, entry, table.num_rows)
    return table


def _framed(has_text_features: bool) -> tuple[Modality, ...]:
    """The modalities whose steps are rows of numbers."""
    return MODALITIES if has_text_features else ("audio", "vision")


def _has_text_features(schema: pa.Schema) -> bool:
    return "text_length" in schema.names


def _required(framed: tuple[Modality, ...]) -> dict[str, pa.DataType]:
    return {**_NAMES, **(_TEXT_FEATURES if "text" in framed else _IDS), **_FRAMES}


def _name(store: Store, entry: ShardEntry) -> str:
    return f"shard {store.url}/{entry.path}"


def _row_groups(utterances: Utterances) -> Iterator[tuple[int, int]]:
    """Runs of rows [first, last) of about ROW_GROUP_BYTES each, at least one row."""
    num_bytes = sum(
        utterances.sequences(modality).lengths * _step_bytes(utterances.sequences(modality)) for modality in MODALITIES
    )
    group = (np.cumsum(num_bytes) - num_bytes) // ROW_GROUP_BYTES
    return pairwise([0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(utterances)])


def _step_bytes(sequences: Ragged) -> int:
    return int(sequences.values.itemsize * np.prod(sequences.values.shape[1:], dtype=np.int64))


def _table(utterances: Utterances, metadata: Mapping[str, str]) -> pa.Table:
    framed = _framed(utterances.text_dim > 0)
    text = _lists(utterances.text, np.float32 if "text" in framed else np.int32)
    columns = {
        "utterance_id": pa.array(utterances.utterance_id, pa.string()),
        "raw_text": pa.array(utterances.raw_text, pa.string()),
        "label": _nullable_floats(utterances.label),
        **{f"label_{m}": _nullable_floats(labels) for m, labels in utterances.modality_labels.items()},
        "text" if "text" in framed else "text_ids": text,
        "audio": _lists(utterances.audio, np.float32),
        "vision": _lists(utterances.vision, np.float32),
        **{f"{m}_length": pa.array(utterances.sequences(m).lengths.astype(np.int32)) for m in framed},
    }
    fields = [
        pa.field(name, array.type, nullable=name in _NULLABLE or name.startswith("label_"))
        for name, array in columns.items()
    ]
    dims = {f"lnln.{modality}_dim": str(utterances.sequences(modality).values.shape[1]) for modality in framed}
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata={**dims, **metadata}))


def _nullable_floats(values: NDArray[np.float32]) -> pa.Array:
    return pa.array(values.astype(np.float32), mask=np.isnan(values))


def _lists(sequences: Ragged, dtype: type[np.generic]) -> pa.Array:
    values = np.ascontiguousarray(sequences.values, dtype)
    width = int(np.prod(values.shape[1:], dtype=np.int64))
    offsets = sequences.offsets * width
    assert offsets[-1] <= np.iinfo(np.int32).max, "a row group is far smaller than 2^31 values"
    element = pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False)
    return pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(values.reshape(-1)), type=pa.list_(element)
    )


def _stated_dims(metadata: Mapping[bytes, bytes] | None) -> dict[Modality, int]:
    stated: dict[Modality, int] = {}
    for modality in MODALITIES:
        text = (metadata or {}).get(f"lnln.{modality}_dim".encode(), b"")
        if text.isdigit():
            stated[modality] = int(text)
    return stated


def _utterances(batch: pa.RecordBatch, dims: Mapping[Modality, int], name: str) -> Utterances:
    for column in batch.schema.names:
        nullable = column in _NULLABLE or column.startswith("label_")
        if not nullable and batch.column(column).null_count:
            raise RefusedError(f"{name}: column {column} has empty rows, expected none")
    try:
        names, texts = batch.column("utterance_id").to_pylist(), batch.column("raw_text").to_pylist()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{name} has text that is not UTF-8: {error.reason}") from error
    return Utterances(
        utterance_id=names,
        raw_text=texts,
        label=_floats(batch.column("label")),
        text=_frames(batch, "text", dims["text"], name) if dims.get("text") else _ids(batch.column("text_ids"), name),
        audio=_frames(batch, "audio", dims["audio"], name),
        vision=_frames(batch, "vision", dims["vision"], name),
        modality_labels={
            m: _floats(batch.column(f"label_{m}")) for m in MODALITIES if f"label_{m}" in batch.schema.names
        },
    )


def _ids(column: Any, name: str) -> Ragged:
    return Ragged.from_lengths(_list_values(column, name), _list_lengths(column))


def _frames(batch: pa.RecordBatch, column: str, dim: int, name: str) -> Ragged:
    lengths = batch.column(f"{column}_length").to_numpy().astype(np.int64)
    num_values = _list_lengths(batch.column(column))
    wrong = np.flatnonzero(num_values != lengths * dim)
    if len(wrong):
        row = int(wrong[0])
        raise RefusedError(
            f"{name}: utterance {batch.column('utterance_id')[row]} has {num_values[row]} {column} values for "
            f"{lengths[row]} frames of {dim} dimensions"
        )
    return Ragged.from_lengths(_list_values(batch.column(column), name).reshape(int(lengths.sum()), dim), lengths)


def _list_values(column: Any, name: str) -> NDArray[Any]:
    values = column.flatten()
    if values.null_count:
        raise RefusedError(f"{name}: a sequence has empty values, expected none")
    return np.asarray(values.to_numpy(zero_copy_only=True))


def _list_lengths(column: Any) -> NDArray[np.int64]:
    return np.asarray(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)


def _floats(column: Any) -> NDArray[np.float32]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)
