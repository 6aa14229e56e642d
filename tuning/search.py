"""OptunaSearch that keeps how each trial went, or why it failed or was stopped.

Ray Tune asks it for parameters and tells it results; Optuna's storage is the study's only state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tuning.gate import Gate
from tuning.objectives import Objective
from tuning.samplers import INTERRUPTED, distributions
from tuning.space import Space
from tuning.trial import TIME, end_of, notice_of, seeds_of

# Names of what this module keeps with Optuna's trials (user attributes).
RECORD = "record"
_REPEATS = "repeats"

# How often a trial is tried again whose process was lost.
MAX_REPEATS = 3


class Observer(Protocol):
    """Hears of the trials, by Optuna's numbers."""

    def ended(self, trial: FrozenTrial) -> None:
        """It is recorded in Optuna's storage."""

    def said(self, number: int, text: str) -> None:
        """Something to be passed on."""


class RecordingSearch(OptunaSearch):
    """OptunaSearch whose trials are recorded at once, as what they were: complete with their values, pruned, or failed.

    A trial that diverged is PRUNED in Optuna, with a constraint that it breaks: samplers know of failed trials nothing
    at all, and would walk into the same corner again. In our record it has failed.
    stopped: why the trial with Tune's id was stopped, None where it was not. Should the observer fail, no further trial
    starts, and `error` says why: Tune would log an exception and go on.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.BaseStorage,
        sampler: BaseSampler,
        space: Space,
        objectives: Sequence[Objective],
        gate: Gate,
        observer: Observer,
        stopped: Callable[[str], str | None],
    ) -> None:
        modes = ["min" if objective.direction == "minimize" else "max" for objective in objectives]
        super().__init__(
            space=distributions(space),
            metric=objectives[0].name if len(objectives) == 1 else [objective.name for objective in objectives],
            mode=modes[0] if len(modes) == 1 else modes,
            sampler=sampler,
            storage=storage,
            study_name=study.study_name,
        )
        self._study, self._space_of_study, self._objectives = study, space, objectives
        self._gate, self._observer, self._stopped = gate, observer, stopped
        self._failures: dict[str, str] = {}
        self.error: Exception | None = None
        self.num_ended = 0

    def suggest(self, trial_id: str) -> Any:
        """Parameters; None where there is no room for a trial now."""
        if self.error or self._gate.is_over() or self._gate.is_interrupted():
            return Searcher.FINISHED
        try:
            return self._space_of_study.values(super().suggest(trial_id) or {}) if self._gate.has_room() else None
        except Exception as failure:  # Tune would end with a traceback
            self.error = failure
            return Searcher.FINISHED

    def number(self, trial_id: str) -> int:
        """Optuna's number of the trial that Tune calls so."""
        return int(self._ot_trials[trial_id].number)

    def failed_once(self, trial_id: str, reason: str) -> None:
        """The trial's process ended before the trial did, and it is tried again; `reason` is what is known of why."""
        self._failures[trial_id] = reason

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        notice = notice_of(result)
        try:
            if notice is not None:
                self._observer.said(self.number(trial_id), notice)
            elif TIME in result:
                self._report(trial_id, result)
        except Exception as failure:  # Tune would take it for the trial's, and try that again
            self.error = self.error or failure

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        try:
            self._end(trial_id, result or {})
            self.num_ended += 1
            self._observer.ended(self._study.get_trials(deepcopy=False)[self.number(trial_id)])
        except Exception as failure:
            self.error = self.error or failure

    def _end(self, trial_id: str, result: dict[str, Any]) -> None:
        trial, record, reason = self._ot_trials[trial_id], end_of(result), self._stopped(trial_id)
        values, state = None, TrialState.FAIL
        if record is not None:
            values = record.pop("values")
            if values is not None:
                state = TrialState.COMPLETE
            elif record["has_diverged"]:
                state = TrialState.PRUNED
                trial.set_constraint("diverged", 1.0)
        elif reason is not None:
            self._report(trial_id, result)  # Tune keeps the last one to itself
            state = TrialState.PRUNED
            record = {"reason": reason, "seeds": seeds_of(result), "seconds": round(result["time_total_s"], 3)}
        else:
            last = f"; the last but one: {self._failures[trial_id]}" if trial_id in self._failures else ""
            record = {"reason": f"its process ended before the trial did, {MAX_REPEATS + 1} times{last}"}
        trial.set_user_attr(RECORD, record)
        told = None if values is None else [values[objective.name] for objective in self._objectives]
        self._study.tell(trial, told, state=state)

    def _report(self, trial_id: str, result: dict[str, Any]) -> None:
        trial = self._ot_trials[trial_id]
        # A trial that is tried again repeats what it told before.
        told = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if len(self._objectives) == 1 and result[TIME] not in told:
            trial.report(result[self._objectives[0].name], result[TIME])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a study continues from Optuna's storage, never from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as `save`: Tune pickles all that it was given, and locks and leases cannot be."""
        return {}


def mark_interrupted(study: optuna.Study) -> None:
    """RUNNING trials of a driver that is no more become FAIL, and their parameters are queued again."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            continue
        # A repeat may have been killed before it had all of its parameters.
        drawn = trial.system_attrs.get("fixed_params") or trial.params
        if drawn and trial.number not in repeated:
            study.enqueue_trial(drawn, user_attrs={_REPEATS: trial.number})
        study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study.tell(trial.number, state=TrialState.FAIL)


def enqueue_configured(study: optuna.Study, space: Space, configured: dict[str, float]) -> None:
    """Queue the configured parameters, unless a trial has shown what they do or is about to.

    One that failed has shown nothing; one that diverged did, and is none of those (`RecordingSearch`).
    """
    for trial in study.get_trials(deepcopy=False):
        drawn = trial.system_attrs.get("fixed_params", trial.params)
        if trial.state != TrialState.FAIL and are_equal(space.values(drawn), configured):
            return
    study.enqueue_trial(space.drawn(configured))


def are_equal(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether both are the same parameters."""
    return one.keys() == other.keys() and all(math.isclose(one[name], other[name]) for name in one)
