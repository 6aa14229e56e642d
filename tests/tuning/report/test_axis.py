"""A parameter's axis: positions and values belong together, zeros have a band of their own."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tuning.report.axis import Axis
from tuning.space import Range

spans = st.one_of(
    st.builds(
        lambda low, factor, zero: Range(low, low * factor, zero=zero),
        st.floats(1e-6, 10),
        st.floats(1.5, 1e5),
        st.sampled_from([0.0, 0.1, 0.5]),
    ),
    st.builds(
        lambda low, size: Range(low, low + size, scale="linear"),
        st.sampled_from([0.0, 0.3, 7.0]),
        st.floats(1e-3, 1e3),
    ),
)


@given(spans, st.floats(0, 1))
def test_a_position_is_where_its_value_lies(span: Range, position: float) -> None:
    axis = Axis("any", span)
    value = axis.value(position)
    if value == 0 and span.zero:
        assert position <= span.zero + 1e-9 and axis.position(value) == span.zero / 2
    else:
        assert span.low * (1 - 1e-9) <= value <= span.high * (1 + 1e-9)
        assert axis.position(value) == pytest.approx(position, abs=1e-6)


@given(spans, st.floats(0, 1), st.floats(0, 1))
def test_larger_values_lie_further_right(span: Range, one: float, other: float) -> None:
    axis = Axis("any", span)
    assume(abs(one - other) > 1e-6)
    low, high = sorted((axis.value(one), axis.value(other)))
    assert 0 <= axis.position(low) <= axis.position(high) <= 1


def test_zero_lies_where_the_sampler_draws_it() -> None:
    span = Range(0.1, 3.0, zero=0.2)
    axis = Axis("adversarial", span)
    low, high = axis.position(0.1), axis.position(3.0)
    assert (low, high) == pytest.approx((0.2, 1.0))
    # A fifth of the draws means 0, and its place is the drawn number that stands for it.
    assert axis.position(0) == 0.1 == pytest.approx(Axis("a", Range(span.draw_low, 3.0)).position(span.drawn(0)))
    assert axis.edges(4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@given(spans)
def test_ticks_are_round_and_apart(span: Range) -> None:
    ticks = Axis("any", span).ticks()
    places = [place for place, _ in ticks]
    assert 2 <= len(ticks) <= 13
    assert all(0 <= place <= 1 for place in places)
    assert all(one < other for one, other in itertools.pairwise(places))
    assert len({label for _, label in ticks}) == len(ticks)
    assert (ticks[0][1] == "0") == (span.zero > 0 or span.low == 0)
