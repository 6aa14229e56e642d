"""Drawings: scales hold what they are for, marks differ in shape, text from outside is text."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.report.svg import SIGNS, Plot, Scale, legend

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.one_of(numbers, st.just(math.nan), st.just(math.inf)), max_size=40))
def test_a_scale_has_room_for_half_of_its_values_and_places_all(values: list[float]) -> None:
    scale = Scale.of(values)
    assert scale.low < scale.high
    assert all(0 <= scale.position(value) <= 1 for value in values)
    finite = [value for value in values if math.isfinite(value)]
    assert sum(scale.low <= value <= scale.high for value in finite) >= len(finite) / 2
    places = [place for place, _ in scale.ticks()]
    assert places == sorted(places) and len(places) >= 2


def test_one_that_is_far_off_does_not_flatten_the_others() -> None:
    scale = Scale.of([0.80, 0.81, 0.82, 0.83, 0.84, 50.0])
    assert scale.high < 1 and scale.position(50.0) == 1.0
    assert scale.position(0.80) < 0.1 < 0.9 < scale.position(0.84)
    wide = Scale.of([1.0, 1.1, 1.4])
    assert wide.low < 1.0 and wide.high > 1.4


@given(st.text())
def test_any_text_leaves_a_drawing_well_formed(text: str) -> None:
    plot = Plot(100, 100)
    plot.axes([(0, text)], [(1, text)], text, text)
    plot.mark(0.5, 0.5, "best", text)
    plot.line([(0, 0), (1, 1)], "main", text)
    plot.box((0, 0), (1, 1), "bar", text)
    root = ElementTree.fromstring(plot.svg(text))
    assert root.get("role") == "img" and not root.findall(".//script")
    assert {child.tag for child in root.iter()} <= {"svg", "path", "rect", "text", "title"}


def test_marks_differ_without_colour() -> None:
    assert len(set(SIGNS.values())) == len(SIGNS)
    ElementTree.fromstring(legend({"best": "<best>", "failed": "failed & gone"}))


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0"), (0.04, "0"), (2.0, "2"), (-3.26, "-3.3"), (10.0, "10")])
def test_coordinates_have_one_decimal_at_most_and_no_negative_zero(value: float, text: str) -> None:
    plot = Plot(100, 100, left=0, right=0, top=0, bottom=0)
    plot.text(0, 1, "", "tick", dx=value)
    assert f'x="{text}"' in plot.svg("")
