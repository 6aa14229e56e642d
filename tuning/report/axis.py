"""A parameter's range as an axis from 0 to 1, as the sampler draws from it: equal lengths, equal chances.

A range with a share of zeros begins with a band of that length, in whose middle 0 lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lnln.report.round_numbers import round_logs, round_numbers
from tuning.space import Range

# Labels closer than this part of an axis would lie on each other.
LABEL = 0.06


@dataclass(frozen=True)
class Axis:
    """The axis of one parameter."""

    name: str
    span: Range

    def position(self, value: float) -> float:
        """Where `value` lies, within [0, 1]; a value outside the range lies at its end."""
        if value <= 0 and self.span.scale == "log":
            return self.span.zero / 2
        place = self._measure(value) - self._measure(self.span.draw_low)
        return min(max(place / (self._measure(self.span.high) - self._measure(self.span.draw_low)), 0.0), 1.0)

    def value(self, position: float) -> float:
        """What a position stands for; 0 within the band of zeros."""
        low, high = self._measure(self.span.draw_low), self._measure(self.span.high)
        drawn = low + position * (high - low)
        return self.span.value(math.exp(drawn) if self.span.scale == "log" else drawn)

    def edges(self, num_bins: int) -> list[float]:
        """Positions that cut the range, without its band of zeros, into equal parts."""
        start = self.span.zero
        return [start + (1 - start) * index / num_bins for index in range(num_bins + 1)]

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and their labels: round values, 0 first where it can be drawn; at least two, five or so."""
        low, high = self.span.low, self.span.high
        inside = round_logs(low, high) if self.span.scale == "log" else round_numbers(low, high)
        labels = [(self.position(value), f"{value:g}") for value in inside]
        if not self.span.zero:
            return labels
        zero = self.position(0)
        return [(zero, "0"), *((place, label) for place, label in labels if place - zero > LABEL)]

    def _measure(self, value: float) -> float:
        return math.log(value) if self.span.scale == "log" else value
