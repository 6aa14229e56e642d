"""Stopping trials early: asynchronous successive halving by Ray, which goes on where an earlier driver was.

Time is the number of epochs over all seeds of a trial. At `tune.grace_epochs` of them, and again after each
`tune.reduction_factor` times as many, a trial goes on only if it is among the best 1/`reduction_factor` of those that
came as far before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from lnln.config import TuneConfig
from tuning.objectives import Objective
from tuning.samplers import is_interrupted

_SHARES = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


@dataclass(frozen=True)
class _Earlier:
    """All that Ray's brackets ask of a trial."""

    trial_id: str


class Pruning(ASHAScheduler):
    """Ray's ASHA over the epochs of all seeds, sparing the configured trial: what the others are compared with in the
    end has to be known to the end.

    num_epochs: of a whole trial. time_key: of a report, the epochs that it comes after. is_spared: whether the trial
    with these parameters goes on in any case; it counts among those that came as far all the same.
    """

    def __init__(
        self,
        config: TuneConfig,
        objective: Objective,
        num_epochs: int,
        time_key: str,
        is_spared: Callable[[dict[str, float]], bool],
    ) -> None:
        super().__init__(
            time_attr=time_key,
            metric=objective.name,
            mode="min" if objective.direction == "minimize" else "max",
            # After the last epoch there is nothing to be saved by stopping.
            max_t=max(num_epochs - 1, config.grace_epochs),
            grace_period=config.grace_epochs,
            reduction_factor=config.reduction_factor,
            stop_last_trials=False,
        )
        self._is_spared, self._num_epochs = is_spared, num_epochs
        self._share = _SHARES.get(config.reduction_factor, f"1/{config.reduction_factor}")
        self._reasons: dict[str, str] = {}

    def fill(self, trials: Iterable[FrozenTrial]) -> None:
        """Count what earlier drivers' trials had reached, as if this scheduler had seen them."""
        (bracket,), sign = self._brackets, self._metric_op
        assert sign is not None, "the objective has a direction"
        for trial in trials:
            if is_interrupted(trial):
                continue  # its parameters are tried again
            for epoch, value in sorted(trial.intermediate_values.items()):
                bracket.on_result(_Earlier(f"trial {trial.number}"), epoch, sign * value)  # type: ignore[arg-type]

    def reason(self, trial_id: str) -> str | None:
        """Why the trial was stopped, None where it was not."""
        return self._reasons.get(trial_id)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if self._time_attr not in result:
            return str(TrialScheduler.CONTINUE)
        action = super().on_trial_result(tune_controller, trial, result)
        if action != TrialScheduler.STOP:
            return str(action)
        epoch = result[self._time_attr]
        if epoch >= self._num_epochs or self._is_spared(trial.config):
            return str(TrialScheduler.CONTINUE)
        self._reasons[trial.trial_id] = f"stopped after epoch {epoch}: not among the best {self._share}"
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Nothing: Ray would count the last report a second time."""
