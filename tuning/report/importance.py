"""What a study says of its parameters: how much each matters, alone and in pairs, and where it is good.

    learnt = learn(study, "mae")
    learnt.importances, learnt.interactions     # shares with their spread, and what chance alone would give
    learnt.slices["adversarial"]                # the mean score along one parameter

fANOVA: share of the score's variance over the space that a parameter explains, or a pair beyond its two; by a forest,
on complete trials. PED-ANOVA: how far the parameter's values among the best quarter differ from those of all trials,
as a share of all such differences; here pruned trials take part, as worse than every complete one.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import optuna

from tuning.record import Study, TrialRecord
from tuning.report.axis import Axis
from tuning.report.forest import Array, Forest

Method = Literal["fANOVA", "PED-ANOVA"]
METHODS: tuple[Method, ...] = ("fANOVA", "PED-ANOVA")

# Fewer trials than this say nothing of importance; PED-ANOVA would compare two of them with the rest.
MIN_TRIALS = 8
NUM_RESAMPLES = 100
# Of the forest of each resample: from one to the next, shares differ by far more than from tree to tree.
NUM_TREES = 16
# The spread is from the 5th to the 95th percentile; what chance gives, the 95th.
SPREAD = (0.05, 0.95)
TOP_SHARE = 0.25
PLACES = np.linspace(0, 1, 49)
CELLS = (np.arange(24) + 0.5) / 24


@dataclass(frozen=True)
class Importance:
    """Share of one parameter, or of the interaction of two.

    low, high: spread over resamples of the trials. by_chance: what one study of twenty would give it, were the scores
    dealt to the trials at random.
    """

    objective: str
    method: Method
    parameters: tuple[str, ...]
    share: float
    low: float
    high: float
    by_chance: float

    @property
    def is_above_chance(self) -> bool:
        return self.share > self.by_chance


@dataclass(frozen=True)
class Slice:
    """The mean score along one parameter at `PLACES`, the others averaged out, and its spread over resamples."""

    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Learnt:
    """All that trials say of one objective. too_little: the sentence that says why there is nothing else, or empty."""

    objective: str
    num_complete: int
    num_pruned: int
    num_resamples: int
    too_little: str = ""
    importances: tuple[Importance, ...] = ()
    interactions: tuple[Importance, ...] = ()
    slices: dict[str, Slice] = field(default_factory=dict)
    # Mean score at CELLS × CELLS, the first parameter along the rows.
    contours: dict[tuple[str, str], Array] = field(default_factory=dict)

    def of_method(self, method: Method) -> list[Importance]:
        """Of single parameters, the most important first."""
        return [each for each in self.importances if each.method == method]


def axes(study: Study) -> list[Axis]:
    """One for each parameter that the study varies."""
    return [Axis(name, span) for name, span in study.space.ranges.items()]


def scored(study: Study, objective: str) -> list[TrialRecord]:
    """The complete trials with a finite score."""
    complete = [trial for trial in study.of_state("complete") if _is_placed(study, trial)]
    return [trial for trial in complete if math.isfinite(trial.values.get(objective, math.nan))]


def learn(study: Study, objective: str, *, num_resamples: int = NUM_RESAMPLES) -> Learnt:
    """The same study gives the same numbers."""
    complete = scored(study, objective)
    pruned = [trial for trial in study.of_state("pruned") if _is_placed(study, trial)]
    along = axes(study)
    positions, values = _positions(along, complete), np.array([trial.values[objective] for trial in complete])
    too_little = _too_little(values, len(along))
    if too_little:
        return Learnt(objective, len(complete), len(pruned), num_resamples, too_little)
    sign = -1 if study.directions[objective] == "maximize" else 1
    everywhere = np.concatenate([positions, _positions(along, pruned)])
    losses = np.concatenate([sign * values, np.full(len(pruned), np.inf)])

    names = [axis.name for axis in along]
    singles: list[tuple[int, ...]] = [(index,) for index in range(len(names))]
    pairs: list[tuple[int, ...]] = list(itertools.combinations(range(len(names)), 2))
    held = [*singles, *pairs]
    forest = Forest.fit(positions, values, seed=0)
    random = np.random.default_rng(0)
    resampled, dealt, slices, ped_resampled, ped_dealt = [], [], [], [], []
    with _quiet():
        ped = ped_anova(everywhere, losses)
        for seed in range(1, num_resamples + 1):
            chosen = random.integers(len(values), size=len(values))
            other = Forest.fit(positions[chosen], values[chosen], seed=seed, num_trees=NUM_TREES)
            resampled.append(other.shares(held))
            slices.append([other.mean_at(single, [PLACES]) for single in singles])
            by_chance = Forest.fit(positions, random.permutation(values), seed=seed, num_trees=NUM_TREES)
            dealt.append(by_chance.shares(held))
            chosen = random.integers(len(losses), size=len(losses))
            ped_resampled.append(ped_anova(everywhere[chosen], losses[chosen]))
            ped_dealt.append(ped_anova(everywhere, random.permutation(losses)))

    def described(method: Method, shares: Array, repeated: list[Array], by_chance: list[Array]) -> list[Importance]:
        low, high = np.quantile(np.array(repeated), SPREAD, axis=0)
        chance = np.quantile(np.array(by_chance), SPREAD[1], axis=0)
        columns = (column.tolist() for column in (shares, low, high, chance))
        named = [tuple(names[index] for index in each) for each in held[: len(shares)]]
        return [Importance(objective, method, *row) for row in zip(named, *columns, strict=True)]

    found = described("fANOVA", forest.shares(held), resampled, dealt)
    by_ped = described("PED-ANOVA", ped, ped_resampled, ped_dealt)
    low, high = np.quantile(np.array(slices), SPREAD, axis=0)
    return Learnt(
        objective,
        len(complete),
        len(pruned),
        num_resamples,
        importances=(*_ordered(found[: len(singles)]), *_ordered(by_ped)),
        interactions=tuple(_ordered(found[len(singles) :])),
        slices={
            name: Slice(forest.mean_at([index], [PLACES]), low[index], high[index]) for index, name in enumerate(names)
        },
        contours={(names[a], names[b]): forest.mean_at([a, b], [CELLS, CELLS]) for a, b in pairs},
    )


def ped_anova(positions: Array, losses: Array) -> Array:
    """Shares by Optuna's PED-ANOVA, which sum to 1; all 0 where the best quarter lies as all trials do.

    losses: lower is better; infinite for trials that were stopped since others were better.
    """
    is_known = np.isfinite(losses)
    num_top = min(math.ceil(TOP_SHARE * len(losses)), math.ceil(is_known.sum() / 2))
    if num_top == 0 or num_top == len(losses):
        return np.zeros(positions.shape[1])
    ranked = np.where(is_known, losses, losses[is_known].max() + 1)
    names = [str(index) for index in range(positions.shape[1])]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(0, 1) for name in names
    }
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(names, row, strict=True)), distributions=distributions, value=float(loss)
            )
            for row, loss in zip(positions.tolist(), ranked, strict=True)
        ]
    )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=num_top / len(losses))
    found = evaluator.evaluate(study)
    differences = np.array([found.get(name, 0.0) for name in names])
    return differences / differences.sum() if differences.sum() > 0 else differences


def _too_little(values: Array, num_parameters: int) -> str:
    if num_parameters < 2:
        return "The study varies one parameter alone, so there is nothing to compare its importance with."
    if len(values) < MIN_TRIALS:
        return f"Importances need {MIN_TRIALS} complete trials and the study has {len(values)}."
    if np.ptp(values) == 0:
        return f"All {len(values)} complete trials have the same score, so no parameter made a difference."
    return ""


def _is_placed(study: Study, trial: TrialRecord) -> bool:
    return set(study.space.ranges) <= set(trial.parameters)


def _positions(along: list[Axis], trials: list[TrialRecord]) -> Array:
    rows = [[axis.position(trial.parameters[axis.name]) for axis in along] for trial in trials]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(along))


def _ordered(found: list[Importance]) -> list[Importance]:
    return sorted(found, key=lambda each: (-each.share, each.parameters))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line for every study that is made, and its warning where the best quarter is all trials."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
