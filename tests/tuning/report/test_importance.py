"""Importances: what matters is found, what does not is told from it, and pruned trials count as what they were."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import optuna
import pytest

from tests.tuning.report.drawn_study import SPACE, Scores, drawn_study
from tuning.record import Study
from tuning.report.importance import METHODS, learn, ped_anova, scored
from tuning.space import Space


def by_adversarial(parameters: Scores) -> float:
    return 1 + abs(math.log(parameters["adversarial"] + 0.02) - math.log(0.4)) / 4


def test_the_parameter_that_matters_comes_first_and_above_chance() -> None:
    learnt = learn(drawn_study(60, by_adversarial, seed_noise=0.02), "mae", num_resamples=40)
    assert (learnt.num_complete, learnt.num_pruned, learnt.too_little) == (60, 0, "")
    for method in METHODS:
        first, *others = learnt.of_method(method)
        assert first.parameters == ("adversarial",) and first.is_above_chance
        assert first.low > max(each.share for each in others)
        assert not any(each.is_above_chance for each in others)
        assert first.low <= first.high <= 1 and first.share > 0.6
    assert {each.parameters for each in learnt.interactions} == {
        ("completeness", "adversarial"),
        ("completeness", "reconstruction"),
        ("adversarial", "reconstruction"),
    }


def test_slices_have_the_scale_of_the_score_and_its_shape() -> None:
    learnt = learn(drawn_study(80, by_adversarial), "mae", num_resamples=10)
    along = learnt.slices["adversarial"]
    assert 1.0 <= along.mean.min() < 1.1 and along.mean.max() > 1.3
    assert (along.low <= along.high).all()
    assert np.ptp(learnt.slices["completeness"].mean) < 0.1 * np.ptp(along.mean)
    contour = learnt.contours["completeness", "adversarial"]
    assert np.ptp(contour, axis=1).min() > np.ptp(contour, axis=0).max()


def test_noise_alone_is_rarely_above_chance() -> None:
    found = []
    for draw in range(8):
        learnt = learn(drawn_study(16, lambda _: 1.0, seed_noise=0.1, draw=draw), "mae", num_resamples=16)
        found += [each.is_above_chance for each in learnt.importances]
    # Each is above it in one study of twenty; 48 of them, not independent.
    assert sum(found) <= 10


def test_numbers_are_the_same_each_time() -> None:
    study = drawn_study(20, by_adversarial, seed_noise=0.05)
    first, second = learn(study, "mae", num_resamples=3), learn(study, "mae", num_resamples=3)
    assert first.importances == second.importances and first.interactions == second.interactions
    shuffled = dataclasses.replace(study, trials=study.trials[::-1])
    assert {each.parameters for each in learn(shuffled, "mae", num_resamples=3).importances} == {
        each.parameters for each in first.importances
    }


def test_an_objective_that_is_to_rise_has_the_shares_of_its_mirror() -> None:
    objectives = {"mae": "minimize", "mae@corrupted": "maximize"}
    study = drawn_study(30, by_adversarial, objectives=objectives)  # mae@corrupted is 2 - mae there
    falling, rising = learn(study, "mae", num_resamples=2), learn(study, "mae@corrupted", num_resamples=2)
    for method in METHODS:
        ours = {each.parameters: each.share for each in rising.of_method(method)}
        theirs = {each.parameters: each.share for each in falling.of_method(method)}
        assert ours == pytest.approx(theirs, abs=0.01)  # rounding decides between equal splits


@pytest.mark.parametrize("limit", [0.3, 0.12])
def test_pruned_trials_tell_ped_anova_what_is_bad(limit: float) -> None:
    # Every trial with a strong adversarial term was stopped; the others all score alike, but for noise.
    study = drawn_study(60, lambda parameters: 1.0, seed_noise=0.01)
    stopped = [
        dataclasses.replace(trial, state="pruned", values={}) if trial.parameters["adversarial"] > limit else trial
        for trial in study.trials
    ]
    with_pruned = dataclasses.replace(study, trials=tuple(stopped))
    without = dataclasses.replace(study, trials=tuple(trial for trial in stopped if trial.state == "complete"))
    learnt = learn(with_pruned, "mae", num_resamples=20)
    assert learnt.num_pruned == sum(trial.state == "pruned" for trial in stopped) > 10
    first = learnt.of_method("PED-ANOVA")[0]
    assert first.parameters == ("adversarial",) and first.is_above_chance
    # Less than 0.85 were they taken for mediocre ones.
    assert first.share > 0.87
    alone = learn(without, "mae", num_resamples=2)
    assert [each.share for each in alone.of_method("fANOVA")] == [each.share for each in learnt.of_method("fANOVA")]
    assert alone.of_method("PED-ANOVA") != learnt.of_method("PED-ANOVA")


def test_a_trial_that_was_stopped_is_worse_than_any_score() -> None:
    random = np.random.default_rng(0)
    x, losses = random.random((20, 3)), random.random(20)
    stopped, bad = losses.copy(), losses.copy()
    stopped[:9], bad[:9] = np.inf, 99.0
    assert ped_anova(x, stopped).tolist() == ped_anova(x, bad).tolist() != ped_anova(x, losses).tolist()


def test_ped_anova_sums_to_one_or_says_nothing() -> None:
    random = np.random.default_rng(0)
    x = random.random((12, 3))
    assert ped_anova(x, x[:, 1]).sum() == pytest.approx(1)
    assert ped_anova(x, x[:, 1]).argmax() == 1
    with pytest.warns(UserWarning, match="same set of trials"):
        assert ped_anova(x, np.zeros(12)).tolist() == [0, 0, 0]
    assert ped_anova(x, np.full(12, np.inf)).tolist() == [0, 0, 0]
    few = np.full(12, np.inf)
    few[3] = 0.5
    assert np.isfinite(ped_anova(x, few)).all()


ONE = Space({"adversarial": SPACE.ranges["adversarial"]})


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (drawn_study(0), "need 8 complete trials and the study has 0"),
        (drawn_study(1), "the study has 1"),
        (drawn_study(7, by_adversarial), "the study has 7"),
        (drawn_study(20, state=lambda _: "failed"), "the study has 0"),
        (drawn_study(20, state=lambda _: "pruned"), "the study has 0"),
        (drawn_study(20, by_adversarial, space=ONE), "one parameter alone"),
        (drawn_study(20, lambda _: 1.0), "have the same score"),
    ],
)
def test_too_little_is_a_sentence(study: Study, words: str) -> None:
    learnt = learn(study, "mae", num_resamples=2)
    assert words in learnt.too_little and not learnt.importances and not learnt.slices


def test_eight_trials_are_enough_to_say_something() -> None:
    learnt = learn(drawn_study(8, by_adversarial), "mae", num_resamples=5)
    assert len(learnt.importances) == 6 and all(np.isfinite(each.share) for each in learnt.importances)


def test_trials_without_a_usable_score_or_parameters_take_no_part() -> None:
    study = drawn_study(12, by_adversarial)
    odd = [
        dataclasses.replace(study.trials[1], values={"mae": float("nan")}),
        dataclasses.replace(study.trials[2], values={"mae": float("inf")}),
        dataclasses.replace(study.trials[3], parameters={}),
        dataclasses.replace(study.trials[4], values={}),
    ]
    study = dataclasses.replace(study, trials=(study.trials[0], *odd, *study.trials[5:]))
    assert [trial.number for trial in scored(study, "mae")] == [0, 5, 6, 7, 8, 9, 10, 11]
    assert learn(study, "mae", num_resamples=2).num_complete == 8


def test_optuna_says_as_much_as_before() -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    learn(drawn_study(8, by_adversarial), "mae", num_resamples=1)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_learning_prints_nothing(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    learn(drawn_study(8, by_adversarial), "mae", num_resamples=1)
    assert capfd.readouterr() == ("", "") and not list(recwarn)
