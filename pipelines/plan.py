"""Work as data: a job is one shard's work, a plan is all of a stage. `execute.py` runs plans; nothing here does.

plan = Plan("corrupt mosi", (Job("valid 0", mask_shard, {"store": url, ...}), ...))
len(plan)        # how many jobs
print(plan)      # the stage, then one job a line
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """One call that can be made anywhere, in any order, twice: it writes the same bytes under the same names.

    function: importable by name on a Dask worker. arguments: what can be pickled. Returns a small record, not data.
    holds_data: the arguments are megabytes rather than names. num_steps: how often it calls `steps.step_done`, where it
    does, or how much of the stage it is.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    holds_data: bool = False
    num_steps: int = 1

    def __call__(self) -> Any:
        return self.function(**self.arguments)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Plan:
    """The jobs of one stage, none of which waits for another."""

    stage: str
    jobs: tuple[Job, ...]

    def __post_init__(self) -> None:
        assert len({job.name for job in self.jobs}) == len(self.jobs), f"two jobs of {self.stage!r} have one name"

    def __len__(self) -> int:
        return len(self.jobs)

    def __str__(self) -> str:
        return "\n".join([f"{self.stage}: {len(self)} job{'s' * (len(self) != 1)}", *(f"  {job}" for job in self.jobs)])
