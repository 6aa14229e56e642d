"""One Ray Train worker: features into memory, the model, the loop, a report after every epoch.

All workers do this at the same time; rank 0 alone writes. `ray.train.report` is a barrier, so all call it equally
often. What Ray knows of a run is what it was told there, and a run continues from the newest checkpoint it knows.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointUploadMode
from torch import nn

from lnln.batches import EvaluationBatches, TrainBatches
from lnln.checkpoint import describe_file, load_checkpoint, save_checkpoint, save_model, upload_checkpoint
from lnln.config import Config
from lnln.corruption import evaluation_views
from lnln.data.manifest import read_features
from lnln.data.model_inputs import ModelInputs, model_inputs
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store.simulator import add_simulator
from lnln.models import SentimentModel, build_model
from lnln.train.controller import checkpoint_name
from lnln.train.leftovers import remove_leftovers, temporary_folder
from lnln.train.loop import Loop
from lnln.train.published_selection import keep_weights, selection_split
from lnln.train.ranks import Ranks
from lnln.train.saving import Patience
from lnln.views import Views


@dataclass(frozen=True)
class TrainJob:
    """What one run does, for all its workers.

    folder: of the run in the store, where what it ends with goes; None: nowhere, and no checkpoints are kept (a trial).
    num_threads: of each worker; None: the cores of its machine are divided among the workers there.
    patience_seconds: how long a write to the store is tried again.
    """

    store_url: str
    corpus: str
    feature_id: str
    config: Config
    folder: str | None
    num_threads: int | None = None
    patience_seconds: float = 600.0

    @property
    def looks_at_test(self) -> bool:
        """Never in a trial: what a study chooses is chosen on validation."""
        return self.folder is not None and self.config.train.selection == "published"


def train_worker(arguments: dict[str, TrainJob]) -> dict[str, Any]:
    """Train `job` from the newest checkpoint to its end; what it returns on rank 0 is the result of the run."""
    job = arguments["job"]
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(job.num_threads or _share_of_cores(context.get_local_world_size()))
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device), "one device for each worker"
    store = Store(job.store_url)
    manifest = read_features(store, job.corpus, job.feature_id)
    inputs = model_inputs(store, manifest, job.config.model)
    torch.manual_seed(job.config.train.seed)
    model = build_model(job.config.model, inputs.spec(), {str(m): s for m, s in manifest.statistics.items()}).to(device)
    if job.folder is not None and ranks.is_first:
        remove_leftovers(job.folder)
    loop = _loop(model, job, store, inputs, ranks, device)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            loop.restore(load_checkpoint(Path(folder)))
    for record in loop.epochs():
        _report(loop, record, job, store, ranks)
    result: dict[str, Any] = {
        "history": loop.history,
        "best_epoch": loop.best_epoch,
        "score": loop.best_score,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_workers": ranks.world,
        "device": device.type,
        "num_threads": torch.get_num_threads(),
    }
    if job.folder is not None and ranks.is_first:
        result["files"] = Patience(store, job.folder, job.patience_seconds).write(
            "the model",
            partial(_export, model, loop.best_epoch, store, job.folder, inputs),
            after=len(loop.history),
        )
    return result


def _loop(
    model: SentimentModel, job: TrainJob, store: Store, inputs: ModelInputs, ranks: Ranks, device: torch.device
) -> Loop:
    config, manifest = job.config, inputs.manifest
    train, valid = inputs.read_split(store, "train"), inputs.read_split(store, "valid")
    unknown_id = manifest.tokenizer.unknown_id
    train_batches = TrainBatches(
        train,
        Views(train, "train", store, manifest),
        config,
        unknown_id,
        rank=ranks.rank,
        world=ranks.world,
        device=device,
    )
    validation = EvaluationBatches(
        valid,
        Views(valid, "valid", store, manifest),
        evaluation_views(config.corruption, config.corruption.validation_rates),
        unknown_id,
        rank=ranks.rank,
        world=ranks.world,
        device=device,
    )
    test = selection_split(store, inputs, config, ranks, device) if job.looks_at_test else None
    return Loop(model, config, train_batches, validation, valid.label, manifest.label_range, ranks, device, test)


def _report(loop: Loop, record: dict[str, Any], job: TrainJob, store: Store, ranks: Ranks) -> None:
    """Tell Ray of an epoch; of a run with the checkpoint, which then lies in the store."""
    metrics = {
        "epoch": record["epoch"],
        "valid_mae": record["score"],
        "valid_mae_by_rate": {rate: scores["mae"] for rate, scores in record["validation"].items()},
        "best_valid_mae": loop.best_score,
        # By this Ray keeps the best checkpoint: the epoch itself where it is the best so far.
        "selected_epoch": record["epoch"] if record["epoch"] == loop.best_epoch else 0,
        **{f"train_{name}": value for name, value in record["loss"].items()},
        "learning_rate": record["learning_rate"],
        "seconds": round(record["train_seconds"] + record["validation_seconds"], 3),
        "record": record,
    }
    if job.folder is None:
        ray.train.report(metrics)
        return
    name = checkpoint_name(record["epoch"])
    checkpoint = None
    if ranks.is_first:
        Patience(store, job.folder, job.patience_seconds).write(
            f"the checkpoint of epoch {record['epoch']}",
            partial(_keep, loop, job, job.folder, store, name),
            after=record["epoch"] - 1,
        )
        storage = ray.train.get_context().get_storage()
        checkpoint = ray.train.Checkpoint(storage.build_checkpoint_path_from_name(name), storage.storage_filesystem)
    ray.train.report(
        metrics,
        checkpoint=checkpoint,
        checkpoint_dir_name=name,
        checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
    )


def _keep(loop: Loop, job: TrainJob, run_folder: str, store: Store, name: str) -> None:
    """Write all that an epoch leaves. What is written in part, Ray does not get to know, and is removed."""
    if job.looks_at_test:
        keep_weights(store, run_folder, loop.history, loop.selected)
    target = f"{run_folder}/ray/{name}"
    with temporary_folder(run_folder) as temporary:
        folder = Path(temporary) / name
        save_checkpoint(folder, loop.checkpoint())
        try:
            upload_checkpoint(folder, store, target)
        except StoreFailedError:
            with suppress(RefusedError, OSError):
                filesystem, path = store.arrow(target)
                filesystem.delete_dir(path)
            raise


def _export(
    model: nn.Module, epoch: int, store: Store, run_folder: str, inputs: ModelInputs
) -> dict[str, dict[str, Any]]:
    """Write the model of the best epoch to the store; its files with their size and SHA-256."""
    storage = ray.train.get_context().get_storage()
    best = ray.train.Checkpoint(
        storage.build_checkpoint_path_from_name(checkpoint_name(epoch)), storage.storage_filesystem
    )
    with best.as_directory() as saved:
        model.load_state_dict(load_checkpoint(Path(saved)).selected)
    with temporary_folder(run_folder) as temporary:
        folder = Path(temporary) / "model"
        save_model(folder, model.cpu(), inputs.manifest, inputs.simulation)
        add_simulator(store, inputs.simulation, folder)
        files = {}
        for path in sorted(folder.iterdir()):
            store.upload(path, f"{run_folder}/model/{path.name}")
            files[path.name] = describe_file(path)
        return files


def _share_of_cores(num_neighbours: int) -> int:
    """Threads of one of the workers of this machine; Ray would give each a single one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // num_neighbours)
