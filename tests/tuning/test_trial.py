"""What a trial trains, what it reports at which time, and how its end is told."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.config import load_config, to_dict
from tuning.objectives import Objective
from tuning.record import SeedResult
from tuning.trial import TIME, Curves, end_of, notice_of, seeds_of, trial_config

MAE, CLEAN, ACC = Objective("mae"), Objective("mae", "clean"), Objective("acc7")


def record(epoch: int, clean: float, corrupted: float, accuracy: float = 0.5) -> dict[str, Any]:
    validation = {"0.0": {"mae": clean, "acc7": accuracy}, "0.5": {"mae": corrupted, "acc7": accuracy}}
    return {
        "epoch": epoch,
        "validation": validation,
        "score": (clean + corrupted) / 2,
        "collapse_share": {"0.0": clean, "0.5": corrupted},
    }


def curves(*objectives: Objective, seeds: tuple[int, ...] = (7, 8), num_epochs: int = 3) -> Curves:
    return Curves(objectives or (MAE,), seeds, num_epochs)


def test_a_trial_differs_in_parameters_seed_and_epochs_alone() -> None:
    config = load_config("sample", ["tune.epochs=3", "train.epochs=30", "loss.sentiment=2"])
    made = trial_config(config, {"adversarial": 0.123, "completeness": 0.0, "learning_rate": 2e-4}, 5)
    assert to_dict(made.loss) == {**to_dict(config.loss), "adversarial": 0.123, "completeness": 0.0}
    assert made.train == dataclasses.replace(config.train, epochs=3, seed=5, learning_rate=2e-4)
    assert dataclasses.replace(made, loss=config.loss, train=config.train) == config


def test_scores_are_means_over_seeds_each_at_its_best_epoch() -> None:
    made = curves(MAE, CLEAN, ACC).with_seed()
    made = made.with_epoch(record(1, 1.0, 2.0, 0.1)).with_epoch(record(2, 0.8, 1.0, 0.2))
    made = made.with_epoch(record(3, 0.1, 1.9, 0.9))  # a better clean score, but not the best epoch
    assert made.values() == {"mae": 0.9, "mae@clean": 0.8, "acc7": 0.2}
    assert made.time == 3
    made = made.with_seed().with_epoch(record(1, 1.0, 1.4, 0.3))
    assert made.time == 4
    assert made.values() == pytest.approx({"mae": 1.05, "mae@clean": 0.9, "acc7": 0.25})
    assert made.results() == [
        SeedResult(7, 0.9, 2, {"0.0": 0.8, "0.5": 1.0}, [1.5, 0.9, 1.0], collapse_share=0.9),
        SeedResult(8, 1.2, 1, {"0.0": 1.0, "0.5": 1.4}, [1.2], collapse_share=1.2),
    ]


def test_the_first_of_equal_epochs_is_the_best() -> None:
    made = curves(seeds=(7,)).with_seed().with_epoch(record(1, 1.0, 1.0)).with_epoch(record(2, 1.0, 1.0))
    assert made.results()[0].best_epoch == 1


def test_a_seed_that_ended_early_counts_as_a_whole_one() -> None:
    made = curves(num_epochs=5).with_seed().with_epoch(record(1, 1.0, 1.0)).with_seed()
    assert made.epoch == 0
    assert made.with_epoch(record(1, 1.0, 1.0)).time == 6


SCORES = st.lists(st.lists(st.floats(0.1, 3.0), min_size=1, max_size=4), min_size=1, max_size=3)


@given(scores=SCORES)
def test_time_goes_on_and_each_seed_gets_no_worse(scores: list[list[float]]) -> None:
    made = curves(seeds=(1, 2, 3), num_epochs=4)
    times: list[int] = []
    for history in scores:
        made = made.with_seed()
        of_seed: list[float] = []
        for epoch, value in enumerate(history, start=1):
            made = made.with_epoch(record(epoch, value, value))
            times.append(made.report()[TIME])
            of_seed.append(made.report()["mae"])
        assert of_seed == sorted(of_seed, reverse=True)
    assert times == sorted(set(times))
    best = [min(history) for history in scores]
    assert made.values()["mae"] == pytest.approx(sum(best) / len(best))


def test_a_report_holds_all_that_a_stopped_trial_leaves() -> None:
    made = curves().with_seed().with_epoch(record(1, 1.0, 2.0))
    report = made.report()
    assert {key: report[key] for key in ("mae", TIME)} == {"mae": 1.5, TIME: 1}
    assert [SeedResult(**seed) for seed in seeds_of(report)] == made.results()
    assert all(isinstance(value, (int, float, str)) for value in report.values())
    assert end_of(report) is None and notice_of(report) is None


def test_only_the_last_result_of_a_trial_tells_its_end() -> None:
    assert end_of({"mae": 1.0}) is None
    assert end_of({}) is None
    assert end_of({"end_of_trial": json.dumps({"reason": "x"})}) == {"reason": "x"}
    assert seeds_of({}) == []
