from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.performance.plain_rank_contrast import plain_rank_contrast
from lnln.config import SDUMC_TERMS, LossConfig
from lnln.losses import loss_terms, rank_contrast, total_loss
from lnln.models import Output
from lnln.models.output import Flow
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


def test_rank_contrast_of_three_by_hand() -> None:
    """Distances 2, 4, 2 between features on a line, so similarities -1, -2, -1."""
    features, label = torch.tensor([[[0.0], [2.0], [4.0]]]), torch.tensor([0.0, 1.0, 3.0])
    a, b = math.exp(-1), math.exp(-2)
    expected = [
        # From 0: 1 is as near as any, so both are summed; 3 is the farthest, summed alone.
        (-math.log(a / (a + b)) + 0) / 2,
        # From 1: 0 at distance 1 is the nearest; 3 at distance 2.
        (-math.log(a / (a + a)) + 0) / 2,
        # From 3: 1 at distance 2 is the nearest, 0 at distance 3.
        (-math.log(a / (a + b)) + 0) / 2,
    ]
    torch.testing.assert_close(rank_contrast(features, label), torch.tensor(expected))
    torch.testing.assert_close(plain_rank_contrast(features[0], label), torch.tensor(expected).mean())


def test_rank_contrast_of_two_flows_by_hand() -> None:
    """Two utterances: the other flow of the same one is nearest by label, both of the other one are equally far."""
    features, label = torch.tensor([[[0.0], [2.0]], [[2.0], [6.0]]]), torch.tensor([0.0, 1.0])
    a, b, c = math.exp(-1), math.exp(-2), math.exp(-3)
    # Features at 0, 2 (full), 2, 6 (missing); from each: itself in the other flow, then the other utterance twice.
    first = (-math.log(a / (a + a + c)) - math.log(a / (a + c)) - math.log(c / (a + c))) / 3
    second = (-math.log(b / (b + a + 1)) - math.log(a / (a + 1)) - math.log(1 / (a + 1))) / 3
    third = (-math.log(a / (a + 1 + b)) - math.log(1 / (1 + b)) - math.log(b / (1 + b))) / 3
    fourth = (-math.log(b / (b + c + b)) - math.log(c / (c + b)) - math.log(b / (c + b))) / 3
    expected = torch.tensor([(first + third) / 2, (second + fourth) / 2])
    torch.testing.assert_close(rank_contrast(features, label), expected)


def test_distances_of_labels_that_differ_by_less_than_the_tie_are_equal() -> None:
    features, label = torch.tensor([[[0.0], [2.0], [4.0]]]), torch.tensor([0.0, 1.0, 1.00005])
    a, b = math.exp(-1), math.exp(-2)
    both = -math.log(a / (a + b)) - math.log(b / (a + b))
    torch.testing.assert_close(rank_contrast(features, label)[0], torch.tensor(both / 2))
    label = torch.tensor([0.0, 1.0, 1.0002])  # further apart than that, so the farther one is summed alone
    torch.testing.assert_close(rank_contrast(features, label)[0], torch.tensor(-math.log(a / (a + b)) / 2))


grid = st.integers(-12, 12).map(lambda third: third / 4)


@settings(deadline=None)
@given(
    labels=st.lists(grid, min_size=1, max_size=12),
    num_views=st.integers(1, 3),
    temperature=st.sampled_from([0.5, 2.0, 10.0]),
    seed=st.integers(0, 99),
)
def test_rank_contrast_is_the_loop(labels: list[float], num_views: int, temperature: float, seed: int) -> None:
    if num_views * len(labels) == 1:
        num_views = 2
    drawn = torch.randn(num_views, len(labels), 3, generator=torch.Generator().manual_seed(seed))
    label, gradients, values = torch.tensor(labels), [], []
    for plain in (True, False):
        features = drawn.clone().requires_grad_()
        if plain:
            value = plain_rank_contrast(features.flatten(0, 1), label.repeat(num_views), temperature)
        else:
            value = rank_contrast(features, label, temperature).mean()
        value.backward()
        values.append(value.detach())
        gradients.append(features.grad)
    torch.testing.assert_close(values[1], values[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-4)


@settings(deadline=None)
@given(num=st.integers(1, 9), data=st.data())
def test_who_is_not_counted_is_as_if_not_there(num: int, data: st.DataObject) -> None:
    counted = torch.tensor(data.draw(st.lists(st.booleans(), min_size=num, max_size=num)))
    features, label = torch.randn(2, num, 4), torch.randn(num)
    label[~counted] = float("nan")
    found = rank_contrast(features, label, counted=counted)
    assert not found[~counted].any()
    if counted.any():
        torch.testing.assert_close(found[counted], rank_contrast(features[:, counted], label[counted]))


@pytest.mark.parametrize("spread", [0.0, 1e-20, 1e-4, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("kind", ["one", "identical", "equal labels", "none counted", "one counted", "far"])
def test_rank_contrast_and_its_gradient_are_finite(kind: str, spread: float) -> None:
    num = 1 if kind == "one" else 5
    features = torch.randn(2, num, 4, generator=torch.Generator().manual_seed(0)) * spread
    if kind == "identical":
        features = features[:1, :1].expand(2, num, 4)
    features = features.clone().requires_grad_()
    label = torch.zeros(num) if kind == "equal labels" else torch.arange(num).float()
    counted = torch.ones(num, dtype=torch.bool)
    if "counted" in kind:
        counted[(0 if kind == "none counted" else 1) :] = False
        label[~counted] = float("nan")
    value = rank_contrast(features, label, counted=counted)
    (gradient,) = torch.autograd.grad(value.sum(), features)
    assert value.isfinite().all() and gradient.isfinite().all()
    if kind in ("one", "none counted", "one counted"):
        assert value.abs().max() < 1e-6 and gradient.abs().max() < 1e-6, "a pair alone is as it should be"


def flow(num: int, seed: int, dtype: torch.dtype = torch.float32) -> Flow:
    generator = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        return torch.randn(num, *shape, generator=generator).to(dtype).requires_grad_()

    return Flow(values(), values(4), values(7, 3), values(3), values(5))


def of_flows(full: Flow, missing: Flow, difference: str = "utterance") -> Output:
    return Output(missing.sentiment, full=full, missing=missing, difference=difference)


def test_terms_of_two_flows_are_known() -> None:
    def known(value: float, sentiment: float) -> Flow:
        shapes = {"text_hidden": (2, 4), "text_query": (2, 7, 3), "fused": (2, 3), "ranked": (2, 5)}
        return Flow(
            torch.tensor([sentiment, 0.0]), **{name: torch.full(shape, value) for name, shape in shapes.items()}
        )

    batch = dataclasses.replace(random_batch(LENGTHS[:2]), label=torch.tensor([1.0, float("nan")]))
    full, missing = known(1.0, 3.0), known(-1.0, 0.5)
    missing = dataclasses.replace(missing, fused=torch.tensor([[1.0, 1.0, 4.0], [1.0, 1.0, 1.0]]))
    terms = loss_terms(of_flows(full, missing), batch, LossConfig())
    assert tuple(terms) == SDUMC_TERMS
    expected = {
        "full_sentiment": [4.0, 0.0],
        "missing_sentiment": [0.25, 0.0],
        "text_hidden": [2.0, 2.0],
        "text_query": [2.0, 2.0],
        "fused": [math.sqrt(3.0), 0.0],
        "rank_contrast": [0.0, 0.0],  # one labelled utterance, compared with itself in the other flow
    }
    for name, values in expected.items():
        torch.testing.assert_close(terms[name], torch.tensor(values), msg=name, atol=1e-6, rtol=1e-5)
    terms = loss_terms(of_flows(full, missing, "batch"), batch, LossConfig(sentiment_distance="l1"))
    torch.testing.assert_close(terms["fused"], torch.tensor([math.sqrt(9 / 6)] * 2))
    torch.testing.assert_close(terms["full_sentiment"], torch.tensor([2.0, 0.0]))


@pytest.mark.parametrize("difference", ["utterance", "batch"])
def test_no_gradient_reaches_the_full_flow_by_the_text(difference: str) -> None:
    batch = random_batch(LENGTHS)
    full, missing = flow(3, 0), flow(3, 1)
    terms = loss_terms(of_flows(full, missing, difference), batch, LossConfig())
    (terms["text_hidden"] + terms["text_query"] + terms["fused"]).sum().backward()
    assert full.text_hidden.grad is None and full.text_query.grad is None and full.fused.grad is not None
    assert missing.text_hidden.grad is not None and missing.text_query.grad is not None


@pytest.mark.parametrize("difference", ["utterance", "batch"])
def test_flows_that_are_equal_have_a_loss_of_zero_and_a_gradient(difference: str) -> None:
    full, missing = flow(3, 0), flow(3, 0)
    terms = loss_terms(of_flows(full, missing, difference), random_batch(LENGTHS), LossConfig())
    torch.stack(list(terms.values())).sum().backward()
    for name in ("text_hidden", "text_query", "fused"):
        gradient = getattr(missing, name).grad
        assert not terms[name].any() and gradient is not None and not gradient.any()
    for each in (full, missing):
        assert each.ranked.grad is not None and each.ranked.grad.isfinite().all()


@pytest.mark.parametrize("difference", ["utterance", "batch"])
def test_a_stand_in_changes_no_term_of_the_others(difference: str) -> None:
    batch = random_batch(LENGTHS)
    full, missing = flow(3, 0), flow(3, 1)
    weighted = dataclasses.replace(batch, weight=torch.tensor([1.0, 0.0, 1.0]))
    terms = loss_terms(of_flows(full, missing, difference), weighted, LossConfig())
    kept = [0, 2]
    part = dataclasses.replace(
        batch, label=batch.label[kept], missing_rates=batch.missing_rates[kept], weight=batch.weight[kept]
    )
    fewer, others = (
        Flow(**{field.name: getattr(each, field.name)[kept] for field in dataclasses.fields(Flow)})
        for each in (full, missing)
    )
    alone = loss_terms(of_flows(fewer, others, difference), part, LossConfig())
    for name in SDUMC_TERMS:
        torch.testing.assert_close(terms[name][kept], alone[name], msg=name)
        assert terms[name].isfinite().all()


def test_terms_of_flows_in_bfloat16_are_float32() -> None:
    terms = loss_terms(
        of_flows(flow(3, 0, torch.bfloat16), flow(3, 1, torch.bfloat16)), random_batch(LENGTHS), LossConfig()
    )
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_every_term_of_flows_has_a_weight_of_its_own() -> None:
    batch, output = random_batch(LENGTHS), of_flows(flow(3, 0), flow(3, 1))
    terms = loss_terms(output, batch, LossConfig())
    for chosen in SDUMC_TERMS:
        weights: dict[str, Any] = {name: float(name == chosen) for name in SDUMC_TERMS}
        config = LossConfig(**weights)
        torch.testing.assert_close(total_loss(terms, batch.weight, config, 3), terms[chosen].mean())
    warmer = loss_terms(output, batch, LossConfig(rank_temperature=20.0))
    assert not torch.allclose(warmer["rank_contrast"], terms["rank_contrast"])
