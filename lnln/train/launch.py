"""A run, from its arguments to the model in the store: checks first, then Ray Train, then what came of it.

    run = train(store, "mosi", load_config("mosi"), num_workers=2)

The same arguments name the same run. A finished one is returned as it is; one that was interrupted, however roughly,
continues from the newest checkpoint that Ray knows and ends with the scores it would have had.
"""

from __future__ import annotations

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
from lnln.data.lock import only_one, remove_held
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.schema import Split
from lnln.data.shards import iterate_shards, read_labels
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import line
from lnln.runs import Run, absence, damaged_run_files, is_finished, load_run, run_folder, run_id_for, run_record
from lnln.train.progress import following
from lnln.train.session import cluster_address, ray_session

if TYPE_CHECKING:
    from ray.train import Result, UserCallback
    from ray.train.torch import TorchTrainer

# Splits that together take no more than this in the store are read whole before anything starts, in a second or two.
# What is wrong with the features of larger ones is for the workers to find.
CHECKED_BYTES = 256 << 20


def train(
    store: Store,
    corpus: str,
    config: Config,
    *,
    num_workers: int = 1,
    use_gpu: bool | None = None,
    config_name: str | None = None,
    progress: Callable[[str], None] | None = line,
) -> Run:
    """Train `config` on `corpus`, or continue, or return what was trained before; its files are put back if damaged.

    use_gpu: None for a GPU per worker where there are as many. config_name: for the record, where the config came from.
    progress: takes a line when something is done; None for silence.
    Each worker computes with OMP_NUM_THREADS threads where that is set, else with its share of its machine's cores.
    Raises RefusedError for what cannot be trained: unknown corpus, a split without (labelled) utterances, features that
    are not finite, an encoder that is none or does not know the corpus's vocabulary, GPUs that are not there, a loss
    that stops being a number. What is refused before its first epoch has ended leaves no run.
    """
    manifest = read_features(store, corpus)
    run_id = run_id_for(config, corpus, manifest)
    if _is_whole(store, run_id):
        return load_run(store, run_id)
    check(store, manifest, config, num_workers, use_gpu)
    folder = run_folder(run_id)
    with only_one(store, folder, f"run {run_id}"):
        if not _is_whole(store, run_id):  # by the process that held the lock before
            store.remove(f"{folder}/result.json")
            try:
                _train(store, manifest, config, run_id, num_workers, use_gpu, config_name, progress)
            except RefusedError:
                _remove_untrained(store, folder)
                raise
    return load_run(store, run_id)


def _is_whole(store: Store, run_id: str) -> bool:
    """Finished, and its model as it was. A damaged one is exported again, from the checkpoint that was kept."""
    return is_finished(store, run_id) and not damaged_run_files(store, load_run(store, run_id))


def _remove_untrained(store: Store, folder: str) -> None:
    """Remove a run that has nothing to continue from. As far as that goes: why it was refused matters more."""
    from lnln.train.controller import has_trained

    with suppress(RefusedError, OSError):
        if not has_trained(store, folder):
            remove_held(store, folder)


def _train(
    store: Store,
    manifest: FeatureManifest,
    config: Config,
    run_id: str,
    num_workers: int,
    use_gpu: bool | None,
    config_name: str | None,
    progress: Callable[[str], None] | None,
) -> None:
    """From `run.json` to `result.json`."""
    folder = run_folder(run_id)
    store.create_json(f"{folder}/run.json", run_record(config, manifest, config_name))

    from lnln.train.controller import mend_state, remove_orphans
    from lnln.train.published_selection import prune_weights

    mend_state(store, folder)
    absent = manifest.absent_modalities()
    if absent and progress is not None:
        progress(absence(manifest.corpus, absent))
    with ray_session(num_workers):
        trainer = build_trainer(
            store,
            manifest.corpus,
            config,
            name=f"{run_id}/ray",
            storage="runs",
            num_workers=num_workers,
            use_gpu=use_gpu,
            feature_id=manifest.feature_id,
            folder=folder,
            num_threads=chosen_threads(),
        )
        with following(store, folder, config, num_workers, progress), _refusing(run_id):
            result = trainer.fit()
    found = {**_summary(result, num_workers), "absent_modalities": list(absent)}
    store.write_json(f"{folder}/result.json", found)
    remove_orphans(store, folder)
    if config.train.selection == "published":
        prune_weights(store, folder, found["history"], is_over=True)


def check(store: Store, manifest: FeatureManifest, config: Config, num_workers: int, use_gpu: bool | None) -> None:
    """RefusedError for what can be known before anything is started."""
    if num_workers < 1:
        raise RefusedError(f"the number of workers must be 1 or more, got {num_workers}")
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
    if config.corruption.protocol == "noise":
        NoiseSource.of(manifest)  # refuses before Ray starts what it could not draw
    _check_gpus(num_workers, use_gpu)


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
    num_workers: int = 1,
    use_gpu: bool | None = None,
    callbacks: Sequence[UserCallback] = (),
    feature_id: str | None = None,
    folder: str | None = None,
    num_threads: int | None = None,
) -> TorchTrainer:
    """The training of `config` as Ray wants it; Ray must be initialised.

    name, storage: Ray keeps what it knows under `<storage>/<name>` of the store, where an equal call continues.
    feature_id: default: the features in use. folder: of a run, which gets its history, checkpoints to continue from
    and in the end its model; None for a trial, which only reports scores. num_threads: of each worker, None for its
    share of its machine's cores.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from lnln.train.controller import RunNotes
    from lnln.train.worker import TrainJob, train_worker

    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if use_gpu and num_gpus < num_workers:
        raise RefusedError(f"{num_workers} workers need a GPU each, Ray has {num_gpus}")
    if feature_id is None:
        feature_id = read_features(store, corpus).feature_id
    job = TrainJob(store.url, corpus, feature_id, config, folder, num_threads)
    filesystem, path = store.arrow(storage)
    notes: list[Any] = [] if folder is None else [RunNotes(store.url, folder)]
    return TorchTrainer(
        train_worker,  # type: ignore[arg-type]
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=num_workers, use_gpu=num_gpus >= num_workers if use_gpu is None else use_gpu
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
            # A cluster loses machines; here a failure is one, and would be again.
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=3 if cluster_address() else 0, controller_failure_limit=0
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


def refusal(error: BaseException) -> RefusedError | None:
    """The refusal that a worker raised and Ray wrapped, if `error` is or holds one."""
    seen: list[BaseException] = [error]
    while seen:
        current = seen.pop()
        if isinstance(current, RefusedError):
            return current
        inner = [current.__cause__, getattr(current, "_base_exc", None), getattr(current, "controller_failure", None)]
        inner += getattr(current, "worker_failures", {}).values()
        seen += [each for each in inner if isinstance(each, BaseException)]
    return None


def reason_of(error: BaseException) -> str:
    """Why a training failed, in one line: a refusal, else the last line of each worker's error, else of `error`."""
    refused = refusal(error)
    if refused is not None:
        return " ".join(str(refused).split())
    failures = getattr(error, "worker_failures", {})
    causes = [f"worker {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items())]
    name, line = type(error).__name__, _last_line(error)
    return "; ".join(causes) or (line if line == name else f"{name}: {line}")


@contextmanager
def _refusing(run_id: str) -> Iterator[None]:
    """Ray's errors as ours, and Ctrl-C as Python means it: Ray takes that signal and ends with SystemExit."""
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    from ray.train import TrainingFailedError

    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    except TrainingFailedError as error:
        if refusal(error) is not None:
            raise RefusedError(reason_of(error)) from None
        raise RefusedError(
            f"training of run {run_id} failed ({reason_of(error)}); the same arguments continue it"
        ) from error
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _summary(result: Result, num_workers: int) -> dict[str, Any]:
    """result.json: what the workers found, and what they ran on."""
    found: dict[str, Any] = dict(result.return_value)  # type: ignore[attr-defined]
    history = found["history"]
    seconds = sum(record["train_seconds"] + record["validation_seconds"] for record in history)
    return {
        **found,
        "validation": history[found["best_epoch"] - 1]["validation"],
        "num_workers": num_workers,
        "seconds": round(seconds, 3),
        "versions": {"lnln": __version__, **{package: version(package) for package in ("torch", "ray")}},
    }


def _checked_labels(store: Store, manifest: FeatureManifest, split: Split, is_small: bool) -> NDArray[np.float32]:
    """(N,) labels of a split; of a small one features are read too, and refused where they are not finite."""
    if not is_small:
        return read_labels(store, manifest, split)
    return np.concatenate([utterances.label for utterances in iterate_shards(store, manifest, split)])


def _check_encoder(manifest: FeatureManifest, config: Config) -> None:
    from lnln.models.text_encoder import check_vocabulary

    spec = manifest.spec()
    if not spec.text_dim:
        check_vocabulary(config.model.text_encoder, spec.tokenizer, spec.vocabulary_size, spec.unknown_id)


def _check_gpus(num_workers: int, use_gpu: bool | None) -> None:
    import ray
    import torch

    if use_gpu and not cluster_address() and not ray.is_initialized() and torch.cuda.device_count() < num_workers:
        raise RefusedError(f"{num_workers} workers need a GPU each, this machine has {torch.cuda.device_count()}")
