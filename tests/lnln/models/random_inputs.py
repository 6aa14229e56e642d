"""Small models and random batches for the tests of models and losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from lnln.batches import Batch, Inputs, corrupt_inputs, map_inputs
from lnln.config import ModelConfig, to_dict
from lnln.data.schema import MODALITIES, FeatureSpec
from lnln.models import LNLN, TextOnly

Model = TypeVar("Model", bound=nn.Module)

SPEC = FeatureSpec(
    audio_dim=3,
    vision_dim=4,
    text_length=12,
    audio_length=10,
    vision_length=9,
    vocabulary_size=200,
    unknown_id=100,
    label_range=(-3.0, 3.0),
)

# The same with ready-made language features instead of token ids.
FEATURE_SPEC = dataclasses.replace(SPEC, text_dim=5, vocabulary_size=0, unknown_id=0)

# For the vocabulary of the built-in encoders.
BERT_SPEC = dataclasses.replace(SPEC, vocabulary_size=30522, tokenizer="bert-base-uncased")

# No dropout, so that two passes can be compared in training mode as well.
ENCODER: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 200,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def small_config(**changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {
        "hidden_dim": 16,
        "num_tokens": 3,
        "num_heads": 2,
        "head_dim": 8,
        "fusion_depth": 2,
    }
    return ModelConfig(**(sizes | changes))


def small_model(spec: FeatureSpec = SPEC, seed: int = 0, **changes: Any) -> LNLN:
    """A model with random weights, tokens and biases included, so that nothing is zero by chance."""
    torch.manual_seed(seed)
    encoder = None if spec.text_dim else ENCODER
    return _shaken(LNLN(model=to_dict(small_config(**changes)), spec=to_dict(spec), encoder=encoder))


def small_text_only(spec: FeatureSpec = SPEC, seed: int = 0, **changes: Any) -> TextOnly:
    torch.manual_seed(seed)
    encoder = None if spec.text_dim else ENCODER
    config = small_config(name="text_only", **changes)
    return _shaken(TextOnly(model=to_dict(config), spec=to_dict(spec), encoder=encoder))


def _shaken(model: Model) -> Model:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def random_inputs(
    lengths: Sequence[tuple[int, int, int]],
    spec: FeatureSpec = SPEC,
    seed: int = 0,
    padded_to: tuple[int, int, int] | None = None,
) -> Inputs:
    """Utterance i has `lengths[i]` steps of text, audio, vision, and content that depends on `seed` and i only; where
    `spec` has simulated text one step of that for every two of audio."""
    longest = padded_to or tuple(max(row[k] for row in lengths) for k in range(3))
    num = len(lengths)
    text = torch.zeros(num, longest[0], dtype=torch.long)
    if spec.text_dim:
        text = torch.zeros(num, longest[0], spec.text_dim)
    audio, vision = torch.zeros(num, longest[1], spec.audio_dim), torch.zeros(num, longest[2], spec.vision_dim)
    masks = [torch.zeros(num, length, dtype=torch.bool) for length in longest]
    for i, (text_length, audio_length, vision_length) in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        if spec.text_dim:
            text[i, :text_length] = torch.randn(text_length, spec.text_dim, generator=generator)
        else:
            text[i, :text_length] = torch.randint(1, spec.vocabulary_size, (text_length,), generator=generator)
        audio[i, :audio_length] = torch.randn(audio_length, spec.audio_dim, generator=generator)
        vision[i, :vision_length] = torch.randn(vision_length, spec.vision_dim, generator=generator)
        for mask, length in zip(masks, lengths[i], strict=True):
            mask[i, :length] = True
    inputs = Inputs(text, masks[0], audio, masks[1], vision, masks[2])
    return _with_simulated_text(inputs, spec, seed) if spec.simulated_text_dim else inputs


def _with_simulated_text(inputs: Inputs, spec: FeatureSpec, seed: int) -> Inputs:
    lengths = (inputs.audio_mask.sum(dim=1) + 1) // 2
    simulated = torch.zeros(len(lengths), (inputs.audio.shape[1] + 1) // 2, spec.simulated_text_dim)
    for i, length in enumerate(lengths.tolist()):
        generator = torch.Generator().manual_seed(1000 * seed + i + 500)
        simulated[i, :length] = torch.randn(length, spec.simulated_text_dim, generator=generator)
    mask = torch.arange(simulated.shape[1]) < lengths[:, None]
    return dataclasses.replace(inputs, simulated_text=simulated, simulated_text_mask=mask)


def erase_some(inputs: Inputs, spec: FeatureSpec = SPEC) -> Inputs:
    """Every third text position, every second frame."""
    kept = {modality: torch.ones_like(getattr(inputs, f"{modality}_mask")) for modality in MODALITIES}
    kept["text"][:, 1::3] = kept["audio"][:, ::2] = kept["vision"][:, 1::2] = False
    return corrupt_inputs(inputs, kept, spec.unknown_id)


def erase_all(inputs: Inputs, spec: FeatureSpec = SPEC) -> Inputs:
    """All that the missing rate 1 erases: everything but the first and the last id, [CLS] and [SEP], made so here."""
    kept = {modality: torch.zeros_like(getattr(inputs, f"{modality}_mask")) for modality in MODALITIES}
    erased = corrupt_inputs(inputs, kept, spec.unknown_id)
    if spec.text_dim:
        return erased
    text, mask = erased.text.clone(), inputs.text_mask
    is_last = mask & (mask.cumsum(dim=1) == mask.sum(dim=1, keepdim=True))
    text[is_last] = 102
    text[:, :1] = torch.where(mask[:, :1], 101, text[:, :1])
    return dataclasses.replace(erased, text=text)


def rows(inputs: Inputs, chosen: Sequence[int]) -> Inputs:
    return map_inputs(inputs, lambda x: x[list(chosen)])


def random_batch(lengths: Sequence[tuple[int, int, int]], spec: FeatureSpec = SPEC, seed: int = 0) -> Batch:
    complete = random_inputs(lengths, spec, seed)
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        utterance_ids=[f"u{i}" for i in range(len(lengths))],
        complete=complete,
        corrupted=erase_some(complete, spec),
        label=torch.randn(len(lengths), generator=generator),
        missing_rates=torch.rand(len(lengths), 3, generator=generator),
        weight=torch.ones(len(lengths)),
    )
