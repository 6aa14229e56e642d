from __future__ import annotations

import dataclasses
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lnln.batches import EvaluationBatches, TrainBatches, to_inputs
from lnln.config import Config
from lnln.corruption import evaluation_views
from lnln.data.schema import Modality, Ragged, Utterances
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.metrics import metric_names, score
from lnln.models import build_model
from lnln.runs import selected_on_test
from lnln.train.finite import DivergedError
from lnln.train.schedule import rate_factor
from lnln.views import Views
from tests.lnln.train.loops import (
    Corpus,
    gradient,
    import_small,
    make_config,
    make_loop,
    saved,
    untimed,
    without_dropout,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return import_small(tmp_path_factory.mktemp("corpus"))


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
        {"frozen": "embeddings", "average_decay": 0.9},
        {"frozen": "encoder", "accumulation_steps": 3},
        {"accumulation_steps": 2, "precision": "bfloat16"},
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


@pytest.mark.parametrize("mode", ["clean", "reference"])
@pytest.mark.parametrize(("num", "parts"), [(40, 2), (40, 3), (40, 7), (40, 40), (40, 99), (3, 2), (2, 3), (1, 4)])
def test_parts_have_the_gradient_of_the_whole_batch(corpus: Corpus, mode: str, num: int, parts: int) -> None:
    few = corpus.first(num, 1)
    # Clipped gradients would be equal whatever they are divided by.
    train = {"epochs": 1, "batch_size": 64, "clip_norm": 0.0}
    whole, in_parts = (
        make_loop(few, make_config({"mode": mode}, **train, accumulation_steps=n), dropout=False) for n in (1, parts)
    )
    expected, got = next(whole.epochs()), next(in_parts.epochs())
    assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5, abs=1e-6)
    assert got["score"] == pytest.approx(expected["score"], abs=1e-4)
    of_whole, of_parts = gradient(whole), gradient(in_parts)
    assert of_whole and of_whole.keys() == of_parts.keys()
    largest = max(float(value.abs().max()) for value in of_whole.values())
    for name, value in of_whole.items():
        assert (value - of_parts[name]).abs().max() < 1e-5 * largest, name


def test_each_part_is_computed_by_itself(corpus: Corpus) -> None:
    seen: list[int] = []

    def watch(model: nn.Module) -> None:
        model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0].text)) if model.training else None)

    next(make_loop(corpus, make_config(epochs=1, accumulation_steps=3), prepare=watch).epochs())
    assert seen == [6, 6, 4, 6, 6, 4, 3, 3, 2]


@pytest.mark.parametrize("frozen", ["embeddings", "encoder"])
def test_what_is_frozen_stays_and_the_rest_is_trained(corpus: Corpus, frozen: str) -> None:
    loop = make_loop(corpus, make_config(epochs=2, frozen=frozen, average_decay=0.5, decay_everything=True))
    before = {name: value.clone() for name, value in loop.checkpoint().weights.items()}
    list(loop.epochs())
    after = loop.checkpoint()
    assert after.average is not None
    prefix = "text_encoder.model.embeddings." if frozen == "embeddings" else "text_encoder."
    changed = {name for name, value in after.weights.items() if not torch.equal(value, before[name])}
    assert {name for name in before if name.startswith(prefix)} == before.keys() - changed - statistics_of(before)
    for name in before.keys() - changed:
        assert torch.equal(after.average[name], before[name])
    assert not any(name.startswith(prefix) for name in after.optimizer)


def statistics_of(weights: Iterable[str]) -> set[str]:
    return {name for name in weights if name.endswith(("_mean", "_std"))}


@pytest.mark.parametrize(("modality", "parts"), [("audio", 1), ("vision", 1), ("audio", 5)])
def test_features_that_are_not_finite_stop_the_run_by_name(corpus: Corpus, modality: Modality, parts: int) -> None:
    broken = 17
    name_of_it = re.escape(corpus.train.utterance_id[broken])
    loop = make_loop(corpus.with_nan("train", broken, modality), make_config(accumulation_steps=parts))
    with pytest.raises(RefusedError, match=rf"not finite in step \d of epoch 1: [a-z, ]+ of {name_of_it};"):
        list(loop.epochs())
    assert loop.history == []


def test_a_diverging_run_is_refused(corpus: Corpus) -> None:
    loop = make_loop(corpus, make_config(learning_rate=1e30, encoder_learning_rate=1e30, clip_norm=0.0, warmup_share=0))
    with pytest.raises(DivergedError, match="not finite") as refusal:
        list(loop.epochs())
    assert "\n" not in str(refusal.value)
    again = pickle.loads(pickle.dumps(refusal.value))  # from worker to driver
    assert isinstance(again, DivergedError) and str(again) == str(refusal.value)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_a_broken_step_leaves_is_never_kept(corpus: Corpus, tmp_path: Path, step: int, parts: int) -> None:
    """A gradient of the second epoch is no number though the losses are: the first epoch's checkpoint is the last, and
    a run goes on from it as if nothing had been."""
    config = make_config(average_decay=0.9, accumulation_steps=parts)
    num_steps = -(-len(corpus.train) // config.train.batch_size)
    assert num_steps == 3, "the first, the middle and the last step before validation"
    num_seen = 0

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal num_seen
        num_seen += 1
        # The last batch has 8 utterances, so it has as many parts as the others.
        return gradient * math.nan if num_seen == parts * (num_steps + step) else gradient

    loop = make_loop(corpus, config, prepare=lambda model: next(model.parameters()).register_hook(spoil))
    kept = []
    with pytest.raises(RefusedError, match=rf"the gradient of step {step} of epoch 2 .* and \d+ more; the last checkp"):
        for record in loop.epochs():
            kept.append(saved(loop, tmp_path / str(record["epoch"])))
    assert len(kept) == len(loop.history) == 1
    for tensors in (kept[0].weights, kept[0].average, kept[0].optimizer):
        assert tensors and all(value.isfinite().all() for value in tensors.values())
    whole, again = make_loop(corpus, config), make_loop(corpus, config)
    again.restore(kept[0])
    assert [record["epoch"] for record in again.epochs()] == [2, 3]
    list(whole.epochs())
    assert untimed(again.history) == untimed(whole.history)


def test_a_weight_that_is_too_large_shows_in_the_total_alone(corpus: Corpus) -> None:
    values = make_config().to_dict()
    values["loss"]["completeness"] = 1e299
    with pytest.raises(RefusedError, match=r"not finite in step 1 of epoch 1: total of .* and 11 more;"):
        list(make_loop(corpus, Config.from_dict(values)).epochs())


def test_validation_that_is_not_finite_is_refused(corpus: Corpus) -> None:
    values = np.full_like(corpus.valid.audio.values, np.nan)
    valid = dataclasses.replace(corpus.valid, audio=Ragged(values, corpus.valid.audio.offsets))
    with pytest.raises(DivergedError, match="validation after epoch 1"):
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
        most = max(Counter(np.round(predicted.clip(-3, 3))).values())
        assert loop.history[-1]["collapse_share"][str(spec.rates[0])] == most / len(predicted)


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
        assert record["collapse_share"].keys() == record["validation"].keys()
        assert record["loss"]["total"] == pytest.approx(config.loss.sentiment * record["loss"]["sentiment"])
        if record["epoch"] == 1:
            break
    again = make_loop(corpus, config)
    again.restore(saved(loop, tmp_path / "checkpoint"))
    assert [record["epoch"] for record in again.epochs()] == [2, 3]
    whole = make_loop(corpus, config)
    list(whole.epochs())
    assert untimed(again.history) == untimed(whole.history)


def test_a_run_goes_on_from_a_history_without_collapse_shares(corpus: Corpus) -> None:
    """As version 0.1 wrote them."""
    whole, first, again = (make_loop(corpus, make_config(epochs=3)) for _ in range(3))
    list(whole.epochs())
    next(first.epochs())
    checkpoint = first.checkpoint()
    del checkpoint.progress["history"][0]["collapse_share"]
    again.restore(checkpoint)
    assert [record["epoch"] for record in again.epochs()] == [2, 3]
    assert untimed(again.history[1:]) == untimed(whole.history[1:])
    assert again.best_score == whole.best_score


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
