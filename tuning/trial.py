"""One trial: a training with sampled loss weights, as Ray Tune runs it.

It is the training that `lnln train` does, for `tune.epochs` epochs and with nothing published: what remains of it is
what it reports, an epoch's validation scores at a time, and at its end how it ended.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from lnln.config import Config
from lnln.data.store import Store
from lnln.train.launch import build_trainer, reason_of
from tuning.select import with_weights

# What a study makes small: mean MAE on the validation split over `corruption.validation_rates`.
METRIC = "valid_mae"
_BY_RATE = "valid_mae_by_rate"
_END = "trial_has_ended"
_FAILURE = "trial_failure"


@dataclasses.dataclass(frozen=True)
class Task:
    """What all trials of a study share. storage: folder of the store for what Ray writes, removed after the study."""

    store_url: str
    corpus: str
    config: dict[str, Any]
    storage: str
    num_workers: int
    use_gpu: bool | None


class Report(TuneReportCallback):
    """Passes each epoch's report on to Tune."""

    def wait_until_passed_on(self) -> None:
        """Returns when Tune has taken the last one.

        Until then a report of the trial's own would fill the one slot that Tune's main thread needs for it, and the
        trial would hang. Taken from the queue is not yet in the slot, hence the pause.
        """
        while not self._training_actor_item_queue.empty():
            time.sleep(0.05)
        time.sleep(0.3)


def trial_config(config: Config, weights: Mapping[str, float]) -> Config:
    """The config of the trial with these loss weights."""
    epochs = dataclasses.replace(config.train, epochs=config.tune.epochs)
    return with_weights(dataclasses.replace(config, train=epochs), weights)


def run_trial(weights: dict[str, float], task: Task) -> None:
    """Train with `weights` and report to Tune; a training that fails is reported too, and stops no other trial."""
    started = time.monotonic()
    report = Report()
    failure = None
    try:
        build_trainer(
            Store(task.store_url),
            task.corpus,
            trial_config(Config.from_dict(task.config), weights),
            name=tune.get_context().get_trial_id(),
            storage=task.storage,
            num_workers=task.num_workers,
            use_gpu=task.use_gpu,
            callbacks=[report],
        ).fit()
    except Exception as error:  # whatever ends a training ends this trial only
        failure = reason_of(error)
    report.wait_until_passed_on()
    tune.report({_END: True, _FAILURE: failure, "seconds": time.monotonic() - started, METRIC: math.nan})


def is_end(result: Mapping[str, Any]) -> bool:
    """Whether a result is the trial's last, which tells how it ended and scores nothing."""
    return bool(result.get(_END))


def failure_of(end: Mapping[str, Any]) -> str | None:
    """Why the trial failed, by its last result; None: it did not."""
    failure = end.get(_FAILURE)
    return None if failure is None else str(failure)


def epoch_report(result: Mapping[str, Any]) -> dict[str, Any]:
    """epoch, METRIC and `by_rate` (missing rate to MAE) of an epoch's result, which Tune has flattened."""
    prefix = f"{_BY_RATE}/"
    by_rate = {key.removeprefix(prefix): float(value) for key, value in result.items() if key.startswith(prefix)}
    return {"epoch": int(result["epoch"]), METRIC: float(result[METRIC]), "by_rate": by_rate}
