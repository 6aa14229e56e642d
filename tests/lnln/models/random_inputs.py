"""Small models and random batches for the tests of models and losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from lnln.batches import Batch, Inputs
from lnln.config import ModelConfig, to_dict
from lnln.data.schema import FeatureSpec
from lnln.models import LNLN

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
    model = LNLN(model=to_dict(small_config(**changes)), spec=to_dict(spec), encoder=ENCODER)
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
    """Utterance i has `lengths[i]` steps of text, audio, vision, and content that depends on `seed` and i only."""
    longest = padded_to or tuple(max(row[k] for row in lengths) for k in range(3))
    num = len(lengths)
    ids = torch.zeros(num, longest[0], dtype=torch.long)
    audio, vision = torch.zeros(num, longest[1], spec.audio_dim), torch.zeros(num, longest[2], spec.vision_dim)
    masks = [torch.zeros(num, length, dtype=torch.bool) for length in longest]
    for i, (text_length, audio_length, vision_length) in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        ids[i, :text_length] = torch.randint(1, spec.vocabulary_size, (text_length,), generator=generator)
        audio[i, :audio_length] = torch.randn(audio_length, spec.audio_dim, generator=generator)
        vision[i, :vision_length] = torch.randn(vision_length, spec.vision_dim, generator=generator)
        for mask, length in zip(masks, lengths[i], strict=True):
            mask[i, :length] = True
    return Inputs(ids, masks[0], audio, masks[1], vision, masks[2])


def erase_some(inputs: Inputs, spec: FeatureSpec = SPEC) -> Inputs:
    """Every third text position to [UNK], every second frame to zeros."""
    ids, audio, vision = inputs.text_ids.clone(), inputs.audio.clone(), inputs.vision.clone()
    ids[:, 1::3] = torch.where(inputs.text_mask[:, 1::3], spec.unknown_id, ids[:, 1::3])
    audio[:, ::2] = 0
    vision[:, 1::2] = 0
    return dataclasses.replace(inputs, text_ids=ids, audio=audio, vision=vision)


def rows(inputs: Inputs, chosen: Sequence[int]) -> Inputs:
    return Inputs(**{field.name: getattr(inputs, field.name)[list(chosen)] for field in dataclasses.fields(Inputs)})


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
