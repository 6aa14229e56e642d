"""Drawing as SVG text: a plot with axes, and the marks that its charts share.

    plot = Plot(360, 240)
    plot.axes(x_ticks, y_ticks, "trial", "MAE")
    plot.mark(0.2, 0.7, "complete", "trial 3: 0.71")
    text = plot.svg("what a reader who does not see it is told")

Places are from 0 to 1, from the left and from below. Colours are classes of the page's style, so that one drawing is
right on light and dark paper and in print. Whatever text comes in is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lnln.report.markup import escape
from lnln.report.round_numbers import round_numbers

Point = tuple[float, float]
Tick = tuple[float, str]
Mark = Literal["complete", "best", "configured", "pruned", "failed"]


@dataclass(frozen=True)
class Scale:
    """Values along an axis; those beyond its ends are drawn at them."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """Room for `values`; single ones that are far off the others are left beyond the end."""
        ordered = sorted(value for value in values if math.isfinite(value))
        if not ordered:
            return cls(0.0, 1.0)
        first, third = ordered[len(ordered) // 4], ordered[(3 * (len(ordered) - 1) + 3) // 4]
        reach = 4 * (third - first)
        inside = [value for value in ordered if not reach or first - reach <= value <= third + reach]
        low, high = inside[0], inside[-1]
        room = 0.06 * (high - low) or max(abs(low) * 0.05, 1e-6)
        return cls(low - room, high + room)

    def position(self, value: float) -> float:
        if math.isnan(value):
            return 1.0
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self, num: int = 5) -> list[Tick]:
        return [(self.position(value), f"{value:.6g}") for value in round_numbers(self.low, self.high, num)]


class Plot:
    """One drawing of `width` × `height` units, which are pixels on a page that is wide enough."""

    def __init__(
        self, width: int, height: int, *, left: int = 54, right: int = 14, top: int = 14, bottom: int = 42
    ) -> None:
        self.width, self.height = width, height
        self._left, self._top = left, top
        self._across, self._up = width - left - right, height - top - bottom
        self._parts: list[str] = []

    def axes(
        self,
        x_ticks: Sequence[Tick],
        y_ticks: Sequence[Tick],
        x_label: str,
        y_label: str,
        *,
        has_grid: bool = True,
    ) -> None:
        """has_grid: a line across the plot at each tick on the left, which would cross the numbers of boxes."""
        for place, label in y_ticks:
            if has_grid:
                self.line([(0, place), (1, place)], "grid")
            self.text(0, place, label, "tick end", dx=-6, dy=3.5)
        bottom = self._top + self._up
        for place, label in x_ticks:
            x = self._x(place)
            self._parts.append(f'<path class="tickmark" d="M{_n(x)} {_n(bottom)}v4"/>')
            self.text(place, 0, label, "tick middle", dy=16)
        self.line([(0, 0), (1, 0)], "axis")
        self.text(0.5, 0, x_label, "label middle", dy=33)
        y = self._top + self._up / 2
        self._parts.append(
            f'<text class="label middle" transform="translate(12 {_n(y)}) rotate(-90)">{escape(y_label)}</text>'
        )

    def line(self, points: Sequence[Point], style: str, title: str = "") -> None:
        path = "L".join(f"{_n(self._x(x))} {_n(self._y(y))}" for x, y in points)
        self._add(f'<path class="{style}" d="M{path}"', title)

    def area(self, lower: Sequence[Point], upper: Sequence[Point], style: str) -> None:
        path = "L".join(f"{_n(self._x(x))} {_n(self._y(y))}" for x, y in [*lower, *reversed(upper)])
        self._add(f'<path class="{style}" d="M{path}Z"')

    def box(self, start: Point, end: Point, style: str, title: str = "") -> None:
        left, right = self._x(start[0]), self._x(end[0])
        low, high = self._y(start[1]), self._y(end[1])
        size = f'width="{_n(right - left)}" height="{_n(low - high)}"'
        self._add(f'<rect class="{style}" x="{_n(left)}" y="{_n(high)}" {size}', title)

    def mark(self, x: float, y: float, kind: Mark, title: str) -> None:
        """A sign of its own for each kind, so that colour is not needed to tell them apart."""
        self._add(f'<path class="{kind}" d="M{_n(self._x(x))} {_n(self._y(y))}{SIGNS[kind]}"', title)

    def curve(self, points: Sequence[Point], titles: Sequence[str], index: int) -> None:
        """A line through `points` in the look of curve `index`, with its sign at each; titles: what each point says."""
        self.line(points, f"curve {look(index)}")
        for (x, y), title in zip(points, titles, strict=True):
            at = f"M{_n(self._x(x))} {_n(self._y(y))}"
            self._add(f'<path class="point {look(index)}" d="{at}{CURVE_SIGNS[index % NUM_LOOKS]}"', title)

    def spread(self, lower: Sequence[Point], upper: Sequence[Point], index: int) -> None:
        """The interval around curve `index`; drawn before the curves, or it covers them."""
        self.area(lower, upper, f"spread {look(index)}")

    def printed(self, points: Sequence[Point], title: str) -> None:
        """Numbers of others: thin, grey, dashed, in no look of a curve's."""
        self.line(points, "printed", title)

    def text(self, x: float, y: float, text: str, style: str, *, dx: float = 0, dy: float = 0) -> None:
        at = f'x="{_n(self._x(x) + dx)}" y="{_n(self._y(y) + dy)}"'
        self._parts.append(f'<text class="{style}" {at}>{escape(text)}</text>')

    def svg(self, description: str) -> str:
        view = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        return f'<svg role="img" aria-label="{escape(description)}" {view}>{"".join(self._parts)}</svg>'

    def _add(self, start: str, title: str = "") -> None:
        self._parts.append(f"{start}><title>{escape(title)}</title>{_closing(start)}" if title else f"{start}/>")

    def _x(self, place: float) -> float:
        return self._left + place * self._across

    def _y(self, place: float) -> float:
        return self._top + (1 - place) * self._up


# Paths around the point they mark: a disc, a star, a square, a triangle, a cross.
SIGNS: dict[Mark, str] = {
    "complete": "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "best": "m0-8.5l2.5 5.4 5.9 .7-4.4 4 1.2 5.8-5.2-2.9-5.2 2.9 1.2-5.8-4.4-4 5.9-.7z",
    "configured": "m-5-5h10v10h-10z",
    "pruned": "m-4.5-3.5h9l-4.5 8z",
    "failed": "m-4-4l8 8m0-8l-8 8",
}


def legend(names: dict[Mark, str]) -> str:
    """What the marks of `names` mean, as a line of HTML."""
    items = [
        f'<span><svg aria-hidden="true" viewBox="0 0 20 20" width="20" height="20">'
        f'<path class="{kind}" d="M10 10{SIGNS[kind]}"/></svg>{escape(name)}</span>'
        for kind, name in names.items()
    ]
    return f'<p class="legend">{" ".join(items)}</p>'


# Signs of curves on a page with several: a disc, a square, two triangles, a diamond, a cross.
CURVE_SIGNS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "m-3.2-3.2h6.4v6.4h-6.4z",
    "m0-4.2l4 7h-8z",
    "m0 4.2l4-7h-8z",
    "m0-4.6l4.6 4.6-4.6 4.6-4.6-4.6z",
    "m-1.4-4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
)
NUM_LOOKS = len(CURVE_SIGNS)


def look(index: int) -> str:
    """The style of curve `index`: a colour, from the seventh curve on dashed, from the thirteenth dotted."""
    rounds = ("", " dashed", " dotted")
    return f"k{index % NUM_LOOKS}{rounds[index // NUM_LOOKS % len(rounds)]}"


def curve_legend(names: Mapping[int, str], printed: Sequence[str] = ()) -> str:
    """What the curves are, by number, and what the thin grey lines are, as a line of HTML; plain text comes in."""
    lines = [
        f'<path class="curve {look(index)}" d="M0 10h30"/>'
        f'<path class="point {look(index)}" d="M15 10{CURVE_SIGNS[index % NUM_LOOKS]}"/>'
        for index in names
    ] + ['<path class="printed" d="M0 10h30"/>'] * len(printed)
    items = [
        f'<span><svg class="key" aria-hidden="true" viewBox="0 0 30 20" width="30" height="20">{line}</svg>'
        f"{escape(name)}</span>"
        for line, name in zip(lines, [*names.values(), *printed], strict=True)
    ]
    return f'<p class="legend">{" ".join(items)}</p>'


def _closing(start: str) -> str:
    return f"</{start[1 : start.index(' ')]}>"


def _n(value: float) -> str:
    """One decimal at most, no negative zero: equal bytes for equal drawings, on any machine."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")
