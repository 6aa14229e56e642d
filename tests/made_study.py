"""Records of studies without training: trials of each state, with the numbers that a test gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lnln.config import Config
from tuning.record import SeedResult, Study, TrialRecord
from tuning.space import DEFAULT_SPACE

PAPER = {"completeness": 0.9, "adversarial": 0.8, "reconstruction": 0.1}
OTHER = {"completeness": 0.3, "adversarial": 1.25, "reconstruction": 0.0}
RATES = ("0.0", "0.5")


def seed_result(score: float, seed: int = 1111, num_epochs: int = 2) -> SeedResult:
    """A training that got better by 0.1 an epoch."""
    by_epoch = [score + 0.1 * (num_epochs - 1 - i) for i in range(num_epochs)]
    return SeedResult(seed, score, num_epochs, dict.fromkeys(RATES, score), by_epoch, collapse_share=0.4)


def complete(number: int, *scores: float, parameters: Mapping[str, float] = OTHER, **values: float) -> TrialRecord:
    """One that ended. scores: a validation MAE for each seed, from 1111 on. values: of other objectives, by name."""
    seeds = tuple(seed_result(score, 1111 + i) for i, score in enumerate(scores))
    return TrialRecord(
        number=number,
        state="complete",
        parameters=dict(parameters),
        is_configured=parameters == PAPER,
        values={"mae": sum(scores) / len(scores), **values},
        seeds=seeds,
        seconds=12.3,
    )


def pruned(number: int, score: float) -> TrialRecord:
    """One that was stopped after an epoch."""
    reason = "stopped after epoch 1: not among the best third"
    seeds = (seed_result(score, num_epochs=1),)
    return TrialRecord(number, "pruned", dict(OTHER), False, seeds=seeds, seconds=4.0, reason=reason)


def failed(number: int, parameters: Mapping[str, float] = OTHER, **more: Any) -> TrialRecord:
    reason = "seed 1111: the loss is not finite in step 3 of epoch 1"
    return TrialRecord(number, "failed", dict(parameters), parameters == PAPER, seconds=1.0, reason=reason, **more)


def interrupted(number: int) -> TrialRecord:
    """One whose driver ended before it had parameters."""
    return TrialRecord(number, "interrupted", {}, False)


def made_study(*trials: TrialRecord, **more: Any) -> Study:
    """A study of `sample` with `trials`; more: fields that are to differ."""
    fields: dict[str, Any] = {
        "study_id": "sample-lnln-0123456789ab",
        "corpus": "sample",
        "feature_id": "f" * 12,
        "config": Config().to_dict(),
        "space": DEFAULT_SPACE,
        "configured": PAPER,
        "directions": {"mae": "minimize"},
        "seeds": (1111,),
        "sampler": {"name": "TPESampler", "seed": 0},
        "versions": {"optuna": "5.0.0"},
    }
    return Study(**{**fields, "trials": trials, **more})
