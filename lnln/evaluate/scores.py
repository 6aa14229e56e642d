"""From predictions under several views to every number of an evaluation: scores, intervals, baselines, margins.

V views, N utterances of which L are labelled, C different answers of the baselines, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.corruption import ViewSpec
from lnln.evaluate.bootstrap import interval, resampled_scores
from lnln.evaluations import Interval, ViewScores
from lnln.metrics import accuracy_names, baseline_answers, collapse_share, higher_is_better, score, score_answers

NUM_RESAMPLES = 1000
BOOTSTRAP_SEED = 0

Values = NDArray[np.float32]
Samples = Mapping[str, NDArray[np.float64]]
# By baseline and metric.
Numbers = Mapping[str, Mapping[str, float]]


def score_views(
    specs: Sequence[ViewSpec],
    predictions: Values,
    completeness: Values | None,
    labels: Values,
    train_labels: Values,
    label_range: tuple[float, float],
) -> dict[str, Any]:
    """The numbers of an Evaluation by its fields' names.

    predictions, completeness: (V, N), None where the model estimates none. labels: (N,), NaN where unlabelled. Every
    rate of `specs` has every mask seed.
    """
    views = tuple(
        _score_view(spec, predictions[view], None if completeness is None else completeness[view], labels, label_range)
        for view, spec in enumerate(specs)
    )
    mean = {metric: float(np.mean([view.scores[metric] for view in views])) for metric in views[0].scores}
    answers = baseline_answers(train_labels, labels, label_range)
    different = sorted({answer for by_metric in answers.values() for answer in by_metric.values()})
    constants = np.array(different, np.float32)
    is_labelled = np.isfinite(labels)
    # The constant answers as further views, (V + C, L): so they are drawn together with the model's.
    rows = np.concatenate([predictions[:, is_labelled], np.repeat(constants[:, None], is_labelled.sum(), axis=1)])
    samples = resampled_scores(
        rows, labels[is_labelled], label_range, num_resamples=NUM_RESAMPLES, seed=BOOTSTRAP_SEED, with_f1=True
    )
    overall = {metric: drawn[:, : len(views)].mean(axis=1) for metric, drawn in samples.items()}
    scored = score_answers(answers, labels, label_range)
    # A constant correlates with nothing, so there is no margin to state.
    of_answers = {
        metric: dict(zip(different, drawn[:, len(views) :].T, strict=True))
        for metric, drawn in samples.items()
        if metric != "corr"
    }
    return {
        "rates": tuple(dict.fromkeys(view.missing_rate for view in views)),
        "mask_seeds": tuple(dict.fromkeys(view.mask_seed for view in views)),
        "views": views,
        "mean": mean,
        "intervals": {metric: Interval(mean[metric], *interval(drawn)) for metric, drawn in overall.items()},
        "rate_intervals": {metric: _intervals_by_rate(metric, views, drawn) for metric, drawn in samples.items()},
        "baselines": scored,
        "margins": _margins(mean, overall, answers, scored, of_answers),
    }


def merge_scores(scored: Mapping[str, Mapping[str, Any]], label_range: tuple[float, float]) -> dict[str, Any]:
    """What `score_views` gives, each metric from predictions of its own: `scored[metric]` is that of its predictions.

    The share of the most frequent class is that of the predictions which the finest accuracy is from.
    """
    finest = scored[accuracy_names(label_range)[0]]
    merged = dict(finest)
    merged["views"] = tuple(
        replace(
            view,
            scores={metric: made["views"][index].scores[metric] for metric, made in scored.items()},
            mean_completeness=None,
        )
        for index, view in enumerate(finest["views"])
    )
    for name in ("mean", "intervals", "rate_intervals"):
        merged[name] = {metric: made[name][metric] for metric, made in scored.items() if metric in made[name]}
    merged["margins"] = {
        baseline: {metric: scored[metric]["margins"][baseline][metric] for metric in by_metric}
        for baseline, by_metric in finest["margins"].items()
    }
    return merged


def _score_view(
    spec: ViewSpec, predicted: Values, estimated: Values | None, labels: Values, label_range: tuple[float, float]
) -> ViewScores:
    return ViewScores(
        view_id=spec.view_id,
        missing_rate=spec.rate,
        mask_seed=spec.seed,
        scores=score(predicted, labels, label_range),
        collapse_share=collapse_share(predicted, label_range),
        mean_completeness=None if estimated is None else float(estimated.mean()),
    )


def _intervals_by_rate(metric: str, views: Sequence[ViewScores], drawn: NDArray[np.float64]) -> tuple[Interval, ...]:
    """For each rate the mean over its mask seeds, with its interval."""
    intervals = []
    for rate in dict.fromkeys(view.missing_rate for view in views):
        columns = [column for column, view in enumerate(views) if view.missing_rate == rate]
        value = float(np.mean([views[column].scores[metric] for column in columns]))
        intervals.append(Interval(value, *interval(drawn[:, columns].mean(axis=1))))
    return tuple(intervals)


def _margins(
    mean: Mapping[str, float],
    overall: Samples,
    answers: Numbers,
    scored: Numbers,
    of_answers: Mapping[str, Mapping[float, NDArray[np.float64]]],
) -> dict[str, dict[str, Interval]]:
    """How much better the model's mean over views is than each baseline, on the same resamples; positive is better.

    overall: (R,) by metric. of_answers: by metric and answer, (R,) scores of that answer.
    """
    margins: dict[str, dict[str, Interval]] = {name: {} for name in answers}
    for name, by_metric in answers.items():
        for metric in (metric for metric in by_metric if metric in of_answers):
            sign = 1 if higher_is_better(metric) else -1
            difference = sign * (overall[metric] - of_answers[metric][by_metric[metric]])
            margins[name][metric] = Interval(sign * (mean[metric] - scored[name][metric]), *interval(difference))
    return margins
