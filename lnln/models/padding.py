"""Bring the inputs of a model to one length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional

from lnln.batches import Inputs


def fit(inputs: Inputs, max_lengths: Mapping[str, int], *, trim: bool) -> Inputs:
    """Every modality at the length it is computed at: longer inputs are cut at `max_lengths`.

    trim: no longer than the longest real input of the batch, for models that leave padding out. Otherwise every
    modality is padded to its `max_lengths`, as the published model does, which attends to its padding.
    Text keeps at least one step, since its encoder needs one.
    """
    lengths = dict(max_lengths)
    if trim:
        masks = (inputs.text_mask, inputs.audio_mask, inputs.vision_mask)
        longest = torch.stack([mask.any(dim=0).sum() for mask in masks]).tolist()  # one wait for the device, not three
        for modality, length in zip(("text", "audio", "vision"), longest, strict=True):
            lengths[modality] = min(lengths[modality], length)
    lengths["text"] = max(1, lengths["text"])
    # The fields are called after their modality: text_ids, text_mask, audio, ...
    return Inputs(**{f.name: _resize(getattr(inputs, f.name), lengths[f.name.split("_")[0]]) for f in fields(Inputs)})


def concatenate(first: Inputs, second: Inputs) -> Inputs:
    """The utterances of both, one after the other: one pass through the encoders costs less than two."""
    values: dict[str, Tensor] = {}
    for field in fields(Inputs):
        pair = [getattr(first, field.name), getattr(second, field.name)]
        length = max(x.shape[1] for x in pair)
        values[field.name] = torch.cat([_resize(x, length) for x in pair])
    return Inputs(**values)


def _resize(x: Tensor, length: int) -> Tensor:
    """`x` (B, T, ...) cut or padded with zeros to `length` steps."""
    missing = length - x.shape[1]
    if missing <= 0:
        return x[:, :length]
    return functional.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
