"""One Ray Train worker: features into memory, the model, the loop, a report after every epoch.

All workers do this at the same time; rank 0 alone writes. `ray.train.report` is a barrier, so all call it equally
often. What Ray knows of a run is what it was told there, and a run continues from the newest checkpoint it knows.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import nn

from lnln.batches import EvaluationBatches, TrainBatches
from lnln.checkpoint import describe_file, load_checkpoint, save_checkpoint, save_model
from lnln.config import Config
from lnln.corruption import evaluation_views
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.models import build_model
from lnln.train.loop import Loop
from lnln.train.published_selection import keep_weights, selection_split
from lnln.train.ranks import Ranks
from lnln.views import Views


@dataclass(frozen=True)
class TrainJob:
    """What one run does, for all its workers.

    folder: of the run in the store, where what it ends with goes; None: nowhere, and no checkpoints are kept (a trial).
    num_threads: of each worker; None: the cores of its machine are divided among the workers there.
    """

    store_url: str
    corpus: str
    feature_id: str
    config: Config
    folder: str | None
    num_threads: int | None = None

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
    torch.manual_seed(job.config.train.seed)
    model = build_model(job.config.model, manifest.spec(), {str(m): s for m, s in manifest.statistics.items()}).to(
        device
    )
    loop = _loop(model, job, store, manifest, ranks, device)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            loop.restore(load_checkpoint(Path(folder)))
    for record in loop.epochs():
        if job.folder is not None and job.looks_at_test and ranks.is_first:
            keep_weights(store, job.folder, loop.history, loop.selected)
        _report(loop, record, ranks, keep=job.folder is not None)
    result: dict[str, Any] = {
        "history": loop.history,
        "best_epoch": loop.best_epoch,
        "score": loop.best_score,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": device.type,
        "num_threads": torch.get_num_threads(),
    }
    if job.folder is not None and ranks.is_first:
        result["files"] = _export(model, loop.best_epoch, store, f"{job.folder}/model", manifest)
    return result


def checkpoint_name(epoch: int) -> str:
    """Folder of the checkpoint after `epoch` (from 1). Named by the epoch, so that one which Ray did not get to know
    before a run was killed is overwritten when the run continues."""
    return f"epoch-{epoch:04d}"


def _loop(
    model: nn.Module, job: TrainJob, store: Store, manifest: FeatureManifest, ranks: Ranks, device: torch.device
) -> Loop:
    config = job.config
    train, valid = read_split(store, manifest, "train"), read_split(store, manifest, "valid")
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
    test = selection_split(store, manifest, config, ranks, device) if job.looks_at_test else None
    return Loop(model, config, train_batches, validation, valid.label, manifest.label_range, ranks, device, test)


def _report(loop: Loop, record: dict[str, Any], ranks: Ranks, keep: bool) -> None:
    """Tell Ray of an epoch, with a checkpoint if it is to be kept."""
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
    if not keep:
        ray.train.report(metrics)
        return
    name = checkpoint_name(record["epoch"])
    if not ranks.is_first:
        ray.train.report(metrics, checkpoint=None, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory(prefix="lnln-") as temporary:
        folder = Path(temporary) / name
        save_checkpoint(folder, loop.checkpoint())
        checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=name)


def _export(
    model: nn.Module, epoch: int, store: Store, model_folder: str, manifest: FeatureManifest
) -> dict[str, dict[str, Any]]:
    """Write the model of the best epoch to the store; its files with their size and SHA-256."""
    storage = ray.train.get_context().get_storage()
    best = ray.train.Checkpoint(
        storage.build_checkpoint_path_from_name(checkpoint_name(epoch)), storage.storage_filesystem
    )
    with best.as_directory() as saved:
        model.load_state_dict(load_checkpoint(Path(saved)).selected)
    with tempfile.TemporaryDirectory(prefix="lnln-") as temporary:
        folder = Path(temporary) / "model"
        save_model(folder, model.cpu(), manifest)
        files = {}
        for path in sorted(folder.iterdir()):
            store.upload(path, f"{model_folder}/{path.name}")
            files[path.name] = describe_file(path)
        return files


def _share_of_cores(num_neighbours: int) -> int:
    """Threads of one of the workers of this machine; Ray would give each a single one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // num_neighbours)
