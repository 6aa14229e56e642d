"""Paired differences against cases that can be computed by hand, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.evaluate.paired import (
    MOST_SEEDS,
    Difference,
    TrainingChance,
    paired_difference,
    pooled_chance,
    seeds_to_show,
    share_for,
    unpaired_difference,
)

THREE = (1, 2, 3)


def without_utterances(points: list[float], num_resamples: int = 1000) -> list[list[float]]:
    """Samples of differences that are the same whatever utterances are drawn."""
    return [[point] * num_resamples for point in points]


def test_by_hand_with_the_chance_of_training_alone() -> None:
    points = [-0.1, 0.2, 0.5]
    # Student's t with two degrees of freedom, the mean's standard error 0.3 / sqrt(3).
    for share, quantile in ((0.95, 4.303), (0.98, 6.965)):
        difference = paired_difference("mae", THREE, points, without_utterances(points), share=share)
        half = quantile * 0.3 / np.sqrt(3)
        assert difference.value == pytest.approx(0.2) and difference.share == share
        assert [difference.low, difference.high] == pytest.approx([0.2 - half, 0.2 + half], abs=0.03)
        assert difference.counts_training and difference.word == "no difference shown"


def test_by_hand_with_the_chance_of_utterances_alone() -> None:
    drawn = np.linspace(-0.3, -0.1, 41)
    difference = paired_difference("mae", (7,), [-0.2], [drawn])
    assert [difference.low, difference.high] == pytest.approx([-0.295, -0.105])
    assert difference.word == "better" and not difference.counts_training
    assert paired_difference("corr", (7,), [-0.2], [drawn]).word == "worse"
    # Pairs that answer opposite resamples alike cancel: a resample is one for all of them.
    both = paired_difference("mae", (7, 8), [-0.2, -0.2], [drawn, drawn[::-1]])
    assert [both.low, both.high] == pytest.approx([-0.2, -0.2])


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.floats(-1, 1), min_size=2, max_size=5),
    num=st.integers(2, 30),
    chance=st.integers(0, 2**16),
    shares=st.tuples(st.floats(0.5, 0.99), st.floats(0.5, 0.99)),
)
def test_a_larger_share_has_a_wider_interval_and_sides_may_be_exchanged(
    points: list[float], num: int, chance: int, shares: tuple[float, float]
) -> None:
    samples = np.random.default_rng(chance).normal(0, 0.2, (len(points), num)) + np.array(points)[:, None]
    seeds = range(len(points))
    narrow, wide = (paired_difference("mae", seeds, points, samples, share=share) for share in sorted(shares))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    mirrored = paired_difference("mae", seeds, [-point for point in points], -samples, share=narrow.share)
    assert [mirrored.low, mirrored.high] == pytest.approx([-narrow.high, -narrow.low], abs=1e-9)
    opposite = {"better": "worse", "worse": "better"}
    assert mirrored.word == opposite.get(narrow.word, narrow.word)


def made_difference(random: np.random.Generator, num_pairs: int, training: float, utterances: float) -> np.ndarray:
    """(K, 1 + 200): differences of two equal systems, and their samples. training: deviation of one pair's difference;
    utterances: error that all pairs share."""
    points = random.normal(0, utterances) + random.normal(0, training, (num_pairs, 1))
    return np.concatenate([points, points + random.normal(0, utterances, 200)], axis=1)


@pytest.mark.parametrize("num_pairs", [1, 3])
@pytest.mark.parametrize(("training", "utterances"), [(2.0, 1.0), (1.0, 1.0), (1.0, 2.0)])
def test_few_trainings_do_not_make_intervals_too_narrow(
    monkeypatch: pytest.MonkeyPatch, num_pairs: int, training: float, utterances: float
) -> None:
    monkeypatch.setattr("lnln.evaluate.paired.NUM_TRAINING_DRAWS", 16)
    random = np.random.default_rng(4)
    trials, freedom, held = 800, 8, 0
    for _ in range(trials):
        made = made_difference(random, num_pairs, training, utterances)
        pooled = TrainingChance(training / np.sqrt(2) * np.sqrt(random.chisquare(freedom) / freedom), freedom)
        difference = paired_difference("mae", range(num_pairs), made[:, 0], made[:, 1:], pooled)
        held += difference.low <= 0 <= difference.high
    assert held / trials >= 0.93


@pytest.mark.parametrize("num_candidates", [1, 4])
def test_the_best_of_several_that_are_no_better_is_seldom_called_better(
    monkeypatch: pytest.MonkeyPatch, num_candidates: int
) -> None:
    """Chance of training alone, where the interval of one is exact: so what is left is that of picking."""
    monkeypatch.setattr("lnln.evaluate.paired.NUM_TRAINING_DRAWS", 16)
    random = np.random.default_rng(8)
    trials, wrong, wrong_alone = 600, 0, 0
    for _ in range(trials):
        candidates = [made_difference(random, 3, 1.0, 0.0) for _ in range(num_candidates)]

        def is_called_better(share: float, candidates: list[np.ndarray] = candidates) -> bool:
            found = [paired_difference("mae", THREE, made[:, 0], made[:, 1:], share=share) for made in candidates]
            return any(difference.is_better for difference in found)

        wrong += is_called_better(share_for(num_candidates))
        wrong_alone += is_called_better(0.95)
    # Half of the 5 in 100 that an interval misses lie on the side of "better".
    assert wrong / trials <= 0.04
    if num_candidates > 1:
        assert wrong_alone / trials >= 0.06, "there was nothing to allow for"


def test_pooled_by_hand() -> None:
    # Squares 2 with one degree of freedom, and 6 with two.
    made = pooled_chance([[1.0, 3.0], [0.0, 0.0, 3.0], [9.0]])
    assert made is not None and made.freedom == 3 and made.sd == pytest.approx(np.sqrt(8 / 3))
    assert pooled_chance([[9.0]]) is None and pooled_chance([]) is None


def test_unpaired_by_hand_with_the_chance_of_training_alone() -> None:
    mine, theirs = [1.0, 1.2, 1.4], [0.5, 0.7]
    made = unpaired_difference("mae", mine, without_utterances(mine), theirs, without_utterances(theirs))
    # Squares 0.08 and 0.02 with three degrees of freedom, whose quantile is 3.182.
    half = 3.182 * np.sqrt(0.1 / 3) * np.sqrt(1 / 3 + 1 / 2)
    assert made.value == pytest.approx(0.6) and made.seeds == () and made.counts_training
    assert [made.low, made.high] == pytest.approx([0.6 - half, 0.6 + half], abs=0.02)
    untrained = unpaired_difference(
        "mae", mine, without_utterances(mine), [0.6], without_utterances([0.6]), are_trained=(True, False)
    )
    half = 4.303 * 0.2 / np.sqrt(3)
    assert [untrained.low, untrained.high] == pytest.approx([0.6 - half, 0.6 + half], abs=0.03)


def test_unpaired_single_trainings_need_a_chance_from_elsewhere() -> None:
    one, other = without_utterances([1.0]), without_utterances([0.9])
    alone = unpaired_difference("mae", [1.0], one, [0.9], other)
    assert not alone.counts_training and [alone.low, alone.high] == pytest.approx([0.1, 0.1])
    half = 2.306 * np.sqrt(2) * 0.05
    made = unpaired_difference("mae", [1.0], one, [0.9], other, TrainingChance(0.05, 8))
    assert made.counts_training and [made.low, made.high] == pytest.approx([0.1 - half, 0.1 + half], abs=0.005)
    neither = unpaired_difference("mae", [1.0], one, [0.9], other, TrainingChance(9, 8), are_trained=(False, False))
    assert neither.counts_training and neither.low == pytest.approx(0.1), "there is no chance of training to count"


def test_unpaired_trainings_do_not_make_intervals_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnln.evaluate.paired.NUM_TRAINING_DRAWS", 16)
    random = np.random.default_rng(6)
    trials, held = 600, 0
    for _ in range(trials):
        sides = []
        for num in (3, 2):
            points = random.normal(0, 1, num) + random.normal(0, 0.5)
            sides.append((points, points[:, None] + random.normal(0, 0.5, 200)))
        made = unpaired_difference("mae", *sides[0], *sides[1])
        held += made.low <= 0 <= made.high
    assert held / trials >= 0.93


def test_pairs_whose_seeds_are_not_known() -> None:
    points = [-0.1, 0.2, 0.5]
    made = paired_difference("mae", (), points, without_utterances(points))
    assert made.seeds == () and made.counts_training
    assert (made.low, made.high) == pytest.approx(
        tuple(
            getattr(paired_difference("mae", THREE, points, without_utterances(points)), end) for end in ("low", "high")
        )
    )


def shown_with(num_seeds: int, truth: float, deviation: float, random: np.random.Generator) -> bool:
    points = truth + random.normal(0, deviation, num_seeds)
    difference: Difference = paired_difference("mae", range(num_seeds), points, without_utterances(list(points), 50))
    return difference.is_better is not None


def test_the_number_of_seeds_that_would_show_it() -> None:
    points = [-0.05, 0.15, 0.2]
    num = seeds_to_show(points, without_utterances(points))
    # Mean 0.1, deviation 0.132: t(7) 0.132 / sqrt(8) = 0.110, t(8) 0.132 / sqrt(9) = 0.1017, t(9) 0.132 / sqrt(10).
    assert num == 10
    random = np.random.default_rng(0)
    shares = [
        np.mean([shown_with(each, 0.1, float(np.std(points, ddof=1)), random) for _ in range(400)])
        for each in (num // 2, num, 2 * num)
    ]
    assert shares[0] < 0.4 < shares[1] < 0.65 < 0.8 < shares[2], "about every other time"


def test_no_number_of_seeds_shows_what_the_utterances_hide() -> None:
    samples = np.random.default_rng(0).normal(0.1, 0.2, 1000)
    assert seeds_to_show([0.1, 0.1, 0.1], [samples] * 3) is None
    assert seeds_to_show([0.1, 0.1, 0.1], without_utterances([0.1] * 3)) == 2
    far_apart = [-10.0, 0.0, 10.1]
    assert seeds_to_show(far_apart, without_utterances(far_apart)) is None and MOST_SEEDS < 1000
