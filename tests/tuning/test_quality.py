"""Whether a search finds what is there to be found, on a surface that is known and costs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray

from tuning.samplers import SeededSampler, distributions
from tuning.space import DEFAULT_SPACE, Range, Space

SPACE = Space(
    {**DEFAULT_SPACE.ranges, "reversal_strength": Range(0.1, 3.0), "learning_rate": Range(5e-5, 5e-3)},
)
CONFIGURED = {
    "completeness": 0.9,
    "adversarial": 0.8,
    "reconstruction": 0.1,
    "reversal_strength": 1.0,
    "learning_rate": 5e-4,
}
BEST = {
    "completeness": 0.35,
    "adversarial": 0.15,
    "reconstruction": 0.4,
    "reversal_strength": 0.3,
    "learning_rate": 1.5e-4,
}
# MAE that a factor of e away from the best costs, in each parameter.
COST = {
    "completeness": 0.004,
    "adversarial": 0.012,
    "reconstruction": 0.001,
    "reversal_strength": 0.004,
    "learning_rate": 0.03,
}
# Deviation between trainings that differ in the seed alone: about what docs/results.md finds.
NOISE = 0.01
NUM_TRIALS = 60
# 95 % of Student's t with 9 degrees of freedom lie below.
T_OF_9 = 1.833


def regret(values: dict[str, float]) -> float:
    """MAE above the best there is, without noise. A term that is switched off counts as a hundredth of its best."""
    return sum(cost * math.log((values[name] or BEST[name] / 100) / BEST[name]) ** 2 for name, cost in COST.items())


def found(sampler: str, seed: int) -> float:
    """Regret of the trial that a search takes for the best: the configured one first, each score with noise."""
    study = optuna.create_study(sampler=SeededSampler(sampler, seed))
    study.enqueue_trial(SPACE.drawn(CONFIGURED))
    noise = np.random.default_rng(seed)
    for _ in range(NUM_TRIALS):
        trial = study.ask(distributions(SPACE))
        study.tell(trial, 0.8 + regret(SPACE.values(trial.params)) + noise.normal(0, NOISE))
    return regret(SPACE.values(study.best_params))


def regrets(sampler: str, seeds: Sequence[int]) -> NDArray[np.float64]:
    return np.array([found(sampler, seed) for seed in seeds])


def is_better(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether `one` is lower, seed by seed of ten, by more than chance: a paired t-test, one-sided at 5 %."""
    difference = other - one
    assert len(difference) == 10
    return bool(difference.mean() > T_OF_9 * difference.std(ddof=1) / math.sqrt(10))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def test_tpe_beats_random_search_at_equal_budget() -> None:
    tpe, random = (regrets(sampler, range(10)) for sampler in ("tpe", "random"))
    assert is_better(tpe, random), (tpe, random)
    assert not is_better(random, regrets("random", range(10, 20)))  # the test does not find what is not there
    assert tpe.max() < regret(CONFIGURED) / 3
