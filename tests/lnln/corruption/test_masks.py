"""Masks against their statement in plain integers, and what they promise of rates, order and chance, by protocol."""

from __future__ import annotations

import dataclasses
import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lnln.config import CorruptionConfig
from lnln.corruption import Lengths, Masks, ViewSpec, make_many_masks, make_masks, training_view
from lnln.corruption import masks as masks_module
from lnln.data.schema import MODALITIES, Modality
from tests.lnln.corruption.plain import (
    CORPORA,
    IDS,
    LENGTHS,
    PROTOCOLS,
    RATES,
    SPECS,
    Row,
    columns,
    plain_bits,
    plain_kept,
    plain_rate,
    plain_uniform,
)


def assert_as_stated(
    spec: ViewSpec, masks: Masks, ids: list[str], lengths: dict[Modality, list[int]], keep_ends: bool
) -> None:
    for column, modality in enumerate(MODALITIES):
        for index, name in enumerate(ids):
            expected = plain_kept(spec, modality, name, lengths[modality][index], keep_ends=keep_ends)
            assert masks.kept[modality][index].tolist() == expected
            assert masks.missing_rates[index, column] == np.float32(plain_rate(spec, modality, name))


@pytest.mark.parametrize("protocol", PROTOCOLS)
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
def test_equals_the_statement_in_plain_integers(spec: ViewSpec, keep_ends: bool, protocol: str) -> None:
    spec = dataclasses.replace(spec, protocol=protocol)
    assert_as_stated(spec, make_masks(spec, IDS, LENGTHS, keep_ends=keep_ends), IDS, LENGTHS, keep_ends)


@given(st.lists(SPECS, max_size=6), CORPORA, st.booleans())
@settings(max_examples=60, deadline=None)
def test_views_made_together_equal_the_statement_in_plain_integers(
    specs: list[ViewSpec], rows: list[Row], keep_ends: bool
) -> None:
    ids, lengths = columns(rows)
    for spec, masks in zip(specs, make_many_masks(specs, ids, lengths, keep_ends=keep_ends), strict=True):
        assert_as_stated(spec, masks, ids, lengths, keep_ends)


@given(SPECS, CORPORA, st.randoms(), st.integers(1, 100))
@settings(max_examples=60, deadline=None)
def test_masks_do_not_depend_on_order_company_or_blocks(
    spec: ViewSpec, rows: list[Row], random: Random, block: int
) -> None:
    ids, lengths = columns(rows)
    whole = make_masks(spec, ids, lengths)
    shuffled = sorted(rows, key=lambda _: random.random())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks_module, "_BLOCK", block)
        other = make_masks(spec, *columns(shuffled))
    for place, row in enumerate(shuffled):
        index = ids.index(row[0])
        np.testing.assert_array_equal(whole.missing_rates[index], other.missing_rates[place])
        for modality in MODALITIES:
            np.testing.assert_array_equal(whole.kept[modality][index], other.kept[modality][place])


@given(
    CORPORA,
    st.sampled_from(PROTOCOLS),
    st.tuples(RATES, RATES, RATES),
    st.tuples(RATES, RATES, RATES),
    st.integers(0, 5),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_masks_are_nested_in_the_rate_of_each_modality(
    rows: list[Row],
    protocol: str,
    one: tuple[float, float, float],
    two: tuple[float, float, float],
    seed: int,
    is_shared: bool,
    keep_ends: bool,
) -> None:
    specs = [
        ViewSpec(seed, rates=(rates[0], rates[1], rates[2]), protocol=protocol, shared_uniforms=is_shared)
        for rates in zip(*(sorted(pair) for pair in zip(one, two, strict=True)), strict=True)
    ]
    less, more = make_many_masks(specs, *columns(rows), keep_ends=keep_ends)
    for modality in MODALITIES:
        assert (more.kept[modality].values <= less.kept[modality].values).all()


@pytest.mark.parametrize("length", [1, 2, 3, 10, 37, 500])
@pytest.mark.parametrize("keep_ends", [True, False])
def test_stretches_are_nested_over_every_length_that_they_can_have(length: int, keep_ends: bool) -> None:
    ids = [f"clip{i}" for i in range(50)]
    lengths = {modality: np.full(50, length) for modality in MODALITIES}
    rates = [step / length for step in range(length + 1)]
    specs = [ViewSpec.evaluation(min(rate, 1.0), 2, "block") for rate in rates]
    all_masks = make_many_masks(specs, ids, lengths, keep_ends=keep_ends)
    for modality in MODALITIES:
        kept = np.stack([masks.kept[modality].values.reshape(50, length) for masks in all_masks])
        assert (kept[1:] <= kept[:-1]).all()
        num_changes = np.abs(np.diff(kept.astype(int), axis=2)).sum(axis=2)
        touches_end = ~kept[:, :, 0] | ~kept[:, :, -1]
        assert (num_changes <= 2).all() and (num_changes[touches_end] <= 1).all()  # one stretch


@given(CORPORA, st.sampled_from(PROTOCOLS), st.integers(0, 5), st.integers(0, 9), st.integers(0, 9), st.booleans())
@settings(max_examples=80, deadline=None)
def test_draws_at_fixed_positions_are_nested_in_the_rates_that_they_draw(
    rows: list[Row], protocol: str, seed: int, one: int, two: int, is_shared: bool
) -> None:
    """Who has the higher rate keeps a part of what the other keeps: only thresholds differ between epochs (D10)."""
    config = dataclasses.replace(
        CorruptionConfig(draws="fixed_positions", shared_uniforms=is_shared),
        protocol=protocol,  # type: ignore[arg-type]
    )
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


@given(CORPORA, st.integers(0, 5), st.floats(0, 1), st.sampled_from(["frame", "noise"]))
@settings(max_examples=60, deadline=None)
def test_shared_uniforms_take_a_frame_out_of_audio_and_vision(
    rows: list[Row], seed: int, rate: float, protocol: str
) -> None:
    ids, lengths = columns(rows)
    kept = make_masks(ViewSpec.evaluation(rate, seed, protocol, shared_uniforms=True), ids, lengths).kept
    own = make_masks(ViewSpec.evaluation(rate, seed), ids, lengths).kept
    for index in range(len(ids)):
        audio, vision = kept["audio"][index], kept["vision"][index]
        both = min(len(audio), len(vision))
        np.testing.assert_array_equal(audio[:both], vision[:both])
        for modality in ("text", "audio"):
            np.testing.assert_array_equal(kept[modality][index], own[modality][index])


@pytest.mark.parametrize("protocol", ["block", "modality"])
def test_shared_uniforms_take_the_same_part_out_of_audio_and_vision(protocol: str) -> None:
    ids = [f"clip{i}" for i in range(200)]
    lengths = {modality: np.full(200, 31) for modality in MODALITIES}
    for spec in (
        ViewSpec.evaluation(0.4, 0, protocol, shared_uniforms=True),
        ViewSpec.evaluation(0.4, 0, protocol),
    ):
        kept = make_masks(spec, ids, lengths).kept
        is_same = np.array_equal(kept["audio"].values, kept["vision"].values)
        assert is_same == spec.shared_uniforms


@given(CORPORA, SPECS, st.booleans())
@settings(max_examples=80, deadline=None)
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
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_of_language_features_every_step_may_fall_out(rate: float, protocol: str) -> None:
    ids = [f"clip{i}" for i in range(500)]
    lengths = {modality: np.full(500, 20) for modality in MODALITIES}
    masks = make_masks(ViewSpec.evaluation(rate, 3, protocol), ids, lengths, keep_ends=False)
    kept = masks.kept["text"].values.reshape(500, 20)
    if protocol != "block":
        error = 5 * np.sqrt(rate * (1 - rate) / 500)
        assert (np.abs(1 - kept.mean(axis=0) - rate) <= error).all()  # at the ends as anywhere
    assert (rate == 0) == kept[:, 0].all() == kept[:, -1].all()
    assert masks.count_erased()["text"][1] == 500 * 20
    ids_masks = make_masks(ViewSpec.evaluation(rate, 3, protocol), ids, lengths)
    if protocol != "block":
        np.testing.assert_array_equal(ids_masks.kept["text"].values.reshape(500, 20)[:, 1:-1], kept[:, 1:-1])
    for modality in ("audio", "vision"):
        np.testing.assert_array_equal(ids_masks.kept[modality].values, masks.kept[modality].values)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rates_zero_and_one_are_exact(protocol: str) -> None:
    ids = [f"u{i}" for i in range(300)]
    lengths: dict[Modality, NDArray[np.int64]] = {
        "text": np.arange(300) % 7,
        "audio": np.full(300, 99),
        "vision": np.arange(300),
    }
    specs = [ViewSpec.evaluation(0, 5, protocol), ViewSpec.evaluation(1, 5, protocol)]
    nothing, everything = make_many_masks(specs, ids, lengths)
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


@given(CORPORA, SPECS)
@example([("a", 0, 0, 0), ("b", 1, 1, 1), ("c", 2, 2, 2), ("d", 3, 1, 0)], ViewSpec.evaluation(1.0, 0, "block"))
@settings(max_examples=80, deadline=None)
def test_the_ends_of_token_ids_always_stay(rows: list[Row], spec: ViewSpec) -> None:
    text = make_masks(spec, *columns(rows)).kept["text"]
    for index, row in enumerate(rows):
        assert len(text[index]) == row[1]
        assert row[1] == 0 or (text[index][0] and text[index][-1])


def test_fixed_subsets_are_rates_of_zero_and_one() -> None:
    """The six cases in which the paper misses whole modalities."""
    ids = [f"u{i}" for i in range(40)]
    lengths = {modality: np.arange(40) for modality in MODALITIES}
    for absent in ({"text"}, {"audio"}, {"vision"}, {"text", "audio"}, {"text", "vision"}, {"audio", "vision"}):
        text, audio, vision = (float(modality in absent) for modality in MODALITIES)
        masks = make_masks(ViewSpec(0, rates=(text, audio, vision), protocol="modality"), ids, lengths)
        for modality in MODALITIES:
            share = set(masks.realised_rates(modality)[3:].tolist())
            assert share == ({1.0} if modality in absent else {0.0})


def test_a_modality_is_there_or_not_as_a_whole() -> None:
    ids = [f"u{i}" for i in range(2000)]
    lengths = {modality: np.full(2000, 9) for modality in MODALITIES}
    for spec in (ViewSpec.evaluation(0.3, 0, "modality"), ViewSpec.training(0, 0, 0.0, "modality")):
        masks = make_masks(spec, ids, lengths)
        for column, modality in enumerate(MODALITIES):
            share = masks.realised_rates(modality)
            assert set(share.tolist()) == {0.0, 1.0}
            assert abs(share.mean() - masks.missing_rates[:, column].mean()) < 5 * np.sqrt(0.25 / 2000)
    # In training the drawn rate decides: who drew a high one is absent more often.
    is_high = masks.missing_rates[:, 1] > 0.5
    absent = masks.realised_rates("audio")
    assert abs(absent[is_high].mean() - 0.75) < 0.08 and abs(absent[~is_high].mean() - 0.25) < 0.08


def test_a_rate_a_hair_above_a_uniform_drops_it_and_the_uniform_itself_does_not() -> None:
    lengths: Lengths = {"text": [0], "audio": [1], "vision": [0]}
    for protocol, name in itertools.product(PROTOCOLS, ("x", "y", "z", "z1", "z2", "z3")):
        purpose = "frame" if protocol == "noise" else protocol
        uniform = plain_uniform(plain_bits(f"{purpose}/0/0/audio", name, 0))
        at, above = make_many_masks(
            [ViewSpec.evaluation(rate, 0, protocol) for rate in (uniform, np.nextafter(uniform, 1))], [name], lengths
        )
        assert at.kept["audio"].values.tolist() == [True]
        assert above.kept["audio"].values.tolist() == [False]


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_share_that_is_erased_is_the_rate(rate: float, protocol: str) -> None:
    num = 20_000 if protocol == "modality" else 400
    length = 500 if protocol != "modality" else 3
    ids = [f"clip{i}" for i in range(num)]
    lengths = {modality: np.full(num, length) for modality in MODALITIES}
    masks = make_masks(ViewSpec.evaluation(rate, 3, protocol), ids, lengths)
    for modality, (erased, erasable) in masks.count_erased().items():
        # What is drawn: one number per step, per utterance, or only whether a stretch is one step longer.
        error = 5 * np.sqrt(rate * (1 - rate) / (num if protocol == "modality" else erasable))
        if protocol == "block":
            sizes = masks.realised_rates(modality) * erasable / num
            assert np.abs(sizes - rate * erasable / num).max() < 1
            error = 5 * 0.5 / np.sqrt(num) / (erasable / num)
        assert abs(erased / erasable - rate) < error


def test_short_stretches_are_right_in_the_mean() -> None:
    num = 20_000
    ids = [f"clip{i}" for i in range(num)]
    lengths: Lengths = {"text": np.full(num, 3), "audio": np.full(num, 1), "vision": np.full(num, 7)}
    for rate in (0.05, 0.3, 0.95):
        masks = make_masks(ViewSpec.evaluation(rate, 1, "block"), ids, lengths)
        for modality in MODALITIES:
            assert abs(masks.realised_rates(modality).mean() - rate) < 5 * np.sqrt(0.25 / num)


def test_a_stretch_may_begin_anywhere() -> None:
    num = 20_000
    ids = [f"clip{i}" for i in range(num)]
    masks = make_masks(ViewSpec.evaluation(0.5, 1, "block"), ids, {m: np.full(num, 10) for m in MODALITIES})
    starts = (~masks.kept["audio"].values.reshape(num, 10)).argmax(axis=1)
    shares = np.bincount(starts, minlength=10) / num
    assert (np.abs(shares[:6] - 1 / 6) < 5 * np.sqrt(1 / 6 / num)).all() and not shares[6:].any()
    text = (~masks.kept["text"].values.reshape(num, 10)).argmax(axis=1)
    assert set(text.tolist()) == {1, 2, 3, 4, 5}  # 4 of 8, between [CLS] and [SEP]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_streams_are_independent_over_modality_draw_seed_position_and_utterance(protocol: str) -> None:
    ids = [f"clip{i}" for i in range(4000 if protocol == "modality" else 200)]
    length = 3 if protocol == "modality" else 300
    shape = len(ids), length
    lengths = {modality: np.full(len(ids), length) for modality in MODALITIES}
    specs = [ViewSpec(seed, draw, (0.5, 0.5, 0.5), protocol) for seed in (0, 1) for draw in (0, 1)]
    made = make_many_masks(specs, ids, lengths)
    if protocol in ("block", "modality"):  # one number of each utterance and modality: where it begins, or whether
        kept = [masks.kept[m].values.reshape(shape)[:, 1:-1] for masks in made for m in MODALITIES]
        rows = [each.argmin(axis=1) if protocol == "block" else each[:, 0] for each in kept]
        rows += [np.roll(rows[1], 1)]
    else:
        rows = [masks.kept[m].values for masks in made for m in MODALITIES]
        rows[::3] = [row.reshape(shape)[:, 1:-1].ravel() for row in rows[::3]]  # without [CLS] and [SEP]
        rows += [np.roll(rows[1], 1), np.roll(rows[1], length), rows[1].reshape(shape).T.ravel()]
    size = min(map(len, rows))
    agreement = np.corrcoef(np.stack([row[:size] for row in rows]).astype(float)) - np.eye(len(rows))
    assert np.abs(agreement).max() < 5 / np.sqrt(size)


def test_noise_hits_what_frame_erases() -> None:
    for rate in (0.2, 0.7):
        frame, noise = (make_masks(ViewSpec.evaluation(rate, 0, p), IDS, LENGTHS) for p in ("frame", "noise"))
        for modality in MODALITIES:
            np.testing.assert_array_equal(frame.kept[modality].values, noise.kept[modality].values)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_training_rates_are_uniform_or_zero(protocol: str) -> None:
    ids = [f"clip{i}" for i in range(20_000)]
    none = {modality: np.zeros(20_000, int) for modality in MODALITIES}
    rates = make_masks(ViewSpec.training(1, 0, 0.5, protocol), ids, none).missing_rates
    assert rates.dtype == np.float32 and rates.shape == (20_000, 3) and rates.max() < 1
    is_complete = rates == 0
    assert np.abs(is_complete.mean(0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(is_complete.T.astype(float)) - np.eye(3)).max() < 0.04
    for column in range(3):
        drawn = np.sort(rates[~is_complete[:, column], column])
        assert np.abs(drawn - np.linspace(0, 1, len(drawn))).max() < 0.02  # Kolmogorov-Smirnov
    later = make_masks(ViewSpec.training(1, 1, 0.5, protocol), ids, none).missing_rates
    assert abs(np.corrcoef(rates[:, 0], later[:, 0])[0, 1]) < 0.04


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_complete_share_at_its_ends(share: float, expected: float) -> None:
    ids = [f"clip{i}" for i in range(2000)]
    none = {modality: np.zeros(2000, int) for modality in MODALITIES}
    rates = make_masks(ViewSpec.training(1, 0, share), ids, none).missing_rates
    assert (rates == 0).mean() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_utterances(protocol: str) -> None:
    for spec in (ViewSpec.training(0, 0, protocol=protocol), ViewSpec.evaluation(0.5, 0, protocol)):
        masks = make_masks(spec, [], {modality: [] for modality in MODALITIES})
        assert masks.missing_rates.shape == (0, 3)
        assert all(len(masks.kept[modality]) == 0 for modality in MODALITIES)
    assert make_many_masks([], ["a"], {modality: [1] for modality in MODALITIES}) == []


def test_an_utterance_longer_than_a_block() -> None:
    length = 3 * masks_module._BLOCK + 1
    lengths: Lengths = {"text": [2, length, 5], "audio": [0, length, 0], "vision": [1, 0, 1]}
    masks = make_masks(ViewSpec.evaluation(0.5, 0), ["a", "b", "c"], lengths)
    for position in (1, masks_module._BLOCK, length - 2):
        expected = not plain_uniform(plain_bits("frame/0/0/text", "b", position)) < 0.5
        assert masks.kept["text"][1][position] == expected
