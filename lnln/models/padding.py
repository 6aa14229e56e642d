"""Bring the inputs of a model to one length, or to few."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor
from torch.nn import functional

from lnln.batches import Inputs, map_inputs, tensors_of
from lnln.data.schema import MODALITIES, Modality

# Utterances that are computed at one length. With MOSI's texts (14 tokens on average, 45 the longest of 64) groups of
# 16 compute 21 tokens instead of 45; smaller ones save little more and make small matrices.
GROUP_SIZE = 16


def can_ask(x: Tensor) -> bool:
    """Whether what `x` holds may decide what is computed.

    Not on a GPU, where that waits for all that was asked for before, nor in a graph that is compiled for any content.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def steps(inputs: Inputs, modality: Modality) -> tuple[Tensor, Tensor]:
    """The steps of one modality (B, T, ...) and their mask (B, T)."""
    return getattr(inputs, modality), getattr(inputs, f"{modality}_mask")


def leave_out(inputs: Inputs, kept: Collection[str]) -> Inputs:
    """`inputs` as if every utterance lacked the modalities that are not `kept`: they have no steps at all, and where
    audio has none, simulated text, which is made of it, has none either."""
    gone: list[str] = [modality for modality in MODALITIES if modality not in kept]
    if "audio" in gone and inputs.simulated_text is not None:
        gone.append("simulated_text")
    names = [name for stream in gone for name in (stream, f"{stream}_mask")]
    return replace(inputs, **{name: getattr(inputs, name)[:, :0] for name in names})


def fit(inputs: Inputs, max_lengths: Mapping[str, int], *, trim: bool) -> Inputs:
    """Every modality at the length it is computed at: longer inputs are cut at `max_lengths`.

    trim: no longer than the longest real input of the batch, for models that leave padding out; on a GPU no longer than
    it is, which whoever made it took care of. Otherwise every modality is padded to its `max_lengths`, as the published
    model does, which attends to its padding. Text keeps at least one step, since its encoder needs one. Simulated text
    stays as it is.
    """
    lengths = dict(max_lengths)
    if trim:
        for modality in MODALITIES:
            _, mask = steps(inputs, modality)
            longest = int(mask.any(dim=0).sum()) if can_ask(mask) else mask.shape[1]
            lengths[modality] = min(lengths[modality], longest)
    lengths["text"] = max(1, lengths["text"])
    # The fields are called after their modality: text, text_mask, audio, ...
    own = {f"{modality}{suffix}": modality for modality in MODALITIES for suffix in ("", "_mask")}
    return replace(inputs, **{name: resize(getattr(inputs, name), lengths[m]) for name, m in own.items()})


def by_length(read: Callable[..., tuple[Tensor, ...]], mask: Tensor, *sequences: Tensor) -> tuple[Tensor, ...]:
    """`read(mask, *sequences)`, mask (B, T), sequences (B, T, ...), computed for groups of rows of similar length
    without the padding that a group does not need. For a `read` that leaves padding out, so that each row's result is
    the same; what it returns has B rows and a shape that does not hang on T.

    On a GPU, which has cores to spare, and in a compiled graph all rows are one group.
    """
    if not can_ask(mask) or len(mask) <= GROUP_SIZE:
        return read(mask, *sequences)
    lengths = mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in order.split(GROUP_SIZE):
        length = min(max(1, int(lengths[rows[-1]])), mask.shape[1])
        parts.append(read(*(x[rows, :length] for x in (mask, *sequences))))
    back = order.argsort()
    return tuple(torch.cat(results)[back] for results in zip(*parts, strict=True))


def seen_first(
    seen: Bool[Tensor, "B T"], x: Shaped[Tensor, "B T ..."]
) -> tuple[Bool[Tensor, "B T"], Shaped[Tensor, "B T ..."], Int64[Tensor, "B T"]]:
    """`seen` and `x` with the steps that are seen in front, in their order, and the place that each step had.

    What is behind them is then padding, which `by_length` leaves out.
    """
    places = (~seen).to(torch.uint8).argsort(dim=1, stable=True)
    index = places if x.dim() == 2 else places[:, :, None].expand_as(x)
    return seen.gather(1, places), x.gather(1, index), places


def concatenate(first: Inputs, second: Inputs) -> Inputs:
    """The utterances of both, one after the other: one pass through the encoders costs less than two."""
    values: dict[str, Tensor] = {}
    for name, value in tensors_of(first).items():
        pair = [value, getattr(second, name)]
        length = max(x.shape[1] for x in pair)
        values[name] = torch.cat([resize(x, length) for x in pair])
    return Inputs(**values)


def take(inputs: Inputs, rows: Int64[Tensor, " N"]) -> Inputs:
    """The utterances at `rows`, in that order."""
    return map_inputs(inputs, lambda x: x[rows])


def resize(x: Tensor, length: int) -> Tensor:
    """`x` (B, T, ...) cut or padded with zeros to `length` steps."""
    missing = length - x.shape[1]
    if missing <= 0:
        return x[:, :length]
    return functional.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
