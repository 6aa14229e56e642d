"""Where a study looks: a range for each parameter that it varies, read from YAML or the default below.

    completeness: {low: 0.1, high: 3.0, zero: 0.1}
    reconstruction: {low: 0.0, high: 0.5, scale: linear}
    learning_rate: {low: 1.0e-4, high: 1.0e-3}

One of a model's loss weights is redundant up to the learning rate, so `sentiment`, of SDUMC `full_sentiment`, stays as
the config has it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from lnln.config import Config, from_dict, to_dict
from lnln.errors import RefusedError

# What can be varied, in the order of tables, and the config key that it stands for.
PARAMETERS = {
    "completeness": "loss.completeness",
    "adversarial": "loss.adversarial",
    "reconstruction": "loss.reconstruction",
    "missing_sentiment": "loss.missing_sentiment",
    "text_hidden": "loss.text_hidden",
    "text_query": "loss.text_query",
    "fused": "loss.fused",
    "rank_contrast": "loss.rank_contrast",
    "reversal_strength": "model.reversal_strength",
    "learning_rate": "train.learning_rate",
    "encoder_learning_rate": "train.encoder_learning_rate",
    "weight_decay": "train.weight_decay",
    "dropout": "model.dropout",
}


@dataclasses.dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; `log`: each factor equally likely, `linear`: each difference.

    zero: share of random draws that are 0 instead, which switches a loss term off; for log ranges, which end above 0.
    A sampler sees it as further orders of magnitude below `low`: what is drawn there means 0 (`draw_low`, `value`), so
    that 0 is next to the smallest values, as it should be, and not a case of its own.
    """

    low: float
    high: float
    scale: Literal["log", "linear"] = "log"
    zero: float = 0.0

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high or (value == 0 and self.zero > 0)

    @property
    def draw_low(self) -> float:
        """The lowest number that a sampler may draw."""
        return self.low * (self.low / self.high) ** (self.zero / (1 - self.zero)) if self.zero else self.low

    def value(self, drawn: float) -> float:
        """What a drawn number means."""
        return 0.0 if self.zero and drawn < self.low else max(drawn, self.low)

    def drawn(self, value: float) -> float:
        """A drawn number that means `value`: for 0 the middle of those that do."""
        return math.sqrt(self.draw_low) * math.sqrt(self.low) if value == 0 and self.zero else value


@dataclasses.dataclass(frozen=True)
class Space:
    """The ranges of a study, by name of the parameter; at least one."""

    ranges: Mapping[str, Range]

    def __post_init__(self) -> None:
        if not self.ranges:
            raise RefusedError(f"the space is empty; give a range for at least one of {', '.join(PARAMETERS)}")
        for name, span in self.ranges.items():
            if name in ("sentiment", "full_sentiment"):
                raise RefusedError(
                    f"the space must not vary {name}: it is the unit of the other loss weights, and scaling all of "
                    "them only scales the gradient"
                )
            if name not in PARAMETERS:
                raise RefusedError(f"the space has an unknown parameter {name!r}; known are {', '.join(PARAMETERS)}")
            _check(name, span)
        ordered = {name: self.ranges[name] for name in PARAMETERS if name in self.ranges}
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
                f"the space must give each parameter a range such as {{low: 0.1, high: 3}}, got {values!r}"
            )
        ranges = {}
        for name, span in values.items():
            if not isinstance(span, Mapping) or not {"low", "high"} <= set(span):
                raise RefusedError(f"the space's {name} must be a range such as {{low: 0.1, high: 3}}, got {span!r}")
            ranges[str(name)] = from_dict(Range, span, where=f"space.{name}.")
        return cls(ranges)

    def configured(self, config: Config) -> dict[str, float]:
        """What `config` has for the parameters that this space varies."""
        values = config.to_dict()
        keys = {name: PARAMETERS[name].split(".") for name in self.ranges}
        return {name: float(values[section][key]) for name, (section, key) in keys.items()}

    def require(self, config: Config) -> None:
        """RefusedError where a parameter of `config`, the study's first trial, lies outside its range."""
        for name, value in self.configured(config).items():
            span, key = self.ranges[name], PARAMETERS[name]
            if not span.contains(value):
                raise RefusedError(
                    f"{key} is {value:g} and must lie within the study's range {span.low:g} to {span.high:g}, "
                    f"since the config as it stands is the first trial; set {key} or give a wider space"
                )

    def values(self, drawn: Mapping[str, float]) -> dict[str, float]:
        """What a sampler's numbers mean: parameters by name."""
        return {name: span.value(float(drawn[name])) for name, span in self.ranges.items() if name in drawn}

    def drawn(self, values: Mapping[str, float]) -> dict[str, float]:
        """A sampler's numbers that mean `values`."""
        return {name: span.drawn(values[name]) for name, span in self.ranges.items()}


def with_parameters(config: Config, parameters: Mapping[str, float]) -> Config:
    """`config` with `parameters`, by their names in `PARAMETERS`, in place of its own."""
    values = config.to_dict()
    for name, value in parameters.items():
        section, key = PARAMETERS[name].split(".")
        values[section][key] = value
    return Config.from_dict(values)


def _check(name: str, span: Range) -> None:
    shown = f"low {span.low:g}, high {span.high:g}"
    if not (math.isfinite(span.low) and math.isfinite(span.high)):
        raise RefusedError(f"the space's {name} must have finite bounds, got {shown}")
    if span.low < 0:
        raise RefusedError(f"the space's {name} must not be negative, got {shown}")
    if span.low >= span.high:
        raise RefusedError(f"the space's {name} must have low below high, got {shown}")
    if span.scale == "log" and span.low == 0:
        raise RefusedError(
            f"the space's {name} must have low above 0 on a log scale, got {shown}; zero: 0.1 makes a tenth of the "
            "draws 0, scale: linear begins at 0"
        )
    if not 0 <= span.zero <= 0.5:
        raise RefusedError(f"the space's {name} must have a share of zeros from 0 to 0.5, got {span.zero:g}")
    if span.zero and span.scale == "linear":
        raise RefusedError(f"the space's {name} must be on a log scale to have a share of zeros (zero: {span.zero:g})")
    if span.zero and not 0 < span.draw_low < span.drawn(0) < span.low:
        raise RefusedError(
            f"the space's {name} cannot have a share of zeros of {span.zero:g}: between {span.low!r} and {span.high!r} "
            "there are no numbers that could stand for them; give other bounds"
        )
    for value in (0.0 if span.zero else span.low, span.high):
        try:
            with_parameters(Config(), {name: value})
        except RefusedError as error:
            raise RefusedError(f"the space's {name} holds values that cannot be: {error}") from error


# About a factor of ten around the paper's settings (0.9, 0.8 or 0.6, 0.1); log, since weights act as factors.
DEFAULT_SPACE = Space(
    {
        "completeness": Range(0.1, 3.0, zero=0.1),
        "adversarial": Range(0.05, 3.0, zero=0.1),
        "reconstruction": Range(0.01, 1.0, zero=0.1),
    }
)


# The same around the weights of SDUMC's later published script (0.5, 0.1, 0.7, 0.13, 0.5).
SDUMC_SPACE = Space(
    {
        "missing_sentiment": Range(0.05, 5.0, zero=0.1),
        "text_hidden": Range(0.01, 1.0, zero=0.1),
        "text_query": Range(0.05, 5.0, zero=0.1),
        "fused": Range(0.01, 1.0, zero=0.1),
        "rank_contrast": Range(0.05, 5.0, zero=0.1),
    }
)


def default_space(config: Config) -> Space:
    """The loss weights of the network that `config` trains, but for the one that is their unit."""
    return SDUMC_SPACE if config.model.name == "sdumc" else DEFAULT_SPACE


def load_space(path: Path | str | None = None, default: Space = DEFAULT_SPACE) -> Space:
    """The space of a YAML file, or `default`; RefusedError for a file that is absent or holds no space."""
    if path is None:
        return default
    try:
        text = Path(path).read_text(encoding="utf-8")
        values, names = yaml.safe_load(text), _keys(text)
    except OSError as error:
        raise RefusedError(f"cannot read the space {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none, bytes no text
        raise RefusedError(f"the space {path} is not YAML: {' '.join(str(error).split())}") from error
    if repeated := [name for name in names if names.count(name) > 1]:
        raise RefusedError(f"the space {path} has {repeated[0]} twice; give each parameter one range")
    return Space.from_dict(values)


def _keys(text: str) -> list[str]:
    """Those of the mapping that YAML's `text` is, each as often as it stands there, which a loader does not tell."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
