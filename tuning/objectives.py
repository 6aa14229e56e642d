"""What a study makes good: scores on the validation split, over all its missing rates or a part of them.

mae             mean MAE over the validation rates, what selects a run's epoch too
mae@clean       MAE of the complete view, rate 0
mae@corrupted   mean MAE over the rates above 0
acc7            and so on: any metric of the corpus's label range, lower or higher as is better
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lnln.config import Rate
from lnln.errors import RefusedError
from lnln.metrics import TITLES, higher_is_better, metric_names

Part = Literal["all", "clean", "corrupted"]


@dataclass(frozen=True)
class Objective:
    """One metric over the rates of one part."""

    metric: str
    part: Part = "all"

    @property
    def name(self) -> str:
        """As configs and records have it."""
        return self.metric if self.part == "all" else f"{self.metric}@{self.part}"

    @property
    def title(self) -> str:
        """As tables and figures have it."""
        return TITLES[self.metric] if self.part == "all" else f"{TITLES[self.metric]}, {self.part}"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "maximize" if higher_is_better(self.metric) else "minimize"

    def of(self, validation: Mapping[str, Mapping[str, float]]) -> float:
        """Mean over the part's rates. validation: metrics by missing rate, as a run's history keeps them."""
        chosen = [scores[self.metric] for rate, scores in validation.items() if self.part in ("all", _part_of(rate))]
        return sum(chosen) / len(chosen)

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`."""
        return one > other if self.direction == "maximize" else one < other


def read_objectives(names: Sequence[str], label_range: Sequence[float], rates: Sequence[Rate]) -> tuple[Objective, ...]:
    """The objectives called `names`, for a corpus with this label range validated at these missing rates.

    RefusedError for none, one that is there twice, an unknown metric or part, and a part without rates.
    """
    if not names or len(set(names)) < len(names):
        raise RefusedError(f"tune.objectives must be one or more different ones, got {', '.join(names) or 'none'}")
    return tuple(_read(name, label_range, rates) for name in names)


def objective(name: str) -> Objective:
    """The objective that a record calls `name`, as `Objective.name` has it."""
    metric, _, part = name.partition("@")
    return Objective(metric, part or "all")  # type: ignore[arg-type]


def _read(name: str, label_range: Sequence[float], rates: Sequence[Rate]) -> Objective:
    metric, at, part = name.partition("@")
    parts = [known for known in get_args(Part) if known != "all"]
    known = metric_names(label_range)
    if metric not in known or (at and part not in parts):
        raise RefusedError(
            f"tune.objectives has {name!r}; expected a metric of this corpus ({', '.join(known)}), for all validation "
            f"rates or with {' or '.join(f'@{known}' for known in parts)}"
        )
    made = objective(name)
    if made.part != "all" and made.part not in {_part_of(str(rate)) for rate in rates}:
        raise RefusedError(
            f"tune.objectives has {name!r}, but corruption.validation_rates has no "
            f"{'rate 0' if made.part == 'clean' else 'rate above 0'}: {', '.join(map(str, rates))}"
        )
    return made


def _part_of(rate: str) -> Part:
    """rate: a number or one for each modality, in any of the ways that records write it."""
    numbers = rate.strip("()[]").replace("/", ",").split(",")
    return "clean" if all(float(number) == 0 for number in numbers if number.strip()) else "corrupted"
