"""Where a study looks for loss weights: a range for each weight it varies, read from YAML or the default below.

    completeness: {low: 0.1, high: 3.0}
    reconstruction: {low: 0.0, high: 0.5, scale: linear}

One of the four weights is redundant up to the learning rate, so `sentiment` stays as the config has it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from lnln.config import LossConfig, from_dict, to_dict
from lnln.errors import RefusedError

# The weights that can be varied, in the order of tables: the fields of LossConfig but `sentiment`, which is the unit.
WEIGHTS = ("completeness", "adversarial", "reconstruction")


@dataclasses.dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; `log`: each factor equally likely, `linear`: each difference."""

    low: float
    high: float
    scale: Literal["log", "linear"] = "log"

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Space:
    """The ranges of a study, by loss weight; at least one."""

    ranges: Mapping[str, Range]

    def __post_init__(self) -> None:
        if not self.ranges:
            raise RefusedError(f"the space is empty; give a range for at least one of {', '.join(WEIGHTS)}")
        for name, span in self.ranges.items():
            if name not in WEIGHTS:
                raise RefusedError(f"the space has an unknown loss weight {name!r}; known are {', '.join(WEIGHTS)}")
            _check(name, span)
        ordered = {name: self.ranges[name] for name in WEIGHTS if name in self.ranges}
        object.__setattr__(self, "ranges", ordered)

    def to_dict(self) -> dict[str, Any]:
        return {name: to_dict(span) for name, span in self.ranges.items()}

    @classmethod
    def from_dict(cls, values: Any) -> Space:
        """The space of nested mappings, e.g. `{"adversarial": {"low": 0.1, "high": 1}}`; RefusedError if it is none."""
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            raise RefusedError(
                f"the space must give each loss weight a range such as {{low: 0.1, high: 3}}, got {values!r}"
            )
        ranges = {}
        for name, span in values.items():
            if not isinstance(span, Mapping) or not {"low", "high"} <= set(span):
                raise RefusedError(f"the space's {name} must be a range such as {{low: 0.1, high: 3}}, got {span!r}")
            ranges[str(name)] = from_dict(Range, span, where=f"{name}.")
        return cls(ranges)

    def weights(self, loss: LossConfig) -> dict[str, float]:
        """The weights of `loss` that this space varies."""
        return {name: getattr(loss, name) for name in self.ranges}

    def require(self, loss: LossConfig) -> None:
        """RefusedError where a weight of `loss`, the study's first trial, lies outside its range."""
        for name, value in self.weights(loss).items():
            span = self.ranges[name]
            if not span.contains(value):
                raise RefusedError(
                    f"loss.{name} is {value:g} and must lie within the study's range {span.low:g} to {span.high:g}, "
                    f"since the configured weights are its first trial; set loss.{name} or give a wider space"
                )


def _check(name: str, span: Range) -> None:
    shown = f"low {span.low:g}, high {span.high:g}"
    if not (math.isfinite(span.low) and math.isfinite(span.high)):
        raise RefusedError(f"the space's {name} must have finite bounds, got {shown}")
    if span.low < 0:
        raise RefusedError(f"the space's {name} must not be negative, got {shown}")
    if span.low >= span.high:
        raise RefusedError(f"the space's {name} must have low below high, got {shown}")
    if span.scale == "log" and span.low == 0:
        raise RefusedError(f"the space's {name} must have low above 0 on a log scale (or scale: linear), got {shown}")


# About a factor of ten around the paper's settings (0.9, 0.8 or 0.6, 0.1); log, since weights act as factors.
DEFAULT_SPACE = Space(
    {
        "completeness": Range(0.1, 3.0),
        "adversarial": Range(0.05, 3.0),
        "reconstruction": Range(0.01, 1.0),
    }
)


def load_space(path: Path | str | None = None) -> Space:
    """The space of a YAML file, or the default one; RefusedError for a file that is absent or holds no space."""
    if path is None:
        return DEFAULT_SPACE
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RefusedError(f"cannot read the space {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RefusedError(f"the space {path} is not YAML: {' '.join(str(error).split())}") from error
    return Space.from_dict(values)
