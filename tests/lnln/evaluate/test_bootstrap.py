"""Resampled scores are the scores of the resampled utterances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.evaluate.bootstrap import draw_counts, interval, resampled_correlations, resampled_scores
from lnln.metrics import metric_names, score


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(1, 30),
    is_sims=st.booleans(),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["random", "constant predictions", "constant labels", "all zero", "on the bounds"]),
)
def test_equal_to_scores_of_the_drawn_utterances(num: int, is_sims: bool, seed: int, kind: str) -> None:
    limit = 1.0 if is_sims else 3.0
    random = np.random.default_rng(seed)
    labels = np.round(random.uniform(-limit, limit, num) * 5).astype(np.float32) / np.float32(5)
    predictions = random.normal(0, limit, (2, num)).astype(np.float32)
    if kind == "constant predictions":
        predictions[:] = random.uniform(-limit, limit)
    elif kind == "constant labels":
        labels[:] = 0.2
    elif kind == "all zero":
        labels[:] = 0
    elif kind == "on the bounds":
        predictions = random.choice(np.array([-0.7, -0.1, 0, 0.1, 0.7, 0.5, 1.5, -2.5], np.float32), (2, num))
    drawn = resampled_scores(predictions, labels, (-limit, limit), num_resamples=5, seed=seed, with_f1=True)
    assert set(drawn) == set(metric_names((-limit, limit)))
    assert not any(name.startswith("f1") for name in resampled_scores(predictions, labels, (-limit, limit)))
    for resample, counts in enumerate(draw_counts(num, 5, seed).astype(int)):
        rows = np.repeat(np.arange(num), counts)
        for view in range(2):
            expected = score(predictions[view, rows], labels[rows], (-limit, limit))
            for metric, samples in drawn.items():
                assert samples[resample, view] == pytest.approx(expected[metric], abs=1e-5), (metric, kind)


def test_is_deterministic_and_close_to_theory() -> None:
    random = np.random.default_rng(3)
    labels = random.normal(0, 1, 400).astype(np.float32)
    predictions = np.zeros((1, 400), np.float32)
    first = resampled_scores(predictions, labels, (-3, 3))["mae"][:, 0]
    second = resampled_scores(predictions, labels, (-3, 3))["mae"][:, 0]
    assert np.array_equal(first, second)
    error = np.abs(labels)
    half = 1.96 * error.std() / np.sqrt(len(error))
    assert interval(first) == pytest.approx((error.mean() - half, error.mean() + half), abs=0.01)


@settings(max_examples=40, deadline=None)
@given(num=st.integers(1, 12), num_pairs=st.integers(1, 3), seed=st.integers(0, 2**16), is_constant=st.booleans())
def test_correlations_over_pairs_that_are_drawn_together(
    num: int, num_pairs: int, seed: int, is_constant: bool
) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(0, 1, (2, 2, num_pairs, num))
    if is_constant:
        y[:] = 0.3
    counts = draw_counts(num, 4, seed)
    made = resampled_correlations(counts, x, y)
    for resample, drawn in enumerate(counts.astype(int)):
        rows = np.repeat(np.arange(num), drawn)
        for view in range(2):
            one, other = x[view][:, rows].reshape(-1), y[view][:, rows].reshape(-1)
            is_defined = one.std() > 1e-6 and other.std() > 1e-6
            expected = np.corrcoef(one, other)[0, 1] if is_defined else 0
            assert made[resample, view] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(
        resampled_correlations(counts, x[:, 0], y[0, 0]),
        resampled_correlations(counts, x[:, :1], np.stack([y[0, :1]] * 2)),
        atol=1e-12,
    )
