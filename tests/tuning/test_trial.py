"""What a trial trains, and how its end is told."""

from __future__ import annotations

import dataclasses

from lnln.config import load_config, to_dict
from tuning.trial import end_of, trial_config


def test_a_trial_differs_in_weights_and_epochs_alone() -> None:
    config = load_config("sample", ["tune.epochs=3", "train.epochs=30", "loss.sentiment=2"])
    made = trial_config(config, {"adversarial": 0.123, "completeness": 2})
    assert to_dict(made.loss) == {**to_dict(config.loss), "adversarial": 0.123, "completeness": 2.0}
    assert made.train == dataclasses.replace(config.train, epochs=3)
    assert dataclasses.replace(made, loss=config.loss, train=config.train) == config


def test_only_the_last_result_of_a_trial_tells_its_end() -> None:
    assert end_of({"valid_mae": 1.0}) is None
    assert end_of({}) is None
    assert end_of({"end_of_trial": '{"reason": "x"}'}) == {"reason": "x"}
