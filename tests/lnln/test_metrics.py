from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, f1_score

from lnln.errors import RefusedError
from lnln.metrics import (
    TITLES,
    accuracy_names,
    baseline_answers,
    class_titles,
    classify,
    higher_is_better,
    is_counted,
    metric_names,
    score,
    score_answers,
)

MOSI, SIMS = (-3.0, 3.0), (-1.0, 1.0)
VALUES = st.floats(-4, 4, width=32)


def baselines(train: list[float], labels: ArrayLike, label_range: tuple[float, float]) -> dict[str, dict[str, float]]:
    return score_answers(baseline_answers(train, labels, label_range), labels, label_range)


@pytest.mark.parametrize("label_range", [MOSI, SIMS])
@given(pairs=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_whatever_comes_scores_are_finite_and_within_bounds(
    label_range: tuple[float, float], pairs: list[tuple[float, float]]
) -> None:
    predictions, labels = zip(*pairs, strict=True)
    scores = score(predictions, labels, label_range)
    assert tuple(scores) == metric_names(label_range)
    assert all(np.isfinite(value) for value in scores.values())
    assert all(0 <= value <= 1 for name, value in scores.items() if name not in ("mae", "corr"))
    assert -1 <= scores["corr"] <= 1 and scores["mae"] >= 0


def test_known_answers_mosi() -> None:
    predictions = np.array([2.6, -0.4, 0.5, -2.0, 1.5, 0.1])
    labels = np.array([3.0, 0.0, 0.0, -1.2, 2.4, -0.6])
    scores = score(predictions, labels, MOSI)
    assert scores["acc7"] == pytest.approx(4 / 6)  # 3 3, 0 0, 0 0, -2 -1, 2 2, 0 -1
    assert scores["acc5"] == pytest.approx(4 / 6)
    assert scores["acc2_nn"] == pytest.approx(4 / 6)
    assert scores["acc2_np"] == pytest.approx(3 / 4)
    assert scores["f1_np"] == pytest.approx(f1_score([1, 0, 1, 0], [1, 0, 1, 1], average="weighted"))
    assert scores["mae"] == pytest.approx(np.abs(predictions - labels).mean(), rel=1e-6)
    assert scores["corr"] == pytest.approx(np.corrcoef(predictions, labels)[0, 1], rel=1e-6)


def test_sims_classes_lie_between_their_bounds() -> None:
    labels = np.array([-1.0, -0.7, -0.4, -0.1, 0.0, 0.1, 0.4, 0.7, 1.0], np.float32)
    five, three, two = [0, 0, 1, 1, 2, 2, 3, 3, 4], [0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 1, 1, 1, 1]
    for value, a5, a3, a2 in zip(labels, five, three, two, strict=True):
        scores = score(np.full(9, value), labels, SIMS)
        assert scores["acc5"] == pytest.approx(five.count(a5) / 9)
        assert scores["acc3"] == pytest.approx(three.count(a3) / 9)
        assert scores["acc2"] == pytest.approx(two.count(a2) / 9)
    assert score([5.0, -5.0], [1.0, -1.0], SIMS)["mae"] == 0  # clipped


def test_f1_has_its_arguments_in_order() -> None:  # D2
    labels = np.array([1.0] * 7 + [-1.0] * 3)
    share = 0.7
    assert score(np.ones(10), labels, MOSI)["f1_np"] == pytest.approx(2 * share**2 / (1 + share))


def test_one_class_is_the_best_constant_answer() -> None:
    train = [-1.0, -1.0, -2.0]
    labels = np.array([1.0] * 6 + [-1.0] * 4)
    constant = baselines(train, labels, MOSI)["one_class"]
    assert constant["acc2_np"] == constant["acc2_nn"] == pytest.approx(0.6)
    assert constant["f1_np"] == pytest.approx(2 * 0.36 / 1.6)
    assert constant["acc7"] == constant["acc5"] == pytest.approx(0.6)
    assert constant.keys() == {"acc7", "acc5", "acc2_np", "f1_np", "acc2_nn", "f1_nn"}
    assert baselines([0.5, 0.6, -0.5], [0.5, -0.5], SIMS)["one_class"].keys() == {"acc5", "acc3", "acc2", "f1"}
    for guess in np.linspace(-3, 3, 25):
        scores = score(np.full(10, guess), labels, MOSI)
        assert all(scores[name] <= constant[name] + 1e-12 for name in constant)


def test_mean_and_median_are_those_of_the_training_labels() -> None:
    train, labels = [1.0, 2.0, float("nan"), -1.5], [0.3, -2.0]
    assert baselines(train, labels, MOSI)["predict_median"] == score([1.0, 1.0], labels, MOSI)
    mean = baselines(train, labels, MOSI)["predict_mean"]
    assert mean == score([0.5, 0.5], labels, MOSI)
    assert mean["mae"] == pytest.approx((0.2 + 2.5) / 2) and mean["corr"] == 0.0


def test_nothing_to_compute_is_zero_not_nan() -> None:
    zeros = score([0.3, -0.2], [0.0, 0.0], MOSI)
    assert zeros["acc2_np"] == zeros["f1_np"] == zeros["corr"] == 0.0
    assert score([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], MOSI)["corr"] == 0.0
    assert score([0.7], [0.6], MOSI)["corr"] == 0.0
    assert baselines([0.0], [0.0], MOSI)["one_class"]["acc2_np"] == 0.0


def test_unlabelled_utterances_are_left_out() -> None:
    some = score([1.0, 2.0, 9.0], [1.5, -1.0, float("nan")], MOSI)
    assert some == score([1.0, 2.0], [1.5, -1.0], MOSI)
    with pytest.raises(RefusedError, match="got 2 without a label"):
        score([1.0, 2.0], [float("nan")] * 2, MOSI)
    with pytest.raises(RefusedError, match="labelled"):
        score([], [], MOSI)


def test_predictions_must_be_finite() -> None:
    with pytest.raises(RefusedError, match="1 of them are not"):
        score([1.0, float("nan")], [1.0, 2.0], MOSI)


def test_rounding_goes_to_even_after_clipping() -> None:
    values = np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    as_classes = np.array([-3, -2, -2, 0, 0, 2, 2, 3])
    assert score(as_classes, values, MOSI)["acc7"] == accuracy_score(as_classes, np.round(values.clip(-3, 3))) == 1.0


def test_names() -> None:
    for label_range in (MOSI, SIMS):
        assert set(metric_names(label_range)) <= set(TITLES)
    assert [name for name in TITLES if not higher_is_better(name)] == ["mae"]


@pytest.mark.parametrize("label_range", [MOSI, SIMS])
def test_classes_of_any_shape_give_the_accuracies(label_range: tuple[float, float]) -> None:
    labels = np.round(np.random.default_rng(0).uniform(-3.5, 3.5, 50), 1)
    views = np.random.default_rng(1).uniform(-4, 4, (3, 50))
    for name in accuracy_names(label_range):
        hits = classify(name, views, label_range) == classify(name, labels, label_range)
        expected = [score(view, labels, label_range)[name] for view in views]
        np.testing.assert_allclose(hits[:, is_counted(name, labels)].mean(axis=1), expected)


@pytest.mark.parametrize("label_range", [MOSI, SIMS])
@given(values=st.lists(VALUES, min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_every_class_of_the_finest_accuracy_has_a_title(label_range: tuple[float, float], values: list[float]) -> None:
    titles = class_titles(label_range)
    finest = accuracy_names(label_range)[0]
    assert set(classify(finest, values, label_range).tolist()) <= set(titles)
    assert list(titles) == list(range(min(titles), max(titles) + 1)) and len(set(titles.values())) == len(titles)
    assert finest == f"acc{len(titles)}"
