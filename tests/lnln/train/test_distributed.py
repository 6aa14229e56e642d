"""Workers as processes: they share a run without changing it, and end together where it breaks."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lnln.config import Config, TrainConfig
from lnln.train.distributed import distributed, sending
from lnln.train.ranks import Ranks
from tests.lnln.train.loops import (
    CPU,
    Case,
    Corpus,
    Outcome,
    Work,
    import_small,
    make_config,
    run_case,
    run_shared,
)

pytestmark = pytest.mark.slow

# Utterances of a corpus that is one batch, and parts of a worker's share. Three workers with five utterances have
# 2, 2, 1 of them, and with one two stand-ins.
ONE_STEP = [(1, 2), (5, 2), (7, 1), (40, 3)]
# Of the utterances that hold a value which is no number.
BROKEN = 17
COMPRESSIONS = ("none", "bfloat16")

# By case: of each worker, of the only one.
Shared = dict[str, list[Any]]
Alone = dict[str, Outcome]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return import_small(tmp_path_factory.mktemp("corpus"))


def cases_of(corpus: Corpus) -> dict[str, Case]:
    """Steps of 13, 13, 13 and 1 of 40 utterances; validation has 5 batches, with `few` one."""
    cases = {
        "whole": Case(corpus, make_config(batch_size=13)),
        "few": Case(corpus.first(5, 1), make_config(batch_size=2)),
        "in parts": Case(corpus, make_config(batch_size=13, accumulation_steps=3)),
        "compressed": Case(corpus, make_config(batch_size=13, gradient_compression="bfloat16")),
        "compressed in parts": Case(
            corpus, make_config(batch_size=13, gradient_compression="bfloat16", accumulation_steps=3)
        ),
        "frozen": Case(corpus, make_config(batch_size=13, frozen="embeddings", accumulation_steps=2)),
        "still": Case(
            corpus,
            make_config(epochs=1, batch_size=13, learning_rate=1e-30, encoder_learning_rate=1e-30, weight_decay=0.0),
        ),
        "broken loss": Case(corpus.with_nan("train", BROKEN), make_config(accumulation_steps=3)),
        "broken gradient": Case(corpus, with_completeness(make_config(), 1e38)),
        "broken validation": Case(corpus.with_nan("valid", 3), make_config()),
    }
    every: dict[str, Any] = {"accumulation_steps": 2, "gradient_compression": "bfloat16", "frozen": "embeddings"}
    for name, options in (("few", {}), ("few with everything", every)):
        config = make_config(epochs=4, batch_size=2, average_decay=0.5, **options)
        cases[f"{name}, dropout"] = Case(corpus.first(5, 1), config, dropout=True)
        cases[f"{name}, continued"] = Case(corpus.first(5, 1), config, dropout=True, split_at=2)
    for num, parts in ONE_STEP:
        # Clipped gradients would be equal whatever they are divided by, and so would AdamW's steps.
        config = make_config(epochs=1, batch_size=64, accumulation_steps=parts, clip_norm=0.0)
        cases[f"{num} in one step"] = Case(corpus.first(num, 1), config)
    return cases


def with_completeness(config: Config, weight: float) -> Config:
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, completeness=weight))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.unused = (nn.Parameter(torch.ones(1)) for _ in range(3))

    def forward(self, x: Tensor, goes_left: bool) -> Tensor:
        return x * (self.left if goes_left else self.right)


def run_branches(compression: Any, ranks: Ranks, _: Path) -> list[dict[str, float | None]]:
    """The gradients of two steps. `left` is used by the first worker alone, and not in the part that is sent."""
    model = Branches()
    forward = distributed(model, TrainConfig(gradient_compression=compression), CPU, ranks)
    found: list[dict[str, float | None]] = []
    for _step in range(2):
        for x, is_last in ((2.0, False), (8.0, True)):
            with sending(forward, is_last=is_last):
                forward(torch.tensor([x]), ranks.is_first and not is_last).backward()
        found.append({n: None if p.grad is None else p.grad.item() for n, p in model.named_parameters()})
        model.zero_grad(set_to_none=True)
    return found


@pytest.fixture(scope="module")
def shared(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """What each of three workers has of every case: shares differ, and a third is no round number."""
    works: dict[str, Work] = {name: partial(run_case, case) for name, case in cases_of(corpus).items()}
    works |= {f"branches, {compression}": partial(run_branches, compression) for compression in COMPRESSIONS}
    return run_shared(3, works, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def alone(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """The same of one worker, which computes a step at once and sends nothing."""
    folder = tmp_path_factory.mktemp("alone")
    plain = {"accumulation_steps": 1, "gradient_compression": "none"}
    outcomes = {}
    for name, case in cases_of(corpus).items():
        if case.dropout or name.startswith("broken"):
            continue
        config = dataclasses.replace(case.config, train=dataclasses.replace(case.config.train, **plain))  # type: ignore[arg-type]
        outcomes[name] = run_case(dataclasses.replace(case, config=config), Ranks(), folder)
    return outcomes


def assert_same_curve(mine: Outcome, theirs: Outcome, tolerance: float) -> None:
    assert mine.refusal is None and theirs.refusal is None
    for expected, record in zip(mine.history, theirs.history, strict=True):
        assert record["score"] == pytest.approx(expected["score"], abs=tolerance)
        assert record["loss"] == pytest.approx(expected["loss"], abs=tolerance)


@pytest.mark.parametrize("name", ["whole", "few", "in parts", "frozen"])
def test_any_number_of_workers_and_parts_has_the_same_curve(shared: Shared, alone: Alone, name: str) -> None:
    assert_same_curve(alone[name], shared[name][0], 2e-4)


@pytest.mark.parametrize("world", [2, 4])
def test_two_and_four_workers_have_the_curve_of_one(corpus: Corpus, alone: Alone, world: int, tmp_path: Path) -> None:
    cases = cases_of(corpus)
    found = run_shared(world, {name: partial(run_case, cases[name]) for name in ("whole", "few")}, tmp_path)
    for name, outcomes in found.items():
        assert len(outcomes) == world
        assert_same_curve(alone[name], outcomes[0], 2e-4)


def test_compressed_gradients_are_near_enough(shared: Shared, alone: Alone) -> None:
    for name in ("compressed", "compressed in parts"):
        assert_same_curve(alone[name], shared[name][0], 2e-2)
        assert shared[name][0].history != shared["whole"][0].history


@pytest.mark.parametrize(("num", "parts"), ONE_STEP)
def test_the_gradient_of_a_step_is_that_of_one_worker(shared: Shared, alone: Alone, num: int, parts: int) -> None:
    expected = alone[f"{num} in one step"].gradient
    largest = max(float(value.abs().max()) for value in expected.values())
    for outcome in shared[f"{num} in one step"]:
        assert expected and expected.keys() == outcome.gradient.keys()
        for name, value in expected.items():
            assert (value - outcome.gradient[name]).abs().max() < 1e-5 * largest, name


def test_workers_end_with_identical_weights_and_records(shared: Shared) -> None:
    for name, outcomes in shared.items():
        if name.startswith(("broken", "branches")):
            continue
        assert len({outcome.digest for outcome in outcomes}) == 1, name
        assert all(outcome.history == outcomes[0].history for outcome in outcomes), name


def test_metrics_of_equal_weights_are_exactly_those_of_one_worker(shared: Shared, alone: Alone) -> None:
    (expected,), (got,) = alone["still"].history, shared["still"][0].history
    assert got["validation"] == expected["validation"] and got["score"] == expected["score"]


def test_a_step_is_sent_once_and_compression_halves_it(shared: Shared) -> None:
    names = ("whole", "in parts", "compressed", "compressed in parts", "frozen")
    num_bytes = {name: max(outcome.num_bytes for outcome in shared[name]) for name in names}
    # 12 steps of a million weights; two thirds of them, or more, pass through each worker.
    assert num_bytes["whole"] > 12 * 4e6 * 2 / 3
    assert num_bytes["in parts"] == pytest.approx(num_bytes["whole"], rel=0.02)
    assert num_bytes["compressed"] == pytest.approx(num_bytes["whole"] / 2, rel=0.05)
    assert num_bytes["compressed in parts"] == pytest.approx(num_bytes["compressed"], rel=0.02)
    assert num_bytes["frozen"] < num_bytes["whole"] / 4


def test_a_number_that_is_none_ends_all_workers_with_the_same_words(shared: Shared, corpus: Corpus) -> None:
    """Each of these is found by one worker only, the gradient and validation by none of them alone."""
    name = re.escape(corpus.train.utterance_id[BROKEN])
    expected = {
        "broken loss": rf"the loss is not finite in step \d of epoch 1: [a-z, ]+ of {name}; the last checkpoint",
        "broken gradient": r"the gradient of step 1 of epoch 1 is not finite .* and 11 more; the last checkpoint stays",
        "broken validation": "validation after epoch 1 predicts numbers that are not finite; the last checkpoint stays",
    }
    for case, words in expected.items():
        (message,) = {outcome.refusal for outcome in shared[case]}
        assert message is not None and re.match(words, message), message
        assert all(outcome.history == [] for outcome in shared[case])


@pytest.mark.parametrize("name", ["few", "few with everything"])
def test_workers_continue_exactly(shared: Shared, name: str) -> None:
    whole, continued = shared[f"{name}, dropout"], shared[f"{name}, continued"]
    assert len(whole[0].history) == 4 and whole[0].refusal is None
    assert [(each.history, each.digest) for each in continued] == [(each.history, each.digest) for each in whole]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_parameter_counts_that_only_an_earlier_part_of_one_worker_used(shared: Shared, compression: str) -> None:
    found = shared[f"branches, {compression}"]
    world = len(found)
    # In bfloat16 a share of three workers is rounded to 8 bits, and so is their sum.
    left, right = (pytest.approx(total / world, rel=2**-7) for total in (2, (world - 1) * 10 + 8))
    expected = {"left": left, "right": right, "unused": None}
    assert found == [[expected, expected]] * world


def test_a_single_worker_has_the_model_itself() -> None:
    model = Branches()
    forward = distributed(model, TrainConfig(gradient_compression="bfloat16"), CPU, Ranks())
    assert forward is model
    with sending(forward, is_last=False):
        forward(torch.ones(1), True).backward()
    assert model.left.grad is not None
