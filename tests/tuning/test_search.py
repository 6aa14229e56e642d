"""Suggestions: reproducible, continued rather than repeated, and none lost to a killed driver."""

from __future__ import annotations

import json
import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from tuning.search import RECORD, RecordingSearch, SeededSampler, distributions, is_interrupted, mark_interrupted
from tuning.space import DEFAULT_SPACE, Range, Space

WEIGHTS = {"completeness": 0.9, "adversarial": 0.8, "reconstruction": 0.1}


def open_study(storage: optuna.storages.BaseStorage, kind: str = "tpe", seed: int = 0) -> optuna.Study:
    sampler = SeededSampler("tpe" if kind == "tpe" else "random", seed)
    return optuna.create_study(storage=storage, study_name="study", sampler=sampler, load_if_exists=True)


def ask(study: optuna.Study) -> optuna.Trial:
    return study.ask(distributions(DEFAULT_SPACE))


def score(weights: dict[str, float]) -> float:
    return sum(abs(math.log(value)) for value in weights.values())


def complete(study: optuna.Study, num: int) -> None:
    for _ in range(num):
        trial = ask(study)
        study.tell(trial, score(trial.params))


def suggested(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize("kind", ["tpe", "random"])
def test_a_continued_study_suggests_what_an_uninterrupted_one_would(kind: str) -> None:
    whole = open_study(optuna.storages.InMemoryStorage(), kind)
    whole.enqueue_trial(WEIGHTS)
    complete(whole, 15)  # TPE draws at random up to 10
    storage = optuna.storages.InMemoryStorage()
    open_study(storage, kind).enqueue_trial(WEIGHTS)
    for num in (1, 4, 6, 4):
        complete(open_study(storage, kind), num)
    assert suggested(open_study(storage, kind)) == suggested(whole)
    assert suggested(whole)[0] == WEIGHTS
    assert len({tuple(weights.values()) for weights in suggested(whole)}) == 15


@pytest.mark.parametrize("killed_at", [0, 1, 3, 12])
def test_a_killed_driver_changes_no_suggestion(killed_at: int) -> None:
    whole = open_study(optuna.storages.InMemoryStorage())
    whole.enqueue_trial(WEIGHTS)
    complete(whole, 14)
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage)
    study.enqueue_trial(WEIGHTS)
    complete(study, killed_at)
    for _ in range(2):  # killed twice in the same trial
        ask(study)
        study = open_study(storage)
        mark_interrupted(study)
    complete(study, 14 - killed_at)
    assert suggested(study) == suggested(whole)
    assert sum(is_interrupted(trial) for trial in study.trials) == 2
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_a_driver_that_is_killed_while_it_tidies_up_queues_weights_once() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage)
    killed = ask(study)
    study.enqueue_trial(killed.params, user_attrs={"repeats": killed.number})  # killed before it marked the trial
    for _ in range(2):
        mark_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_that_was_killed_before_it_had_weights_is_only_marked() -> None:
    study = open_study(optuna.storages.InMemoryStorage())
    study.ask()
    mark_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_another_seed_suggests_other_weights() -> None:
    one, other = (open_study(optuna.storages.InMemoryStorage(), seed=seed) for seed in (0, 1))
    complete(one, 3)
    complete(other, 3)
    assert suggested(one) != suggested(other)


def test_suggestions_stay_within_the_space() -> None:
    space = Space({"adversarial": Range(0.1, 0.2), "reconstruction": Range(0, 0.5, "linear")})
    study = optuna.create_study(sampler=SeededSampler("tpe", 0))
    for _ in range(15):
        trial = study.ask(distributions(space))
        assert trial.params.keys() == space.ranges.keys()
        assert all(space.ranges[name].contains(value) for name, value in trial.params.items())
        study.tell(trial, trial.params["adversarial"])


def search_of(study: optuna.Study, storage: optuna.storages.BaseStorage, ended: list[int]) -> RecordingSearch:
    return RecordingSearch(
        study, storage, SeededSampler("tpe", 0), DEFAULT_SPACE, lambda trial: ended.append(trial.number)
    )


def end(**record: object) -> dict[str, Any]:
    return {"valid_mae": math.nan, "training_iteration": 3, "end_of_trial": json.dumps(record)}


def test_what_a_trial_reports_at_its_end_is_what_is_kept() -> None:
    storage, ended = optuna.storages.InMemoryStorage(), list[int]()
    study = open_study(storage)
    search = search_of(study, storage, ended)
    assert search.suggest("a").keys() == WEIGHTS.keys()
    search.on_trial_result("a", {"valid_mae": 1.5, "training_iteration": 1})
    search.on_trial_result("a", {"valid_mae": 1.7, "training_iteration": 2})
    last = end(reason=None, valid_mae=1.5, best_epoch=1, seconds=2.0)
    search.on_trial_result("a", last)
    search.on_trial_complete("a", last)
    trial = study.trials[0]
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 1.5, {1: 1.5, 2: 1.7})
    assert trial.user_attrs[RECORD] == {"reason": None, "best_epoch": 1, "seconds": 2.0}
    assert (ended, search.num_ended, search.error) == ([0], 1, None)


def test_failed_trials_are_recorded_as_failed_with_their_reason() -> None:
    storage, ended = optuna.storages.InMemoryStorage(), list[int]()
    study = open_study(storage)
    search = search_of(study, storage, ended)
    for trial_id in "abc":
        search.suggest(trial_id)
    search.on_trial_complete("a", end(reason="the loss is NaN", seconds=1.0))
    search.on_trial_complete("b", None, error=True)  # its process died
    search.on_trial_complete("c", {"valid_mae": 1.0, "training_iteration": 1})  # stopped before its end
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    reasons = [trial.user_attrs[RECORD]["reason"] for trial in study.trials]
    assert reasons == ["the loss is NaN", *["its process ended before the trial did"] * 2]
    assert ended == [0, 1, 2]


def test_a_record_that_cannot_be_kept_stops_the_study() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage)

    def refuse(trial: optuna.trial.FrozenTrial) -> None:
        raise OSError("no space left")

    search = RecordingSearch(study, storage, SeededSampler("tpe", 0), DEFAULT_SPACE, refuse)
    search.suggest("a")
    search.on_trial_complete("a", end(reason=None, valid_mae=1.0, seconds=1.0))
    assert isinstance(search.error, OSError)
    assert search.suggest("b") == Searcher.FINISHED
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_samplers_describe_themselves() -> None:
    assert SeededSampler("tpe", 3).describe() == {
        "name": "TPESampler",
        "seed": 3,
        "n_startup_trials": 10,
        "multivariate": True,
        "constant_liar": True,
    }
    assert SeededSampler("random", 0).describe() == {"name": "RandomSampler", "seed": 0}
