"""Bring the inputs of a model to one length, or to few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional

from lnln.batches import Inputs

# Utterances that are computed at one length. With MOSI's texts (14 tokens on average, 45 the longest of 64) groups of
# 16 compute 21 tokens instead of 45; smaller ones save little more and make small matrices.
GROUP_SIZE = 16


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


def by_length(read: Callable[[Tensor, Tensor], Tensor], x: Tensor, mask: Tensor) -> Tensor:
    """`read(x, mask)`, x (B, T, ...), mask (B, T), computed for groups of rows of similar length without the padding
    that a group does not need. For a `read` that leaves padding out, so that each row's result is the same.

    On a GPU all rows are one group: to ask for lengths would wait for the device, which has cores to spare.
    """
    if x.device.type != "cpu" or len(x) <= GROUP_SIZE:
        return read(x, mask)
    lengths = mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in order.split(GROUP_SIZE):
        length = min(max(1, int(lengths[rows[-1]])), x.shape[1])
        parts.append(read(x[rows, :length], mask[rows, :length]))
    return torch.cat(parts)[order.argsort()]


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
