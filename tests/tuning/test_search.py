"""What becomes of a trial in Optuna's storage: complete, pruned, failed, diverged, interrupted; and what is queued."""

from __future__ import annotations

import json
import math
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from tuning.gate import Gate
from tuning.objectives import Objective
from tuning.samplers import SeededSampler, distributions
from tuning.search import RECORD, RecordingSearch, enqueue_configured, mark_interrupted
from tuning.space import DEFAULT_SPACE, Range, Space
from tuning.trial import TIME

CONFIGURED = {"completeness": 0.9, "adversarial": 0.8, "reconstruction": 0.1}
ONE, TWO = (Objective("mae"),), (Objective("mae", "clean"), Objective("acc7"))
SEED = {"seed": 1, "valid_mae": 1.5}


class Heard:
    """An observer that remembers; `failure` is raised when a trial has ended."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.numbers, self.texts = list[int](), list[tuple[int, str]]()
        self._failure = failure

    def ended(self, trial: FrozenTrial) -> None:
        assert trial.state.is_finished()
        self.numbers.append(trial.number)
        if self._failure is not None:
            raise self._failure

    def said(self, number: int, text: str) -> None:
        self.texts.append((number, text))


def make_study(objectives: tuple[Objective, ...] = ONE) -> optuna.Study:
    directions = [objective.direction for objective in objectives]
    return optuna.create_study(study_name="study", directions=directions, sampler=SeededSampler("tpe", 0))


def search_of(
    study: optuna.Study,
    heard: Heard,
    objectives: tuple[Objective, ...] = ONE,
    stopped: dict[str, str] | None = None,
    gate: Gate | None = None,
) -> RecordingSearch:
    return RecordingSearch(
        study,
        study._storage,
        SeededSampler("tpe", 0),
        DEFAULT_SPACE,
        objectives,
        gate or Gate(None, None),
        heard,
        (stopped or {}).get,
    )


def report(time: int, **values: float) -> dict[str, Any]:
    return {**values, TIME: time, "seeds_so_far": json.dumps([SEED]), "time_total_s": 2.0 * time}


def end(**record: object) -> dict[str, Any]:
    made = {"reason": None, "values": None, "seeds": [SEED], "seconds": 2.0, "has_diverged": False, **record}
    return {"mae": math.nan, "end_of_trial": json.dumps(made), "time_total_s": 9.0}


def test_what_a_trial_reports_at_its_end_is_what_is_kept() -> None:
    study, heard = make_study(), Heard()
    search = search_of(study, heard)
    assert search.suggest("a").keys() == CONFIGURED.keys()
    search.on_trial_result("a", report(1, mae=1.5))
    search.on_trial_result("a", report(2, mae=1.4))
    search.on_trial_result("a", report(1, mae=1.9))  # from a training that began again
    search.on_trial_complete("a", end(values={"mae": 1.3}))
    (trial,) = study.trials
    assert (trial.state, trial.value, trial.intermediate_values) == (TrialState.COMPLETE, 1.3, {1: 1.5, 2: 1.4})
    assert trial.user_attrs[RECORD] == {"reason": None, "seeds": [SEED], "seconds": 2.0, "has_diverged": False}
    assert (heard.numbers, search.num_ended, search.error) == ([0], 1, None)


def test_parameters_are_what_the_drawn_numbers_mean() -> None:
    study = make_study()
    study.enqueue_trial(DEFAULT_SPACE.drawn({**CONFIGURED, "adversarial": 0.0}))
    assert search_of(study, Heard()).suggest("a") == {**CONFIGURED, "adversarial": 0.0}
    assert study.trials[0].params["adversarial"] > 0


def test_a_stopped_trial_is_pruned_with_its_last_report() -> None:
    study, heard = make_study(), Heard()
    search = search_of(study, heard, stopped={"a": "stopped after epoch 2: not among the best third"})
    search.suggest("a")
    search.on_trial_result("a", report(1, mae=1.5))
    search.on_trial_complete("a", report(2, mae=1.4))  # which Tune does not tell before
    (trial,) = study.trials
    assert (trial.state, trial.intermediate_values) == (TrialState.PRUNED, {1: 1.5, 2: 1.4})
    assert trial.user_attrs[RECORD] == {
        "reason": "stopped after epoch 2: not among the best third",
        "seeds": [SEED],
        "seconds": 4.0,
    }
    assert heard.numbers == [0]


def test_failed_trials_are_recorded_as_failed_with_their_reason() -> None:
    study, heard = make_study(), Heard()
    search = search_of(study, heard)
    for trial_id in "abc":
        search.suggest(trial_id)
    search.on_trial_complete("a", end(reason="seed 1: no space left"))
    search.on_trial_complete("b", None, error=True)  # its process died
    search.on_trial_complete("c", report(1, mae=1.0))  # ended by nobody knows whom
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 3
    reasons = [trial.user_attrs[RECORD]["reason"] for trial in study.trials]
    assert reasons == ["seed 1: no space left", *["its process ended before the trial did, 4 times"] * 2]
    assert heard.numbers == [0, 1, 2]


@pytest.mark.parametrize("objectives", [ONE, TWO], ids=["one", "two"])
def test_a_diverged_trial_is_a_warning_to_the_sampler(objectives: tuple[Objective, ...]) -> None:
    """Where one corner of the space diverges, TPE keeps away from it, as it would not if those trials had failed."""

    def share_in_corner(has_diverged: bool) -> float:
        study = make_study(objectives)
        search = search_of(study, Heard(), objectives)
        values = {objective.name: 1.0 for objective in objectives}
        in_corner: list[bool] = []
        for index in range(50):
            is_large = search.suggest(str(index))["adversarial"] > 0.5
            in_corner.append(is_large)
            record = end(reason="seed 1: not finite", has_diverged=has_diverged) if is_large else end(values=values)
            search.on_trial_complete(str(index), record)
        assert search.error is None
        states = {trial.state for trial in study.trials}
        assert states == {TrialState.COMPLETE, TrialState.PRUNED if has_diverged else TrialState.FAIL}
        return sum(in_corner[15:]) / len(in_corner[15:])

    assert share_in_corner(has_diverged=True) < 0.7 * share_in_corner(has_diverged=False)


def test_several_objectives_are_told_in_their_order() -> None:
    study, heard = make_study(TWO), Heard()
    search = search_of(study, heard, TWO)
    search.suggest("a")
    search.on_trial_result("a", report(1, **{"mae@clean": 1.0, "acc7": 0.3}))
    search.on_trial_complete("a", end(values={"acc7": 0.4, "mae@clean": 0.9}))
    (trial,) = study.trials
    assert (trial.values, trial.intermediate_values) == ([0.9, 0.4], {})
    assert search.error is None


def test_what_a_trial_says_is_passed_on_and_no_score() -> None:
    study, heard = make_study(), Heard()
    search = search_of(study, heard)
    search.suggest("a")
    search.on_trial_result("a", {"mae": math.nan, "notice": "waits for room"})
    assert heard.texts == [(0, "waits for room")]
    assert study.trials[0].intermediate_values == {}


def test_a_record_that_cannot_be_kept_stops_the_study() -> None:
    study = make_study()
    search = search_of(study, Heard(OSError("no space left")))
    search.suggest("a")
    search.on_trial_complete("a", end(values={"mae": 1.0}))
    assert isinstance(search.error, OSError)
    assert search.suggest("b") == Searcher.FINISHED
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_sampler_that_fails_stops_the_study() -> None:
    study = make_study()
    search = search_of(study, Heard())
    study._storage.delete_study(study._study_id)
    assert search.suggest("a") == Searcher.FINISHED
    assert isinstance(search.error, KeyError)


def test_no_trial_starts_when_the_time_is_over() -> None:
    study = make_study()
    search = search_of(study, Heard(), gate=Gate(1e-9, None))
    assert search.suggest("a") == Searcher.FINISHED
    assert study.trials == [] and search.error is None
    assert search_of(study, Heard(), gate=Gate(60, None)).suggest("a") is not None


def ask(study: optuna.Study) -> optuna.Trial:
    return study.ask(distributions(DEFAULT_SPACE))


def test_a_driver_that_is_killed_while_it_tidies_up_queues_parameters_once() -> None:
    study = make_study()
    killed = ask(study)
    study.enqueue_trial(killed.params, user_attrs={"repeats": killed.number})  # killed before it marked the trial
    for _ in range(2):
        mark_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_that_was_killed_before_it_had_parameters_is_only_marked() -> None:
    study = make_study()
    study.ask()
    mark_interrupted(study)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


@pytest.mark.parametrize("adversarial", [0.8, 0.0])
def test_configured_parameters_are_queued_once(adversarial: float) -> None:
    configured = {**CONFIGURED, "adversarial": adversarial}
    study = make_study()
    for _ in range(2):
        enqueue_configured(study, DEFAULT_SPACE, configured)
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]
    trial = ask(study)
    assert DEFAULT_SPACE.values(trial.params) == configured
    enqueue_configured(study, DEFAULT_SPACE, configured)  # it runs
    mark_interrupted(study)
    enqueue_configured(study, DEFAULT_SPACE, configured)  # it waits to be tried again
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    study.tell(ask(study), 1.0)
    enqueue_configured(study, DEFAULT_SPACE, configured)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_other_parameters_are_not_taken_for_the_configured_ones() -> None:
    space = Space({"adversarial": Range(0.05, 3.0, zero=0.1)})
    study = make_study()
    study.enqueue_trial({"adversarial": 0.8})
    enqueue_configured(study, space, {"adversarial": 0.0})
    assert len(study.trials) == 2


def test_configured_parameters_that_only_failed_are_queued_again() -> None:
    study = make_study()
    enqueue_configured(study, DEFAULT_SPACE, CONFIGURED)
    study.tell(ask(study), state=TrialState.FAIL)
    enqueue_configured(study, DEFAULT_SPACE, CONFIGURED)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]
    study.tell(ask(study), state=TrialState.PRUNED)  # as one that diverged
    enqueue_configured(study, DEFAULT_SPACE, CONFIGURED)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.PRUNED]


def test_a_repeat_that_was_killed_before_it_had_all_parameters_is_repeated_whole() -> None:
    study = make_study()
    drawn = ask(study).params
    mark_interrupted(study)
    repeat = study.ask()
    repeat.suggest_float("completeness", *_ends("completeness"), log=True)  # and then it was killed
    mark_interrupted(study)
    assert ask(study).params == drawn


def test_why_a_process_was_lost_is_kept() -> None:
    study, heard = make_study(), Heard()
    search = search_of(study, heard)
    search.suggest("a")
    search.failed_once("a", "ModuleNotFoundError: No module named 'lnln'")
    search.on_trial_complete("a", None, error=True)
    assert "No module named 'lnln'" in study.trials[0].user_attrs[RECORD]["reason"]


def _ends(name: str) -> tuple[float, float]:
    span = DEFAULT_SPACE.ranges[name]
    return span.draw_low, span.high
