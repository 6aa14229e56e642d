"""One trial: trainings with sampled parameters, one for each seed, as Ray Tune runs it.

Each is the training that `lnln train` does, for `tune.epochs` epochs and with nothing published: what remains of it is
what it reports, an epoch's validation scores at a time, and at its end how it ended.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from ray.tune.integration.ray_train import TuneReportCallback

from lnln.config import Config
from lnln.data.store import Store
from tuning.objectives import Objective
from tuning.record import SeedResult
from tuning.space import with_parameters

# Keys of what a trial reports: epochs over all seeds so far, its seeds so far, how it ended, something to be said.
TIME, _SEEDS, _END, _NOTICE = "epochs_so_far", "seeds_so_far", "end_of_trial", "notice"


@dataclasses.dataclass(frozen=True)
class Task:
    """What all trials of a study share.

    storage: folder of the store for what Ray writes, of this driver alone. num_threads: of each worker, None for its
    share of its machine's cores.
    """

    store_url: str
    corpus: str
    feature_id: str
    config: Config
    storage: str
    seeds: tuple[int, ...]
    objectives: tuple[Objective, ...]
    num_workers: int
    gpus_per_worker: float
    use_gpu: bool | None
    num_threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Curves:
    """The epochs of a trial's trainings as far as they came, seed after seed; all of them but the last have ended.

    num_epochs: of each. histories: the records of `lnln.train.loop`.
    """

    objectives: tuple[Objective, ...]
    seeds: tuple[int, ...]
    num_epochs: int
    histories: tuple[tuple[Mapping[str, Any], ...], ...] = ()

    def with_seed(self) -> Curves:
        """With the next seed's training, of which nothing is known yet."""
        return dataclasses.replace(self, histories=(*self.histories, ()))

    def with_epoch(self, record: Mapping[str, Any]) -> Curves:
        *before, last = self.histories
        return dataclasses.replace(self, histories=(*before, (*last, record)))

    @property
    def epoch(self) -> int:
        """Of the present seed, 0 before its first has ended."""
        return len(self.histories[-1])

    @property
    def time(self) -> int:
        """Epochs over all seeds. A seed that ended early (`train.patience`) counts as a whole one, so that trials are
        at the same seed at the same time."""
        return (len(self.histories) - 1) * self.num_epochs + self.epoch

    def values(self) -> dict[str, float]:
        """By objective the mean over the seeds so far, each at its best epoch so far."""
        best = [min(history, key=_score) for history in self.histories if history]
        return {
            objective.name: sum(objective.of(record["validation"]) for record in best) / len(best)
            for objective in self.objectives
        }

    def results(self) -> list[SeedResult]:
        """What a study keeps of each seed that has come through an epoch."""
        return [_result(seed, history) for seed, history in zip(self.seeds, self.histories, strict=False) if history]

    def report(self) -> dict[str, Any]:
        """What Tune is told after an epoch. The seeds as text, since Tune takes nested results apart."""
        seeds = json.dumps([dataclasses.asdict(result) for result in self.results()])
        return {TIME: self.time, **self.values(), _SEEDS: seeds}


class Report(TuneReportCallback):
    """Passes on to Tune what a training reports, from the process of Ray's controller, and what the trial itself says.

    Both go through one queue: what the trial gave to Tune itself could take the one slot that Tune's main thread needs
    for the queue's next, and the trial would hang.
    """

    def __init__(self, curves: Curves) -> None:
        """curves: with the seed that is to be trained."""
        super().__init__()
        self._curves = curves

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        record = metrics[0]["record"]
        if record["epoch"] > self._curves.epoch:  # else told before: a worker was lost, and the training began again
            self._curves = self._curves.with_epoch(record)
            self.send(self._curves.report())

    def send(self, report: Mapping[str, Any]) -> None:
        self._training_actor_item_queue.put(dict(report))


def trial_config(config: Config, parameters: Mapping[str, float], seed: int) -> Config:
    """The config of the training with these parameters and this seed."""
    train = dataclasses.replace(config.train, epochs=config.tune.epochs, seed=seed)
    return with_parameters(dataclasses.replace(config, train=train), parameters)


def run_trial(parameters: dict[str, float], task: Task) -> None:
    """Train with `parameters` and report to Tune, which ends this process when it has been told of the end; a training
    that fails is reported too, and stops no other trial."""
    from lnln.train.failures import reason_of, refusal
    from lnln.train.finite import DivergedError

    started = time.monotonic()
    curves = Curves(task.objectives, task.seeds, task.config.tune.epochs)
    report = Report(curves)
    end: dict[str, Any] = {"reason": None, "values": None, "has_diverged": False}
    for seed in task.seeds:
        try:
            history = _train(parameters, seed, task, curves.with_seed(), report)
        except Exception as error:  # whatever ends a training ends this trial only
            end["reason"] = f"seed {seed}: {reason_of(error)}"
            end["has_diverged"] = isinstance(refusal(error), DivergedError)
            break
        curves = dataclasses.replace(curves, histories=(*curves.histories, tuple(history)))
    else:
        end["values"] = curves.values()
    end["seeds"] = [dataclasses.asdict(result) for result in curves.results()]
    end["seconds"] = round(time.monotonic() - started, 3)
    # Every result must have the objectives; this one scores nothing.
    report.send({**_nothing(task.objectives), _END: json.dumps(end), "done": True})
    threading.Event().wait()


def end_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the trial ended, if `result` is its last: `reason` of its failure or None, `values` by objective or None,
    `seeds` that ended, `seconds` and `has_diverged`."""
    return json.loads(result[_END]) if _END in result else None


def seeds_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The seeds of a trial that has reported `result` last."""
    return list(json.loads(result.get(_SEEDS, "[]")))


def notice_of(result: Mapping[str, Any]) -> str | None:
    """What `result` has to say, if that is all it is."""
    return result.get(_NOTICE)


def _train(
    parameters: Mapping[str, float], seed: int, task: Task, curves: Curves, report: Report
) -> list[dict[str, Any]]:
    """The history of the training with `seed`. Where Ray has no room for it now, it waits."""
    from ray.train import TrainingFailedError

    from lnln.train.launch import build_trainer

    while True:
        trainer = build_trainer(
            Store(task.store_url),
            task.corpus,
            trial_config(task.config, parameters, seed),
            # Of its own even where the trial is tried again: nothing of it can be continued.
            name=secrets.token_hex(8),
            storage=task.storage,
            num_workers=task.num_workers,
            use_gpu=task.use_gpu,
            gpus_per_worker=task.gpus_per_worker,
            callbacks=[Report(curves)],
            feature_id=task.feature_id,
            num_threads=task.num_threads,
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            if not _waits_for_room(error, task):
                raise
            report.send({**_nothing(task.objectives), _NOTICE: f"seed {seed} waits for room for its workers"})
        else:
            return list(result.return_value["history"])  # type: ignore[attr-defined]


def _waits_for_room(error: Exception, task: Task) -> bool:
    """Whether Ray could not start the workers, though it has what they need when others leave it."""
    import ray
    from ray.train.v2._internal.exceptions import InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError

    from lnln.train.room import Demand

    failure = getattr(error, "controller_failure", None)
    if not isinstance(failure, (InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError)):
        return False
    there = ray.cluster_resources()
    demand = Demand(task.num_workers, task.num_workers, task.gpus_per_worker)
    resource, needed = demand.to_start(there.get("GPU", 0.0))
    return bool(there.get(resource, 0.0) >= needed)


def _nothing(objectives: tuple[Objective, ...]) -> dict[str, float]:
    return {objective.name: math.nan for objective in objectives}


def _score(record: Mapping[str, Any]) -> float:
    return float(record["score"])


def _result(seed: int, history: tuple[Mapping[str, Any], ...]) -> SeedResult:
    best = min(history, key=_score)  # the first of equals, as in the loop
    shares = best["collapse_share"].values()
    return SeedResult(
        seed=seed,
        valid_mae=best["score"],
        best_epoch=best["epoch"],
        valid_mae_by_rate={rate: scores["mae"] for rate, scores in best["validation"].items()},
        valid_mae_by_epoch=[record["score"] for record in history],
        collapse_share=sum(shares) / len(shares),
    )
