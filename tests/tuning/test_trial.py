"""What a trial trains, and how its failures read."""

from __future__ import annotations

import dataclasses

import pytest

from lnln.config import load_config, to_dict
from lnln.errors import RefusedError
from tuning.trial import end_of, reason_of, trial_config


def test_a_trial_differs_in_weights_and_epochs_alone() -> None:
    config = load_config("sample", ["tune.epochs=3", "train.epochs=30", "loss.sentiment=2"])
    made = trial_config(config, {"adversarial": 0.123, "completeness": 2})
    assert to_dict(made.loss) == {**to_dict(config.loss), "adversarial": 0.123, "completeness": 2.0}
    assert made.train == dataclasses.replace(config.train, epochs=3)
    assert dataclasses.replace(made, loss=config.loss, train=config.train) == config


class WrappedError(Exception):
    """As Ray wraps what its workers raise."""

    def __init__(self, **worker_failures: Exception) -> None:
        super().__init__("training failed\n" * 30)
        self.worker_failures = {int(rank.removeprefix("rank")): error for rank, error in worker_failures.items()}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RefusedError("the loss is NaN\nat step 3"), "the loss is NaN at step 3"),
        (WrappedError(rank1=RefusedError("the loss is NaN")), "the loss is NaN"),
        (WrappedError(rank0=ValueError("Traceback\n  in f\nKeyError: 3")), "ValueError: KeyError: 3"),
        (WrappedError(), "WrappedError: training failed"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_failures_read_as_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_only_the_last_result_of_a_trial_tells_its_end() -> None:
    assert end_of({"valid_mae": 1.0}) is None
    assert end_of({}) is None
    assert end_of({"end_of_trial": '{"reason": "x"}'}) == {"reason": "x"}
