"""Small loops, alone and as processes that share a run."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from lnln.batches import EvaluationBatches, TrainBatches
from lnln.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lnln.config import Config
from lnln.corruption import evaluation_views
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import Modality, Ragged, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.models import SentimentModel, build_model
from lnln.train.loop import Loop
from lnln.train.published_selection import SelectionSplit
from lnln.train.ranks import Ranks
from lnln.views import Views
from tests.finished_run import TINY, small_corpus

CPU = torch.device("cpu")

# Processes that have not ended by then are killed, so that a worker that waits for ever fails one test only.
DEADLINE_SECONDS = 400


@dataclasses.dataclass(frozen=True)
class Corpus:
    manifest: FeatureManifest
    train: Utterances
    valid: Utterances

    def first(self, num_train: int, num_valid: int) -> Corpus:
        return dataclasses.replace(
            self, train=self.train.take(range(num_train)), valid=self.valid.take(range(num_valid))
        )

    def with_nan(self, split: Literal["train", "valid"], row: int, modality: Modality = "audio") -> Corpus:
        """With one value of an utterance that is no number."""
        utterances: Utterances = getattr(self, split)
        sequences = utterances.sequences(modality)
        values = sequences.values.copy()
        values[sequences.offsets[row]] = float("nan")
        changed: dict[str, Any] = {modality: Ragged(values, sequences.offsets)}
        broken: dict[str, Any] = {split: dataclasses.replace(utterances, **changed)}
        return dataclasses.replace(self, **broken)


def import_small(folder: Path) -> Corpus:
    store = Store(folder / "store")
    manifest = small_corpus(store, folder)
    return Corpus(manifest, read_split(store, manifest, "train"), read_split(store, manifest, "valid"))


def make_config(model: dict[str, Any] | None = None, **train: Any) -> Config:
    defaults = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, "encoder_learning_rate": 1e-3}
    values: dict[str, Any] = {**TINY, "train": {**defaults, **train}}
    return Config.from_dict({**values, "model": {**values["model"], **(model or {})}})


def make_loop(
    corpus: Corpus,
    config: Config,
    ranks: Ranks | None = None,
    dropout: bool = True,
    prepare: Callable[[SentimentModel], object] = lambda model: None,
) -> Loop:
    ranks = ranks or Ranks()
    torch.manual_seed(config.train.seed)
    statistics = {str(name): values for name, values in corpus.manifest.statistics.items()}
    model = build_model(config.model, corpus.manifest.spec(), statistics)
    if not dropout:
        without_dropout(model)
    prepare(model)
    shared: dict[str, Any] = {"rank": ranks.rank, "world": ranks.world}
    batches = TrainBatches(corpus.train, Views(corpus.train, "train"), config, 100, **shared)
    specs = evaluation_views(config.corruption, config.corruption.validation_rates)
    validation = EvaluationBatches(corpus.valid, Views(corpus.valid, "valid"), specs, 100, batch_size=5, **shared)
    test = None
    if config.train.selection == "published":  # any split will do
        specs = evaluation_views(config.corruption, [0.5])
        test_batches = EvaluationBatches(corpus.train, Views(corpus.train, "train"), specs, 100, **shared)
        test = SelectionSplit(test_batches, corpus.train.label)
    return Loop(model, config, batches, validation, corpus.valid.label, (-3.0, 3.0), ranks, CPU, test)


def without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # BERT's attention has its dropout as a number.
        if isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0  # type: ignore[assignment]


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in history]


def saved(loop: Loop, path: Path) -> Checkpoint:
    save_checkpoint(path, loop.checkpoint())
    return load_checkpoint(path)


def gradient(loop: Loop) -> dict[str, Tensor]:
    """What AdamW was given in the only step so far, by parameter."""
    states = loop.checkpoint().optimizer
    assert all(value == 1 for name, value in states.items() if name.endswith("/step"))
    return {name: value / 0.1 for name, value in states.items() if name.endswith("/exp_avg")}


def digest(weights: Mapping[str, Tensor]) -> str:
    return sha256(b"".join(value.numpy().tobytes() for _, value in sorted(weights.items()))).hexdigest()


@dataclasses.dataclass(frozen=True)
class Case:
    """A run. split_at: it stops after that epoch and goes on in a new loop."""

    corpus: Corpus
    config: Config
    dropout: bool = False
    split_at: int | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one worker has of a case. gradient: where the run had a single step. num_bytes: what the worker has written,
    to the others above all."""

    history: list[dict[str, Any]]
    digest: str
    gradient: dict[str, Tensor]
    refusal: str | None
    num_bytes: int


def run_case(case: Case, ranks: Ranks, folder: Path) -> Outcome:
    loop = make_loop(case.corpus, case.config, ranks, case.dropout)
    before, refusal = bytes_written(), None
    try:
        for record in loop.epochs():
            if record["epoch"] == case.split_at:
                checkpoint = saved(loop, folder / f"checkpoint-{ranks.rank}-{time.monotonic_ns()}")
                loop = make_loop(case.corpus, case.config, ranks, case.dropout)
                loop.restore(checkpoint)
                list(loop.epochs())
                break
    except RefusedError as error:
        refusal = str(error)
    written = bytes_written() - before
    is_one_step = not refusal and len(loop.history) == 1 and len(case.corpus.train) <= case.config.train.batch_size
    of_step = gradient(loop) if is_one_step else {}
    return Outcome(untimed(loop.history), digest(loop.selected), of_step, refusal, written)


def bytes_written() -> int:
    """By this process so far, to sockets too."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"])


Work = Callable[[Ranks, Path], Any]


def run_shared(world: int, works: Mapping[str, Work], folder: Path) -> dict[str, list[Any]]:
    """By name what each of `works` gives in each of `world` processes, by rank. All have ended afterwards."""
    context = spawn(_worker, args=(world, free_port(), works, folder), nprocs=world, join=False)
    assert context is not None
    until = time.monotonic() + DEADLINE_SECONDS
    try:
        while not context.join(timeout=5):
            assert time.monotonic() < until, f"workers {[p.pid for p in context.processes if p.is_alive()]} hang"
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()
    found = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
    return {name: [each[name] for each in found] for name in works}


def _worker(rank: int, world: int, port: int, works: Mapping[str, Work], folder: Path) -> None:
    torch.set_num_threads(1)
    address, limit = f"tcp://127.0.0.1:{port}", timedelta(seconds=DEADLINE_SECONDS)
    torch.distributed.init_process_group("gloo", address, world_size=world, rank=rank, timeout=limit)
    torch.save({name: work(Ranks(rank, world), folder) for name, work in works.items()}, folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # Without Python's own end: a thread of torch that lets go of a Python object during it aborts the process.
    os._exit(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
