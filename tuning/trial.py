"""One trial: a training with sampled loss weights, as Ray Tune runs it.

It is the training that `lnln train` does, for `tune.epochs` epochs and with nothing published: what remains of it is
what it reports, an epoch's validation scores at a time, and at its end how it ended.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from lnln.config import Config
from lnln.data.store import Store
from tuning.select import with_weights

# What a study makes small: mean MAE on the validation split over `corruption.validation_rates`.
METRIC = "valid_mae"
_END = "end_of_trial"


@dataclasses.dataclass(frozen=True)
class Task:
    """What all trials of a study share.

    storage: folder of the store for what Ray writes, removed after the study. num_threads: of each worker, None for its
    share of its machine's cores.
    """

    store_url: str
    corpus: str
    feature_id: str
    config: Config
    storage: str
    num_workers: int
    use_gpu: bool | None
    num_threads: int | None = None


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
    from lnln.train.failures import reason_of
    from lnln.train.launch import build_trainer

    started = time.monotonic()
    report = Report()
    try:
        result = build_trainer(
            Store(task.store_url),
            task.corpus,
            trial_config(task.config, weights),
            name=tune.get_context().get_trial_id(),
            storage=task.storage,
            num_workers=task.num_workers,
            use_gpu=task.use_gpu,
            callbacks=[report],
            feature_id=task.feature_id,
            num_threads=task.num_threads,
        ).fit()
        record = {"reason": None, **_summary(result.return_value)}  # type: ignore[attr-defined]
    except Exception as error:  # whatever ends a training ends this trial only
        record = {"reason": reason_of(error)}
    record["seconds"] = round(time.monotonic() - started, 3)
    report.wait_until_passed_on()
    # As text, since Tune takes nested results apart. Every result must have the metric; this one scores nothing.
    tune.report({_END: json.dumps(record), METRIC: math.nan})


def end_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the trial ended, if `result` is its last: `reason` of its failure or None, `seconds`, and if it did not fail
    what `TrialRecord` says of its best epoch."""
    return json.loads(result[_END]) if _END in result else None


def _summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a study keeps of what the workers returned."""
    history, best_epoch = result["history"], result["best_epoch"]
    validation = history[best_epoch - 1]["validation"]
    return {
        "valid_mae": result["score"],
        "best_epoch": best_epoch,
        "valid_mae_by_rate": {rate: scores["mae"] for rate, scores in validation.items()},
        "valid_mae_by_epoch": [epoch["score"] for epoch in history],
    }
