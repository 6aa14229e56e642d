"""Drawings: scales hold what they are for, marks differ in shape, text from outside is text."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.report.look import STYLE
from lnln.report.markup import one_line
from lnln.report.svg import CURVE_SIGNS, NUM_LOOKS, SIGNS, Plot, Scale, curve_legend, legend, look

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
    plot.curve([(0, 0), (1, 1)], [text, text], 3)
    plot.printed([(0, 0), (1, 1)], text)
    root = ElementTree.fromstring(plot.svg(text))
    assert root.get("role") == "img" and not root.findall(".//script")
    assert {child.tag for child in root.iter()} <= {"svg", "path", "rect", "text", "title"}


def test_marks_differ_without_colour() -> None:
    assert len(set(SIGNS.values())) == len(SIGNS)
    ElementTree.fromstring(legend({"best": "<best>", "failed": "failed & gone"}))


def test_curves_differ_in_colour_and_sign_and_later_ones_in_their_line() -> None:
    assert len(set(CURVE_SIGNS)) == NUM_LOOKS
    looks = [look(index) for index in range(3 * NUM_LOOKS)]
    assert len(set(looks)) == len(looks)
    for name in {style for each in looks for style in each.split()} | {"curve", "point", "spread", "printed"}:
        assert f".{name}{{" in STYLE, f"the page has no style {name}"


def test_a_curve_has_a_sign_and_a_title_at_each_point() -> None:
    plot = Plot(100, 100, left=0, right=0, top=0, bottom=0)
    plot.spread([(0, 0), (1, 0.5)], [(0, 0.5), (1, 1)], 7)
    plot.curve([(0, 0.25), (0.5, 0.5), (1, 0.75)], ["a", "b", "c"], 7)
    band, line, *points = ElementTree.fromstring(plot.svg("drawn"))
    assert band.get("class") == "spread k1 dashed" and band.get("d") == "M0 100L100 50L100 0L0 50Z"
    assert line.get("class") == "curve k1 dashed" and line.get("d") == "M0 75L50 50L100 25"
    assert [point.findtext("title") for point in points] == ["a", "b", "c"]
    assert [str(point.get("d")).partition("m")[0] for point in points] == ["M0 75", "M50 50", "M100 25"]
    with pytest.raises(ValueError, match="zip"):
        plot.curve([(0, 0), (1, 1)], ["only one"], 0)


@pytest.mark.parametrize("has_grid", [True, False])
def test_a_grid_is_left_out_where_it_would_cross_numbers(has_grid: bool) -> None:
    plot = Plot(100, 100)
    plot.axes([(0, "0")], [(0.25, "a"), (0.75, "b")], "x", "y", has_grid=has_grid)
    drawn = plot.svg("drawn")
    assert drawn.count('class="grid"') == 2 * has_grid and ">a</text>" in drawn and ">b</text>" in drawn


@given(st.dictionaries(st.integers(0, 40), st.text(), max_size=20), st.lists(st.text(), max_size=3))
def test_a_legend_names_each_curve_in_its_look(names: dict[int, str], printed: list[str]) -> None:
    items = ElementTree.fromstring(curve_legend(names, printed)).findall("span")
    assert ["".join(item.itertext()) for item in items] == [one_line(name) for name in [*names.values(), *printed]]
    expected = [[f"curve {look(index)}", f"point {look(index)}"] for index in names] + [["printed"]] * len(printed)
    assert [[path.get("class") for path in item.iter("path")] for item in items] == expected


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0"), (0.04, "0"), (2.0, "2"), (-3.26, "-3.3"), (10.0, "10")])
def test_coordinates_have_one_decimal_at_most_and_no_negative_zero(value: float, text: str) -> None:
    plot = Plot(100, 100, left=0, right=0, top=0, bottom=0)
    plot.text(0, 1, "", "tick", dx=value)
    assert f'x="{text}"' in plot.svg("")
