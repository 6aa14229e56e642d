"""Which trials are stopped: those that are not among the best, never the configured one, the same after a restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from lnln.config import TuneConfig
from tuning.objectives import Objective
from tuning.pruning import Pruning
from tuning.samplers import INTERRUPTED

NUM_EPOCHS = 9
SETTINGS = TuneConfig(grace_epochs=2, reduction_factor=2)  # looks after epochs 2, 4 and 8

Curve = Sequence[float]


def pruning_of(settings: TuneConfig = SETTINGS, metric: str = "mae", num_epochs: int = NUM_EPOCHS) -> Pruning:
    return Pruning(settings, Objective(metric), num_epochs, "time", lambda made: made == {"adversarial": 0.8})


def run(pruning: Pruning, trial_id: str, curve: Curve, adversarial: float = 0.1, metric: str = "mae") -> int:
    """Epochs until the trial is stopped, or all."""
    trial: Any = SimpleNamespace(trial_id=trial_id, config={"adversarial": adversarial})
    controller: Any = None
    pruning.on_trial_add(controller, trial)
    for epoch, value in enumerate(curve, start=1):
        result = {"time": epoch, metric: value}
        if pruning.on_trial_result(controller, trial, result) == TrialScheduler.STOP:
            pruning.on_trial_complete(controller, trial, result)
            return epoch
    # What a trial says at its end has no time.
    assert pruning.on_trial_result(controller, trial, {metric: float("nan")}) == TrialScheduler.CONTINUE
    pruning.on_trial_complete(controller, trial, {metric: float("nan")})
    return len(curve)


def flat(value: float, num_epochs: int = NUM_EPOCHS) -> Curve:
    return [value] * num_epochs


def test_a_trial_that_is_not_among_the_best_is_stopped_where_that_is_looked_at() -> None:
    pruning = pruning_of()
    assert run(pruning, "a", flat(1.0)) == NUM_EPOCHS
    assert pruning.reason("a") is None
    assert run(pruning, "b", flat(1.1)) == 2
    assert pruning.reason("b") == "stopped after epoch 2: not among the best half"
    assert run(pruning, "c", flat(0.9)) == NUM_EPOCHS
    falls_behind = [0.8, 0.8, 0.8, 1.2, *flat(0.8, 5)]
    assert run(pruning, "d", falls_behind) == 4
    assert pruning.reason("d") == "stopped after epoch 4: not among the best half"


def test_what_is_better_when_higher_is_compared_so() -> None:
    pruning = pruning_of(metric="acc7")
    assert run(pruning, "a", flat(0.3), metric="acc7") == NUM_EPOCHS
    assert run(pruning, "b", flat(0.2), metric="acc7") == 2
    assert run(pruning, "c", flat(0.4), metric="acc7") == NUM_EPOCHS


def test_the_configured_trial_is_never_stopped_and_counts() -> None:
    pruning = pruning_of()
    assert run(pruning, "a", flat(1.0)) == NUM_EPOCHS
    assert run(pruning, "configured", flat(9.0), adversarial=0.8) == NUM_EPOCHS
    assert pruning.reason("configured") is None
    assert run(pruning, "b", flat(4.0)) == NUM_EPOCHS  # in the middle of 1 and 9
    alone = pruning_of()
    assert run(alone, "configured", flat(1.0), adversarial=0.8) == NUM_EPOCHS
    assert run(alone, "b", flat(1.1)) == 2


@pytest.mark.parametrize("num_epochs", [2, 4, 8])
def test_a_trial_that_has_come_to_its_end_is_not_stopped_there(num_epochs: int) -> None:
    pruning = pruning_of(num_epochs=num_epochs)
    run(pruning, "a", flat(1.0, num_epochs))
    late = [*flat(0.5, num_epochs - 1), 2.0]
    assert run(pruning, "b", late) == num_epochs
    assert pruning.reason("b") is None


@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_a_grace_that_is_longer_than_a_trial_stops_none(num_epochs: int) -> None:
    pruning = pruning_of(dataclasses.replace(SETTINGS, grace_epochs=3), num_epochs=num_epochs)
    for index, value in enumerate((1.0, 2.0, 3.0)):
        assert run(pruning, str(index), flat(value, num_epochs)) == num_epochs


def test_a_trial_that_begins_again_is_judged_once() -> None:
    pruning = pruning_of()
    run(pruning, "a", flat(1.0))
    run(pruning, "b", flat(0.9, 3))  # then its process was lost
    assert run(pruning, "b", flat(0.9)) == NUM_EPOCHS
    # 1.0 and 0.9 have been seen, each once: 0.95 lies in the middle, where a second 0.9 would push it out.
    assert run(pruning, "c", flat(0.95)) == NUM_EPOCHS


CURVES = st.lists(st.lists(st.floats(0.1, 2.0), min_size=NUM_EPOCHS, max_size=NUM_EPOCHS), min_size=1, max_size=12)


@given(curves=CURVES, stops=st.data())
@settings(max_examples=60, deadline=None)
def test_a_continued_study_stops_the_trials_that_an_undisturbed_one_would(
    curves: list[Curve], stops: st.DataObject
) -> None:
    undisturbed = pruning_of()
    expected = [run(undisturbed, str(index), curve) for index, curve in enumerate(curves)]
    study = optuna.create_study()
    pruning, found = pruning_of(), []
    for index, curve in enumerate(curves):
        if stops.draw(st.booleans(), label=f"killed in trial {index}"):
            num_seen = stops.draw(st.integers(0, expected[index]), label="after epoch")
            run(pruning, str(index), curve[:num_seen])
            tell(study, curve[:num_seen], TrialState.FAIL, is_interrupted=True)
            pruning = pruning_of()
            pruning.fill(study.trials)
        num = run(pruning, f"{index} again", curve)
        tell(study, curve[:num], TrialState.COMPLETE if num == NUM_EPOCHS else TrialState.PRUNED)
        found.append(num)
    assert found == expected


def test_what_a_failed_trial_had_reached_still_counts() -> None:
    study = optuna.create_study()
    tell(study, flat(1.0, 3), TrialState.FAIL)
    pruning = pruning_of()
    pruning.fill(study.trials)
    assert run(pruning, "b", flat(1.1)) == 2


def tell(study: optuna.Study, curve: Curve, state: TrialState, is_interrupted: bool = False) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            state=state,
            value=None if state == TrialState.FAIL else curve[-1],
            intermediate_values=dict(enumerate(curve, start=1)),
            user_attrs={INTERRUPTED: True} if is_interrupted else {},
        )
    )
