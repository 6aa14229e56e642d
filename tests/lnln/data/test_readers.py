"""What others read shards with: each gets the values that ours does, from the files as they are."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.typing import NDArray

from lnln.corruption import ViewSpec, make_masks
from lnln.data import shards
from lnln.data.schema import MODALITIES, Ragged, Utterances
from lnln.data.shards import decode_shard, encode_shard
from lnln.data.view_shards import decode_view_shard, encode_view_shard
from tests.lnln.data.features import AUDIO_DIM, VISION_DIM, make_utterances

# The values of every row, by column; None where a row has none, sequences as arrays.
Columns = Mapping[str, list[Any]]


def by_pandas(paths: list[Path], cache: Path) -> Columns:
    frame = pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)
    return {
        str(name): [None if not isinstance(value, np.ndarray) and pd.isna(value) else value for value in frame[name]]
        for name in frame
    }


def by_duckdb(paths: list[Path], cache: Path) -> Columns:
    query = "SELECT * FROM read_parquet($paths)"
    relation = duckdb.connect().sql(query, params={"paths": [str(path) for path in paths]})
    columns, rows = relation.columns, relation.fetchall()
    return {name: [row[number] for row in rows] for number, name in enumerate(columns)}


def by_polars(paths: list[Path], cache: Path) -> Columns:
    frame = pl.read_parquet(paths)
    return {name: frame[name].to_list() for name in frame.columns}


def by_datasets(paths: list[Path], cache: Path) -> Columns:
    import datasets

    files = [str(path) for path in paths]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache), split="train")
    return {name: loaded[name][:] for name in loaded.column_names}


Reader = Callable[[list[Path], Path], Columns]
READERS: dict[str, Reader] = {
    "pandas": by_pandas,
    "duckdb": by_duckdb,
    "polars": by_polars,
    "datasets": by_datasets,
}


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Columns]:
    """One reader, which has to do without a network."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a reader of local files called somebody")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return lambda *paths: READERS[request.param](list(paths), tmp_path / "cache")


def assert_sequences(values: list[Any], expected: Ragged) -> None:
    """Flat lists are `expected`, whose items may be rows; equal to the bit."""
    assert len(values) == len(expected)
    for i, value in enumerate(values):
        array = np.asarray(value, expected.values.dtype).reshape(-1, *expected.values.shape[1:])
        np.testing.assert_array_equal(array, expected[i], strict=True)


def assert_holds(columns: Columns, utterances: Utterances) -> None:
    """All columns of a feature shard, whatever read it."""

    def labels(name: str) -> NDArray[np.float32]:
        return np.array([np.nan if value is None else value for value in columns[name]], np.float32)

    text = "text" if utterances.text_dim else "text_ids"
    assert list(columns["utterance_id"]) == utterances.utterance_id
    assert list(columns["raw_text"]) == utterances.raw_text
    np.testing.assert_array_equal(labels("label"), utterances.label)
    for modality, expected in utterances.modality_labels.items():
        np.testing.assert_array_equal(labels(f"label_{modality}"), expected)
    for name, sequences in ((text, utterances.text), ("audio", utterances.audio), ("vision", utterances.vision)):
        assert_sequences(columns[name], sequences)
        if name != "text_ids":
            assert list(columns[f"{name}_length"]) == sequences.lengths.tolist()
    assert sum(name.startswith("label_") for name in columns) == len(utterances.modality_labels)


CASES = {
    "ids": make_utterances(40, seed=1),
    "features": make_utterances(23, seed=2, text_dim=6),
    "labels of each modality": make_utterances(17, seed=3, modality_labels=True),
    "one": make_utterances(1, seed=4, audio=[1]),
    "no audio": make_utterances(9, seed=5, audio=[0] * 9),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("group_bytes", [200, 1 << 20])
def test_feature_shards(
    case: str, group_bytes: int, read: Callable[..., Columns], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged lists, empty ones, rows without label or transcript; one row group or many."""
    utterances = CASES[case]
    if case == "ids":
        assert np.isnan(utterances.label).any() and (utterances.text.lengths == 0).any()
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", group_bytes)
    path = tmp_path / "part-0.parquet"
    path.write_bytes(encode_shard(utterances))
    assert_holds(read(path), utterances)
    assert_holds(read(path), decode_shard(path.read_bytes()))


def test_several_shards_as_one_table(read: Callable[..., Columns], tmp_path: Path) -> None:
    parts = [make_utterances(12, seed=6), make_utterances(5, seed=7, audio=[0, 0, 0, 0, 0])]
    paths = [tmp_path / f"part-{number}.parquet" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(encode_shard(part))
    assert_holds(read(*paths), Utterances.concatenate(parts))


def test_frames_are_rows(tmp_path: Path) -> None:
    """The one line that the card gives for them."""
    utterances = CASES["ids"]
    path = tmp_path / "part-0.parquet"
    path.write_bytes(encode_shard(utterances))
    frame = pd.read_parquet(path)
    for name, dim, sequences in (("audio", AUDIO_DIM, utterances.audio), ("vision", VISION_DIM, utterances.vision)):
        for row, values in enumerate(frame[name]):
            np.testing.assert_array_equal(np.reshape(values, (-1, dim)), sequences[row])


def test_columns_by_query(tmp_path: Path) -> None:
    """What one asks of a corpus without Python: nulls are nulls, lengths are numbers."""
    utterances = CASES["ids"]
    path = tmp_path / "part-0.parquet"
    path.write_bytes(encode_shard(utterances))
    counts = duckdb.connect().sql(
        "SELECT count(*), count(label), count(raw_text), sum(audio_length), sum(len(audio)), min(len(text_ids)), "
        f"count(*) FILTER (vision_length = 0) FROM '{path}'"
    )
    assert counts.fetchall()[0] == (
        len(utterances),
        int((~np.isnan(utterances.label)).sum()),
        sum(text is not None for text in utterances.raw_text),
        int(utterances.audio.lengths.sum()),
        int(utterances.audio.lengths.sum()) * AUDIO_DIM,
        int(utterances.text.lengths.min()),
        int((utterances.vision.lengths == 0).sum()),
    )


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("case", ["ids", "features", "no audio"])
def test_view_shards(case: str, rate: float, read: Callable[..., Columns], tmp_path: Path) -> None:
    utterances = CASES[case]
    made = make_masks(
        ViewSpec.evaluation(rate, seed=5),
        utterances.utterance_id,
        utterances.lengths(),
        keep_ends=not utterances.text_dim,
    )
    path = tmp_path / "part-0.parquet"
    path.write_bytes(encode_view_shard(utterances.utterance_id, made))
    columns, ours = read(path), decode_view_shard(path.read_bytes())
    assert list(columns["utterance_id"]) == utterances.utterance_id == ours.utterance_id
    for number, modality in enumerate(MODALITIES):
        rates = np.array(columns[f"rate_{modality}"], np.float32)
        np.testing.assert_array_equal(rates, np.full(len(utterances), rate, np.float32))
        np.testing.assert_array_equal(rates, ours.missing_rates[:, number])
        assert list(columns[f"{modality}_length"]) == utterances.lengths()[modality].tolist()
        for row, (mask, length) in enumerate(
            zip(columns[f"kept_{modality}"], columns[f"{modality}_length"], strict=True)
        ):
            # The one line that the card gives for it.
            kept = np.unpackbits(np.frombuffer(mask, np.uint8), count=length, bitorder="little").astype(bool)
            np.testing.assert_array_equal(kept, made.kept[modality][row], strict=True)
            np.testing.assert_array_equal(kept, ours.kept[modality][row], strict=True)
