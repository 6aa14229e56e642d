from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from lnln.config import LossConfig
from lnln.losses import loss_terms, total_loss
from lnln.models import Output
from tests.lnln.models.random_inputs import random_batch, rows, small_model

LENGTHS = [(5, 4, 3), (3, 0, 2), (9, 9, 9)]


def known_output() -> Output:
    """Two utterances, one token of each class."""
    return Output(
        sentiment=torch.tensor([1.0, -2.0]),
        completeness=torch.tensor([0.5, 0.75]),
        discriminator_logits=torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.0, math.log(3.0)], [math.log(3.0), 0.0]]]),
        reconstructed=torch.ones(2, 3, 4),
        reconstruction_target=torch.tensor([1.0, 3.0])[:, None, None].expand(2, 3, 4),
    )


def test_known_answers() -> None:
    batch = random_batch(LENGTHS[:2])
    batch = dataclasses.replace(
        batch, label=torch.tensor([3.0, -2.5]), missing_rates=torch.tensor([[0.0, 0.9, 0.9], [0.25, 0.1, 0.1]])
    )
    terms = loss_terms(known_output(), batch, LossConfig())
    expected = {
        "completeness": [0.25, 0.0],
        # Half the tokens stand in for language: class 1. Half are language: class 0.
        "adversarial": [math.log(2.0), math.log(4.0 / 3.0)],
        "reconstruction": [0.0, 4.0],
        "sentiment": [4.0, 0.25],
    }
    assert terms.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(terms[name], torch.tensor(values), msg=name)
    weights = LossConfig(completeness=1.0, adversarial=0.0, reconstruction=0.5, sentiment=2.0)
    total = total_loss(terms, batch.weight, weights, 2)
    assert total.item() == pytest.approx((0.25 + 2 * 4.25 + 0.5 * 4.0) / 2)


@pytest.mark.parametrize(("distance", "expected"), [("mse", 4.0), ("l1", 2.0), ("huber", 1.5)])
def test_distances(distance: str, expected: float) -> None:
    batch = dataclasses.replace(random_batch(LENGTHS[:2]), label=torch.tensor([3.0, float("nan")]))
    terms = loss_terms(known_output(), batch, LossConfig(sentiment_distance=distance))  # type: ignore[arg-type]
    torch.testing.assert_close(terms["sentiment"], torch.tensor([expected, 0.0]))


def test_an_unlabelled_utterance_gives_neither_loss_nor_nan_gradient() -> None:
    sentiment = torch.tensor([1.0, 2.0], requires_grad=True)
    batch = dataclasses.replace(random_batch(LENGTHS[:2]), label=torch.tensor([float("nan"), 1.0]))
    for distance in ("mse", "l1", "huber"):
        output = Output(sentiment=sentiment, completeness=torch.tensor([0.5, 0.5]))
        terms = loss_terms(output, batch, LossConfig(sentiment_distance=distance))
        (gradient,) = torch.autograd.grad(terms["sentiment"].sum(), sentiment)
        assert gradient[0] == 0 and gradient[1] != 0 and gradient.isfinite().all()


def test_without_the_complete_pass_two_terms_remain() -> None:
    batch = random_batch(LENGTHS)
    assert loss_terms(small_model()(batch.corrupted), batch, LossConfig()).keys() == {"completeness", "sentiment"}


def test_terms_of_what_a_model_lacks_are_not_there() -> None:
    batch = random_batch(LENGTHS[:2])
    output = Output(sentiment=torch.tensor([1.0, -2.0]))
    assert loss_terms(output, batch, LossConfig()).keys() == {"sentiment"}
    error = torch.tensor([0.5, 2.0])
    terms = loss_terms(dataclasses.replace(output, reconstruction_error=error), batch, LossConfig())
    assert terms.keys() == {"reconstruction", "sentiment"} and torch.equal(terms["reconstruction"], error)


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_parts_of_a_batch_sum_to_the_whole(mode: str) -> None:
    batch, model, config = random_batch(LENGTHS), small_model(mode=mode), LossConfig()
    whole = total_loss(loss_terms(model(batch.corrupted, batch.complete), batch, config), batch.weight, config, 3)
    parts = []
    for chosen in ([0, 2], [1]):
        part = dataclasses.replace(
            batch, label=batch.label[chosen], missing_rates=batch.missing_rates[chosen], weight=batch.weight[chosen]
        )
        output = model(rows(batch.corrupted, chosen), rows(batch.complete, chosen))
        parts.append(total_loss(loss_terms(output, part, config), part.weight, config, 3))
    torch.testing.assert_close(sum(parts), whole)


def test_a_stand_in_of_weight_zero_counts_for_nothing() -> None:
    batch, model, config = random_batch(LENGTHS), small_model(), LossConfig()
    weight = torch.tensor([1.0, 0.0, 1.0])
    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config)
    model.zero_grad()
    total_loss(terms, torch.zeros(3), config, 3).backward()
    assert all(p.grad is not None and p.grad.norm() == 0 for p in model.parameters())
    alone = {name: term[[0, 2]] for name, term in terms.items()}
    torch.testing.assert_close(total_loss(terms, weight, config, 2), total_loss(alone, torch.ones(2), config, 2))
