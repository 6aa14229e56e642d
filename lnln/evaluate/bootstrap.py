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
) -> dict[str, Array]:
    """MAE, Corr and every accuracy of each view on each resample: (R, V) by metric, as `metrics.score` defines them.

    predictions: (V, N), labels: (N,), none of them NaN.
    """
    num = len(labels)
    counts = _counts(num, num_resamples, seed)
    x, y = predictions.astype(np.float64), labels.astype(np.float64)
    if is_sims(label_range):
        x, y = x.clip(-1, 1), y.clip(-1, 1)
    scores = {"mae": counts @ np.abs(x - y).T / num, "corr": _correlations(counts, x, y)}
    for name in accuracy_names(label_range):
        counted = is_counted(name, labels)
        hits = counted & (classify(name, predictions, label_range) == classify(name, labels, label_range))
        totals = (counts @ counted.astype(np.float64))[:, None]
        scores[name] = np.divide(
            counts @ hits.astype(np.float64).T, totals, out=np.zeros((num_resamples, len(x))), where=totals > 0
        )
    return scores


def interval(samples: Array) -> tuple[float, float]:
    """The middle 95% of (R,) samples."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def _counts(num: int, num_resamples: int, seed: int) -> Array:
    """(R, N): how often each utterance is in each resample of N."""
    random = np.random.default_rng(seed)
    return random.multinomial(num, np.full(num, 1 / num), size=num_resamples).astype(np.float64)


def _correlations(counts: Array, x: Array, y: Array) -> Array:
    """(R, V) Pearson correlations of x (V, N) and y (N,); 0 where either does not vary."""
    num = counts.sum(axis=1, keepdims=True)
    scale = np.maximum(np.abs(x).max(axis=1), 1e-30), max(float(np.abs(y).max()), 1e-30)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    mean_x, mean_y = counts @ x.T / num, (counts @ y)[:, None] / num
    variance_x = counts @ (x * x).T / num - mean_x**2
    variance_y = (counts @ (y * y))[:, None] / num - mean_y**2
    covariance = counts @ (x * y).T / num - mean_x * mean_y
    # Float32 predictions that do not vary leave rounding of about 1e-7 of their size.
    varies = (variance_x > (1e-7 * scale[0]) ** 2) & (variance_y > (1e-7 * scale[1]) ** 2)
    product = np.sqrt(np.where(varies, variance_x * variance_y, 1.0))
    return np.clip(np.where(varies, covariance / product, 0.0), -1.0, 1.0)
