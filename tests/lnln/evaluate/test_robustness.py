"""Robustness against cases that can be computed by hand, and what it is when there is nothing to last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from lnln.evaluate.estimates import score_suite
from lnln.evaluate.paired import TrainingChance, paired_difference
from lnln.evaluate.robustness import effective_robustness, robustness
from lnln.evaluate.systems import score_systems
from tests.lnln.conftest import RunStore
from tests.lnln.evaluate.made_scores import CONSTANT, made_scores


def test_accuracy_by_hand() -> None:
    scores = made_scores({"acc7": [[0.4, 0.3, 0.1], [0.4, 0.1, 0.1]]})
    made = robustness(scores, "acc7")
    # Means 0.4, 0.2, 0.1: trapezoids (0.6 / 2) 0.5 + (0.3 / 2) 0.4, over a span of 0.9.
    assert made.area is not None and made.area.value == pytest.approx((0.3 * 0.5 + 0.15 * 0.4) / 0.9)
    kept = [each.value for each in made.retention if each is not None]
    assert kept == pytest.approx([1, 0.5, 0.25])
    assert made.retention[1] is not None and made.retention[1].sd_seeds == pytest.approx(np.std([0.75, 0.25], ddof=1))
    assert made.relative is not None and made.relative.value == pytest.approx(0.375)
    rate, worst = made.worst
    assert rate == 0.9 and worst.value == pytest.approx(0.1)


def test_mae_is_taken_as_a_gain_on_the_train_mean() -> None:
    made = robustness(made_scores({"mae": [[0.8, 1.1, 1.5]]}), "mae")
    kept = [each.value for each in made.retention if each is not None]
    assert kept == pytest.approx([1, 0.5, -1 / 6]), "below the constant there is less than nothing left"
    assert made.worst[0] == 0.9 and made.worst[1].value == pytest.approx(1.5)
    assert made.area is not None and made.area.value == pytest.approx((0.95 * 0.5 + 1.3 * 0.4) / 0.9)
    assert made.relative is not None and made.relative.value == pytest.approx((1.4 - 1.3) / 0.6)


def test_utterances_move_model_and_constant_together() -> None:
    """A resample whose labels lie further out has a larger error of both, by the same factor."""
    factor = np.linspace(0.5, 1.5, 200)
    samples = factor[None, :, None] * np.array([0.8, 1.1, 1.3])
    scores = made_scores(
        {"mae": [[0.8, 1.1, 1.3]]}, samples={"mae": samples}, constant_samples=factor * CONSTANT["mae"]
    )
    made = robustness(scores, "mae").retention[1]
    assert made is not None and [made.low, made.high] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("metric", "points"),
    [("mae", [[1.4, 1.4, 1.4]]), ("corr", [[0.0, 0.1, 0.2]]), ("mae", [[0.9, 1.0, 1.1], [1.5, 1.5, 1.5]])],
)
def test_nothing_to_retain_is_none(metric: str, points: list[list[float]]) -> None:
    made = robustness(made_scores({metric: points}), metric)
    assert made.retention == (None, None, None) and made.relative is None
    assert made.area is not None


def test_a_score_that_other_utterances_could_lack_has_no_retention() -> None:
    samples = np.full((1, 200, 3), 0.1)
    samples[0, 7, 0] = -0.01
    scores = made_scores({"corr": [[0.1, 0.1, 0.1]]}, samples={"corr": samples})
    assert robustness(scores, "corr").retention == (None, None, None)


def test_one_rate_and_whole_modalities() -> None:
    one = robustness(made_scores({"acc7": [[0.4]]}, rates=(0.0,)), "acc7")
    assert one.area is None and one.relative is None
    assert one.retention[0] is not None and one.retention[0].value == 1
    absent = made_scores({"acc7": [[0.3, 0.2]]}, rates=((0.0, 1.0, 1.0), (1.0, 0.0, 0.0)), suite="absent")
    alone = robustness(absent, "acc7")
    assert alone.retention == (None, None) and alone.area is None and alone.worst[0] == (1.0, 0.0, 0.0)
    complete = made_scores({"acc7": [[[0.5, 0.3, 0.1], [0.3, 0.3, 0.1]]]})
    kept = robustness(absent, "acc7", complete).retention
    assert [each.value for each in kept if each is not None] == pytest.approx([0.75, 0.5])


SCORES = st.lists(st.floats(0.05, 1), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(points=st.lists(SCORES, min_size=1, max_size=4))
def test_area_lies_between_the_scores_and_all_is_there_at_rate_0(points: list[list[float]]) -> None:
    made = robustness(made_scores({"acc7": points}), "acc7")
    mean = np.mean(points, axis=0)
    assert made.area is not None and mean.min() - 1e-9 <= made.area.value <= mean.max() + 1e-9
    whole = made.retention[0]
    assert whole is not None and (whole.value, whole.low, whole.high) == pytest.approx((1, 1, 1))
    assert made.worst[1].value == pytest.approx(mean.min())


def test_effective_robustness_by_hand() -> None:
    reference = made_scores({"mae": [[1.0, 1.2, 1.3]], "acc7": [[0.4, 0.3, 0.25]]}, title="reference")
    scores = made_scores({"mae": [[0.8, 1.0, 1.4]], "acc7": [[0.6, 0.4, 0.2]]})
    made = effective_robustness(scores, reference, "mae")
    assert made is not None and made.rates == (0.5, 0.9) and made.reference == "reference"
    # The reference keeps 1/2 and 1/4 of its gain of 0.4 on 1.4; of 0.6 that would be 0.3 and 0.15, so MAE 1.1 and 1.25.
    assert [each.value for each in made.by_rate] == pytest.approx([-0.1, 0.15])
    assert [each.word for each in made.by_rate] == ["better", "worse"]
    assert made.mean.value == pytest.approx(0.025)
    accuracy = effective_robustness(scores, reference, "acc7")
    # Of 0.4 above 0.2 the reference's half and quarter: 0.4 and 0.3.
    assert accuracy is not None and [each.value for each in accuracy.by_rate] == pytest.approx([0, -0.1])
    assert [each.word for each in accuracy.by_rate] == ["no difference shown", "worse"]


@settings(max_examples=60, deadline=None)
@given(
    gains=st.lists(st.tuples(st.floats(0.1, 1), st.floats(-0.2, 1), st.floats(-0.2, 1)), min_size=1, max_size=3),
    factor=st.floats(0.1, 3),
    metric=st.sampled_from(["mae", "corr", "acc7", "f1_np"]),
)
def test_who_loses_what_the_reference_loses_has_none(
    gains: list[tuple[float, float, float]], factor: float, metric: str
) -> None:
    constant, sign = CONSTANT.get(metric, 0.2), -1 if metric == "mae" else 1
    above = np.array(gains)
    reference = made_scores({metric: constant + sign * above}, title="reference")
    scores = made_scores({metric: constant + sign * factor * above})
    made = effective_robustness(scores, reference, metric)
    assert made is not None
    assert [each.value for each in (*made.by_rate, made.mean)] == pytest.approx([0, 0, 0], abs=1e-9)


def test_effective_robustness_needs_a_gain_and_pairs() -> None:
    good = made_scores({"mae": [[1.0, 1.2, 1.3]]})
    constant = made_scores({"mae": [[1.4, 1.4, 1.4]]}, title="constant")
    assert effective_robustness(good, constant, "mae") is None
    of_constant = effective_robustness(constant, good, "mae")
    assert of_constant is not None and of_constant.mean.value == pytest.approx(0)
    others = made_scores({"mae": [[1.0, 1.2, 1.3]]}, title="other seeds", seeds=[7])
    assert effective_robustness(good, others, "mae") is None
    ridge = made_scores({"mae": [[1.0, 1.2, 1.3]]}, title="ridge", seeds=[None], is_trained=False)
    two = made_scores({"mae": [[1.0, 1.2, 1.3], [1.0, 1.3, 1.3]]})
    against_ridge = effective_robustness(two, ridge, "mae")
    assert against_ridge is not None and against_ridge.mean.seeds == (1, 2) and against_ridge.mean.counts_training
    absent = made_scores({"mae": [[1.0]]}, rates=((0.0, 1.0, 1.0),))
    assert effective_robustness(absent, absent, "mae") is None
    with pytest.raises(RefusedError, match="do not compare"):
        effective_robustness(good, made_scores({"mae": [[1.0, 1.2, 1.3]]}, basis="another split"), "mae")


def test_a_single_pair_takes_the_chance_of_training_from_systems_with_several() -> None:
    """Of a reference that keeps half of its gain, a training enters by its gain at the rate less half of that at 0."""
    rates = (0.0, 0.9)
    scores, reference = (
        made_scores({"mae": [points]}, rates=rates, title=title)
        for title, points in (("LNLN", [0.8, 1.0]), ("reference", [1.0, 1.2]))
    )
    alone = effective_robustness(scores, reference, "mae")
    assert alone is not None and not alone.mean.counts_training and alone.mean.low == alone.mean.high
    peer = made_scores({"mae": [[1.0, 1.1], [1.0, 1.3], [1.2, 1.3]]}, rates=rates, title="peer")
    made = effective_robustness(scores, reference, "mae", [scores, reference, peer])
    assert made is not None and made.mean.counts_training and made.mean.word == "no difference shown"
    # Gains 0.4, 0.3; 0.4, 0.1; 0.2, 0.1: 0.1, -0.1, 0. A gain of 0.6 instead of 0.4 counts the reference 1.5 times.
    error = np.std([0.1, -0.1, 0.0], ddof=1) * np.sqrt(1 + 1.5**2)
    wide = paired_difference("mae", (1,), [0.0], np.zeros((1, 200)), TrainingChance(error / np.sqrt(2), 2))
    for each in (made.mean, *made.by_rate):
        assert [each.low - each.value, each.high - each.value] == pytest.approx([wide.low, wide.high])
    shipped = made_scores({"mae": [[0.0, 0.0], [9.0, 1.3]]}, rates=rates, title="shipped", is_selected_on_test=True)
    untold = effective_robustness(scores, reference, "mae", [shipped])
    assert untold is not None and not untold.mean.counts_training
    # What needs no training adds none.
    ridge = made_scores({"mae": [[1.0, 1.2]]}, rates=rates, title="ridge", seeds=[None], is_trained=False)
    half = effective_robustness(scores, ridge, "mae", [peer])
    assert half is not None and half.mean.high - half.mean.value == pytest.approx(wide.high / np.sqrt(1 + 1.5**2))
    other = made_scores({"mae": [[0.8, 1.0]]}, rates=rates, title="other ridge", seeds=[None], is_trained=False)
    none = effective_robustness(other, ridge, "mae", [peer])
    assert none is not None and none.mean.counts_training and none.mean.low == none.mean.high


def test_equal_systems_of_a_single_pair_are_told_apart_about_as_often_as_is_said() -> None:
    random, wrong, blind = np.random.default_rng(0), 0, 0
    for _ in range(300):
        drawn = [np.array([1.0, 1.2, 1.3]) + random.normal(0, 0.03, (num, 3)) for num in (1, 1, 4)]
        scores, reference, peer = (
            made_scores({"mae": points}, title=title) for points, title in zip(drawn, "abc", strict=True)
        )
        for peers, counted in (([peer], True), ([], False)):
            made = effective_robustness(scores, reference, "mae", peers)
            assert made is not None
            wrong += counted and made.mean.is_better is not None
            blind += not counted and made.mean.is_better is not None
    assert wrong / 300 < 0.1 and blind == 300, "without utterances all of the chance is of training"


def test_of_evaluations(run_store: RunStore) -> None:
    (system,) = score_systems(run_store.store, [run_store.worse, run_store.better], ["ten_rates", "absent"])
    scores, absent = (score_suite(run_store.store, system, suite) for suite in ("ten_rates", "absent"))
    for metric in scores.metrics:
        made = robustness(scores, metric)
        assert made.area is not None and made.area.sd_seeds is not None
        assert made.area.low <= made.area.value <= made.area.high or metric not in ("mae", "acc7")
        assert len(robustness(absent, metric, scores).retention) == 6
        itself = effective_robustness(scores, scores, metric)
        assert itself is None or itself.mean.value == pytest.approx(0)
