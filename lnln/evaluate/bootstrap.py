"""How sure a score is: 95% intervals by drawing the utterances again, with replacement (Efron's percentile bootstrap).

One resample takes the same utterances under every view and for every baseline, so means over rates and differences are
paired. A resample is a vector of counts, which makes every statistic a matrix product: V views, N utterances, R
resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lnln.metrics import accuracy_names, classify, is_counted, is_sims

Array = NDArray[np.float64]


def resampled_scores(
    predictions: NDArray[np.float32],
    labels: NDArray[np.float32],
    label_range: Sequence[float],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    with_f1: bool = False,
) -> dict[str, Array]:
    """MAE, Corr and every accuracy of each view on each resample: (R, V) by metric, as `metrics.score` defines them.

    predictions: (V, N), labels: (N,), none of them NaN. with_f1: every F1 too.
    """
    num = len(labels)
    counts = draw_counts(num, num_resamples, seed)
    x, y = predictions.astype(np.float64), labels.astype(np.float64)
    if is_sims(label_range):
        x, y = x.clip(-1, 1), y.clip(-1, 1)
    scores = {"mae": counts @ np.abs(x - y).T / num, "corr": resampled_correlations(counts, x, y)}
    for name in accuracy_names(label_range):
        counted = is_counted(name, labels)
        guess, truth = classify(name, predictions, label_range), classify(name, labels, label_range)
        hits = counted & (guess == truth)
        totals = (counts @ counted.astype(np.float64))[:, None]
        scores[name] = np.divide(
            counts @ hits.astype(np.float64).T, totals, out=np.zeros((num_resamples, len(x))), where=totals > 0
        )
        if with_f1 and name.startswith("acc2"):
            scores[name.replace("acc2", "f1")] = _weighted_f1(counts, counted, guess, truth)
    return scores


def interval(samples: Array) -> tuple[float, float]:
    """The middle 95% of (R,) samples."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def draw_counts(num: int, num_resamples: int, seed: int) -> Array:
    """(R, N): how often each utterance is in each resample of N."""
    random = np.random.default_rng(seed)
    return random.multinomial(num, np.full(num, 1 / num), size=num_resamples).astype(np.float64)


def resampled_correlations(counts: Array, x: Array, y: Array) -> Array:
    """(R, V) Pearson correlations of x (V, N) and y (N,) or (V, N); 0 where either does not vary.

    Both may be (V, T, N): of T pairs an utterance, which are drawn together.
    """
    x, y = (values if values.ndim == 3 else np.atleast_2d(values)[:, None] for values in (x, y))
    num = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    scale_x, scale_y = (np.maximum(np.abs(values).max(axis=(1, 2)), 1e-30) for values in (x, y))
    x, y = (values - values.mean(axis=(1, 2), keepdims=True) for values in (x, y))

    def mean(values: Array) -> Array:
        return np.asarray(counts @ values.mean(axis=1).T / num)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    # Float32 predictions that do not vary leave rounding of about 1e-7 of their size.
    varies = (variance_x > (1e-7 * scale_x) ** 2) & (variance_y > (1e-7 * scale_y) ** 2)
    product = np.sqrt(np.where(varies, variance_x * variance_y, 1.0))
    return np.clip(np.where(varies, covariance / product, 0.0), -1.0, 1.0)


def _weighted_f1(
    counts: Array, counted: NDArray[np.bool_], guess: NDArray[np.int64], truth: NDArray[np.int64]
) -> Array:
    """(R, V): the F1 of each class, weighted by its share of the labels; 0 where no utterance is counted.

    Of a class with s labels, p predictions and h hits the F1 is 2 h / (s + p), and each of these is linear in `counts`.
    """
    totals = counts @ counted.astype(np.float64)
    weighted = np.zeros((len(counts), len(guess)))
    for each in np.unique(truth):
        is_label, is_guess = counted & (truth == each), counted & (guess == each)
        support = (counts @ is_label.astype(np.float64))[:, None]
        named = support + counts @ is_guess.astype(np.float64).T
        hits = counts @ (is_label & is_guess).astype(np.float64).T
        weighted += support * np.divide(2 * hits, named, out=np.zeros_like(weighted), where=named > 0)
    return weighted / np.maximum(totals, 1)[:, None]
