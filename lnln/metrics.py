"""The field's metrics for sentiment intensity, and what a constant answer would score (papers.md 1.1).

    scores = score(predictions, labels, label_range=(-3, 3))      # {"mae": ..., "acc7": ..., ...}
    answers = baseline_answers(train_labels, labels, (-3, 3))     # {"predict_mean": {"mae": ..., ...}, ...}
    score_answers(answers, labels, (-3, 3))                       # {"predict_mean": {"mae": ..., ...}, ...}

Accuracies and F1 lie within [0, 1]. `np`: negative against positive, labels of exactly 0 left out. `nn`: negative
against non-negative. Labels within [-1, 1] are scored as CH-SIMS's are, all others as CMU-MOSI's and CMU-MOSEI's.
F1 is weighted by the classes of the labels; the published tables have its arguments exchanged (D2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnln.errors import RefusedError

Values = NDArray[np.float32]
Classes = NDArray[np.int64]
Classifier = Callable[[Values], Classes]

# Metric to how tables call it, in the order in which they show it.
TITLES = {
    "mae": "MAE",
    "corr": "Corr",
    "acc7": "Acc-7",
    "acc5": "Acc-5",
    "acc3": "Acc-3",
    "acc2": "Acc-2",
    "f1": "F1",
    "acc2_np": "Acc-2 np",
    "f1_np": "F1 np",
    "acc2_nn": "Acc-2 nn",
    "f1_nn": "F1 nn",
}

# A model more than this share of whose answers are in one class says one thing, whatever it is asked.
COLLAPSE_SHARE = 0.9


def metric_names(label_range: Sequence[float]) -> tuple[str, ...]:
    """The metrics of a corpus with these labels, in the order of tables."""
    if is_sims(label_range):
        return ("mae", "corr", "acc5", "acc3", "acc2", "f1")
    return ("mae", "corr", "acc7", "acc5", "acc2_np", "f1_np", "acc2_nn", "f1_nn")


def accuracy_names(label_range: Sequence[float]) -> tuple[str, ...]:
    """Those of `metric_names` that compare classes; the one with the most classes first."""
    return tuple(name for name in metric_names(label_range) if name.startswith("acc"))


def class_titles(label_range: Sequence[float]) -> dict[int, str]:
    """The classes of the finest accuracy, lowest first, and what tables call them."""
    if is_sims(label_range):
        return dict(enumerate(("negative", "weakly negative", "neutral", "weakly positive", "positive")))
    return {number: f"{number}" for number in range(-3, 4)}


def is_sims(label_range: Sequence[float]) -> bool:
    """Whether labels lie on the scale of CH-SIMS, within [-1, 1]."""
    return max(abs(bound) for bound in label_range) <= 1


def higher_is_better(name: str) -> bool:
    return name != "mae"


def score(predictions: ArrayLike, labels: ArrayLike, label_range: Sequence[float]) -> dict[str, float]:
    """All metrics of `metric_names(label_range)`. Utterances whose label is NaN are left out.

    What cannot be computed is 0, never NaN: the correlation with or of a constant, and `np` where all labels are 0.
    Raises RefusedError when nothing is labelled or a prediction is not finite.
    """
    predicted, actual = _labelled(predictions, labels)
    if is_sims(label_range):
        predicted, actual = predicted.clip(-1, 1), actual.clip(-1, 1)
    scores = {
        "mae": float(np.abs(predicted.astype(np.float64) - actual).mean()),
        "corr": _correlation(predicted, actual),
    }
    for name in accuracy_names(label_range):
        chosen = is_counted(name, actual)
        truth, guess = (classify(name, values[chosen], label_range) for values in (actual, predicted))
        scores[name] = _accuracy(truth, guess)
        if name.startswith("acc2"):
            scores[name.replace("acc2", "f1")] = _weighted_f1(truth, guess)
    return {name: scores[name] for name in metric_names(label_range)}


def baseline_answers(
    train_labels: ArrayLike, labels: ArrayLike, label_range: Sequence[float]
) -> dict[str, dict[str, float]]:
    """What the baselines, which look at no input, answer to every utterance; by the metric that it is scored in.

    predict_mean, predict_median: of the training labels. one_class: for each accuracy and its F1, a label of the class
    that is most frequent among `labels` themselves, as the field quotes it (57.77 on MOSI's test split, np): no
    constant answer is more accurate.
    """
    _, train = _labelled(train_labels, train_labels)
    _, actual = _labelled(labels, labels)
    if is_sims(label_range):
        train = train.clip(-1, 1)
    one_class = {}
    for name in accuracy_names(label_range):
        counted = actual[is_counted(name, actual)]
        _, first, counts = np.unique(classify(name, counted, label_range), return_index=True, return_counts=True)
        one_class[name] = float(counted[first[counts.argmax()]]) if len(counts) else 0.0
        if name.startswith("acc2"):
            one_class[name.replace("acc2", "f1")] = one_class[name]
    return {
        "predict_mean": dict.fromkeys(metric_names(label_range), float(train.mean())),
        "predict_median": dict.fromkeys(metric_names(label_range), float(np.median(train))),
        "one_class": one_class,
    }


def score_answers(
    answers: Mapping[str, Mapping[str, float]], labels: ArrayLike, label_range: Sequence[float]
) -> dict[str, dict[str, float]]:
    """The score of each of `baseline_answers`, in the metric that it is for."""
    different = {answer for by_metric in answers.values() for answer in by_metric.values()}
    scores = {answer: score(np.full(np.shape(labels), answer), labels, label_range) for answer in different}
    return {
        name: {metric: scores[answer][metric] for metric, answer in by_metric.items()}
        for name, by_metric in answers.items()
    }


def classify(name: str, values: ArrayLike, label_range: Sequence[float]) -> Classes:
    """The class of each value, of any shape, in the accuracy `name`; values outside the range count as its ends."""
    array = np.asarray(values, np.float32)
    return _classifiers(label_range)[name](array.clip(-1, 1) if is_sims(label_range) else array)


def collapse_share(predictions: ArrayLike, label_range: Sequence[float]) -> float:
    """Share of the predictions in the most frequent class of the finest accuracy; 1 says the same of all."""
    counts = np.unique(classify(accuracy_names(label_range)[0], predictions, label_range), return_counts=True)[1]
    return float(counts.max() / counts.sum())


def is_counted(name: str, labels: ArrayLike) -> NDArray[np.bool_]:
    """True where the accuracy `name` counts the utterance: `np` leaves out labels of exactly 0."""
    array = np.asarray(labels, np.float32)
    return array != 0 if name == "acc2_np" else np.ones(array.shape, np.bool_)


def _labelled(predictions: ArrayLike, labels: ArrayLike) -> tuple[Values, Values]:
    # float32, as the published code compares: 0.1 as a label is not above 0.1 as a bound.
    predicted = np.asarray(predictions, np.float32).reshape(-1)
    actual = np.asarray(labels, np.float32).reshape(-1)
    assert predicted.shape == actual.shape, (predicted.shape, actual.shape)
    is_labelled = ~np.isnan(actual)
    predicted, actual = predicted[is_labelled], actual[is_labelled]
    if not len(actual):
        raise RefusedError(f"scoring needs labelled utterances, got {len(is_labelled)} without a label")
    if not np.isfinite(predicted).all():
        raise RefusedError(f"predictions must be finite, {int((~np.isfinite(predicted)).sum())} of them are not")
    return predicted, actual


def _classifiers(label_range: Sequence[float]) -> dict[str, Classifier]:
    if is_sims(label_range):
        return {
            "acc5": _cut((-0.7, -0.1, 0.1, 0.7)),
            "acc3": _cut((-0.1, 0.1)),
            "acc2": _cut((0.0,)),
        }
    return {
        "acc7": _rounded(3),
        "acc5": _rounded(2),
        "acc2_np": lambda values: (values > 0).astype(np.int64),
        "acc2_nn": lambda values: (values >= 0).astype(np.int64),
    }


def _cut(bounds: tuple[float, ...]) -> Classifier:
    """Class i lies above bound i - 1, up to and with bound i."""
    return lambda values: np.searchsorted(np.asarray(bounds, np.float32), values, side="left").astype(np.int64)


def _rounded(limit: int) -> Classifier:
    """The nearest whole number (halves to the even one) within the limits."""
    return lambda values: np.round(values.clip(-limit, limit)).astype(np.int64)


def _accuracy(truth: Classes, guess: Classes) -> float:
    return float((truth == guess).mean()) if len(truth) else 0.0


def _weighted_f1(truth: Classes, guess: Classes) -> float:
    if not len(truth):
        return 0.0
    from sklearn.metrics import f1_score  # a second to import, so only where something is scored

    return float(f1_score(truth, guess, average="weighted", zero_division=0.0))


def _correlation(predicted: Values, actual: Values) -> float:
    x, y = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (predicted, actual))
    # A constant's deviations from its mean are rounding, not variation.
    if np.ptp(predicted) == 0 or np.ptp(actual) == 0:
        return 0.0
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))
