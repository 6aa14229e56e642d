from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lnln.data import shards
from lnln.data.manifest import LengthSummary, SplitEntry
from lnln.data.schema import MODALITIES, Modality, Ragged, Split, Utterances
from lnln.data.shards import (
    decode_shard,
    encode_shard,
    iterate_shards,
    read_extractors,
    read_labels,
    read_lengths,
    read_shard,
    read_split,
    write_shard,
)
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from lnln.errors import RefusedError
from tests.lnln.data.features import AUDIO_DIM, VISION_DIM, assert_same, make_manifest, make_utterances
from tests.memory import peak_bytes

DIMS: dict[Modality, int] = {"audio": AUDIO_DIM, "vision": VISION_DIM}
FOLDER = "c/features/f1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize("modality_labels", [False, True])
@pytest.mark.parametrize("num", [1, 12, 100])
def test_round_trip(num: int, modality_labels: bool) -> None:
    utterances = make_utterances(num, modality_labels=modality_labels)
    assert_same(decode_shard(encode_shard(utterances)), utterances)
    assert_same(decode_shard(encode_shard(utterances), DIMS), utterances)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(1, 400))
def test_round_trip_in_any_row_groups(lengths: list[int], group_bytes: int) -> None:
    utterances = make_utterances(len(lengths), audio=lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_BYTES", group_bytes)
        data = encode_shard(utterances)
    assert_same(decode_shard(data), utterances)


@st.composite
def any_utterances(draw: st.DrawFn) -> Utterances:
    """Any lengths from 0, any dims from 1, ids or language features, any finite values, labels, names and texts."""
    num = draw(st.integers(1, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    extremes = np.array([0.0, -0.0, 1e-45, -3.4e38, 3.4e38, 1.0], np.float32)

    def sequences(dim: int) -> Ragged:
        lengths = draw(st.lists(st.integers(0, 9), min_size=num, max_size=num))
        values = random.normal(size=(sum(lengths), dim)).astype(np.float32)
        is_extreme = random.random(values.shape) < 0.2
        values[is_extreme] = random.choice(extremes, int(is_extreme.sum()))
        return Ragged.from_lengths(values, lengths)

    text_lengths = draw(st.lists(st.integers(0, 9), min_size=num, max_size=num))
    ids = random.integers(0, 2**31 - 1, sum(text_lengths)).astype(np.int32)
    text_dim = draw(st.sampled_from([0, 1, 2, 17]))
    texts = st.text(st.characters(codec="utf-8"), max_size=8)
    labelled = draw(st.sampled_from([(), MODALITIES, ("audio",)]))
    labels = np.array([draw(st.sampled_from([-3, -0.2, 0, 2.6, 3, np.nan])) for _ in range(num)], np.float32)
    return Utterances(
        utterance_id=draw(st.lists(texts, min_size=num, max_size=num)),
        raw_text=draw(st.lists(st.none() | texts, min_size=num, max_size=num)),
        label=labels,
        text=sequences(text_dim) if text_dim else Ragged.from_lengths(ids, text_lengths),
        audio=sequences(draw(st.sampled_from([1, 2, 5, 74]))),
        vision=sequences(draw(st.sampled_from([1, 3, 35]))),
        modality_labels={modality: labels[::-1].copy() for modality in labelled},
    )


def dims_of(utterances: Utterances) -> dict[Modality, int]:
    framed: tuple[Modality, ...] = MODALITIES if utterances.text_dim else ("audio", "vision")
    return {modality: utterances.sequences(modality).values.shape[1] for modality in framed}


@settings(max_examples=100, deadline=None)
@given(any_utterances(), st.integers(1, 2000))
def test_any_utterances_survive_bit_by_bit(utterances: Utterances, group_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_BYTES", group_bytes)
        data = encode_shard(utterances)
        assert data == encode_shard(utterances.take(np.arange(len(utterances))))
    for dims in (None, dims_of(utterances)):
        decoded = decode_shard(data, dims)
        assert_same(decoded, utterances)
        for modality in MODALITIES:
            assert decoded.sequences(modality).values.tobytes() == utterances.sequences(modality).values.tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_utterances(), st.lists(st.integers(1, 3), min_size=7, max_size=7), st.data())
def test_any_split_is_read_as_it_was_cut(
    store: Store, utterances: Utterances, sizes: list[int], data: st.DataObject
) -> None:
    """Whatever the shards, and whatever the manifest says of lengths, which it only expects."""
    bounds = np.minimum(np.cumsum([0, *sizes]), len(utterances))
    parts = [utterances.rows(int(a), int(b)) for a, b in pairwise(bounds) if a < b]
    entries = [write_shard(store, FOLDER, "train", part) for part in parts]
    stated = data.draw(st.sampled_from([0.0, 0.5, 3.0, 50.0]))
    lengths = LengthSummary(0, stated, 60, 0)
    manifest = replace(
        make_manifest(entries), dims=dims_of(utterances), lengths={"train": dict.fromkeys(MODALITIES, lengths)}
    )
    found = read_split(store, manifest, "train")
    assert_same(found, utterances)
    assert all(found.sequences(modality).values.flags.writeable for modality in MODALITIES)
    assert_same(Utterances.concatenate(list(iterate_shards(store, manifest, "train"))), utterances)
    np.testing.assert_array_equal(read_labels(store, manifest, "train"), utterances.label)
    for entry, part in zip(entries, parts, strict=True):
        names, own = read_lengths(store, entry)
        assert names == part.utterance_id
        assert all(np.array_equal(own[modality], part.lengths()[modality]) for modality in MODALITIES)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_utterances(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_a_value_that_is_not_finite_is_kept_by_a_shard_and_refused_by_a_split(
    store: Store, utterances: Utterances, value: float, data: st.DataObject
) -> None:
    """A shard is bytes; who reads a split gets no value that would spoil a training."""
    dims = dims_of(utterances)
    filled = [modality for modality in dims if len(utterances.sequences(modality).values)]
    assume(filled)
    modality = data.draw(st.sampled_from(filled))
    values = utterances.sequences(modality).values
    values[data.draw(st.integers(0, len(values) - 1)), data.draw(st.integers(0, values.shape[1] - 1))] = value
    entry = write_shard(store, FOLDER, "train", utterances)
    assert_same(read_shard(store, entry, dims), utterances)
    manifest = replace(make_manifest([entry]), dims=dims)
    for read in (read_split, lambda *arguments: list(iterate_shards(*arguments))):
        with pytest.raises(RefusedError, match=f"{modality} has values that are NaN or infinite"):
            read(store, manifest, "train")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 400))
def test_text_features_round_trip(num: int, dim: int, group_bytes: int) -> None:
    utterances = make_utterances(num, text_dim=dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "ROW_GROUP_BYTES", group_bytes)
        data = encode_shard(utterances)
    assert_same(decode_shard(data), utterances)
    assert_same(decode_shard(data, {**DIMS, "text": dim}), utterances)


def test_a_file_of_text_features_has_them_in_place_of_ids() -> None:
    utterances = make_utterances(8, text_dim=4)
    data = encode_shard(utterances)
    assert pq.read_schema(io.BytesIO(data)).names == [
        *("utterance_id", "raw_text", "label", "text", "audio", "vision"),
        *("text_length", "audio_length", "vision_length"),
    ]
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["text.list.element"].encodings
    frame = pd.read_parquet(io.BytesIO(data))
    for row in range(8):
        np.testing.assert_array_equal(np.asarray(frame["text"][row]).reshape(-1, 4), utterances.text[row])


def test_ids_are_not_taken_for_features_nor_features_for_ids() -> None:
    ids, features = encode_shard(make_utterances(3)), encode_shard(make_utterances(3, text_dim=4))
    with pytest.raises(RefusedError, match="column text_ids must be"):
        decode_shard(features, DIMS)
    with pytest.raises(RefusedError, match="column text must be"):
        decode_shard(ids, {**DIMS, "text": 4})
    with pytest.raises(RefusedError, match="text has 4 dimensions, expected 2"):
        decode_shard(features, {**DIMS, "text": 2})
    bare = pq.read_table(io.BytesIO(features)).replace_schema_metadata({})
    with pytest.raises(RefusedError, match="does not say how many text dimensions"):
        decode_shard(_encoded(bare))
    assert_same(decode_shard(_encoded(bare), {**DIMS, "text": 4}), make_utterances(3, text_dim=4))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("modality", MODALITIES)
def test_features_that_are_not_finite_are_refused_when_a_split_is_read(
    store: Store, modality: Modality, value: float
) -> None:
    utterances = make_utterances(12, text_dim=2)
    frames = utterances.sequences(modality)
    row = int(np.flatnonzero(frames.lengths)[-1])
    frames.values[frames.offsets[row + 1] - 1, -1] = value
    good = write_shard(store, FOLDER, "train", make_utterances(5, 1, text_dim=2))
    entry = write_shard(store, FOLDER, "train", utterances)
    manifest = make_manifest([good, entry])
    manifest = replace(manifest, dims={**manifest.dims, "text": 2})
    with pytest.raises(RefusedError) as refusal:
        read_split(store, manifest, "train")
    message = str(refusal.value)
    assert f"{entry.path}, utterance v0$_${row}: {modality} has values that are NaN or infinite" in message
    assert "run `lnln import PICKLE --corpus c --text features` again" in message and "\n" not in message


@pytest.mark.parametrize("wrong", [3.1, -3.01, np.inf])
def test_labels_out_of_range_are_refused_when_they_are_read(store: Store, wrong: float) -> None:
    utterances = make_utterances(12, modality_labels=True)
    utterances.label[:4] = [3.00005, -3, np.nan, wrong]
    entry = write_shard(store, FOLDER, "train", utterances)
    manifest = make_manifest([entry])
    acts: list[Callable[[], object]] = [
        lambda: read_split(store, manifest, "train"),
        lambda: read_labels(store, manifest, "train"),
    ]
    for act in acts:
        with pytest.raises(
            RefusedError, match=rf"{entry.path}, utterance v0\$_\$3: label is .*, expected -3 to 3; .*import"
        ):
            act()
    utterances.label[3] = 0
    utterances.modality_labels["audio"][7] = wrong
    mended = make_manifest([write_shard(store, FOLDER, "train", utterances)])
    assert len(read_labels(store, mended, "train")) == 12
    with pytest.raises(RefusedError, match=r"utterance v0\$_\$7: label_audio is"):
        read_split(store, mended, "train")


def test_everything_absent() -> None:
    utterances = replace(
        make_utterances(3, audio=[0, 0, 0]), vision=Ragged.from_lengths(np.zeros((0, 3), "f4"), [0] * 3)
    )
    assert_same(decode_shard(encode_shard(utterances)), utterances)


def test_equal_utterances_equal_bytes() -> None:
    assert encode_shard(make_utterances()) == encode_shard(make_utterances())
    taken = make_utterances(20).take(range(12))
    again = Utterances.concatenate([taken.take(range(5)), taken.take(range(5, 12))])
    assert encode_shard(taken) == encode_shard(again)


def test_values_survive_bit_by_bit() -> None:
    odd = np.array([[0.0, -0.0, 1e-45, 3.4e38, -1.0]], np.float32)
    utterances = replace(make_utterances(1), audio=Ragged.from_lengths(odd, [1]))
    assert decode_shard(encode_shard(utterances)).audio.values.tobytes() == odd.tobytes()


def test_file_is_as_the_data_contract_says() -> None:
    data = encode_shard(make_utterances(50, modality_labels=True))
    schema = pq.read_schema(io.BytesIO(data))
    assert schema.names == [
        *("utterance_id", "raw_text", "label", "label_text", "label_audio", "label_vision"),
        *("text_ids", "audio", "vision", "audio_length", "vision_length"),
    ]
    assert not schema.field("audio").nullable and not schema.field("audio").type.value_field.nullable
    assert schema.field("raw_text").nullable and schema.field("label").nullable
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name in ("audio.list.element", "vision.list.element"):
        assert columns[name].compression == "ZSTD" and "BYTE_STREAM_SPLIT" in columns[name].encodings
    assert not any(column.has_dictionary_page for column in columns.values())


def test_pandas_reads_it() -> None:
    utterances = make_utterances(8)
    frame = pd.read_parquet(io.BytesIO(encode_shard(utterances)))
    assert frame["utterance_id"].tolist() == utterances.utterance_id
    for row in range(8):
        audio = np.asarray(frame["audio"][row], np.float32).reshape(-1, AUDIO_DIM)
        assert len(audio) == frame["audio_length"][row]
        np.testing.assert_array_equal(audio, utterances.audio[row])
    assert frame["raw_text"].isna().tolist() == [text is None for text in utterances.raw_text]


def test_written_twice_is_one_file(store: Store, tmp_path: Path) -> None:
    first = write_shard(store, FOLDER, "train", make_utterances())
    assert write_shard(store, FOLDER, "train", make_utterances()) == first
    assert [path.name for path in (tmp_path / FOLDER / "train").iterdir()] == [f"part-{first.sha256[:12]}.parquet"]
    assert_same(read_shard(store, first, DIMS), make_utterances())


def test_split_of_several_shards_in_order(store: Store) -> None:
    parts = [make_utterances(num, seed) for seed, num in enumerate((5, 1, 9, 3, 2, 4, 7))]
    manifest = make_manifest([write_shard(store, FOLDER, "train", part) for part in parts])
    assert_same(read_split(store, manifest, "train"), Utterances.concatenate(parts))
    assert [len(part) for part in iterate_shards(store, manifest, "train")] == [5, 1, 9, 3, 2, 4, 7]
    assert len(next(iter(iterate_shards(store, manifest, "train")))) == 5
    np.testing.assert_array_equal(read_labels(store, manifest, "train"), np.concatenate([part.label for part in parts]))
    assert read_split(store, manifest, "train").audio.values.flags.writeable


@pytest.mark.parametrize("text_dim", [0, 3])
def test_labels_and_lengths_alone(store: Store, text_dim: int) -> None:
    utterances = make_utterances(30, text_dim=text_dim)
    names, lengths = read_lengths(store, write_shard(store, FOLDER, "train", utterances))
    assert names == utterances.utterance_id
    for modality, expected in utterances.lengths().items():
        np.testing.assert_array_equal(lengths[modality], expected)


@pytest.mark.slow
def test_a_split_is_in_memory_once_while_it_is_read(store: Store, tmp_path: Path) -> None:
    shard = make_utterances(50, audio=[10_000] * 50)
    entry, lengths = write_shard(store, FOLDER, "train", shard), LengthSummary.of(shard.audio.lengths)
    splits: dict[Split, SplitEntry] = {"train": SplitEntry(1500, (entry,) * 30), "valid": SplitEntry(300, (entry,) * 6)}
    manifest = replace(
        make_manifest(), splits=splits, lengths=dict.fromkeys(splits, dict.fromkeys(MODALITIES, lengths))
    )
    (tmp_path / "manifest.pkl").write_bytes(pickle.dumps(manifest))
    code = """
        import pickle
        from lnln.data.shards import read_split
        from lnln.data.store import Store

        store, manifest = Store(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())
        read_split(store, manifest, "valid")  # what is imported and allotted once
        begin()
        assert len(read_split(store, manifest, "train")) == 1500
        end()
    """
    # Shards being decoded, and what Arrow keeps for its threads; twice the split were 60 shards.
    assert peak_bytes(code, tmp_path, tmp_path / "manifest.pkl") < (30 + 18) * shard.audio.values.nbytes


def test_damage_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    entry = write_shard(store, FOLDER, "train", make_utterances())
    manifest, file = make_manifest([entry]), tmp_path / entry.path
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for data in (bytes(flipped), whole[:-1], b"", whole + b"\0"):
        file.write_bytes(data)
        assert set(damaged_shards(store, manifest)) == {entry.path}
        acts: list[Callable[[], object]] = [
            lambda: read_shard(store, entry, DIMS),
            lambda: read_split(store, manifest, "train"),
            lambda: read_labels(store, manifest, "train"),
            lambda: read_lengths(store, entry),
        ]
        for act in acts:
            with pytest.raises(
                RefusedError, match=rf"{entry.path} has .* its manifest says .* import or extract corpus c again"
            ):
                act()
    file.unlink()
    assert set(damaged_shards(store, manifest)) == {entry.path}
    with pytest.raises(RefusedError, match="is missing; import or extract corpus c again"):
        read_shard(store, entry, DIMS)
    write_shard(store, FOLDER, "train", make_utterances())
    assert damaged_shards(store, manifest) == []


def test_manifest_that_contradicts_its_shards_is_refused(store: Store) -> None:
    entry = write_shard(store, FOLDER, "train", make_utterances())
    with pytest.raises(RefusedError, match="has 12 rows, its manifest says 13"):
        read_shard(store, replace(entry, num_rows=13), DIMS)
    with pytest.raises(RefusedError, match="audio has 5 dimensions, expected 6"):
        read_shard(store, entry, {"audio": 6, "vision": VISION_DIM})
    manifest = replace(make_manifest([entry]), splits={"train": SplitEntry(11, (entry,))})
    with pytest.raises(RefusedError, match="has 12 utterances, its manifest says 11"):
        read_split(store, manifest, "train")
    with pytest.raises(RefusedError, match="no split 'valid'; it has train"):
        read_split(store, manifest, "valid")


def _table() -> pa.Table:
    return pq.read_table(io.BytesIO(encode_shard(make_utterances(6, audio=[2, 0, 1, 3, 1, 1]))))


def _encoded(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _with(name: str, values: pa.Array) -> pa.Table:
    table = _table()
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: _table().drop_columns("audio"), "column audio must be"),
        (lambda: _with("audio", pa.array(["x"] * 6)), "column audio must be"),
        (lambda: _with("label", pa.array([1.0] * 6)), "column label must be float, got double"),
        (lambda: _with("audio_length", pa.array([2, 0, 1, 3, 1, 2], pa.int32())), r"v0\$_\$5 has 5 audio values for 2"),
        (lambda: _with("audio_length", pa.array([2, 0, 1, 3, 1, -1], pa.int32())), "audio values for -1"),
        (lambda: _with("audio_length", pa.array([2, 0, 1, 3, 1, None], pa.int32())), "audio_length has empty rows"),
        (lambda: _with("text_ids", pa.array([[1, None]] * 6, pa.list_(pa.int32()))), "empty values"),
        (lambda: _table().slice(0, 0), "no utterances"),
        (lambda: _table().replace_schema_metadata({}), "does not say how many audio dimensions"),
        (lambda: _table().replace_schema_metadata({"lnln.audio_dim": "0", "lnln.vision_dim": "3"}), "dimensions"),
    ],
)
def test_foreign_files_are_refused(table: Callable[[], pa.Table], message: str) -> None:
    with pytest.raises(RefusedError, match=message) as refusal:
        decode_shard(_encoded(table()), name="given.parquet")
    assert "given.parquet" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"hello" * 100, encode_shard(make_utterances())[:-40]])
def test_no_parquet_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedError, match="given is no whole Parquet file"):
        decode_shard(data, name="given")


def test_flipped_bits_change_no_value() -> None:
    """Without a manifest, Parquet's page checksums are what is left."""
    utterances = make_utterances(20)
    whole = encode_shard(utterances)
    for position in range(4, len(whole), 61):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        try:
            assert_same(decode_shard(bytes(damaged), name="given"), utterances)
        except RefusedError as error:
            assert "given" in str(error)


def test_files_of_other_writers_are_read() -> None:
    """pandas and polars write large lists, nullable elements and no metadata of ours."""
    table = _table()
    for name in ("text_ids", "audio", "vision"):
        kind = pa.large_list(table.schema.field(name).type.value_type)
        table = table.set_column(table.schema.get_field_index(name), name, table.column(name).cast(kind))
    assert_same(
        decode_shard(_encoded(table.replace_schema_metadata({})), DIMS), make_utterances(6, audio=[2, 0, 1, 3, 1, 1])
    )


@pytest.mark.slow
def test_on_s3_the_same_entries(s3_store_url: str, store: Store) -> None:
    remote = Store(s3_store_url)
    entries = [write_shard(place, FOLDER, "train", make_utterances()) for place in (store, remote)]
    assert entries[0] == entries[1]
    assert_same(read_shard(remote, entries[1], DIMS), make_utterances())
    assert damaged_shards(remote, make_manifest([entries[1]])) == []


EXTRACTORS: dict[Modality, dict[str, object]] = {
    "audio": {"name": "a", "version": 2, "config": {"rates": (1, 2)}, "columns": ["x"], "packages": {"p": "1"}},
    "vision": {"name": "v", "version": 1, "config": {}},
}


@pytest.mark.parametrize("group_bytes", [1, 1 << 20])
def test_a_shard_of_clips_says_what_made_it(group_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", group_bytes)
    utterances = make_utterances(5)
    data = encode_shard(utterances, EXTRACTORS)
    assert read_extractors(data) == {
        "audio": {"name": "a", "version": 2, "config": {"rates": [1, 2]}},
        "vision": {"name": "v", "version": 1, "config": {}},
    }
    assert_same(decode_shard(data), utterances)
    assert data == encode_shard(utterances, dict(reversed(EXTRACTORS.items())))


def test_an_imported_shard_says_nothing_of_extractors() -> None:
    data = encode_shard(make_utterances(5))
    assert read_extractors(data) is None
    assert b"lnln.extractors" not in data


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"audio": 1}', b"\xff", b"[" * 100_000])
def test_damaged_words_on_extractors_are_refused(damaged: bytes) -> None:
    table = pq.read_table(io.BytesIO(encode_shard(make_utterances(3), EXTRACTORS)))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"lnln.extractors": damaged}), sink)
    with pytest.raises(RefusedError, match=r"clips\.parquet: its metadata lnln\.extractors is damaged"):
        read_extractors(sink.getvalue(), name="clips.parquet")
    with pytest.raises(RefusedError, match="no whole Parquet file"):
        read_extractors(b"no shard")
