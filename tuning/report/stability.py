"""Where trainings go wrong: share of diverged, collapsed and failed trials along the adversarial term's parameters.

for row in stability(study): print(row.parameter, row.label, row.outcome, row.num_bad, row.num_trials)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lnln.metrics import COLLAPSE_SHARE
from tuning.record import Study, TrialRecord
from tuning.report.axis import Axis

# The weight of the adversarial term, and the strength of the gradient reversal that the weight multiplies.
TERMS = ("adversarial", "reversal_strength")

Outcome = Literal["diverged", "collapsed", "failed"]
OUTCOMES: tuple[Outcome, ...] = ("diverged", "collapsed", "failed")
NUM_BINS = 4


@dataclass(frozen=True)
class Stability:
    """How many of the trials with a parameter in one bin ended badly.

    start, end: the bin as positions on the parameter's axis. num_trials: of those it can be said of: `diverged` and
    `failed` of trials that ended by themselves or by pruning, `collapsed` of those that reached the end of an epoch.
    low, high: 95% interval of the share (Wilson); 0 to 1 without trials. failed: for whatever reason, so diverged too.
    """

    parameter: str
    label: str
    start: float
    end: float
    outcome: Outcome
    num_bad: int
    num_trials: int
    low: float
    high: float

    @property
    def share(self) -> float | None:
        return self.num_bad / self.num_trials if self.num_trials else None


def stability(study: Study) -> list[Stability]:
    """A row for each bin and outcome of each of `TERMS` that the study varies."""
    rows = []
    for name in TERMS:
        if name not in study.space.ranges:
            continue
        axis = Axis(name, study.space.ranges[name])
        trials = [trial for trial in study.trials if name in trial.parameters]
        for label, start, end in _bins(axis):
            inside = [trial for trial in trials if _holds(start, end, axis.position(trial.parameters[name]))]
            rows += [_row(name, label, start, end, outcome, inside) for outcome in OUTCOMES]
    return rows


def count_outcomes(trials: Sequence[TrialRecord], outcome: Outcome) -> tuple[int, int]:
    """How many trials ended so, of how many that it can be said of."""
    if outcome == "collapsed":
        shares = [trial.collapse_share for trial in trials if trial.collapse_share is not None]
        known = [share for share in shares if math.isfinite(share)]
        return sum(share > COLLAPSE_SHARE for share in known), len(known)
    ended = [trial for trial in trials if trial.state in ("complete", "pruned", "failed")]
    return sum(trial.has_diverged if outcome == "diverged" else trial.state == "failed" for trial in ended), len(ended)


def wilson(num_bad: int, num_trials: int, z: float = 1.959964) -> tuple[float, float]:
    """95% interval of a share; from 0 to 1 without trials."""
    if not num_trials:
        return 0.0, 1.0
    share, spread = num_bad / num_trials, z * z / num_trials
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / num_trials + spread / (4 * num_trials)) / (1 + spread)
    # At its ends the formula is exact and arithmetic is not.
    return (0.0 if num_bad == 0 else middle - half), (1.0 if num_bad == num_trials else middle + half)


def _row(name: str, label: str, start: float, end: float, outcome: Outcome, inside: list[TrialRecord]) -> Stability:
    num_bad, num_trials = count_outcomes(inside, outcome)
    return Stability(name, label, start, end, outcome, num_bad, num_trials, *wilson(num_bad, num_trials))


def _bins(axis: Axis) -> list[tuple[str, float, float]]:
    """Label, start and end; the band of zeros, where there is one, is the first."""
    edges = axis.edges(NUM_BINS)
    bounds = [axis.span.low, *(axis.value(edge) for edge in edges[1:-1]), axis.span.high]
    labels = [f"{low:.2g} to {high:.2g}" for low, high in itertools.pairwise(bounds)]
    zero = [("0", 0.0, edges[0])] if axis.span.zero else []
    return [*zero, *zip(labels, edges[:-1], edges[1:], strict=True)]


def _holds(start: float, end: float, position: float) -> bool:
    """Bins include their start; the last its end."""
    return start <= position < end or position == end == 1
