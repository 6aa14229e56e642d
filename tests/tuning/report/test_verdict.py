"""The verdict says what the numbers say: noise where it is noise, a gain where it is one, nothing where nothing is."""

from __future__ import annotations

import dataclasses

import pytest

from lnln.evaluate.paired import Difference
from tests.tuning.report.drawn_study import SPACE, Scores, drawn_study
from tuning.choice import Choice, ScoredRun, Setting
from tuning.record import Study
from tuning.report.importance import Importance, Learnt, learn
from tuning.report.verdict import cautions, choose_command, verdict
from tuning.space import Range, Space


def made_choice(study: Study, trial: int, sentence: str) -> Choice:
    scores = {split: {"mae": 0.9} for split in ("valid", "test")}
    runs = tuple(
        ScoredRun(seed=seed, run_id=f"r{seed}", best_epoch=2, score=0.9, evaluation_ids={}, scores=scores)
        for seed in (2111, 2112)
    )
    gain = Difference(-0.1, -0.2, -0.01, (2111, 2112), is_better=True, counts_training=True)
    differences = {split: {"mae": gain} for split in ("valid", "test")}
    return Choice(
        study_id=study.study_id,
        corpus=study.corpus,
        feature_id=study.feature_id,
        seeds=(2111, 2112),
        num_trials=9,
        metrics=("mae",),
        num_utterances={"valid": 200, "test": 300},
        configured=Setting(None, study.configured, runs),
        candidates=(Setting(trial, study.trials[trial].parameters, runs, differences),),
        chosen=trial,
        outcome="better",
        seeds_to_show=None,
        verdict=sentence,
        code_version="1",
    )


def said(study: Study, choice: Choice | None = None, num_resamples: int = 3) -> str:
    learnt = [learn(study, name, num_resamples=num_resamples) for name in study.directions]
    return " ".join(verdict(study, learnt, choice))


def by_adversarial(parameters: Scores) -> float:
    return 1 + parameters["adversarial"]


def test_noise_is_called_noise_and_a_gain_a_gain() -> None:
    noise = said(drawn_study(12, lambda _: 1.0, seeds=(1, 2), seed_noise=0.05))
    assert "That is within noise: were all 12 trials equally good" in noise and "more than noise" not in noise
    gain = said(drawn_study(12, by_adversarial, seeds=(1, 2), seed_noise=0.01))
    assert "That is more than noise gives" in gain and "within noise" not in gain
    assert "`lnln choose sample-lnln-0123456789ab --seeds 2111,2112,2113`" in noise and "`lnln choose" in gain


def test_one_seed_says_nothing_of_noise() -> None:
    text = said(drawn_study(12, by_adversarial))
    assert "Each trial trained with one seed, so nothing here says how much of that is noise" in text
    text = said(drawn_study(12, by_adversarial, seeds=(1, 2), objectives={"acc7": "maximize"}))
    assert "The record has no spread over seeds, so nothing here says" in text


def test_the_numbers_are_the_records() -> None:
    study = drawn_study(12, by_adversarial, seeds=(1, 2))
    best = min(study.trials, key=lambda trial: trial.values["mae"])
    gain = study.trials[0].values["mae"] - best.values["mae"]
    text = said(study)
    assert f"Trial {best.number} is the best of 12 complete ones: validation MAE {best.values['mae']:.4f}" in text
    assert (
        f"It is {gain:.4f} better than the configured parameters (trial 0: {study.trials[0].values['mae']:.4f})" in text
    )


def test_a_term_that_is_switched_off_is_said_to_be() -> None:
    study = drawn_study(30, by_adversarial)
    assert any(trial.parameters["adversarial"] == 0 for trial in study.trials)
    assert "adversarial 0 (switched off)" in said(study)
    linear = Space({"reconstruction": Range(0.0, 0.5, scale="linear")})
    assert "switched off" not in said(drawn_study(5, lambda parameters: 1 + parameters["reconstruction"], space=linear))


def test_the_configured_setting_may_be_best_or_missing() -> None:
    text = said(drawn_study(5, lambda parameters: 1 + abs(parameters["adversarial"] - 0.8)))
    assert "Trial 0, the configured parameters, is the best" in text and "No trial did better" in text
    assert "noise" not in text
    text = said(drawn_study(5, state=lambda number: "failed" if number == 0 else "complete"))
    assert "The configured parameters have no complete trial" in text and "noise" not in text


def test_a_choice_takes_the_place_of_what_the_study_alone_can_say() -> None:
    study = drawn_study(12, by_adversarial, seeds=(1, 2), seed_noise=0.01)
    best = min(study.trials, key=lambda trial: trial.values["mae"]).number
    text = said(study, made_choice(study, best, "trial 7 is better than the configured parameters"))
    assert "With fresh seeds: trial 7 is better than the configured parameters." in text
    assert "equally good" not in text and "is not among the candidates" not in text
    other = next(trial.number for trial in study.trials if trial.number not in (best, 0))
    assert f"trial {best} is not among the candidates" in said(study, made_choice(study, other, "no gain is shown"))


def test_what_matters_is_said_with_its_spread() -> None:
    text = said(drawn_study(40, by_adversarial), num_resamples=20)
    assert "What matters most is adversarial, by both measures: fANOVA gives adversarial" in text
    assert "(spread " in text and "by chance up to" in text
    assert "What matters is not to be said: importances need 8 complete trials" in said(drawn_study(5))
    two = said(drawn_study(10, objectives={"mae": "minimize", "acc7": "maximize"}))
    assert " for MAE" in two and " for Acc-7" in two


def importance(method: str, name: str, share: float, chance: float) -> Importance:
    return Importance("mae", method, (name,), share, share - 0.1, share + 0.1, chance)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fanova", "ped", "words"),
    [
        (("a", 0.6, 0.9), ("a", 0.6, 0.9), "No parameter stands out"),
        (("a", 0.9, 0.5), ("a", 0.9, 0.5), "What matters most is a, by both measures"),
        (("a", 0.9, 0.5), ("a", 0.6, 0.9), "is a, though only fANOVA tells it from chance"),
        (("a", 0.6, 0.9), ("a", 0.9, 0.5), "is a, though only PED-ANOVA tells it from chance"),
        (("a", 0.9, 0.5), ("b", 0.9, 0.5), "The two measures disagree"),
        (("a", 0.9, 0.5), ("b", 0.6, 0.9), "What matters most is a by fANOVA alone"),
        (("a", 0.6, 0.9), ("b", 0.9, 0.5), "What matters most is b by PED-ANOVA alone"),
    ],
)
def test_measures_that_disagree_are_not_smoothed_over(
    fanova: tuple[str, float, float], ped: tuple[str, float, float], words: str
) -> None:
    found = (importance("fANOVA", *fanova), importance("PED-ANOVA", *ped))
    assert words in verdict(drawn_study(9), [Learnt("mae", 9, 0, 3, importances=found)], None)[-1]


def test_a_smaller_share_above_chance_goes_before_a_larger_one_below_it() -> None:
    found = (
        importance("fANOVA", "a", 0.5, 0.6),
        importance("fANOVA", "b", 0.4, 0.1),
        importance("PED-ANOVA", "b", 0.9, 0.1),
    )
    assert (
        "What matters most is b, by both"
        in verdict(drawn_study(9), [Learnt("mae", 9, 0, 3, importances=found)], None)[-1]
    )


@pytest.mark.parametrize("state", ["failed", "pruned", "interrupted", "running"])
def test_without_a_complete_trial_nothing_is_best(state: str) -> None:
    study = drawn_study(4, state=lambda _: state)  # type: ignore[arg-type,return-value]
    assert said(study) == f"No trial is complete, so nothing is best yet: 4 {state}."
    assert said(drawn_study(0)) == "No trial is complete, so nothing is best yet: the study has no trials."


def warned(study: Study) -> str:
    return " ".join(cautions(study, []))


def test_cautions() -> None:
    good = drawn_study(25, lambda parameters: 1 + abs(parameters["adversarial"] - 0.8))
    flat = [
        dataclasses.replace(trial, seeds=tuple(dataclasses.replace(seed, best_epoch=1) for seed in trial.seeds))
        for trial in good.trials
    ]
    assert warned(dataclasses.replace(good, trials=tuple(flat))) == (
        "Scores are of the validation split, on which the best of 25 was picked, so they flatter it."
    )
    assert "was still getting better at its last epoch" in warned(good)
    assert "settle from 20 complete trials or so on; here are 12" in warned(drawn_study(12))
    assert "1 of 6 trials failed, 1 since a loss" in warned(
        drawn_study(6, state=lambda number: "failed" if number == 3 else "complete")
    )
    assert "3 trials stopped early" in warned(drawn_study(9, state=lambda n: "pruned" if n > 5 else "complete"))
    assert "1 trial did not end" in warned(drawn_study(9, state=lambda n: "running" if n > 7 else "complete"))
    assert warned(drawn_study(0)) == ""


def test_a_best_trial_that_collapsed_is_the_first_caution() -> None:
    study = drawn_study(
        25, by_adversarial, collapse=lambda parameters: 0.99 if parameters["adversarial"] < 0.1 else 0.3
    )
    assert "the best, gives nearly all utterances the same class" in cautions(study, [])[0]


def test_a_best_trial_at_the_end_of_its_range_is_said_but_not_one_that_is_switched_off() -> None:
    high = drawn_study(60, lambda parameters: 4 - parameters["adversarial"])
    best = min(high.trials, key=lambda trial: trial.values["mae"]).parameters["adversarial"]
    assert f"The best adversarial is {best:.3g}, near the end of its range (3); widen it." in warned(high)
    off = drawn_study(60, by_adversarial)
    assert "The best adversarial" not in warned(off)
    low = Space({**SPACE.ranges, "adversarial": Range(0.05, 3.0)})
    assert "near the end of its range (0.05)" in warned(drawn_study(60, by_adversarial, space=low))


def test_seeds_to_choose_with_are_fresh() -> None:
    study = drawn_study(2, seeds=(2111, 2113))
    assert choose_command(study) == "lnln choose sample-lnln-0123456789ab --seeds 2112,2114,2115"
    assert choose_command(dataclasses.replace(study, study_id="a b; rm")).startswith("lnln choose 'a b; rm' --seeds")
