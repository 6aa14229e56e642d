"""Simulated text as it is stored: shards, manifests, what is joined to which utterances, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.data.manifest import LengthSummary, SplitEntry
from lnln.data.regressor import Regressor
from lnln.data.schema import FeatureSpec, Ragged, Split, Utterances
from lnln.data.simulated_shards import (
    SimulatedRows,
    decode_simulated_shard,
    encode_simulated_shard,
    read_simulated_shard,
    write_simulated_shard,
)
from lnln.data.simulated_text import (
    Simulation,
    add_simulated_text,
    commit_simulation,
    damaged_simulation_files,
    list_simulations,
    load_simulator,
    load_simulator_folder,
    put_simulator_file,
    read_simulation,
    read_simulator_files,
    simulation_folder,
    with_simulation,
)
from lnln.data.store import Store
from lnln.errors import RefusedError

FEATURES, ID, OTHER = "f" * 12, "a" * 12, "b" * 12
DIM = 3


def rows(lengths: list[int], *, dim: int = DIM, texts: bool = False, first: int = 0) -> SimulatedRows:
    values = np.random.default_rng(sum(lengths)).normal(size=(sum(lengths), dim)).astype(np.float32)
    names = [f"v$_${first + i}" for i in range(len(lengths))]
    raw = [None if i % 2 else f"word ü {i}" for i in range(len(lengths))] if texts else None
    return SimulatedRows(names, Ragged.from_lengths(values, lengths), raw)


def utterances(num: int) -> Utterances:
    none = Ragged.from_lengths(np.zeros((0, 1), np.float32), [0] * num)
    return Utterances([f"v$_${i}" for i in range(num)], [None] * num, np.zeros(num, np.float32), none, none, none)


def regressor() -> Regressor:
    ones = np.ones(2, np.float32)
    return Regressor(2, ones, ones, np.ones((8, DIM), np.float32), np.zeros(DIM, np.float32))


def committed(store: Store, simulation_id: str = ID, **changed: Any) -> Simulation:
    """Of train, in two shards of 3 and 2 utterances."""
    folder = simulation_folder("tiny", FEATURES, simulation_id)
    parts = [rows([2, 0, 1]), rows([4, 1], first=3)]
    entries = tuple(write_simulated_shard(store, folder, "train", part) for part in parts)
    files = {name: put_simulator_file(store, folder, name, data) for name, data in regressor().files().items()}
    lengths: dict[Split, LengthSummary] = {"train": LengthSummary.of(np.array([2, 0, 1, 4, 1]))}
    simulation = Simulation(
        "tiny", FEATURES, simulation_id, {"name": "regressor"}, DIM, lengths, {"train": SplitEntry(5, entries)}, files
    )
    return commit_simulation(store, replace(simulation, **changed))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@settings(deadline=None, max_examples=40)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=9), dim=st.integers(1, 5), texts=st.booleans())
def test_a_shard_gives_back_what_it_was_given(lengths: list[int], dim: int, texts: bool) -> None:
    given_rows = rows(lengths, dim=dim, texts=texts)
    data = encode_simulated_shard(given_rows)
    assert data == encode_simulated_shard(given_rows)
    back = decode_simulated_shard(data, dim)
    assert (back.utterance_id, back.raw_text, back.dim) == (given_rows.utterance_id, given_rows.raw_text, dim)
    np.testing.assert_array_equal(back.steps.values, given_rows.steps.values)
    np.testing.assert_array_equal(back.steps.offsets, given_rows.steps.offsets)


def test_many_row_groups_are_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnln.data.simulated_shards.ROW_GROUP_BYTES", 30)
    given_rows = rows([3, 0, 0, 7, 1, 0])
    back = decode_simulated_shard(encode_simulated_shard(given_rows))
    assert back.utterance_id == given_rows.utterance_id
    np.testing.assert_array_equal(back.steps.values, given_rows.steps.values)
    np.testing.assert_array_equal(back.steps.lengths, [3, 0, 0, 7, 1, 0])


def test_a_shard_is_read_by_pandas(tmp_path: Path) -> None:
    import pandas

    (tmp_path / "a.parquet").write_bytes(encode_simulated_shard(rows([2, 0], texts=True)))
    table = pandas.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns) == ["utterance_id", "simulated_text", "simulated_text_length", "simulated_raw_text"]
    assert [len(values) for values in table.simulated_text] == [2 * DIM, 0]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_shard_is_refused_or_the_same(data: st.DataObject) -> None:
    given_rows = rows([2, 0, 3], texts=True)
    whole = bytearray(encode_simulated_shard(given_rows))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        back = decode_simulated_shard(bytes(whole), DIM)
    except RefusedError:
        return
    assert back.dim == DIM and np.isfinite(back.steps.values).all() and len(back.steps) == len(back.utterance_id)


def test_a_shard_of_another_width_is_refused() -> None:
    with pytest.raises(RefusedError, match="has 3 dimensions, expected 4"):
        decode_simulated_shard(encode_simulated_shard(rows([1])), 4)
    with pytest.raises(RefusedError, match="no whole Parquet file"):
        decode_simulated_shard(b"PAR1 and no more")


def test_what_was_committed_is_in_use(store: Store) -> None:
    with pytest.raises(RefusedError, match=r"has no simulated text.*run `lnln simulate tiny`"):
        read_simulation(store, "tiny", FEATURES)
    first = committed(store)
    assert read_simulation(store, "tiny", FEATURES) == read_simulation(store, "tiny", FEATURES, ID) == first
    second = committed(store, OTHER, counts={"utterances": 5})
    assert read_simulation(store, "tiny", FEATURES) == second and second.digest() != first.digest()
    assert read_simulation(store, "tiny", FEATURES, ID) == first
    assert list_simulations(store, "tiny", FEATURES) == [ID, OTHER]
    committed(store)  # again: in use again
    assert read_simulation(store, "tiny", FEATURES).simulation_id == ID
    assert damaged_simulation_files(store, first) == []


def test_of_two_commits_the_first_stands_unless_it_is_damaged(store: Store) -> None:
    first = committed(store)
    other = replace(first, quality={"penalty": 1.0})
    assert commit_simulation(store, other) == first
    assert commit_simulation(store, other, anew=True) == other == read_simulation(store, "tiny", FEATURES)
    store.write(f"{first.folder}/manifest.json", b"{}")
    assert commit_simulation(store, first) == first == read_simulation(store, "tiny", FEATURES)


@pytest.mark.parametrize(
    ("simulation_id", "reason"),
    [
        (OTHER, f"holds no simulated text {OTHER}.*it has {ID}.*run `lnln simulate tiny` with the options"),
        ("../../features", "named by twelve hexadecimal digits"),
        ("A" * 12, "named by twelve hexadecimal digits"),
    ],
)
def test_an_unknown_one_is_refused(store: Store, simulation_id: str, reason: str) -> None:
    committed(store)
    with pytest.raises(RefusedError, match=reason):
        read_simulation(store, "tiny", FEATURES, simulation_id)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"simulation_id": 3}', b'{"simulation_id": "../x"}'])
def test_a_damaged_pointer_is_refused(store: Store, content: bytes) -> None:
    committed(store)
    store.write(f"tiny/simulated/{FEATURES}/current.json", content)
    with pytest.raises(RefusedError, match=r"current.json"):
        read_simulation(store, "tiny", FEATURES)


def test_a_damaged_or_misplaced_manifest_is_refused(store: Store) -> None:
    made = committed(store)
    path = f"{made.folder}/manifest.json"
    whole = store.read(path)
    store.write(f"{simulation_folder('tiny', FEATURES, OTHER)}/manifest.json", whole)
    with pytest.raises(RefusedError, match="copied to the wrong place"):
        read_simulation(store, "tiny", FEATURES, OTHER)
    store.write(path, whole.replace(b'"dim": 3', b'"dim": 4'))
    with pytest.raises(RefusedError, match=r"damaged: .*run `lnln simulate tiny` again"):
        read_simulation(store, "tiny", FEATURES)


def test_simulated_text_is_joined_row_by_row(store: Store) -> None:
    made = committed(store)
    joined = add_simulated_text(store, made, "train", utterances(5))
    assert joined.simulated_text is not None and joined.simulated_text.lengths.tolist() == [2, 0, 1, 4, 1]
    np.testing.assert_array_equal(joined.simulated_text[3], rows([4, 1]).steps[0])
    assert joined.utterance_id == utterances(5).utterance_id and joined.take([3]).simulated_text is not None


@pytest.mark.parametrize(
    ("chosen", "row"), [([0, 1, 2, 3], 4), ([1, 0, 2, 3, 4], 0), ([0, 1, 2, 4, 3], 3), ([0, 0, 2, 3, 4], 1)]
)
def test_other_utterances_are_refused(store: Store, chosen: list[int], row: int) -> None:
    with pytest.raises(RefusedError, match=rf"\(row {row} is the first to differ\); run `lnln simulate tiny` again"):
        add_simulated_text(store, committed(store), "train", utterances(5).take(chosen))


def test_an_absent_split_and_damaged_shards_are_refused(store: Store) -> None:
    made = committed(store)
    with pytest.raises(RefusedError, match="has no split 'test', it has train"):
        add_simulated_text(store, made, "test", utterances(5))
    entry = made.splits["train"].shards[1]
    whole = store.read(entry.path)
    for damaged in (whole[:-1], whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], None):
        if damaged is None:
            store.remove(entry.path)
        else:
            store.write(entry.path, damaged)
        with pytest.raises(RefusedError, match="run `lnln simulate tiny` again"):
            add_simulated_text(store, made, "train", utterances(5))
        assert damaged_simulation_files(store, made) == [entry.path]
    store.write(entry.path, whole)
    with pytest.raises(RefusedError, match="has 3 dimensions, expected 7"):
        read_simulated_shard(store, entry, 7)


def test_a_spec_learns_of_simulated_text(store: Store) -> None:
    spec = FeatureSpec(1, 1, 9, 9, 9, 30522, 100, (-3.0, 3.0))
    told = with_simulation(spec, committed(store))
    assert (told.simulated_text_dim, told.simulated_text_length) == (DIM, 4)
    assert replace(told, simulated_text_dim=0, simulated_text_length=0) == spec


def test_a_simulator_comes_back_from_store_and_folder(store: Store, tmp_path: Path) -> None:
    made = committed(store)
    audio = np.arange(10, dtype=np.float32).reshape(5, 2)
    expected = regressor().simulate(audio)
    np.testing.assert_array_equal(load_simulator(store, made).simulate(audio), expected)
    for name, data in read_simulator_files(store, made).items():
        (tmp_path / name).write_bytes(data)
    np.testing.assert_array_equal(load_simulator_folder(tmp_path).simulate(audio), expected)
    with pytest.raises(RefusedError, match="cannot be read"):
        load_simulator_folder(tmp_path / "absent")
    file = next(iter(made.files.values()))
    store.write(file.path, b"other")
    with pytest.raises(RefusedError, match="does not have the SHA-256 of its manifest; run `lnln simulate tiny`"):
        load_simulator(store, made)
    store.remove(file.path)
    with pytest.raises(RefusedError, match="is missing; run `lnln simulate tiny` again"):
        load_simulator(store, made)
    heard = committed(store, OTHER, provider={"name": "recognition"}, files={})
    with pytest.raises(RefusedError, match="provider recognition, which hears the sound"):
        load_simulator(store, heard)
    assert read_simulator_files(store, heard) == {}
