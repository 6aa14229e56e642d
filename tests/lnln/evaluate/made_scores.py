"""Scores of a system under a suite, made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lnln.config import Rate
from lnln.evaluate.estimates import SuiteScores
from lnln.metrics import metric_names

MOSI = (-3.0, 3.0)
# As good as the best constant, by metric.
CONSTANT = {"mae": 1.4, "corr": 0.0}


def made_scores(
    points: Mapping[str, ArrayLike],
    *,
    rates: Sequence[Rate] = (0.0, 0.5, 0.9),
    samples: Mapping[str, ArrayLike] | None = None,
    constant_samples: ArrayLike | None = None,
    seeds: Sequence[int | None] | None = None,
    num_resamples: int = 200,
    **fields: Any,
) -> SuiteScores:
    """points: by metric (K, M, T), or (K, T) for one mask seed; other metrics are 0.5. samples: (K, R, T); default: the
    same on every resample. constant_samples: (R,) of the MAE of the train mean. seeds: default 1, 2, ..."""
    given = {metric: np.asarray(values, np.float64) for metric, values in points.items()}
    given = {metric: values if values.ndim == 3 else values[:, None] for metric, values in given.items()}
    shape = next(iter(given.values())).shape
    assert shape[2] == len(rates), (shape, rates)
    filled = {metric: given.get(metric, np.full(shape, 0.5)) for metric in metric_names(MOSI)}
    drawn = {
        metric: np.repeat(values.mean(axis=1)[:, None], num_resamples, axis=1) for metric, values in filled.items()
    }
    drawn |= {metric: np.asarray(values, np.float64) for metric, values in (samples or {}).items()}
    baselines = {
        "predict_mean": {metric: CONSTANT.get(metric, 0.2) for metric in filled},
        "predict_median": {metric: CONSTANT.get(metric, 0.2) for metric in filled},
        "one_class": {metric: 0.2 for metric in filled if metric not in CONSTANT},
    }
    baseline_samples = {
        name: {metric: np.full(num_resamples, value) for metric, value in by_metric.items()}
        for name, by_metric in baselines.items()
    }
    if constant_samples is not None:
        baseline_samples["predict_mean"]["mae"] = np.asarray(constant_samples, np.float64)
    values: dict[str, Any] = {
        "title": "LNLN",
        "suite": "ten_rates",
        "num_labelled": 40,
        "collapse_share": (0.5,) * len(rates),
        "basis": "these views and utterances",
    }
    return SuiteScores(
        rates=tuple(rates),
        seeds=tuple(range(1, shape[0] + 1)) if seeds is None else tuple(seeds),
        label_range=MOSI,
        points=filled,
        samples=drawn,
        baselines=baselines,
        baseline_samples=baseline_samples,
        **{**values, **fields},
    )
