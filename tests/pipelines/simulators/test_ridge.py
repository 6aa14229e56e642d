"""Ridge regression from sums: what solving it directly gives, however the rows come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.simulators.ridge import PENALTIES, Moments, Path, best_penalty

Array = NDArray[np.float64]


def data(num: int, columns: int = 4, targets: int = 3, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.normal(random.normal(size=columns), random.uniform(0.1, 9, columns), (num, columns))
    return x, x @ random.normal(size=(columns, targets)) + random.normal(size=(num, targets))


def moments(x: Array, y: Array) -> Moments:
    return Moments.zero(x.shape[1], y.shape[1]).plus(x, y)


def directly(x: Array, y: Array, penalty: float) -> tuple[Array, Array]:
    scale = x.std(axis=0)
    standard, centred = (x - x.mean(axis=0)) / scale, y - y.mean(axis=0)
    common = standard.T @ standard / len(x) + penalty * np.eye(x.shape[1])
    weights = np.linalg.solve(common, standard.T @ centred / len(x)) / scale[:, None]
    return weights, y.mean(axis=0) - x.mean(axis=0) @ weights


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("num", [3, 50])
def test_it_is_the_direct_solution(num: int, penalty: float) -> None:
    x, y = data(num)
    for got, expected in zip(Path.of(moments(x, y)).solve(penalty), directly(x, y, penalty), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


@settings(deadline=None)
@given(cut=st.integers(0, 20), seed=st.integers(0, 50))
def test_parts_add_up_and_can_be_taken_away(cut: int, seed: int) -> None:
    x, y = data(20, seed=seed)
    first, second, whole = moments(x[:cut], y[:cut]), moments(x[cut:], y[cut:]), moments(x, y)
    for one, other in ((first + second, whole), (whole - first, second)):
        assert one.num_rows == other.num_rows
        for key in ("x", "y", "xx", "xy", "yy"):
            np.testing.assert_allclose(getattr(one, key), getattr(other, key), atol=1e-8)


@settings(deadline=None)
@given(seed=st.integers(0, 50), penalty=st.sampled_from(PENALTIES))
def test_the_error_is_that_of_the_rows(seed: int, penalty: float) -> None:
    (x, y), (other_x, other_y) = data(30, seed=seed), data(12, seed=seed + 1)
    weights, intercept = Path.of(moments(x, y)).solve(penalty)
    error = np.square(other_y - other_x @ weights - intercept).sum()
    assert moments(other_x, other_y).squared_error(weights, intercept) == pytest.approx(error, rel=1e-8)


def test_constant_columns_and_single_rows_have_no_weight() -> None:
    x, y = data(20)
    x[:, 1] = 1e5
    weights, intercept = Path.of(moments(x, y)).solve(0.1)
    assert (weights[1] == 0).all() and np.isfinite(weights).all() and np.isfinite(intercept).all()
    weights, intercept = Path.of(moments(x[:1], y[:1])).solve(0.1)
    assert not weights.any()
    np.testing.assert_allclose(intercept, y[0])


def test_the_penalty_is_small_where_there_is_a_signal_and_large_where_there_is_none() -> None:
    x, y = data(400)
    noise = np.random.default_rng(1).normal(size=y.shape)
    pairs = [(Path.of(moments(x[:300], t[:300])), moments(x[300:], t[300:])) for t in (y, noise)]
    assert best_penalty(pairs[:1]) < 0.01 < 1 < best_penalty(pairs[1:])
    same = [(Path.of(moments(x, y * 0)), moments(x, y * 0))]
    assert best_penalty(same) == max(PENALTIES)
