"""Section `training` of `make bench`: on a tiny model, and that it would notice comparing two different things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.performance import plain_lnln
from benchmarks.performance.training import (
    MOSI,
    RATES,
    Sizes,
    check_gradients,
    corrupt,
    make_batch,
    make_utterances,
    measure_training,
    models,
    plain_step,
    step,
)
from lnln.batches import EvaluationBatches
from lnln.corruption import ViewSpec
from lnln.views import Views

TINY = replace(
    MOSI,
    dim=16,
    hidden=10,
    lengths=(9, 20, 15),
    heads=dict.fromkeys(MOSI.heads, 2),
    head_dim=8,
    bert_heads=2,
    bert_dim=12,
    bert_hidden=20,
    bert_layers=2,
    vocabulary=300,
)


def test_the_whole_section_on_a_tiny_model(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    comparisons = measure_training(tmp_path, 2, Sizes(TINY, batch_size=6, num_evaluated=3))
    assert [comparison.amount for comparison in comparisons] == [6, 6, 6, 3 * len(RATES)]
    for comparison in comparisons:
        (baseline,) = comparison.baselines
        assert len(comparison.ours.seconds) == len(baseline.seconds) == 2 and min(baseline.seconds) > 0
    assert comparisons[0].baselines == comparisons[2].baselines  # one run of it stands beside all steps
    assert torch.get_num_threads() == threads and not list(tmp_path.iterdir())


def test_both_sides_of_an_evaluation_see_the_same_pairs() -> None:
    """Ours in batches, the baseline one by one: what a model says of a pair does not hang on its company."""
    utterances = make_utterances(TINY, 5)
    specs = [ViewSpec.evaluation(rate, seed=0) for rate in RATES]
    _, clean = models(plain_lnln.make_weights(TINY), TINY)
    clean.eval()
    said = []
    for size in (256, 1):
        batches = EvaluationBatches(utterances, Views(utterances, "test"), specs, unknown_id=100, batch_size=size)
        sentiment = torch.zeros(batches.shape)
        with torch.inference_mode():
            for batch in batches:
                sentiment[batch.view, batch.utterance] = clean(batch.inputs).sentiment
        said.append(sentiment)
    torch.testing.assert_close(*said)
    assert said[0].std(dim=0).min() > 0  # the views of an utterance differ


def test_two_functions_that_differ_are_not_compared() -> None:
    weights = {name: value.requires_grad_() for name, value in plain_lnln.make_weights(TINY).items()}
    batch = make_batch(TINY, 5)
    reference, clean = models(weights, TINY)
    plain_step(weights, TINY, batch)
    theirs = {name: value.grad for name, value in weights.items() if value.grad is not None}
    check_gradients(theirs, step(reference, batch))
    with pytest.raises(AssertionError, match="gradients differ"):
        check_gradients(theirs, step(clean, batch))


def test_the_batch_is_what_is_said_of_it() -> None:
    batch = make_batch(MOSI, 400)
    complete, corrupted = batch.complete, batch.corrupted
    assert [x.shape[1] for x in (complete.text, complete.audio, complete.vision)] == [50, 375, 500]
    for mask, mean in ((complete.text_mask, 14), (complete.audio_mask, 54), (complete.vision_mask, 64)):
        assert float(mask.sum(dim=1).float().mean()) == pytest.approx(mean, rel=0.15)
    untouched = (batch.missing_rates == 0).float().mean(dim=0)
    assert torch.allclose(untouched, torch.full((3,), 0.5), atol=0.1)
    same = (complete.vision == corrupted.vision).flatten(1).all(dim=1)
    is_long = complete.vision_mask.sum(dim=1) > 20
    assert same[batch.missing_rates[:, 2] == 0].all() and not same[is_long & (batch.missing_rates[:, 2] > 0.5)].any()
    assert not corrupt(complete, 1.0).audio.any() and torch.equal(corrupt(complete, 0.0).text, complete.text)
