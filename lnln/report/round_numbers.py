"""Numbers that a reader takes in at a glance, for the ticks of an axis."""

from __future__ import annotations

import math


def round_numbers(low: float, high: float, num: int = 5) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten from `low` to `high`, about `num`; both ends where none fit."""
    if not high > low:
        return [low]
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough * 0.999), 10 * power)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [float(f"{index * step:.12g}") for index in range(first, last + 1)]
    return values if len(values) > 1 else [low, high]


def round_logs(low: float, high: float) -> list[float]:
    """Round values from `low` to `high` about a factor of three apart, powers of ten where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = [float(f"{factor}e{power}") for power in powers for factor in factors]
        values = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(values) >= 3:
            return values[:: -(-len(values) // 6)]
    return values if len(values) > 1 else [low, high]
