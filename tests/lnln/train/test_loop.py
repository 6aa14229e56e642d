from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import spawn

from lnln.batches import EvaluationBatches, TrainBatches, to_inputs
from lnln.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lnln.config import Config
from lnln.corruption import evaluation_views
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import Ragged, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.metrics import metric_names, score
from lnln.models import build_model
from lnln.runs import selected_on_test
from lnln.train.loop import Loop
from lnln.train.published_selection import SelectionSplit
from lnln.train.ranks import Ranks
from lnln.train.schedule import rate_factor
from lnln.views import Views
from tests.finished_run import TINY, small_corpus

CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Corpus:
    manifest: FeatureManifest
    train: Utterances
    valid: Utterances


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    store = Store(folder / "store")
    manifest = small_corpus(store, folder)
    return Corpus(manifest, read_split(store, manifest, "train"), read_split(store, manifest, "valid"))


def make_config(model: dict[str, Any] | None = None, **train: Any) -> Config:
    defaults = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, "encoder_learning_rate": 1e-3}
    values: dict[str, Any] = {**TINY, "train": {**defaults, **train}}
    return Config.from_dict({**values, "model": {**values["model"], **(model or {})}})


def make_loop(corpus: Corpus, config: Config, ranks: Ranks | None = None, dropout: bool = True) -> Loop:
    ranks = ranks or Ranks()
    torch.manual_seed(config.train.seed)
    statistics = {str(name): values for name, values in corpus.manifest.statistics.items()}
    model = build_model(config.model, corpus.manifest.spec(), statistics)
    if not dropout:
        without_dropout(model)
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


def test_a_run_learns_and_keeps_its_history(corpus: Corpus) -> None:
    loop = make_loop(corpus, make_config(epochs=8, learning_rate=5e-3, encoder_learning_rate=5e-3))
    records = list(loop.epochs())
    assert records == loop.history and [record["epoch"] for record in records] == list(range(1, 9))
    assert records[-1]["loss"]["total"] < 0.7 * records[0]["loss"]["total"]
    assert loop.best_score == min(record["score"] for record in records) == records[loop.best_epoch - 1]["score"]
    assert loop.best_score < records[0]["score"]
    best = records[0]
    assert best["validation"].keys() == {"0.0", "0.5"}
    assert best["score"] == pytest.approx(np.mean([scores["mae"] for scores in best["validation"].values()]))
    assert best["loss"].keys() == {"total", "completeness", "adversarial", "reconstruction", "sentiment"}
    assert loop.is_done and not list(loop.epochs())


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"average_decay": 0.9},
        {"schedule": "published"},
        {"average_decay": 0.9, "schedule": "published"},
        {"average_decay": 0.9, "precision": "bfloat16"},
        {"warmup_share": 0.7},  # interrupted while the rate still climbs
        {"selection": "published"},
    ],
    ids=str,
)
def test_a_continued_run_equals_an_uninterrupted_one(corpus: Corpus, tmp_path: Path, train: dict[str, Any]) -> None:
    config = make_config(epochs=4, **train)
    whole = make_loop(corpus, config)
    list(whole.epochs())
    first = make_loop(corpus, config)
    for record in first.epochs():
        if record["epoch"] == 2:
            break
    torch.rand(7)  # whatever happens in between
    second = make_loop(corpus, dataclasses.replace(config))
    second.restore(saved(first, tmp_path / "checkpoint"))
    assert [record["epoch"] for record in second.epochs()] == [3, 4]
    assert untimed(second.history) == untimed(whole.history)
    assert (second.best_epoch, second.best_score) == (whole.best_epoch, whole.best_score)
    left, right = whole.checkpoint(), second.checkpoint()
    pairs = ((left.selected, right.selected), (left.weights, right.weights), (left.optimizer, right.optimizer))
    for mine, theirs in pairs:
        assert mine and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("world", "batch_size", "mode"),
    [(2, 1, "clean"), (2, 16, "reference"), (3, 7, "clean"), (3, 64, "reference"), (5, 13, "clean")],
)
def test_gradients_of_all_workers_average_to_that_of_one(
    corpus: Corpus, world: int, batch_size: int, mode: str
) -> None:
    config = make_config({"mode": mode}, batch_size=batch_size)
    torch.manual_seed(0)
    model = build_model(config.model, corpus.manifest.spec())
    without_dropout(model)
    model.double()  # so that only a wrong formula differs

    def gradient(rank: int, of: int, step: int) -> torch.Tensor:
        batches = TrainBatches(corpus.train, Views(corpus.train, "train"), config, 100, rank=rank, world=of)
        batch = list(batches.epoch(0))[step]
        halves = {"audio", "vision"}
        complete, corrupted = (
            dataclasses.replace(part, **{name: getattr(part, name).double() for name in halves})
            for part in (batch.complete, batch.corrupted)
        )
        model.zero_grad()
        terms = loss_terms(model(corrupted, complete), batch, config.loss)
        total_loss(terms, batch.weight, config.loss, batches.size(step) / of).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    num_steps = -(-len(corpus.train) // batch_size)
    for step in {0, num_steps - 1}:
        alone = gradient(0, 1, step)
        shared = torch.stack([gradient(rank, world, step) for rank in range(world)]).mean(dim=0)
        assert torch.allclose(alone, shared, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))  # losses are float32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def shared_run(
    rank: int, world: int, port: int, corpus: Corpus, config: Config, folder: str, split_at: int | None
) -> None:
    """One process of a run; rank 0 leaves its history. split_at: stop after that epoch and go on in a new loop."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    ranks = Ranks(rank, world)
    dropout = split_at is not None
    loop = make_loop(corpus, config, ranks, dropout=dropout)
    for record in loop.epochs():
        if record["epoch"] == split_at:
            checkpoint = saved(loop, Path(folder) / f"checkpoint-{rank}")
            loop = make_loop(corpus, config, ranks, dropout=dropout)
            loop.restore(checkpoint)
            list(loop.epochs())
            break
    if rank == 0:
        torch.save(untimed(loop.history), Path(folder) / "history.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # Without Python's own end: a thread of torch that lets go of a Python object during it aborts the process.
    os._exit(0)


def run_shared(world: int, corpus: Corpus, config: Config, folder: Path, split_at: int | None = None) -> Any:
    folder.mkdir()
    arguments = (world, free_port(), corpus, config, str(folder), split_at)
    spawn(shared_run, args=arguments, nprocs=world)
    return torch.load(folder / "history.pt", weights_only=True)


@pytest.mark.slow
def test_any_number_of_workers_has_the_same_curve(corpus: Corpus, tmp_path: Path) -> None:
    config = make_config(epochs=3, batch_size=13)
    alone = make_loop(corpus, config, dropout=False)
    list(alone.epochs())
    shared = run_shared(2, corpus, config, tmp_path / "shared")
    for mine, theirs in zip(alone.history, shared, strict=True):
        assert theirs["score"] == pytest.approx(mine["score"], abs=2e-4)
        for name, value in mine["loss"].items():
            assert theirs["loss"][name] == pytest.approx(value, abs=2e-4)


@pytest.mark.slow
def test_three_workers_with_two_utterances_a_step_continue_exactly(corpus: Corpus, tmp_path: Path) -> None:
    few = dataclasses.replace(corpus, train=corpus.train.take(range(5)), valid=corpus.valid.take([3]))
    config = make_config(epochs=4, batch_size=2, average_decay=0.5)
    whole = run_shared(3, few, config, tmp_path / "whole", split_at=99)
    assert run_shared(3, few, config, tmp_path / "parts", split_at=2) == whole


@pytest.mark.parametrize("name", ["audio", "vision"])
def test_features_that_are_not_finite_stop_the_run_by_name(corpus: Corpus, name: str) -> None:
    sequences = corpus.train.sequences(name)  # type: ignore[arg-type]
    broken = 17
    values = sequences.values.copy()
    values[sequences.offsets[broken]] = float("nan")
    changed: dict[str, Any] = {name: Ragged(values, sequences.offsets)}
    train = dataclasses.replace(corpus.train, **changed)
    loop = make_loop(dataclasses.replace(corpus, train=train), make_config())
    with pytest.raises(
        RefusedError, match=rf"step \d of epoch 1: .* of {train.utterance_id[broken]}".replace("$", r"\$")
    ):
        list(loop.epochs())
    assert loop.history == []


def test_a_diverging_run_is_refused(corpus: Corpus) -> None:
    loop = make_loop(corpus, make_config(learning_rate=1e30, encoder_learning_rate=1e30, clip_norm=0.0, warmup_share=0))
    with pytest.raises(RefusedError, match="not finite"):
        list(loop.epochs())


def test_validation_that_is_not_finite_is_refused(corpus: Corpus) -> None:
    values = np.full_like(corpus.valid.audio.values, np.nan)
    valid = dataclasses.replace(corpus.valid, audio=Ragged(values, corpus.valid.audio.offsets))
    with pytest.raises(RefusedError, match="validation after epoch 1"):
        list(make_loop(dataclasses.replace(corpus, valid=valid), make_config()).epochs())


def test_patience_ends_a_run_that_does_not_improve(corpus: Corpus, tmp_path: Path) -> None:
    config = make_config(epochs=50, patience=2, learning_rate=1e-12, encoder_learning_rate=1e-12)
    loop = make_loop(corpus, config, dropout=False)
    list(loop.epochs())
    done = len(loop.history)
    assert done < 50 and done == loop.best_epoch + 2
    again = make_loop(corpus, config)
    again.restore(saved(loop, tmp_path / "checkpoint"))
    assert again.is_done


def test_a_run_that_continues_remembers_its_patience(corpus: Corpus, tmp_path: Path) -> None:
    config = make_config(epochs=50, patience=3, learning_rate=1e-12, encoder_learning_rate=1e-12)
    whole = make_loop(corpus, config)
    list(whole.epochs())
    first = make_loop(corpus, config)
    for record in first.epochs():
        if record["epoch"] == whole.best_epoch + 1:
            break
    again = make_loop(corpus, config)
    again.restore(saved(first, tmp_path / "checkpoint"))
    assert [record["epoch"] for record in again.epochs()] == [whole.best_epoch + 2, whole.best_epoch + 3]
    assert untimed(again.history) == untimed(whole.history)


@pytest.mark.parametrize("train", [{}, {"precision": "bfloat16"}, {"average_decay": 0.5}], ids=str)
def test_scores_are_those_of_the_kept_weights_in_float32(corpus: Corpus, train: dict[str, Any]) -> None:
    config = make_config(epochs=2, **train)
    loop = make_loop(corpus, config)
    list(loop.epochs())
    model = build_model(config.model, corpus.manifest.spec())
    model.load_state_dict(loop.checkpoint().selected)
    specs = evaluation_views(config.corruption, config.corruption.validation_rates)
    views = Views(corpus.valid, "valid")
    predictions = np.zeros((len(specs), len(corpus.valid)), np.float32)
    with torch.inference_mode():
        for batch in EvaluationBatches(corpus.valid, views, specs, 100, batch_size=5):
            predictions[batch.view, batch.utterance] = model.eval()(batch.inputs).sentiment
    for spec, predicted in zip(specs, predictions, strict=True):
        assert spec.rates is not None
        stated = loop.history[-1]["validation"][str(spec.rates[0])]
        assert stated == score(predicted, corpus.valid.label, (-3.0, 3.0))


def test_validation_at_rates_of_each_modality(corpus: Corpus) -> None:
    config = make_config(epochs=1)
    rates = (0.0, (1.0, 0.0, 0.0), (0.0, 0.5, 1.0))
    corruption = dataclasses.replace(config.corruption, protocol="modality", validation_rates=rates)
    (record,) = make_loop(corpus, dataclasses.replace(config, corruption=corruption)).epochs()
    assert list(record["validation"]) == ["0.0", "1/0/0", "0/0.5/1"]
    assert record["score"] == pytest.approx(sum(scores["mae"] for scores in record["validation"].values()) / 3)


def test_bfloat16_is_what_it_says(corpus: Corpus) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        loop = make_loop(corpus, make_config(epochs=1, precision=precision), dropout=False)
        losses.append(next(loop.epochs())["loss"]["total"])
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize("distance", ["mse", "l1", "huber"])
def test_the_sentiment_distance_is_the_one_that_is_trained(corpus: Corpus, distance: str) -> None:
    frozen: dict[str, Any] = {"learning_rate": 1e-30, "encoder_learning_rate": 1e-30, "weight_decay": 0.0}
    values = make_config(epochs=1, **frozen).to_dict()
    values["loss"]["sentiment_distance"], values["corruption"]["complete_share"] = distance, 1.0
    config = Config.from_dict(values)
    loop = make_loop(corpus, config, dropout=False)
    stated = next(loop.epochs())["loss"]["sentiment"]
    model = build_model(config.model, corpus.manifest.spec()).eval()
    model.load_state_dict(loop.checkpoint().weights)
    with torch.inference_mode():
        error = (model(to_inputs(corpus.train)).sentiment.numpy() - corpus.train.label).astype(np.float64)
    size = np.abs(error)
    expected = {"mse": size**2, "l1": size, "huber": np.where(size < 1, size**2 / 2, size - 0.5)}[distance]
    assert stated == pytest.approx(expected.mean(), rel=1e-4)


def test_the_rate_climbs_by_steps(corpus: Corpus) -> None:
    config = make_config(epochs=4, warmup_share=0.5, learning_rate=1e-3)
    loop = make_loop(corpus, config)
    list(loop.epochs())
    steps = -(-len(corpus.train) // config.train.batch_size)
    rates = [record["learning_rate"] for record in loop.history]
    expected = [1e-3 * rate_factor(config.train, steps, epoch, steps - 1) for epoch in range(4)]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert rates[0] < rates[1] and rates[1] == pytest.approx(1e-3) and rates[1] > rates[2] > rates[3]


def test_the_test_split_is_scored_beside_validation_and_changes_nothing(corpus: Corpus) -> None:
    plain, published = (make_loop(corpus, make_config(selection=s)) for s in ("validation", "published"))
    list(plain.epochs())
    list(published.epochs())
    without = [{key: value for key, value in record.items() if key != "test"} for record in published.history]
    assert untimed(without) == untimed(plain.history)
    assert all("test" not in record for record in plain.history)
    assert published.best_epoch == plain.best_epoch
    best = selected_on_test(published.history)
    assert best.keys() == published.history[0]["test"].keys() == set(metric_names((-3.0, 3.0)))
    assert published.history[best["mae"] - 1]["test"]["mae"] == min(r["test"]["mae"] for r in published.history)


def test_a_model_without_completeness_trains_with_what_it_has(corpus: Corpus, tmp_path: Path) -> None:
    config = make_config({"name": "text_only"}, epochs=3, average_decay=0.5)
    loop = make_loop(corpus, config)
    for record in loop.epochs():
        assert record["loss"].keys() == {"total", "sentiment"}
        assert record["loss"]["total"] == pytest.approx(config.loss.sentiment * record["loss"]["sentiment"])
        if record["epoch"] == 1:
            break
    again = make_loop(corpus, config)
    again.restore(saved(loop, tmp_path / "checkpoint"))
    assert [record["epoch"] for record in again.epochs()] == [2, 3]
    whole = make_loop(corpus, config)
    list(whole.epochs())
    assert untimed(again.history) == untimed(whole.history)


def test_a_corpus_without_a_modality_trains(corpus: Corpus) -> None:
    def without_vision(utterances: Utterances) -> Utterances:
        values = utterances.vision.values[:0]
        return dataclasses.replace(utterances, vision=Ragged.from_lengths(values, [0] * len(utterances)))

    bare = dataclasses.replace(corpus, train=without_vision(corpus.train), valid=without_vision(corpus.valid))
    record = next(make_loop(bare, make_config()).epochs())
    assert np.isfinite(record["score"]) and np.isfinite(record["loss"]["total"])


def test_unlabelled_utterances_train_but_do_not_count(corpus: Corpus) -> None:
    labels = corpus.train.label.copy()
    labels[::2] = np.nan
    valid_labels = corpus.valid.label.copy()
    valid_labels[1:] = np.nan
    few = dataclasses.replace(
        corpus,
        train=dataclasses.replace(corpus.train, label=labels),
        valid=dataclasses.replace(corpus.valid, label=valid_labels),
    )
    loop = make_loop(few, make_config(epochs=1))
    record = next(loop.epochs())
    assert np.isfinite(record["score"]) and np.isfinite(record["loss"]["total"])


@pytest.mark.parametrize(
    "train",
    [{"precision": "bfloat16"}, {"batch_size": 1}, {"batch_size": 999}, {"clip_norm": 0.0}, {"decay_everything": True}],
    ids=str,
)
def test_every_way_of_training_works(corpus: Corpus, train: dict[str, Any]) -> None:
    few = dataclasses.replace(corpus, train=corpus.train.take(range(6)))
    loop = make_loop(few, make_config(**{"epochs": 1, **train}))
    record = next(loop.epochs())
    assert np.isfinite(record["score"])
    assert all(
        value.dtype == torch.float32 for value in loop.checkpoint().weights.values() if value.is_floating_point()
    )


def test_the_text_encoder_has_its_own_rate(corpus: Corpus) -> None:
    config = make_config(epochs=1, encoder_learning_rate=1e-30, weight_decay=0.0)
    loop = make_loop(corpus, config)
    before = {name: value.clone() for name, value in loop.checkpoint().weights.items()}
    next(loop.epochs())
    after = loop.checkpoint().weights
    changed = {name.startswith("text_encoder.") for name in before if not torch.allclose(before[name], after[name])}
    assert changed == {False}
