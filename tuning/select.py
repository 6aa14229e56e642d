"""What a study found: the best of its trials, those that nothing beats, and a config that uses its parameters.

study = load_study(store, study_id)
config = best_config(config, study)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lnln.config import Config
from lnln.errors import RefusedError
from tuning.objectives import objective
from tuning.record import Study, TrialRecord
from tuning.space import with_parameters

# Far from those that people train with.
_FIRST_FRESH_SEED = 2111


def best_trial(study: Study) -> TrialRecord:
    """The complete trial that is best in the study's first objective, the earlier one of equals.

    RefusedError if there is none.
    """
    ranked = ranked_trials(study)
    if not ranked:
        raise RefusedError(
            f"study {study.study_id} has no complete trial; `lnln tune {study.corpus} --trials N` with the study's "
            "arguments continues it"
        )
    return ranked[0]


def ranked_trials(study: Study) -> list[TrialRecord]:
    """The complete trials, best first by the first objective."""
    name = study.first_objective
    sign = -1 if study.directions[name] == "maximize" else 1
    return sorted(study.of_state("complete"), key=lambda trial: (sign * trial.values[name], trial.number))


def configured_trial(study: Study) -> TrialRecord | None:
    """The complete trial with the parameters of the config, None where there is none yet."""
    return next((trial for trial in study.of_state("complete") if trial.is_configured), None)


def pareto_front(study: Study) -> list[TrialRecord]:
    """The complete trials that no other beats in one objective without losing in another, by number."""
    complete = study.of_state("complete")
    return [trial for trial in complete if not any(_dominates(study, other, trial) for other in complete)]


def _dominates(study: Study, one: TrialRecord, other: TrialRecord) -> bool:
    gains = [
        (other.values[name] - one.values[name]) * (1 if direction == "minimize" else -1)
        for name, direction in study.directions.items()
    ]
    return min(gains) >= 0 and max(gains) > 0


def fresh_seeds(study: Study, num_seeds: int = 3) -> list[int]:
    """Seeds that the study did not use, to choose with."""
    free = (seed for seed in itertools.count(_FIRST_FRESH_SEED) if seed not in study.seeds)
    return list(itertools.islice(free, num_seeds))


def best_config(config: Config, study: Study) -> Config:
    """`config` with the best trial's parameters; what the study did not vary stays as it is."""
    return with_parameters(config, best_trial(study).parameters)


def verdict(study: Study) -> str:
    """One sentence: which trial is best, and by how much it lies before the configured setting."""
    ranked, configured = ranked_trials(study), configured_trial(study)
    if not ranked:
        return "no trial is complete"
    best, name = ranked[0], study.first_objective
    title = objective(name).title
    said = f"trial {best.number} is best of {len(ranked)} complete: validation {title} {best.values[name]:.4f}"
    if best.is_configured:
        said += ", with the configured parameters"
    elif configured is None:
        said += "; the configured parameters have no score to compare it with"
    else:
        num_seeds = len(study.seeds)
        gain = abs(best.values[name] - configured.values[name])
        said += (
            f", the configured parameters {configured.values[name]:.4f}; the best of many on {num_seeds} "
            f"seed{'' if num_seeds == 1 else 's'} is partly the luckiest, so the {gain:.4f} between them may be noise"
        )
    if len(study.directions) > 1:
        front = ", ".join(str(trial.number) for trial in pareto_front(study))
        titles = " and ".join(objective(each).title for each in study.directions)
        said += f"; in {titles} together nothing beats trial {front}"
    return said


def table(study: Study) -> list[dict[str, str]]:
    """A row of text per trial, the best first, then those without a score; keys are the columns."""
    ranked = ranked_trials(study)
    rest = [trial for trial in study.trials if trial.state != "complete"]
    return [_row(trial, study, list(study.space.ranges)) for trial in [*ranked, *rest]]


def _row(trial: TrialRecord, study: Study, names: Sequence[str]) -> dict[str, str]:
    best_epochs = ", ".join(str(result.best_epoch) for result in trial.seeds)
    return {
        "trial": f"{trial.number} (configured)" if trial.is_configured else str(trial.number),
        **{
            f"validation {objective(name).title}": f"{trial.values[name]:.4f}" if name in trial.values else trial.state
            for name in study.directions
        },
        **{name: f"{trial.parameters[name]:.3g}" if name in trial.parameters else "" for name in names},
        "best epoch": best_epochs if trial.state == "complete" else "",
        "seconds": "" if trial.seconds is None else f"{trial.seconds:.0f}",
    }
