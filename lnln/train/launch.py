"""A run, from its arguments to the model in the store: checks first, then Ray Train, then what came of it.

    run = train(store, "mosi", load_config("mosi"), num_workers=2)

The same arguments name the same run. A finished one is returned as it is; one that was interrupted, however roughly,
continues from the newest checkpoint that Ray knows and ends with the scores it would have had.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lnln import __version__
from lnln.config import Config
from lnln.corruption.noise import NoiseSource
from lnln.data.lease import Lease, LostLeaseError, held
from lnln.data.lock import only_one, remove_held
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.model_inputs import model_inputs, with_simulation_in_use
from lnln.data.schema import Split
from lnln.data.shards import iterate_shards, read_labels
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import line
from lnln.runs import Run, absence, damaged_run_files, is_finished, load_run, run_folder, run_id_for, run_record
from lnln.train.failures import reason_of, refusal
from lnln.train.progress import following
from lnln.train.session import cluster_address, ray_session

if TYPE_CHECKING:
    from ray.train import Result, UserCallback

    from lnln.train.recovery import RecoveringTrainer

# Splits that together take no more than this in the store are read whole before anything starts, in a second or two.
# What is wrong with the features of larger ones is for the workers to find.
CHECKED_BYTES = 256 << 20

PATIENCE_VARIABLE = "LNLN_PATIENCE_SECONDS"


def train(
    store: Store,
    corpus: str,
    config: Config,
    *,
    num_workers: int | tuple[int, int] = 1,
    use_gpu: bool | None = None,
    gpus_per_worker: float = 1.0,
    config_name: str | None = None,
    num_threads: int | None = None,
    progress: Callable[[str], None] | None = line,
) -> Run:
    """Train `config` on `corpus`, or continue, or return what was trained before; its files are put back if damaged.

    num_workers: a pair is the fewest and the most; Ray starts as many as there is room for, and again from the newest
    checkpoint when that changes. use_gpu: None for a GPU per worker where there are as many. gpus_per_worker: the share
    of one that a run of a single worker takes. config_name: for the record, where the config came from.
    progress: takes a line when something is done; None for silence.
    Each worker computes with OMP_NUM_THREADS threads where that is set, else with num_threads, else with its share of
    its machine's cores.
    A model that reads simulated text reads that of `model.simulation`; left open, it is the one in use now, and part of
    what the run is known by.
    Raises RefusedError for what cannot be trained: unknown corpus, a split without (labelled) utterances, no simulated
    text for a model that reads it, features that are not finite, an encoder that is none or does not know the corpus's
    vocabulary, GPUs that are not there, a loss that stops being a number. What is refused before its first epoch has
    ended leaves no run.
    """
    manifest = read_features(store, corpus)
    config = with_simulation_in_use(store, manifest, config)
    run_id = run_id_for(config, corpus, manifest)
    if is_whole(store, run_id):
        return load_run(store, run_id)
    check(store, manifest, config, num_workers, use_gpu, gpus_per_worker)
    folder = run_folder(run_id)
    # The lock tells at once of a process on this machine, the lease of those on others.
    with only_one(store, folder, f"run {run_id}"), held(store, folder, f"run {run_id}") as lease:
        if not is_whole(store, run_id):  # by the process that held the lock before
            store.remove(f"{folder}/result.json")
            try:
                _train(
                    store,
                    manifest,
                    config,
                    run_id,
                    num_workers,
                    use_gpu,
                    gpus_per_worker,
                    config_name,
                    num_threads,
                    progress,
                    lease,
                )
            except LostLeaseError:
                raise
            except RefusedError:
                _remove_untrained(store, folder, lease)
                raise
    return load_run(store, run_id)


def is_whole(store: Store, run_id: str) -> bool:
    """Finished, and its model as it was. A damaged one is exported again, from the checkpoint that was kept."""
    return is_finished(store, run_id) and not damaged_run_files(store, load_run(store, run_id))


def _remove_untrained(store: Store, folder: str, lease: Lease) -> None:
    """Remove a run that has nothing to continue from. As far as that goes: why it was refused matters more."""
    from lnln.train.controller import has_trained

    with suppress(RefusedError, OSError):
        lease.confirm()
        if not has_trained(store, folder):
            remove_held(store, folder)


def _train(
    store: Store,
    manifest: FeatureManifest,
    config: Config,
    run_id: str,
    num_workers: int | tuple[int, int],
    use_gpu: bool | None,
    gpus_per_worker: float,
    config_name: str | None,
    num_threads: int | None,
    progress: Callable[[str], None] | None,
    lease: Lease,
) -> None:
    """From `run.json` to `result.json`, which LostLeaseError keeps from being written where another process trains the
    run by now."""
    folder = run_folder(run_id)
    store.create_json(f"{folder}/run.json", run_record(config, manifest, config_name))

    from lnln.train.controller import mend_state, remove_orphans
    from lnln.train.published_selection import prune_weights

    damage = mend_state(store, folder)
    absent = manifest.absent_modalities()
    if progress is not None:
        if damage is not None:
            progress(f"{damage}; going back to an earlier one")
        if absent:
            progress(absence(manifest.corpus, absent))
    with ray_session(worker_range(num_workers)[1]), _refusing(run_id):
        trainer = build_trainer(
            store,
            manifest.corpus,
            config,
            name=f"{run_id}/ray",
            storage="runs",
            num_workers=num_workers,
            use_gpu=use_gpu,
            gpus_per_worker=gpus_per_worker,
            feature_id=manifest.feature_id,
            folder=folder,
            num_threads=chosen_threads() or num_threads,
        )
        with following(store, folder, config, num_workers, progress):
            result = trainer.fit()
    found = {**_summary(result), "absent_modalities": list(absent)}
    lease.confirm()
    store.write_json(f"{folder}/result.json", found)
    remove_orphans(store, folder, [found["best_epoch"], len(found["history"])])
    if config.train.selection == "published":
        prune_weights(store, folder, found["history"], is_over=True)


def check(
    store: Store,
    manifest: FeatureManifest,
    config: Config,
    num_workers: int | tuple[int, int],
    use_gpu: bool | None,
    gpus_per_worker: float = 1.0,
) -> None:
    """RefusedError for what can be known before anything is started."""
    _check_workers(num_workers, gpus_per_worker)
    needed: list[Split] = ["train", "valid"]
    if config.train.selection == "published":
        needed.append("test")
    there = [manifest.splits[split] for split in needed if split in manifest.splits]
    is_small = sum(shard.num_bytes for entry in there for shard in entry.shards) <= CHECKED_BYTES
    for split in needed:
        entry = manifest.splits.get(split)
        if entry is None or not entry.num_utterances:
            raise RefusedError(
                f"corpus {manifest.corpus!r} has no utterances in split {split!r}, which training needs; "
                f"{_how_to_fill(manifest)}"
            )
        if np.isnan(_checked_labels(store, manifest, split, is_small)).all():
            raise RefusedError(
                f"corpus {manifest.corpus!r} has no labelled utterance in split {split!r}, which training needs; "
                "import a corpus with labels"
            )
    _check_encoder(manifest, config)
    _check_simulation(store, manifest, config, needed)
    if config.corruption.protocol == "noise":
        NoiseSource.of(manifest)  # refuses before Ray starts what it could not draw
    _check_gpus(num_workers, use_gpu, gpus_per_worker)


def worker_range(num_workers: int | tuple[int, int]) -> tuple[int, int]:
    """The fewest and the most workers."""
    return num_workers if isinstance(num_workers, tuple) else (num_workers, num_workers)


def _how_to_fill(manifest: FeatureManifest) -> str:
    if manifest.extraction is None:
        return "import a corpus that has some"
    lost = manifest.extraction.counts.get("clips_quarantined", 0)
    why = f" ({lost} of its clips could not be used; the same command says why)" if lost else ""
    return f"name them in the column `mode` of its label.csv and run `lnln extract` again{why}"


def build_trainer(
    store: Store,
    corpus: str,
    config: Config,
    *,
    name: str,
    storage: str,
    num_workers: int | tuple[int, int] = 1,
    use_gpu: bool | None = None,
    gpus_per_worker: float = 1.0,
    callbacks: Sequence[UserCallback] = (),
    feature_id: str | None = None,
    folder: str | None = None,
    num_threads: int | None = None,
) -> RecoveringTrainer:
    """The training of `config` as Ray wants it; Ray must be initialised.

    name, storage: Ray keeps what it knows under `<storage>/<name>` of the store, where an equal call continues.
    feature_id: default: the features in use. folder: of a run, which gets its history, checkpoints to continue from
    and in the end its model; None for a trial, which only reports scores. num_threads: of each worker, None for its
    share of its machine's cores. Failures of workers are answered by `lnln.train.recovery`.
    """
    import ray
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig

    from lnln.train.controller import RunNotes
    from lnln.train.recovery import RecoveringTrainer, Recovery
    from lnln.train.worker import TrainJob, train_worker

    fewest, most = worker_range(num_workers)
    num_gpus = ray.cluster_resources().get("GPU", 0.0)
    has_gpus = num_gpus >= fewest * gpus_per_worker
    if _insists_on_gpus(use_gpu, gpus_per_worker) and not has_gpus:
        raise RefusedError(f"{_gpu_need(fewest, gpus_per_worker)}, Ray has {num_gpus:g}")
    takes_gpus = has_gpus if use_gpu is None else use_gpu
    if feature_id is None:
        feature_id = read_features(store, corpus).feature_id
    job = TrainJob(store.url, corpus, feature_id, config, folder, num_threads, patience_seconds())
    filesystem, path = store.arrow(storage)
    notes: list[Any] = [] if folder is None else [RunNotes(store.url, folder)]
    return RecoveringTrainer(
        train_worker,
        policy=Recovery(store.url, folder, (fewest, most)),
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=fewest if fewest == most else (fewest, most),  # type: ignore[arg-type]
            use_gpu=takes_gpus,
            resources_per_worker={"GPU": gpus_per_worker} if takes_gpus else None,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            # The best so far, and the newest besides, which Ray never removes.
            checkpoint_config=CheckpointConfig(
                num_to_keep=max(1, config.train.num_checkpoints - 1),
                checkpoint_score_attribute="selected_epoch",
                checkpoint_score_order="max",
            ),
            callbacks=[*notes, *callbacks],  # type: ignore[list-item]
        ),
    )


def chosen_threads() -> int | None:
    """Threads of a worker as whoever starts a training wants them: OMP_NUM_THREADS, where it is a number.

    Asked here and not by the worker, in whose environment Ray has put a value of its own.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def patience_seconds() -> float:
    """How long a run waits for a store that is full or away, as LNLN_PATIENCE_SECONDS says, else ten minutes.

    Asked here and not by the worker, which may be on another machine.
    """
    text = os.environ.get(PATIENCE_VARIABLE) or "600"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise RefusedError(f"{PATIENCE_VARIABLE} must be a number of seconds from 0 on, got {text!r}")
    return seconds


@contextmanager
def _refusing(run_id: str) -> Iterator[None]:
    """Ray's errors as ours, and Ctrl-C as Python means it: Ray takes that signal and ends with SystemExit."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    except (TrainingFailedError, RayError, OSError) as error:
        if refusal(error) is not None:
            raise RefusedError(reason_of(error)) from None
        raise RefusedError(
            f"training of run {run_id} failed ({reason_of(error)}); the same arguments continue it"
        ) from error
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)


def _summary(result: Result) -> dict[str, Any]:
    """result.json: what the workers found, and what they ran on."""
    found: dict[str, Any] = dict(result.return_value)  # type: ignore[attr-defined]
    history = found["history"]
    seconds = sum(record["train_seconds"] + record["validation_seconds"] for record in history)
    return {
        **found,
        "validation": history[found["best_epoch"] - 1]["validation"],
        "seconds": round(seconds, 3),
        "versions": {"lnln": __version__, **{package: version(package) for package in ("torch", "ray")}},
    }


def _checked_labels(store: Store, manifest: FeatureManifest, split: Split, is_small: bool) -> NDArray[np.float32]:
    """(N,) labels of a split; of a small one features are read too, and refused where they are not finite."""
    if not is_small:
        return read_labels(store, manifest, split)
    return np.concatenate([utterances.label for utterances in iterate_shards(store, manifest, split)])


def _check_encoder(manifest: FeatureManifest, config: Config) -> None:
    from lnln.models.base import check_frozen
    from lnln.models.text_encoder import check_vocabulary

    spec = manifest.spec()
    check_frozen(spec, config.train)
    if not spec.text_dim:
        check_vocabulary(config.model.text_encoder, spec.tokenizer, spec.vocabulary_size, spec.unknown_id)


def _check_simulation(store: Store, manifest: FeatureManifest, config: Config, splits: Sequence[Split]) -> None:
    """RefusedError unless all `splits` have the simulated text that the model reads."""
    simulation = model_inputs(store, manifest, config.model).simulation
    if simulation is None:
        return
    if lacking := [split for split in splits if split not in simulation.splits]:
        raise RefusedError(
            f"simulated text {simulation.simulation_id} of corpus {manifest.corpus} lacks split {' and '.join(lacking)}"
            f", which training needs; run `lnln simulate {manifest.corpus}` again"
        )


def _check_workers(num_workers: int | tuple[int, int], gpus_per_worker: float) -> None:
    fewest, most = worker_range(num_workers)
    if fewest < 1:
        raise RefusedError(f"the number of workers must be 1 or more, got {fewest}")
    if fewest > most:
        raise RefusedError(f"the number of workers goes from the fewest to the most, got {fewest} to {most}")
    if not 0 < gpus_per_worker <= 1:
        raise RefusedError(f"a worker takes one GPU or a share of one, above 0 and up to 1, got {gpus_per_worker:g}")
    if gpus_per_worker < 1 and most > 1:
        raise RefusedError(
            f"workers of one run cannot share a GPU (NCCL takes one process for each), got {most} workers with "
            f"{gpus_per_worker:g} GPUs each; use 1 worker, or 1 GPU for each"
        )


def _check_gpus(num_workers: int | tuple[int, int], use_gpu: bool | None, gpus_per_worker: float) -> None:
    import ray
    import torch

    fewest = worker_range(num_workers)[0]
    if _insists_on_gpus(use_gpu, gpus_per_worker) and not cluster_address() and not ray.is_initialized():
        num_gpus = torch.cuda.device_count()
        if num_gpus < fewest * gpus_per_worker:
            raise RefusedError(f"{_gpu_need(fewest, gpus_per_worker)}, this machine has {num_gpus}")


def _insists_on_gpus(use_gpu: bool | None, gpus_per_worker: float) -> bool:
    """Whoever wants a share of a GPU does not want none."""
    return gpus_per_worker < 1 if use_gpu is None else use_gpu


def _gpu_need(num_workers: int, gpus_per_worker: float) -> str:
    if gpus_per_worker < 1:
        return f"1 worker needs {gpus_per_worker:g} of a GPU"
    return "1 worker needs a GPU" if num_workers == 1 else f"{num_workers} workers need a GPU each"
