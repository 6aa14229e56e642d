"""Contenders measured in turn: ours and the baselines once each, in changing order, again and again.

What else happens on the machine then hits all of them about alike, so ratios within one repetition mean more than any
of the seconds.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lnln.progress import line

# wall: seconds that pass. core: seconds of CPU time of this process, all its threads together.
Clock = Literal["wall", "core"]

MIN_REPETITIONS = 5
_CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "core": time.process_time}


@dataclass(frozen=True)
class Contender:
    """One way to do a piece of work. writes: the folder that it fills, emptied before every repetition."""

    title: str
    run: Callable[[], object]
    writes: Path | None = None


@dataclass(frozen=True)
class Timing:
    """seconds: one number per repetition. num_bytes: what was written; None for work that writes nothing.
    note: what else was found of it, said beside the figure."""

    title: str
    seconds: list[float]
    num_bytes: int | None = None
    note: str = ""

    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Spread:
    """Over the repetitions."""

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Comparison:
    """Ours and its baselines at the same work, by repetition.

    amount: of `unit` done in each repetition, say MB; 0 where the seconds themselves are what counts.
    limit_seconds: what ours should stay below; None where nothing is asked.
    """

    name: str
    clock: Clock
    unit: str
    amount: float
    ours: Timing
    baselines: list[Timing] = field(default_factory=list)
    limit_seconds: float | None = None

    @property
    def num_repetitions(self) -> int:
        return len(self.ours.seconds)

    def ratio(self, baseline: Timing) -> Spread:
        """How many times as fast as the baseline ours is, paired by repetition: above 1 ours is faster."""
        return _spread(theirs / ours for theirs, ours in zip(baseline.seconds, self.ours.seconds, strict=True))


@dataclass(frozen=True)
class Peak:
    """before: resident bytes of a process ahead of the work; num_bytes: the most during it. One pair per repetition."""

    title: str
    before: list[int]
    num_bytes: list[int]

    def median(self) -> float:
        return statistics.median(self.num_bytes)


@dataclass(frozen=True)
class PeakComparison:
    """Memory of ours and of its baselines at the same work, by repetition.

    limit_ratio: how many times as much the baseline should take; None where nothing is asked.
    """

    name: str
    ours: Peak
    baselines: list[Peak]
    limit_ratio: float | None = None

    @property
    def num_repetitions(self) -> int:
        return len(self.ours.num_bytes)

    def ratio(self, baseline: Peak) -> Spread:
        """How many times as much as ours the baseline takes, paired by repetition."""
        return _spread(theirs / ours for theirs, ours in zip(baseline.num_bytes, self.ours.num_bytes, strict=True))


AnyComparison = Comparison | PeakComparison


def compare(
    name: str,
    ours: Contender,
    baselines: Sequence[Contender],
    *,
    repetitions: int = MIN_REPETITIONS,
    clock: Clock = "wall",
    unit: str = "",
    amount: float = 0,
    limit_seconds: float | None = None,
) -> Comparison:
    """Run all contenders once without measuring, then `repetitions` times; who begins changes every time."""
    line(name)
    contenders = [ours, *baselines]
    timings = [Timing(each.title, []) for each in contenders]
    sizes: list[int | None] = [None for _ in contenders]
    for repetition in range(-1, repetitions):
        for turn in range(len(contenders)):
            index = (repetition + turn) % len(contenders)
            seconds = _measure(contenders[index], _CLOCKS[clock])
            if repetition >= 0:
                timings[index].seconds.append(seconds)
            sizes[index] = _num_bytes(contenders[index].writes)
    first, *others = [
        Timing(each.title, each.seconds, num_bytes) for each, num_bytes in zip(timings, sizes, strict=True)
    ]
    return Comparison(name, clock, unit, amount, first, others, limit_seconds)


def _spread(ratios: Iterable[float]) -> Spread:
    found = list(ratios)
    return Spread(statistics.median(found), min(found), max(found))


def _measure(contender: Contender, clock: Callable[[], float]) -> float:
    if contender.writes is not None:
        shutil.rmtree(contender.writes, ignore_errors=True)
        contender.writes.mkdir(parents=True)
    gc.collect()
    os.sync()  # nobody pays for what the one before has left to be written
    begin = clock()
    made = contender.run()
    end = clock()
    del made  # held until now: giving memory back is no part of the work
    return end - begin


def _num_bytes(folder: Path | None) -> int | None:
    return None if folder is None else sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
