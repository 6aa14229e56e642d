from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from lnln.config import LossConfig, ModelConfig
from lnln.errors import RefusedError
from lnln.losses import loss_terms
from lnln.models import TextOnly, build_model, load_model
from tests.lnln.models.random_inputs import (
    BERT_SPEC,
    FEATURE_SPEC,
    SPEC,
    random_batch,
    random_inputs,
    rows,
    small_config,
    small_text_only,
)

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (1, 0, 0), (0, 5, 2)]


def test_it_is_the_mean_of_the_encoder_over_the_real_steps_and_one_linear_layer() -> None:
    model, inputs = small_text_only().eval(), random_inputs(LENGTHS)
    assert model.text_encoder is not None
    expected = []
    for i, (length, _, _) in enumerate(LENGTHS):
        mean = torch.zeros(1, 16)
        if length:
            mean = model.text_encoder(inputs.text[i : i + 1, :length], inputs.text_mask[i : i + 1, :length]).mean(dim=1)
        expected.append(functional.linear(mean, model.head.weight, model.head.bias)[0, 0])
    torch.testing.assert_close(model(inputs).sentiment, torch.stack(expected), atol=1e-6, rtol=1e-5)
    others = {name for name, _ in model.named_parameters() if not name.startswith("text_encoder.")}
    assert others == {"head.weight", "head.bias"}


@pytest.mark.parametrize("mode", ["reference", "clean"])
def test_features_are_averaged_and_in_clean_mode_standardised(mode: str) -> None:
    model, inputs = small_text_only(FEATURE_SPEC, mode=mode).eval(), random_inputs(LENGTHS, FEATURE_SPEC)
    dim = FEATURE_SPEC.text_dim
    model.set_statistics({"text": {"mean": [0.5] * dim, "std": [2.0] * dim}})
    features = torch.where(inputs.text_mask[:, :, None], (inputs.text - 0.5) / 2, 0.0)
    text = features if mode == "clean" else inputs.text
    mean = text.sum(dim=1) / torch.tensor([[max(1, length)] for length, _, _ in LENGTHS])
    torch.testing.assert_close(model(inputs).sentiment, model.head(mean)[:, 0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("spec", [SPEC, FEATURE_SPEC], ids=["ids", "features"])
def test_an_utterance_is_the_same_in_any_company(spec: object) -> None:
    assert spec in (SPEC, FEATURE_SPEC)
    chosen = SPEC if spec == SPEC else FEATURE_SPEC
    model = small_text_only(chosen).eval()
    lengths = [(n % 13, n % 3, n % 4) for n in range(40)]  # more than one group of similar lengths
    together = random_inputs(lengths, chosen, padded_to=(14, 3, 4))
    sentiment = model(together).sentiment
    for i in (0, 1, 12, 25, 39):
        torch.testing.assert_close(model(rows(together, [i])).sentiment[0], sentiment[i], atol=1e-5, rtol=1e-5)


def test_audio_and_vision_do_not_matter() -> None:
    model, inputs = small_text_only().eval(), random_inputs(LENGTHS)
    other = dataclasses.replace(inputs, audio=inputs.audio + 1, vision=inputs.vision - 1)
    assert torch.equal(model(inputs).sentiment, model(other).sentiment)


def test_its_only_loss_is_that_of_sentiment() -> None:
    model, batch = small_text_only(), random_batch(LENGTHS)
    output = model(batch.corrupted, batch.complete)
    assert output.completeness is None
    terms = loss_terms(output, batch, LossConfig())
    assert terms.keys() == {"sentiment"}
    terms["sentiment"].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_dropout_is_in_training_only() -> None:
    model, inputs = small_text_only(), random_inputs([(8, 0, 0)] * 64)
    assert not torch.equal(model(inputs).sentiment, model(inputs).sentiment)
    model.eval()
    assert torch.equal(model(inputs).sentiment, model(inputs).sentiment)


def test_a_long_text_is_cut() -> None:
    model = small_text_only().eval()
    long = random_inputs([(30, 1, 1)])
    cut = dataclasses.replace(long, text=long.text[:, :12], text_mask=long.text_mask[:, :12])
    assert torch.equal(model(long).sentiment, model(cut).sentiment)


def test_without_text_there_is_nothing_to_read() -> None:
    with pytest.raises(RefusedError, match=r"model\.modalities must be with text for model\.name text_only, got "):
        ModelConfig(name="text_only", modalities=("audio", "vision"))
    assert ModelConfig(modalities=("audio", "vision")).name == "lnln"


def test_it_is_built_saved_and_loaded_by_its_name(tmp_path: Path) -> None:
    model = build_model(small_config(name="text_only", text_encoder="tiny"), BERT_SPEC).eval()
    model.save_pretrained(tmp_path)
    inputs = random_inputs(LENGTHS)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, TextOnly) and not loaded.training
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)
