"""The best against the configured: chance alone is rarely taken for a gain, and a true one is seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tuning.report.drawn_study import drawn_study
from tuning.record import Study
from tuning.report.noise import compare, gain_by_chance, seed_spread


def test_chance_is_taken_for_a_gain_about_once_in_twenty_studies() -> None:
    seen = []
    for draw in range(150):
        compared = compare(drawn_study(12, lambda _: 1.0, seeds=(1, 2, 3), seed_noise=0.05, draw=draw))
        assert compared is not None and compared.gain is not None and compared.by_chance is not None
        seen.append(compared.gain > compared.by_chance)
    assert 1 <= sum(seen) <= 16


def test_a_gain_that_is_larger_than_noise_is_seen() -> None:
    study = drawn_study(12, lambda parameters: 1 + parameters["adversarial"], seeds=(1, 2, 3), seed_noise=0.01)
    compared = compare(study)
    assert compared is not None and compared.gain is not None and compared.by_chance is not None
    assert compared.gain > 3 * compared.by_chance


def test_the_best_of_more_trials_gains_more_by_chance() -> None:
    few, many = gain_by_chance(3, 0.1, 20), gain_by_chance(100, 0.1, 20)
    assert 0.1 < few < many < 0.6
    assert gain_by_chance(3, 0.1, 2) > few, "a spread from few numbers is itself uncertain"
    assert gain_by_chance(3, 0.2, 20) == pytest.approx(2 * few)
    assert gain_by_chance(1, 0.1, 20) == 0


def test_the_spread_is_that_of_seeds_within_trials() -> None:
    study = drawn_study(200, lambda parameters: parameters["adversarial"], seeds=(1, 2, 3), seed_noise=0.05)
    found = seed_spread(study)
    assert found is not None and found[1] == 398
    assert found[0] == pytest.approx(0.05, rel=0.1)
    # What a seed adds to every trial alike takes no part in their comparison.
    trials = [
        dataclasses.replace(
            trial,
            seeds=tuple(
                dataclasses.replace(
                    result,
                    valid_mae_by_rate={rate: mae + 10 * result.seed for rate, mae in result.valid_mae_by_rate.items()},
                )
                for result in trial.seeds
            ),
        )
        for trial in study.trials
    ]
    shifted = seed_spread(dataclasses.replace(study, trials=tuple(trials)))
    assert shifted == pytest.approx(found)


def test_parts_of_the_rates_have_their_own_spread() -> None:
    study = drawn_study(20, lambda _: 1.0, seeds=(1, 2), seed_noise=0.05, objectives={"mae@clean": "minimize"})
    quiet = [
        dataclasses.replace(
            trial,
            seeds=tuple(
                dataclasses.replace(result, valid_mae_by_rate={**result.valid_mae_by_rate, "0.0": 0.9})
                for result in trial.seeds
            ),
        )
        for trial in study.trials
    ]
    found = seed_spread(dataclasses.replace(study, trials=tuple(quiet)))
    assert found is not None and found[0] == pytest.approx(0, abs=1e-9)
    noisy = seed_spread(study)
    assert noisy is not None and noisy[0] > 0.02


@pytest.mark.parametrize(
    "study",
    [
        drawn_study(10),
        drawn_study(1, seeds=(1, 2)),
        drawn_study(10, seeds=(1, 2), objectives={"acc7": "maximize"}),
        drawn_study(10, seeds=(1, 2), state=lambda number: "complete" if number == 3 else "failed"),
    ],
)
def test_where_nothing_is_known_of_noise_nothing_is_said(study: Study) -> None:
    assert seed_spread(study) is None
    compared = compare(study)
    assert compared is not None and compared.by_chance is None and compared.seed_spread is None


def test_the_best_is_not_compared_with_what_is_not_there() -> None:
    assert compare(drawn_study(0)) is None
    assert compare(drawn_study(5, state=lambda _: "pruned")) is None
    compared = compare(drawn_study(5, state=lambda number: "failed" if number == 0 else "complete"))
    assert compared is not None and compared.configured is None and compared.gain is None


def test_an_objective_that_rises_has_its_largest_as_best() -> None:
    study = drawn_study(10, objectives={"acc7": "maximize"})
    compared = compare(study)
    assert compared is not None and compared.configured is not None and compared.gain is not None
    assert compared.best.values["acc7"] == max(np.array([trial.values["acc7"] for trial in study.trials]))
    assert compared.gain == pytest.approx(compared.best.values["acc7"] - compared.configured.values["acc7"])
