"""From predictions under several views to every number of an evaluation: scores, intervals, baselines, margins.

V views, N utterances of which L are labelled, C constant answers of the baselines, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.corruption import ViewSpec
from lnln.evaluate.bootstrap import interval, resampled_scores
from lnln.evaluations import Interval, ViewScores
from lnln.metrics import baselines, classify, higher_is_better, is_counted, metric_names, score

NUM_RESAMPLES = 1000
BOOTSTRAP_SEED = 0

Values = NDArray[np.float32]
Samples = Mapping[str, NDArray[np.float64]]
# What a baseline answers to every utterance, by the metric that it is compared in.
Answers = Mapping[str, Mapping[str, float]]


def score_views(
    specs: Sequence[ViewSpec],
    predictions: Values,
    completeness: Values,
    labels: Values,
    train_labels: Values,
    label_range: tuple[float, float],
) -> dict[str, Any]:
    """The numbers of an Evaluation by its fields' names.

    predictions, completeness: (V, N), labels: (N,), NaN where unlabelled. Every rate of `specs` has every mask seed.
    """
    views = tuple(
        _score_view(spec, predicted, estimated, labels, label_range)
        for spec, predicted, estimated in zip(specs, predictions, completeness, strict=True)
    )
    mean = {metric: float(np.mean([view.scores[metric] for view in views])) for metric in views[0].scores}
    answers = _baseline_answers(train_labels, labels, label_range)
    constants = np.array([answer for by_metric in answers.values() for answer in by_metric.values()], np.float32)
    is_labelled = np.isfinite(labels)
    # The constant answers as further views, (V + C, L): so they are drawn together with the model's.
    rows = np.concatenate([predictions[:, is_labelled], np.repeat(constants[:, None], is_labelled.sum(), axis=1)])
    samples = resampled_scores(rows, labels[is_labelled], label_range, num_resamples=NUM_RESAMPLES, seed=BOOTSTRAP_SEED)
    overall = {metric: drawn[:, : len(views)].mean(axis=1) for metric, drawn in samples.items()}
    scored = _score_baselines(answers, train_labels, labels, label_range)
    of_constants = {metric: drawn[:, len(views) :] for metric, drawn in samples.items()}
    return {
        "rates": tuple(dict.fromkeys(view.missing_rate for view in views)),
        "mask_seeds": tuple(dict.fromkeys(view.mask_seed for view in views)),
        "views": views,
        "mean": mean,
        "intervals": {metric: Interval(mean[metric], *interval(drawn)) for metric, drawn in overall.items()},
        "rate_intervals": {metric: _intervals_by_rate(metric, views, drawn) for metric, drawn in samples.items()},
        "baselines": scored,
        "margins": _margins(mean, overall, answers, scored, of_constants),
    }


def _score_view(
    spec: ViewSpec, predicted: Values, estimated: Values, labels: Values, label_range: tuple[float, float]
) -> ViewScores:
    assert spec.rates is not None, "an evaluation view states its rates"
    finest = next(metric for metric in metric_names(label_range) if metric.startswith("acc"))
    counts = np.unique(classify(finest, predicted, label_range), return_counts=True)[1]
    return ViewScores(
        view_id=spec.view_id,
        missing_rate=spec.rates[0],
        mask_seed=spec.seed,
        scores=score(predicted, labels, label_range),
        collapse_share=float(counts.max() / len(predicted)),
        mean_completeness=float(estimated.mean()),
    )


def _intervals_by_rate(metric: str, views: Sequence[ViewScores], drawn: NDArray[np.float64]) -> tuple[Interval, ...]:
    """For each rate the mean over its mask seeds, with its interval."""
    intervals = []
    for rate in dict.fromkeys(view.missing_rate for view in views):
        columns = [column for column, view in enumerate(views) if view.missing_rate == rate]
        value = float(np.mean([views[column].scores[metric] for column in columns]))
        intervals.append(Interval(value, *interval(drawn[:, columns].mean(axis=1))))
    return tuple(intervals)


def _baseline_answers(train_labels: Values, labels: Values, label_range: tuple[float, float]) -> Answers:
    """One class is, for each accuracy, a label of the class that is most frequent among `labels`."""
    train, known = train_labels[np.isfinite(train_labels)], labels[np.isfinite(labels)]
    accuracies = [metric for metric in metric_names(label_range) if metric.startswith("acc")]
    one_class = {}
    for metric in accuracies:
        counted = known[is_counted(metric, known)]
        classes = classify(metric, counted, label_range)
        _, first, counts = np.unique(classes, return_index=True, return_counts=True)
        one_class[metric] = float(counted[first[counts.argmax()]]) if len(counts) else 0.0
    return {
        "predict_mean": dict.fromkeys(("mae", *accuracies), float(train.mean())),
        "predict_median": dict.fromkeys(("mae", *accuracies), float(np.median(train))),
        "one_class": one_class,
    }


def _score_baselines(
    answers: Answers, train_labels: Values, labels: Values, label_range: tuple[float, float]
) -> dict[str, dict[str, float]]:
    known = baselines(train_labels, labels, label_range)
    median = np.full(len(labels), answers["predict_median"]["mae"], np.float32)
    return {
        "predict_mean": known["predict_mean"],
        "predict_median": score(median, labels, label_range),
        "one_class": known["one_class"],
    }


def _margins(
    mean: Mapping[str, float],
    overall: Samples,
    answers: Answers,
    scored: Mapping[str, Mapping[str, float]],
    of_constants: Samples,
) -> dict[str, dict[str, Interval]]:
    """How much better the model's mean over views is than each baseline, on the same resamples; positive is better.

    overall: (R,) by metric. of_constants: (R, C) by metric, C in the order of `answers`.
    """
    margins: dict[str, dict[str, Interval]] = {name: {} for name in answers}
    column = 0
    for name, by_metric in answers.items():
        for metric in by_metric:
            sign = 1 if higher_is_better(metric) else -1
            difference = sign * (overall[metric] - of_constants[metric][:, column])
            margins[name][metric] = Interval(sign * (mean[metric] - scored[name][metric]), *interval(difference))
            column += 1
    return margins
