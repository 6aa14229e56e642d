"""LNLN with parts left out (Tables 4 and 6), and the switches that are no part of a mode's correction."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lnln.batches import Batch, Inputs
from lnln.config import LossConfig, to_dict
from lnln.data.schema import MODALITIES
from lnln.losses import loss_terms, total_loss
from lnln.models import LNLN, Output
from lnln.models.padding import GROUP_SIZE
from tests.lnln.models.random_inputs import (
    ENCODER,
    FEATURE_SPEC,
    SPEC,
    erase_all,
    erase_some,
    random_batch,
    random_inputs,
    rows,
    small_config,
    small_model,
)
from tests.lnln.models.test_lnln import gradients, only

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (2, 0, 0), (0, 5, 2)]
SUBSETS = [kept for num in (1, 2) for kept in itertools.combinations(MODALITIES, num)]


def assert_equal(first: Output, second: Output) -> None:
    for field in dataclasses.fields(Output):
        mine, theirs = getattr(first, field.name), getattr(second, field.name)
        assert type(mine) is type(theirs), field.name
        if isinstance(mine, Tensor):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5, msg=field.name)


def without(inputs: Inputs, kept: tuple[str, ...]) -> Inputs:
    """Every utterance lacks what is not kept: no steps, zeros in the padding."""
    gone: list[str] = [modality for modality in MODALITIES if modality not in kept]
    changes = {modality: torch.zeros_like(getattr(inputs, modality)) for modality in gone}
    changes |= {f"{modality}_mask": torch.zeros_like(getattr(inputs, f"{modality}_mask")) for modality in gone}
    return dataclasses.replace(inputs, **changes)


def calls(model: LNLN, batch: Batch) -> Counter[str]:
    """How often training a batch reads each modality."""
    counts: Counter[str] = Counter()

    def count(name: str, part: nn.Module) -> None:
        part.register_forward_hook(lambda *_: counts.update([name]))

    for modality in MODALITIES:
        count(modality, model.embeddings[modality])
    if model.text_encoder is not None:
        count("encoder", model.text_encoder)
    model(batch.corrupted, batch.complete)
    return counts


def parts(model: LNLN) -> set[str]:
    return {name.split(".")[0] for name, _ in model.named_parameters()}


@pytest.mark.parametrize("kept", SUBSETS, ids=" ".join)
@pytest.mark.parametrize("options", [{"mode": "clean"}, {"mode": "reference"}, {"reconstruct": "features"}], ids=str)
def test_a_modality_left_out_is_one_that_every_utterance_lacks(options: dict[str, Any], kept: tuple[str, ...]) -> None:
    batch = random_batch(LENGTHS)
    left_out = small_model(modalities=kept, **options).eval()
    whole = small_model(**options).eval()
    assert_equal(
        left_out(batch.corrupted, batch.complete), whole(without(batch.corrupted, kept), without(batch.complete, kept))
    )
    assert not torch.equal(left_out(batch.corrupted).sentiment, whole(batch.corrupted).sentiment)


@pytest.mark.parametrize("kept", SUBSETS, ids=" ".join)
@pytest.mark.parametrize("reconstruct", ["tokens", "features"])
def test_a_model_of_some_modalities_trains(kept: tuple[str, ...], reconstruct: str) -> None:
    for gradient in gradients(small_model(modalities=kept, reconstruct=reconstruct)).values():
        assert gradient is not None and gradient.isfinite().all()


def test_without_correction_the_dominant_feature_is_language() -> None:
    model, whole, batch = small_model(correction=False), small_model(), random_batch(LENGTHS)
    removed = {"completeness_encoder", "completeness_head", "proxy_tokens", "proxy_encoder", "discriminator"}
    assert parts(model) == parts(whole) - removed
    whole.load_state_dict(model.state_dict(), strict=False)
    whole.estimate_completeness = lambda language: torch.ones(len(language))  # type: ignore[method-assign]
    output = model(batch.corrupted, batch.complete)
    torch.testing.assert_close(output.sentiment, whole(batch.corrupted).sentiment, atol=1e-5, rtol=1e-5)
    assert output.completeness is None and output.discriminator_logits is None
    assert loss_terms(output, batch, LossConfig()).keys() == {"reconstruction", "sentiment"}


def test_without_reconstruction_only_its_term_is_gone() -> None:
    model, whole, batch = small_model(reconstruction=False), small_model(), random_batch(LENGTHS)
    assert parts(model) == parts(whole) - {"reconstructors"}
    whole.load_state_dict(model.state_dict(), strict=False)
    mine = loss_terms(model(batch.corrupted, batch.complete), batch, LossConfig())
    theirs = loss_terms(whole(batch.corrupted, batch.complete), batch, LossConfig())
    assert mine.keys() == theirs.keys() - {"reconstruction"}
    for name, term in mine.items():
        torch.testing.assert_close(term, theirs[name], atol=1e-5, rtol=1e-5)


def test_concatenation_is_a_linear_layer_over_the_means_of_the_tokens() -> None:
    model, whole = small_model(fusion="concat"), small_model()
    assert parts(model) == parts(whole) - {"dominant_encoder", "hyper_tokens", "hyper_layers", "fusion"}
    dominant, audio, vision = (torch.randn(2, 3, 16) for _ in range(3))
    beside = torch.cat([dominant.mean(dim=1), audio.mean(dim=1), vision.mean(dim=1)], dim=1)
    torch.testing.assert_close(model.predict(dominant, audio, vision), model.sentiment_head(beside)[:, 0])


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_every_combination_of_parts_trains(mode: str) -> None:
    for correction, reconstruction, fusion, reconstruct in itertools.product(
        (True, False), (True, False), ("dominant", "concat"), ("tokens", "features")
    ):
        model = small_model(
            mode=mode, correction=correction, reconstruction=reconstruction, fusion=fusion, reconstruct=reconstruct
        )
        for name, gradient in gradients(model).items():
            assert gradient is not None and gradient.isfinite().all(), name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"encoder": 2, "text": 2, "audio": 2, "vision": 2}),
        ({"reconstruction": False}, {"encoder": 2, "text": 2, "audio": 1, "vision": 1}),
        ({"correction": False}, {"encoder": 2, "text": 2, "audio": 2, "vision": 2}),
        ({"reconstruct": "features"}, {"encoder": 2, "text": 2, "audio": 1, "vision": 1}),
        ({"correction": False, "reconstruction": False}, {"encoder": 1, "text": 1, "audio": 1, "vision": 1}),
        # Both inputs at once where the targets have gradients.
        ({"mode": "reference"}, {"encoder": 1, "text": 1, "audio": 1, "vision": 1}),
        ({"mode": "reference", "reconstruction": False}, {"encoder": 1, "text": 1, "audio": 1, "vision": 1}),
    ],
)
def test_of_the_complete_input_only_what_losses_need_is_read(options: dict[str, Any], expected: dict[str, int]) -> None:
    assert calls(small_model(**options), random_batch(LENGTHS)) == expected


@pytest.mark.parametrize("spec", [SPEC, FEATURE_SPEC], ids=["ids", "features"])
@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_features_are_rebuilt_where_they_are_erased(mode: str, spec: Any) -> None:
    """Eq. 11 and 12, written out utterance by utterance."""
    model = small_model(spec, mode=mode, reconstruct="features").eval()
    model.set_statistics({m: {"mean": [0.5] * d, "std": [2.0] * d} for m, d in (("audio", 3), ("vision", 4))})
    lengths = [LENGTHS[i % 5] for i in range(GROUP_SIZE + 4)]
    batch = random_batch(lengths, spec)
    error = model(batch.corrupted, batch.complete).reconstruction_error
    assert error is not None
    for i in range(5):
        terms = []
        corrupted, complete = model._fit(rows(batch.corrupted, [i])), model._fit(rows(batch.complete, [i]))
        for modality, length in zip(MODALITIES, lengths[i], strict=True):
            mask = getattr(corrupted, f"{modality}_mask")
            x, whole = getattr(corrupted, modality), getattr(complete, modality)
            if modality == "text":
                features, target = model.read_text(x, model.attended(x, mask)), model.read_text(whole, mask)
            else:
                features, target = model.standardize(x, modality), model.standardize(whole, modality)
            projected = model.embeddings[modality].get_submodule("project")(features)
            rebuilt = model.reconstructors[modality](projected, mask if mode == "clean" else None)
            squares = []
            for step in range(length):
                if not torch.equal(x[0, step], whole[0, step]):
                    squares.append((rebuilt[0, step] - target[0, step]).square().mean())
            terms.append(torch.stack(squares).mean() if squares else torch.zeros(()))
        torch.testing.assert_close(error[i], torch.stack(terms).mean(), atol=1e-5, rtol=1e-4)


def test_where_nothing_is_erased_nothing_is_to_be_rebuilt() -> None:
    model, batch = small_model(reconstruct="features"), random_batch(LENGTHS)
    untouched = model(batch.complete, batch.complete).reconstruction_error
    assert untouched is not None and torch.equal(untouched, torch.zeros(len(LENGTHS)))
    erased = model(batch.corrupted, batch.complete).reconstruction_error
    assert erased is not None and (erased[:3] > 0).all()
    assert erased[3] > 0 and erased.isfinite().all()


def test_no_gradient_reaches_the_features_to_be_rebuilt() -> None:
    """With targets attached the discriminator's language has a gradient, what is to be rebuilt still has none."""
    detached = gradients(small_model(reconstruct="features", detach_targets=True), only("reconstruction"))
    attached = gradients(small_model(reconstruct="features", detach_targets=False), only("reconstruction"))
    for name, gradient in detached.items():
        other = attached[name]
        assert gradient is not None and other is not None
        torch.testing.assert_close(gradient, other, atol=1e-6, rtol=1e-4)
    words = detached["text_encoder.model.embeddings.word_embeddings.weight"]
    assert words is not None and words.norm() > 0  # the corrupted text is read with a gradient


def test_rebuilding_features_is_learnt() -> None:
    model, batch, config = small_model(reconstruct="features"), random_batch(LENGTHS), only("reconstruction")
    optimizer = torch.optim.Adam(model.reconstructors.parameters(), lr=0.01)
    errors = []
    for _ in range(60):
        terms = loss_terms(model(batch.corrupted, batch.complete), batch, config)
        total = total_loss(terms, batch.weight, config, len(LENGTHS))
        errors.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert errors[-1] < 0.5 * errors[0]


def test_the_proxy_is_read_where_the_switch_says() -> None:  # D20
    audio, vision = torch.randn(2, 3, 16), torch.randn(2, 3, 16)
    for where, start in (("own_tokens", 0), ("proxy_tokens", 3)):
        model = small_model(proxy_read=where)
        context = torch.cat([model.proxy_tokens.expand(2, -1, -1), audio, vision], dim=1)
        assert model.proxy_encoder(context).shape[1] == 12  # three of its own, then H_p^0, audio, vision
        expected = model.proxy_encoder(context)[:, start : start + 3]
        torch.testing.assert_close(model.make_proxy(audio, vision), expected)


def test_positions_of_all_own_blocks_start_with_the_deviation_of_the_config() -> None:
    torch.manual_seed(0)
    for std in (0.0, 0.02, 1.0):
        model = LNLN(model=to_dict(small_config(position_std=std)), spec=to_dict(SPEC), encoder=ENCODER)
        positions = [p for name, p in model.named_parameters() if "positions" in name and "encoder.model" not in name]
        assert len(positions) == 3 + 1 + 1 + 1 + 2 + 3
        values = torch.cat([p.detach().flatten() for p in positions])
        assert abs(values.std().item() - std) <= 0.05 * std
        assert model.embeddings["text"].get_parameter("project.weight").std() > 0.05  # nothing else is scaled


def test_dropout_is_in_every_layer_but_those_without_feed_forward_and_the_encoders() -> None:
    model = small_model(dropout=0.3)
    own = {
        name: part.p
        for name, part in model.named_modules()
        if isinstance(part, nn.Dropout) and not name.startswith("text_encoder.")
    }
    assert set(own.values()) == {0.3} and len(own) == sum(name.endswith("feed_forward") for name in names(model))
    assert model.text_encoder is not None
    assert {p.p for p in model.text_encoder.modules() if isinstance(p, nn.Dropout)} == {0.0}  # as its config says
    inputs = random_inputs(LENGTHS)
    assert not torch.equal(model(inputs).sentiment, model(inputs).sentiment)
    model.eval()
    torch.testing.assert_close(model(inputs).sentiment, small_model().eval()(inputs).sentiment)
    still = small_model()
    assert torch.equal(still(inputs).sentiment, still(inputs).sentiment)


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules()]


ABSENT = [kept for num in (1, 2, 3) for kept in itertools.combinations(MODALITIES, num)] + [()]


@pytest.mark.parametrize("kept", ABSENT, ids=lambda kept: " ".join(kept) or "none")
@pytest.mark.parametrize("spec", [SPEC, FEATURE_SPEC], ids=["ids", "features"])
@pytest.mark.parametrize("reconstruct", ["tokens", "features"])
def test_with_everything_erased_all_utterances_of_a_length_are_the_same(
    reconstruct: str, spec: Any, kept: tuple[str, ...]
) -> None:
    """At the missing rate 1 there is nothing left to tell them apart, whatever modalities the corpus has."""
    lengths = (9 * ("text" in kept), 7 * ("audio" in kept), 5 * ("vision" in kept))
    spec = dataclasses.replace(spec, text_length=lengths[0], audio_length=lengths[1], vision_length=lengths[2])
    model = small_model(spec, reconstruct=reconstruct).eval()
    complete = random_inputs([lengths] * 4, spec)
    erased = erase_all(complete, spec)
    output = model(erased, complete)
    for value in (output.sentiment, output.completeness, output.discriminator_logits):
        assert value is not None and value.isfinite().all()
    torch.testing.assert_close(output.sentiment, output.sentiment[:1].expand(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(output.completeness, output.completeness[:1].expand(4), atol=1e-6, rtol=0)
    if kept:
        assert not torch.allclose(model(complete).sentiment, output.sentiment, atol=1e-4)
        some = model(erase_some(complete, spec)).sentiment
        assert (some - some[0]).abs().max() > 1e-4  # utterances do differ while something is left
    model.train()
    terms = loss_terms(model(erased, complete), random_batch([lengths] * 4, spec), LossConfig())
    total_loss(terms, torch.ones(4), LossConfig(), 4).backward()
    gradients: list[Tensor | None] = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_utterances_that_lack_a_modality_stand_beside_those_that_have_it(mode: str) -> None:
    """Erased completely or not there at all: every mixture is finite, in both directions."""
    lengths = [(9 * text, 7 * audio, 5 * vision) for text, audio, vision in itertools.product((0, 1), repeat=3)]
    model = small_model(mode=mode, reconstruct="features")
    complete = random_inputs(lengths)
    for corrupted in (complete, erase_some(complete), erase_all(complete)):
        output = model(corrupted, complete)
        total = output.sentiment.sum() + output.discriminator_logits.sum() + output.reconstruction_error.sum()
        model.zero_grad()
        total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
