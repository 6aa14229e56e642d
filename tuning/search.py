"""OptunaSearch that keeps how each trial went or why it failed, and whose suggestions go on where they ended.

Ray Tune asks it for weights and tells it results; Optuna's storage is the study's only state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lnln.config import fingerprint
from tuning.space import Space
from tuning.trial import METRIC, end_of

# Names of what this module keeps with Optuna's trials (user attributes).
RECORD = "record"
INTERRUPTED = "interrupted"
_REPEATS = "repeats"


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's words."""
    return {
        name: FloatDistribution(span.low, span.high, log=span.scale == "log") for name, span in space.ranges.items()
    }


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether the trial's driver ended before it did."""
    return bool(trial.user_attrs.get(INTERRUPTED))


class SeededSampler(BaseSampler):
    """TPE or random suggestions that depend on (seed, number of trials before, their results) and nothing else.

    A study that was continued thus makes the suggestions of one that never stopped, and never the same ones twice.
    Trials that were interrupted do not count: each is followed by another with its weights.
    """

    def __init__(self, kind: Literal["tpe", "random"], seed: int) -> None:
        self._kind, self._seed = kind, seed
        self._sampler: BaseSampler = self._make(0)

    def describe(self) -> dict[str, Any]:
        """What a record needs to make the same suggestions again, with the version of Optuna."""
        made = self._make(0)
        arguments = {"n_startup_trials": 10, "multivariate": True, "constant_liar": True} if self._kind == "tpe" else {}
        return {"name": type(made).__name__, "seed": self._seed, **arguments}

    def _make(self, index: int) -> BaseSampler:
        seed = int(fingerprint([self._seed, index])[:8], 16)
        if self._kind == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=10, multivariate=True, constant_liar=True)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        earlier = study.get_trials(deepcopy=False)[: trial.number]
        self._sampler = self._make(sum(not is_interrupted(other) for other in earlier))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


class RecordingSearch(OptunaSearch):
    """OptunaSearch whose trials end COMPLETE with their best epoch, or FAIL with a reason, and are recorded at once.

    after_trial is called with the finished trial. Should it fail, no further trial starts, and `error` says why: Tune
    would log an exception and go on.
    """

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.BaseStorage,
        sampler: BaseSampler,
        space: Space,
        after_trial: Callable[[FrozenTrial], None],
    ) -> None:
        super().__init__(
            space=distributions(space),
            metric=METRIC,
            mode="min",
            sampler=sampler,
            storage=storage,
            study_name=study.study_name,
        )
        self._study, self._after_trial = study, after_trial
        self.error: Exception | None = None
        self.num_ended = 0

    def suggest(self, trial_id: str) -> Any:
        return Searcher.FINISHED if self.error else super().suggest(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if end_of(result) is None:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        record = end_of(result or {}) or {"reason": "its process ended before the trial did"}
        value = record.pop(METRIC, None)
        trial = self._ot_trials[trial_id]
        try:
            trial.set_user_attr(RECORD, record)
            super().on_trial_complete(trial_id, None if value is None else {METRIC: value}, error=value is None)
            self.num_ended += 1
            self._after_trial(self._study.trials[trial.number])
        except Exception as failure:
            self.error = failure

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a study continues from Optuna's storage, never from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""


def mark_interrupted(study: optuna.Study) -> None:
    """RUNNING trials of a driver that is no more become FAIL, and their weights are queued again."""
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            continue
        weights = trial.params or trial.system_attrs.get("fixed_params")
        if weights and trial.number not in repeated:
            study.enqueue_trial(weights, user_attrs={_REPEATS: trial.number})
        study._storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, True)
        study.tell(trial.number, state=TrialState.FAIL)
