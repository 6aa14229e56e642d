"""Studies that nobody ran: trials drawn from a space, scored by a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lnln.config import Config
from tuning.record import SeedResult, State, Study, TrialRecord
from tuning.space import Range, Space

SPACE = Space(
    {
        "completeness": Range(0.1, 3.0, zero=0.1),
        "adversarial": Range(0.05, 3.0, zero=0.1),
        "reconstruction": Range(0.0, 0.5, scale="linear"),
    }
)
RATES = {"0.0": -0.1, "0.5": 0.1}

Scores = Mapping[str, float]


def drawn_study(
    num_trials: int,
    error: Callable[[Scores], float] = lambda parameters: 1 + parameters["adversarial"] / 10,
    *,
    space: Space = SPACE,
    seeds: tuple[int, ...] = (1,),
    seed_noise: float = 0.0,
    objectives: Mapping[str, str] | None = None,
    state: Callable[[int], State] = lambda number: "complete",
    collapse: Callable[[Scores], float] = lambda parameters: 0.4,
    draw: int = 0,
) -> Study:
    """error: MAE by parameters. state: by a trial's number. Other objectives than MAE are falling functions of it."""
    random = np.random.default_rng(draw)
    configured = space.configured(Config())
    directions = dict(objectives or {"mae": "minimize"})

    def one(number: int) -> TrialRecord:
        drawn = {
            name: float(np.exp(random.uniform(np.log(span.draw_low), np.log(span.high))))
            if span.scale == "log"
            else float(random.uniform(span.low, span.high))
            for name, span in space.ranges.items()
        }
        parameters = configured if number == 0 else space.values(drawn)
        ended = state(number)
        measured = error(parameters)
        trainings = []
        for seed in seeds if ended in ("complete", "pruned") else ():
            mae = measured + float(random.normal(0, seed_noise)) if seed_noise else measured
            by_epoch = [mae + 0.3, mae] if ended == "complete" else [mae + 0.3]
            by_rate = {rate: by_epoch[-1] + offset for rate, offset in RATES.items()}
            trainings.append(SeedResult(seed, by_epoch[-1], len(by_epoch), by_rate, by_epoch, collapse(parameters)))
        mae = float(np.mean([result.valid_mae for result in trainings])) if trainings else float("nan")
        values = {"mae": mae, "mae@clean": mae - 0.1, "acc7": 1 / (1 + mae), "mae@corrupted": 2 - mae}
        return TrialRecord(
            number=number,
            state=ended,
            parameters=parameters,
            is_configured=number == 0,
            values={name: values[name] for name in directions} if ended == "complete" else {},
            seeds=tuple(trainings),
            seconds=12.5,
            reason={"failed": "loss is nan at step 3", "pruned": "stopped after epoch 1: not among the best third"}.get(
                ended
            ),
            has_diverged=ended == "failed",
        )

    return Study(
        study_id="sample-lnln-0123456789ab",
        corpus="sample",
        feature_id="f" * 12,
        config=Config().to_dict(),
        space=space,
        configured=configured,
        directions=directions,
        seeds=seeds,
        sampler={"name": "TPESampler", "seed": 0},
        versions={"optuna": "5.0.0"},
        trials=tuple(one(number) for number in range(num_trials)),
    )
