"""Masks: known answers, the statement of the generator in plain integers, and the promises about rates and order."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lnln import corruption
from lnln.config import CorruptionConfig
from lnln.corruption import (
    Lengths,
    Masks,
    ViewSpec,
    evaluation_views,
    make_many_masks,
    make_masks,
    training_view,
    training_views,
)
from lnln.data.schema import MODALITIES, Modality
from lnln.errors import RefusedError

WORD = 2**64 - 1
IDS = ["03bSnISJMiM$_$11", "a", "", "声音", "b\n"]
LENGTHS: dict[Modality, list[int]] = {"text": [9, 1, 0, 2, 40], "audio": [3, 0, 50, 1, 7], "vision": [0, 0, 5, 33, 2]}

# Made once by the plain functions below; a change here is a change of every stored view.
KNOWN = {
    "text": "1100110010111100000000111010110001110011",
    "audio": "10110010011110011010101110010101101110100101000011",
    "vision": "000001000010101101110100010101010",
}
KNOWN_RATES = [
    [0.18169033527374268, 0.11527645587921143, 0.0],
    [0.7953975200653076, 0.167552649974823, 0.0],
    [0.9204928278923035, 0.0, 0.0],
    [0.1663990616798401, 0.8767637610435486, 0.0],
    [0.5601213574409485, 0.5393150448799133, 0.10854500532150269],
]
KNOWN_TRAINING = {"text": "1000001000000011110100110110011001101001", "audio": "1110000"}
KNOWN_IDS = ["73477296d537", "aa5f944e9987"]
# Of `position_draw` and of `shared_uniforms`.
KNOWN_POSITIONS = {"text": "1111101001000000011001011111100010110111", "audio": "0111111"}
KNOWN_SHARED = {"text": "1100110010111100000000111010110001110011", "audio": "0001111", "vision": "00"}
KNOWN_NEW_IDS = ["6a8380f1776e", "e04d8b951427", "d435127da049"]


def plain_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def plain_mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def plain_bits(stream: str, name: str, n: int) -> int:
    key = plain_mix(plain_hash(name) ^ plain_hash(stream))
    return plain_mix((key + (n + 1) * 0x9E3779B97F4A7C15) & WORD)


def plain_rate(spec: ViewSpec, modality: Modality, name: str) -> float:
    if spec.rates is not None:
        return spec.rates[MODALITIES.index(modality)]
    stream = f"rate/{spec.seed}/{spec.draw}/{modality}"
    if (plain_bits(stream, name, 0) >> 11) * 2.0**-53 < spec.complete_share:
        return 0.0
    return (plain_bits(stream, name, 1) >> 40) * 2.0**-24


def plain_kept(spec: ViewSpec, modality: Modality, name: str, length: int, *, keep_ends: bool = True) -> list[bool]:
    rate = plain_rate(spec, modality, name)
    stream = f"frame/{spec.seed}/{spec.draw if spec.position_draw is None else spec.position_draw}"
    stream += "/audio" if spec.shared_uniforms and modality == "vision" else f"/{modality}"
    kept = [not (plain_bits(stream, name, p) >> 11) * 2.0**-53 < rate for p in range(length)]
    if modality == "text" and length and keep_ends:
        kept[0] = kept[-1] = True
    return kept


def as_text(masks: Masks, modality: Modality, index: int) -> str:
    return "".join("01"[int(kept)] for kept in masks.kept[modality][index])


def test_known_answers_of_an_evaluation_view() -> None:
    masks = make_masks(ViewSpec.evaluation(0.5, seed=0), IDS, LENGTHS)
    assert as_text(masks, "text", 4) == KNOWN["text"]
    assert as_text(masks, "audio", 2) == KNOWN["audio"]
    assert as_text(masks, "vision", 3) == KNOWN["vision"]


def test_known_answers_of_a_training_draw() -> None:
    masks = make_masks(ViewSpec.training(seed=1111, draw=3), IDS, LENGTHS)
    np.testing.assert_array_equal(masks.missing_rates, np.array(KNOWN_RATES, np.float32))
    assert as_text(masks, "text", 4) == KNOWN_TRAINING["text"]
    assert as_text(masks, "audio", 4) == KNOWN_TRAINING["audio"]


def test_known_view_ids() -> None:
    assert ViewSpec.evaluation(0.5, seed=0).view_id == KNOWN_IDS[0]
    assert ViewSpec.training(seed=1111, draw=3).view_id == KNOWN_IDS[1]


def test_known_answers_of_fixed_positions_and_shared_uniforms() -> None:
    positions = ViewSpec.training(seed=1111, draw=3, position_draw=0)
    masks = make_masks(positions, IDS, LENGTHS)
    np.testing.assert_array_equal(masks.missing_rates, np.array(KNOWN_RATES, np.float32))  # those of draw 3
    assert {m: as_text(masks, m, 4) for m in KNOWN_POSITIONS} == KNOWN_POSITIONS  # type: ignore[arg-type]
    shared = ViewSpec.evaluation(0.5, seed=0, shared_uniforms=True)
    found = make_masks(shared, IDS, LENGTHS)
    assert {m: as_text(found, m, 4) for m in MODALITIES} == KNOWN_SHARED
    both = ViewSpec.training(seed=1111, draw=3, position_draw=0, shared_uniforms=True)
    assert [positions.view_id, shared.view_id, both.view_id] == KNOWN_NEW_IDS


@pytest.mark.parametrize(
    "spec",
    [
        ViewSpec.evaluation(0.3, seed=7),
        ViewSpec.training(seed=1111, draw=4),
        ViewSpec.training(seed=2**70, draw=2**40, complete_share=0.1),
        ViewSpec(seed=0, rates=(0.1, 1.0, 0.0)),
        ViewSpec.training(seed=1111, draw=4, position_draw=0),
        ViewSpec.training(seed=1111, draw=4, shared_uniforms=True),
        ViewSpec.training(seed=3, draw=0, position_draw=7, shared_uniforms=True),
        ViewSpec.evaluation(0.3, seed=7, shared_uniforms=True),
        ViewSpec(seed=0, rates=(0.1, 0.5, 0.4), position_draw=2),
    ],
)
@pytest.mark.parametrize("keep_ends", [True, False])
def test_equals_the_statement_in_plain_integers(spec: ViewSpec, keep_ends: bool) -> None:
    masks = make_masks(spec, IDS, LENGTHS, keep_ends=keep_ends)
    for column, modality in enumerate(MODALITIES):
        for index, name in enumerate(IDS):
            expected = plain_kept(spec, modality, name, LENGTHS[modality][index], keep_ends=keep_ends)
            assert masks.kept[modality][index].tolist() == expected
            assert masks.missing_rates[index, column] == np.float32(plain_rate(spec, modality, name))


Row = tuple[str, int, int, int]
SPECS = st.one_of(
    st.builds(ViewSpec.evaluation, st.floats(0, 1), st.integers(0, 3), shared_uniforms=st.booleans()),
    st.builds(
        ViewSpec.training,
        st.integers(0, 3),
        st.integers(0, 3),
        st.floats(0, 1),
        position_draw=st.none() | st.integers(0, 3),
        shared_uniforms=st.booleans(),
    ),
)
CORPORA = st.lists(
    st.tuples(st.text(max_size=5), st.integers(0, 6), st.integers(0, 80), st.integers(0, 3)),
    max_size=12,
    unique_by=lambda row: row[0],
)


def columns(rows: list[Row]) -> tuple[list[str], dict[Modality, list[int]]]:
    ids, *sizes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return list(ids), {m: list(sizes[i]) for i, m in enumerate(MODALITIES)}


@given(SPECS, CORPORA, st.randoms(), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_masks_do_not_depend_on_order_company_or_blocks(
    spec: ViewSpec, rows: list[Row], random: Random, block: int
) -> None:
    ids, lengths = columns(rows)
    whole = make_masks(spec, ids, lengths)
    shuffled = sorted(rows, key=lambda _: random.random())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corruption, "_BLOCK", block)
        other = make_masks(spec, *columns(shuffled))
    for place, row in enumerate(shuffled):
        index = ids.index(row[0])
        np.testing.assert_array_equal(whole.missing_rates[index], other.missing_rates[place])
        for modality in MODALITIES:
            np.testing.assert_array_equal(whole.kept[modality][index], other.kept[modality][place])


@given(CORPORA, st.floats(0, 1), st.floats(0, 1), st.integers(0, 5), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_masks_are_nested_in_the_rate(
    rows: list[Row], one: float, two: float, seed: int, is_shared: bool, keep_ends: bool
) -> None:
    low, high = sorted((one, two))
    specs = [ViewSpec.evaluation(rate, seed, shared_uniforms=is_shared) for rate in (low, high)]
    less, more = make_many_masks(specs, *columns(rows), keep_ends=keep_ends)
    for modality in MODALITIES:
        assert (more.kept[modality].values <= less.kept[modality].values).all()


@given(CORPORA, st.integers(0, 5), st.integers(0, 9), st.integers(0, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_draws_at_fixed_positions_are_nested_in_the_rates_that_they_draw(
    rows: list[Row], seed: int, one: int, two: int, is_shared: bool
) -> None:
    """Who has the higher rate keeps a part of what the other keeps: only thresholds differ between epochs (D10)."""
    config = CorruptionConfig(draws="fixed_positions", shared_uniforms=is_shared)
    fresh = dataclasses.replace(config, draws="fresh")
    ids, lengths = columns(rows)
    drawn = make_many_masks([training_view(config, seed, epoch) for epoch in (one, two)], ids, lengths)
    for masks, epoch in zip(drawn, (one, two), strict=True):
        rates = make_masks(training_view(fresh, seed, epoch), ids, lengths).missing_rates
        np.testing.assert_array_equal(masks.missing_rates, rates)  # as fresh as those of other draws
    for index in range(len(ids)):
        for column, modality in enumerate(MODALITIES):
            less, more = sorted(drawn, key=lambda masks: masks.missing_rates[index, column])
            assert (more.kept[modality][index] <= less.kept[modality][index]).all()


@given(CORPORA, st.integers(0, 5), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_shared_uniforms_take_a_frame_out_of_audio_and_vision(rows: list[Row], seed: int, rate: float) -> None:
    ids, lengths = columns(rows)
    kept = make_masks(ViewSpec.evaluation(rate, seed, shared_uniforms=True), ids, lengths).kept
    own = make_masks(ViewSpec.evaluation(rate, seed), ids, lengths).kept
    for index in range(len(ids)):
        audio, vision = kept["audio"][index], kept["vision"][index]
        both = min(len(audio), len(vision))
        np.testing.assert_array_equal(audio[:both], vision[:both])
        for modality in ("text", "audio"):
            np.testing.assert_array_equal(kept[modality][index], own[modality][index])


@given(CORPORA, SPECS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_realised_rates_are_what_a_count_says(rows: list[Row], spec: ViewSpec, keep_ends: bool) -> None:
    ids, lengths = columns(rows)
    masks = make_masks(spec, ids, lengths, keep_ends=keep_ends)
    for modality in MODALITIES:
        for index, rate in enumerate(masks.realised_rates(modality)):
            kept = masks.kept[modality][index]
            open_to_it = kept[1:-1] if modality == "text" and keep_ends else kept
            expected = 1 - open_to_it.mean() if len(open_to_it) else 0.0
            assert rate == pytest.approx(expected, abs=1e-6)
        erased, erasable = masks.count_erased()[modality]
        sizes = np.maximum(masks.kept[modality].lengths - (2 if modality == "text" and keep_ends else 0), 0)
        assert erasable == sizes.sum()
        assert erased == pytest.approx(float((masks.realised_rates(modality) * sizes).sum()), abs=1e-2)
        assert masks.realised_rates(modality).dtype == np.float32


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
def test_of_language_features_every_step_may_fall_out(rate: float) -> None:
    ids = [f"clip{i}" for i in range(500)]
    lengths = {modality: np.full(500, 20) for modality in MODALITIES}
    masks = make_masks(ViewSpec.evaluation(rate, 3), ids, lengths, keep_ends=False)
    kept = masks.kept["text"].values.reshape(500, 20)
    error = 5 * np.sqrt(rate * (1 - rate) / 500)
    assert (np.abs(1 - kept.mean(axis=0) - rate) <= error).all()  # at the ends as anywhere
    assert masks.count_erased()["text"][1] == 500 * 20
    ids_masks = make_masks(ViewSpec.evaluation(rate, 3), ids, lengths)
    np.testing.assert_array_equal(ids_masks.kept["text"].values.reshape(500, 20)[:, 1:-1], kept[:, 1:-1])
    for modality in ("audio", "vision"):
        np.testing.assert_array_equal(ids_masks.kept[modality].values, masks.kept[modality].values)


def test_rates_zero_and_one_are_exact() -> None:
    ids = [f"u{i}" for i in range(300)]
    lengths: dict[Modality, NDArray[np.int64]] = {
        "text": np.arange(300) % 7,
        "audio": np.full(300, 99),
        "vision": np.arange(300),
    }
    nothing, everything = make_many_masks([ViewSpec.evaluation(0, 5), ViewSpec.evaluation(1, 5)], ids, lengths)
    for modality in MODALITIES:
        assert nothing.kept[modality].values.all()
    assert not everything.kept["audio"].values.any() and not everything.kept["vision"].values.any()
    assert everything.kept["text"].lengths.tolist() == lengths["text"].tolist()
    for index, length in enumerate(lengths["text"]):
        ends = [position in (0, length - 1) for position in range(length)]
        assert everything.kept["text"][index].tolist() == ends
    counts = everything.count_erased()
    assert counts["text"] == (np.maximum(lengths["text"] - 2, 0).sum(),) * 2
    assert counts["vision"] == (lengths["vision"].sum(),) * 2
    assert nothing.count_erased()["audio"] == (0, 300 * 99)


def test_a_rate_a_hair_above_a_uniform_drops_it_and_the_uniform_itself_does_not() -> None:
    uniform = (plain_bits("frame/0/0/audio", "x", 0) >> 11) * 2.0**-53
    lengths: Lengths = {"text": [0], "audio": [1], "vision": [0]}
    at, above = make_many_masks(
        [ViewSpec.evaluation(rate, 0) for rate in (uniform, np.nextafter(uniform, 1))], ["x"], lengths
    )
    assert at.kept["audio"].values.tolist() == [True]
    assert above.kept["audio"].values.tolist() == [False]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_erased_is_the_rate(rate: float) -> None:
    ids = [f"clip{i}" for i in range(400)]
    lengths = {modality: np.full(400, 500) for modality in MODALITIES}
    for erased, erasable in make_masks(ViewSpec.evaluation(rate, 3), ids, lengths).count_erased().values():
        assert abs(erased / erasable - rate) < 5 * np.sqrt(rate * (1 - rate) / erasable)


def test_streams_are_independent_over_modality_draw_seed_position_and_utterance() -> None:
    ids = [f"clip{i}" for i in range(200)]
    lengths = {modality: np.full(200, 300) for modality in MODALITIES}
    specs = [ViewSpec(seed, draw, (0.5, 0.5, 0.5)) for seed in (0, 1) for draw in (0, 1)]
    rows = [masks.kept[modality].values for masks in make_many_masks(specs, ids, lengths) for modality in MODALITIES]
    rows[::3] = [row.reshape(200, 300)[:, 1:-1].ravel() for row in rows[::3]]  # without [CLS] and [SEP]
    rows += [np.roll(rows[1], 1), np.roll(rows[1], 300), rows[1].reshape(200, 300).T.ravel()]
    size = min(map(len, rows))
    agreement = np.corrcoef(np.stack([row[:size] for row in rows]).astype(float)) - np.eye(len(rows))
    assert np.abs(agreement).max() < 5 / np.sqrt(size)


def test_training_rates_are_uniform_or_zero() -> None:
    ids = [f"clip{i}" for i in range(20_000)]
    none = {modality: np.zeros(20_000, int) for modality in MODALITIES}
    rates = make_masks(ViewSpec.training(1, 0, complete_share=0.5), ids, none).missing_rates
    assert rates.dtype == np.float32 and rates.shape == (20_000, 3) and rates.max() < 1
    is_complete = rates == 0
    assert np.abs(is_complete.mean(0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(is_complete.T.astype(float)) - np.eye(3)).max() < 0.04
    for column in range(3):
        drawn = np.sort(rates[~is_complete[:, column], column])
        assert np.abs(drawn - np.linspace(0, 1, len(drawn))).max() < 0.02  # Kolmogorov-Smirnov
    later = make_masks(ViewSpec.training(1, 1), ids, none).missing_rates
    assert abs(np.corrcoef(rates[:, 0], later[:, 0])[0, 1]) < 0.04


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_complete_share_at_its_ends(share: float, expected: float) -> None:
    ids = [f"clip{i}" for i in range(2000)]
    none = {modality: np.zeros(2000, int) for modality in MODALITIES}
    rates = make_masks(ViewSpec.training(1, 0, share), ids, none).missing_rates
    assert (rates == 0).mean() == pytest.approx(expected, abs=1e-3)


def test_no_utterances() -> None:
    masks = make_masks(ViewSpec.training(0, 0), [], {modality: [] for modality in MODALITIES})
    assert masks.missing_rates.shape == (0, 3)
    assert all(len(masks.kept[modality]) == 0 for modality in MODALITIES)
    assert make_many_masks([], ["a"], {modality: [1] for modality in MODALITIES}) == []


def test_an_utterance_longer_than_a_block() -> None:
    length = 3 * corruption._BLOCK + 1
    lengths: Lengths = {"text": [2, length, 5], "audio": [0, length, 0], "vision": [1, 0, 1]}
    masks = make_masks(ViewSpec.evaluation(0.5, 0), ["a", "b", "c"], lengths)
    for position in (1, corruption._BLOCK, length - 2):
        expected = not (plain_bits("frame/0/0/text", "b", position) >> 11) * 2.0**-53 < 0.5
        assert masks.kept["text"][1][position] == expected


def test_a_view_id_says_all_that_the_masks_depend_on_and_no_more() -> None:
    base = ViewSpec.evaluation(0.5, 0)
    assert base.view_id == ViewSpec(seed=0, rates=(0.5, 0.5, 0.5), complete_share=0.3).view_id
    assert ViewSpec.evaluation(0, 0).view_id == ViewSpec.evaluation(-0.0, 0).view_id
    assert ViewSpec.evaluation(1, 0).view_id == ViewSpec.evaluation(np.float64(1.0), 0).view_id
    specs = [base, ViewSpec.evaluation(0.4, 0), ViewSpec.evaluation(0.5, 1), ViewSpec(0, 1, (0.5, 0.5, 0.5))]
    specs += [ViewSpec.training(0, 0), ViewSpec.training(0, 1), ViewSpec.training(1, 0), ViewSpec.training(0, 0, 0.4)]
    specs += [ViewSpec.training(0, 1, position_draw=0), ViewSpec.training(0, 2, position_draw=0)]
    specs += [ViewSpec.training(0, 1, shared_uniforms=True), ViewSpec.evaluation(0.5, 0, shared_uniforms=True)]
    assert len({spec.view_id for spec in specs}) == len(specs)
    # One way to say one thing: a draw at its own positions, and an evaluation view, which draws nothing else.
    assert ViewSpec.training(0, 1, position_draw=1) == ViewSpec.training(0, 1)
    assert ViewSpec(0, 5, (0.5, 0.5, 0.5), position_draw=1) == ViewSpec(0, 1, (0.5, 0.5, 0.5))
    assert set(ViewSpec.training(0, 1, position_draw=1).to_dict()) == set(ViewSpec.training(0, 1).to_dict())
    json.dumps(base.to_dict())


def test_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from lnln.corruption import *; "
        "m = make_masks(ViewSpec.evaluation(0.5, 0), ['声音'], {'text': [0], 'audio': [0], 'vision': [33]}); "
        "print(''.join(str(int(k)) for k in m.kept['vision'].values), 'torch' in __import__('sys').modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert answer.stdout.split() == [KNOWN["vision"], "False"]


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 0, "rates": (0.1, 0.2, 1.1)},
        {"seed": 0, "rates": (0.1, 0.2, float("nan"))},
        {"seed": 0, "rates": (-0.1, 0.2, 0.3)},
        {"seed": 0, "rates": (0.1, 0.2)},
        {"seed": -1},
        {"seed": 0, "draw": -1},
        {"seed": 0, "position_draw": -1},
        {"seed": 0, "complete_share": 1.5},
        {"seed": 0, "protocol": "block"},
    ],
)
def test_a_wrong_view_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="view's"):
        ViewSpec(**values)


def test_views_of_a_config() -> None:
    config = CorruptionConfig()
    assert [spec.rates for spec in evaluation_views(config)] == [(rate,) * 3 for rate in config.rates]
    assert [spec.rates for spec in evaluation_views(config, (0.25,))] == [(0.25,) * 3]
    assert training_views(config, 5, 3) == [ViewSpec.training(5, draw, 0.5) for draw in range(3)]
    # Fixed draws are by the mask seed, so that every training seed has the same (D4, D8).
    fixed = dataclasses.replace(config, draws="fixed", mask_seed=1111)
    assert training_views(fixed, 5, 3) == [ViewSpec.training(1111, 0, 0.5)]
    assert training_views(fixed, 5, 0) == training_views(config, 5, 0) == []
    assert training_view(fixed, 5, 9) == training_view(fixed, 6, 0) == ViewSpec.training(1111, 0, 0.5)
    positions = dataclasses.replace(config, draws="fixed_positions")
    assert training_views(positions, 5, 3) == [
        ViewSpec.training(5, 0),
        ViewSpec.training(5, 1, position_draw=0),
        ViewSpec.training(5, 2, position_draw=0),
    ]
    shared = dataclasses.replace(fixed, shared_uniforms=True)
    assert all(spec.shared_uniforms for spec in [*evaluation_views(shared), training_view(shared, 5, 9)])
