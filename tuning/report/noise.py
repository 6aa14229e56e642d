"""Whether the best trial beats the configured one by more than seeds and picking the best of many would give.

compared = compare(study)
compared.gain, compared.by_chance
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuning.objectives import objective as objective_called
from tuning.record import Study, TrialRecord
from tuning.select import configured_trial, ranked_trials

_NUM_DRAWS = 4000


@dataclass(frozen=True)
class Compared:
    """The best trial beside the configured one, by the study's first objective.

    gain: what the best is better by, 0 or more; None without a configured trial. seed_spread: standard deviation of one
    training's score over seeds, without what all trials have of a seed; None where no two trials have several seeds.
    by_chance: the gain that the best of as many trials would have in one study of twenty, were all equally good.
    """

    best: TrialRecord
    configured: TrialRecord | None
    gain: float | None
    seed_spread: float | None
    by_chance: float | None


def compare(study: Study) -> Compared | None:
    """None where no trial is complete."""
    ranked = ranked_trials(study)
    if not ranked:
        return None
    best, configured = ranked[0], configured_trial(study)
    name = study.first_objective
    gain = None if configured is None else abs(best.values[name] - configured.values[name])
    spread = seed_spread(study)
    if spread is None:
        return Compared(best, configured, gain, None, None)
    deviation, freedom = spread
    num_trials = len(ranked) + len(study.of_state("pruned"))
    by_chance = gain_by_chance(num_trials, deviation / math.sqrt(len(study.seeds)), freedom)
    return Compared(best, configured, gain, deviation, by_chance)


def seed_spread(study: Study) -> tuple[float, int] | None:
    """Standard deviation of what is left of a training's score without its trial's and its seed's mean, and its degrees
    of freedom; None with fewer than two trials or seeds, or an objective that the record does not have by seed."""
    scores = [_by_seed(trial, study) for trial in study.of_state("complete")]
    rows = [row for row in scores if row is not None and len(row) == len(study.seeds)]
    if len(rows) < 2 or len(study.seeds) < 2:
        return None
    table = np.array(rows)
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    deviation = math.sqrt(float(np.sum(left**2)) / freedom)
    return (deviation, freedom) if math.isfinite(deviation) else None


def gain_by_chance(num_trials: int, deviation: float, freedom: int) -> float:
    """95th percentile of how much the best of `num_trials` beats a given one of them, all being equally good.

    deviation: of a trial's score, as estimated with `freedom` degrees of freedom. Simulated, with a fixed seed.
    """
    random = np.random.default_rng(0)
    scores = random.standard_normal((_NUM_DRAWS, num_trials))
    # The true deviation is as uncertain as its estimate.
    truth = deviation * np.sqrt(freedom / random.chisquare(freedom, _NUM_DRAWS))
    return float(np.quantile(truth * (scores[:, 0] - scores.min(axis=1)), 0.95))


def _by_seed(trial: TrialRecord, study: Study) -> list[float] | None:
    """The first objective of each training; the record has MAE alone by seed."""
    objective = objective_called(study.first_objective)
    if objective.metric != "mae":
        return None
    by_seed = {result.seed: result for result in trial.seeds}
    if set(by_seed) != set(study.seeds):
        return None
    rates = [by_seed[seed].valid_mae_by_rate for seed in study.seeds]
    return [objective.of({rate: {"mae": mae} for rate, mae in each.items()}) for each in rates]
