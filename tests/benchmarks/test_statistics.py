"""Means, intervals and paired differences against cases that can be computed by hand, and against simulation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.results.scores import UNIT, SplitScores
from benchmarks.results.statistics import compare, pooled_chance, summarise
from lnln.errors import RefusedError
from lnln.evaluate.paired import TrainingChance


def split(value: float, samples: list[float], metric: str = "mae", views: tuple[str, ...] = ("v",)) -> SplitScores:
    drawn = [round(x / UNIT) for x in samples]
    return SplitScores((0.0,), (0,), views, 40, {metric: value}, [], {}, [], {}, {}, {metric: drawn})


def test_summary_by_hand() -> None:
    summary = summarise([split(1.0, [0.9, 1.1, 1.0]), split(1.2, [1.1, 1.3, 1.2])], "mae")
    assert summary.value == pytest.approx(1.1)
    assert summary.sd == pytest.approx(0.2 / np.sqrt(2))
    # The mean over seeds is 1.0, 1.2, 1.1 on the three resamples; 2.5% of the way from the least to the middle.
    assert [summary.low, summary.high] == pytest.approx([1.005, 1.195])
    assert summarise([split(1.0, [1.0])], "mae").sd is None


def test_pooled_by_hand() -> None:
    systems = [[split(1.0, [0]), split(3.0, [0])], [split(0.0, [0]), split(0.0, [0]), split(3.0, [0])], [split(9, [0])]]
    # Squares 2 with one degree of freedom, and 6 with two.
    chance = pooled_chance(systems, "mae")
    assert chance is not None and chance.freedom == 3
    assert chance.sd == pytest.approx(np.sqrt(8 / 3))
    assert pooled_chance(systems[2:], "mae") is None


def test_equal_systems_do_not_differ() -> None:
    same = {seed: split(1.0, [0.9, 1.0, 1.1]) for seed in (1, 2, 3)}
    difference = compare(same, same, "mae")
    assert difference is not None
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert difference.word == "no difference shown"


@pytest.mark.parametrize(("metric", "word"), [("mae", "better"), ("corr", "worse"), ("acc7", "worse")])
def test_lower_is_better_for_mae_alone(metric: str, word: str) -> None:
    mine, theirs = split(0.5, [0.4, 0.6], metric), split(0.8, [0.7, 0.9], metric)
    for system, reference, expected in [
        (mine, theirs, word),
        (theirs, mine, {"better": "worse", "worse": "better"}[word]),
    ]:
        difference = compare({1: system}, {1: reference}, metric)
        assert difference is not None and difference.word == expected
        assert not difference.counts_training


def test_only_common_seeds_are_compared() -> None:
    system, reference = {1: split(1.0, [1.0]), 2: split(5.0, [5.0])}, {2: split(4.0, [4.0]), 3: split(0.0, [0.0])}
    difference = compare(system, reference, "mae")
    assert difference is not None and difference.seeds == (2,) and difference.value == pytest.approx(1.0)
    assert compare({1: split(1, [1])}, reference, "mae") is None


def test_seeds_widen_the_interval_as_their_spread_says() -> None:
    """No chance of utterances: what is left is the standard error over pairs, from few of them."""
    values = [0.0, 0.3, 0.6]
    system = {seed: split(value, [value] * 1000) for seed, value in enumerate(values)}
    reference = {seed: split(0.0, [0.0] * 1000) for seed in range(3)}
    difference = compare(system, reference, "mae")
    assert difference is not None and difference.value == pytest.approx(0.3)
    # Student's t with two degrees of freedom: 4.303; the mean's standard error: 0.3 / sqrt(3).
    half = 4.303 * 0.3 / np.sqrt(3)
    assert [difference.low, difference.high] == pytest.approx([0.3 - half, 0.3 + half], abs=0.03)
    assert difference.counts_training and difference.is_better is None


def test_one_seed_borrows_the_chance_of_training() -> None:
    system, reference = {1: split(1.0, [1.0] * 1000)}, {1: split(0.9, [0.9] * 1000)}
    for freedom, quantile in ((8, 2.306), (200, 1.972)):
        difference = compare(system, reference, "mae", TrainingChance(0.05, freedom))
        assert difference is not None and difference.counts_training
        half = quantile * np.sqrt(2) * 0.05
        assert [difference.low, difference.high] == pytest.approx([0.1 - half, 0.1 + half], abs=0.004)
    assert difference is not None
    assert difference.is_better is None
    alone = compare(system, reference, "mae")
    assert alone is not None and alone.is_better is False and alone.low == pytest.approx(0.1)


def test_other_views_do_not_compare() -> None:
    with pytest.raises(RefusedError, match="do not compare"):
        compare({1: split(1, [1])}, {1: split(1, [1], views=("w",))}, "mae")


@settings(max_examples=50, deadline=None)
@given(
    num_seeds=st.integers(1, 4),
    num=st.integers(2, 40),
    shift=st.floats(-1, 1),
    chance=st.integers(0, 2**16),
    training=st.one_of(st.none(), st.builds(TrainingChance, st.floats(0, 0.5), st.integers(1, 20))),
)
def test_differences_are_antisymmetric_and_move_with_a_shift(
    num_seeds: int, num: int, shift: float, chance: int, training: TrainingChance | None
) -> None:
    random = np.random.default_rng(chance)
    drawn = random.normal(1, 0.2, (2, num_seeds, num))
    mine, theirs = (
        {seed: split(float(rows[seed].mean()), rows[seed].tolist()) for seed in range(num_seeds)} for rows in drawn
    )
    first, mirrored = compare(mine, theirs, "mae", training), compare(theirs, mine, "mae", training)
    assert first is not None and mirrored is not None
    assert first.value == pytest.approx(-mirrored.value)
    assert first.low <= first.high
    assert [first.low, first.high] == pytest.approx([-mirrored.high, -mirrored.low], abs=1e-9)
    moved = {
        seed: dataclasses.replace(
            each,
            mean={"mae": each.mean["mae"] + shift},
            samples={"mae": [x + round(shift / UNIT) for x in each.samples["mae"]]},
        )
        for seed, each in mine.items()
    }
    shifted = compare(moved, theirs, "mae", training)
    assert shifted is not None
    assert shifted.value == pytest.approx(first.value + shift)
    assert [shifted.low, shifted.high] == pytest.approx([first.low + shift, first.high + shift], abs=2e-5)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Two systems that differ by 0.02: three trainings each, utterances and trainings both by chance."""
    random = np.random.default_rng(0)
    held, num_utterances, trials = 0, 200, 200
    counts = random.multinomial(num_utterances, np.full(num_utterances, 1 / num_utterances), 150) / num_utterances
    for _ in range(trials):
        common = random.normal(1, 0.3, num_utterances)
        sides = []
        for truth in (0.02, 0.0):
            rows = common + truth + random.normal(0, 0.02, (3, 1)) + random.normal(0, 0.3, (3, num_utterances))
            sides.append({seed: split(float(row.mean()), (counts @ row).tolist()) for seed, row in enumerate(rows)})
        difference = compare(sides[0], sides[1], "mae")
        assert difference is not None
        held += difference.low <= 0.02 <= difference.high
    assert held / trials >= 0.93
