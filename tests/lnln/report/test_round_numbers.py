"""Ticks are round, in order, within the axis, and neither too few nor too many."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lnln.report.round_numbers import round_logs, round_numbers


def test_by_hand() -> None:
    assert round_logs(0.05, 3.0) == [0.1, 0.3, 1.0, 3.0]
    assert round_logs(1e-4, 1e-3) == [1e-4, 3e-4, 1e-3]
    assert round_numbers(0.0, 0.5) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert round_numbers(0.81, 0.93) == [0.825, 0.85, 0.875, 0.9, 0.925]
    assert round_numbers(1.0, 1.0) == [1.0]


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_of_an_even_axis(low: float, size: float) -> None:
    high = low + size
    ticks = round_numbers(low, high)
    assert 2 <= len(ticks) <= 12
    assert all(one < other for one, other in itertools.pairwise(ticks))
    assert low - 1e-6 * size <= ticks[0] and ticks[-1] <= high + 1e-6 * size


@given(st.floats(1e-6, 1e3), st.floats(1.05, 1e6))
def test_of_a_logarithmic_axis(low: float, factor: float) -> None:
    ticks = round_logs(low, low * factor)
    assert 2 <= len(ticks) <= 12
    assert all(one < other for one, other in itertools.pairwise(ticks))
    assert low * (1 - 1e-6) <= ticks[0] and ticks[-1] <= low * factor * (1 + 1e-6)
