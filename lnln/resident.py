"""Sequences that lie on a device once and for all: what a batch is made of there, without a wait for the device.

    split = ResidentSplit(utterances, device)
    padded, masks, places = split.gather(rows, lengths)        # by modality (B, T, ...), (B, T), (B, T)

N utterances, S steps of one modality of all of them, B rows of a batch, T steps it is padded to.

A device computes what the host has asked for some time ago, unless the host asks what came of it. Lengths are known to
the host, so a batch's shape needs no asking, and order, masks and rates of an epoch go over at its start. What remains
of a step is to gather, to pad and to erase, which the device does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from lnln.data.schema import Modality, Stream, Utterances

log = logging.getLogger(__name__)

Kept = NDArray[np.bool_]

# Of the memory that is free when a split is to go over, what it may take: the rest is for other splits and activations.
MAX_SHARE = 0.25


class ResidentSplit:
    """The features and labels of one split, on `device`.

    Behind the last step of each stream lies one of zeros, which is what padding is read from.
    """

    def __init__(self, utterances: Utterances, device: torch.device) -> None:
        self.device = device
        # Not by pinned memory, which would be kept for as long as the process lives.
        self.label = torch.from_numpy(utterances.label.copy()).to(device)
        self._values: dict[Stream, Tensor] = {}
        self._offsets: dict[Stream, Tensor] = {}
        for name, sequences in utterances.streams().items():
            self._values[name] = torch.from_numpy(_with_one_more(sequences.values, 0)).to(device)
            self._offsets[name] = torch.from_numpy(sequences.offsets.copy()).to(device)

    def num_steps(self, stream: Stream) -> int:
        """S."""
        return len(self._values[stream]) - 1

    def upload_steps(self, steps: Mapping[Modality, Sequence[Kept]]) -> dict[Modality, Bool[Tensor, " V*S+1"]]:
        """The masks of V views on the device, one view after the other, and behind them True for padding.

        steps: by modality, for each view, a bool for each of the S steps.
        """
        return {m: upload(_with_one_more(np.concatenate(each), True), self.device) for m, each in steps.items() if each}

    def gather(
        self, rows: Int64[Tensor, " B"], lengths: Mapping[Stream, int]
    ) -> tuple[dict[Stream, Tensor], dict[Stream, Bool[Tensor, "B T"]], dict[Stream, Int64[Tensor, "B T"]]]:
        """The utterances `rows` padded to `lengths`, which are long enough for them; True at their real steps; and the
        place of each step among the S of the split, S where it is padding."""
        padded: dict[Stream, Tensor] = {}
        masks: dict[Stream, Tensor] = {}
        places: dict[Stream, Tensor] = {}
        for name, offsets in self._offsets.items():
            first, end = offsets[rows][:, None], offsets[rows + 1][:, None]
            place = first + torch.arange(lengths[name], device=self.device)
            masks[name] = place < end
            places[name] = torch.where(masks[name], place, self.num_steps(name))
            padded[name] = self._values[name][places[name]]
        return padded, masks, places


def _with_one_more(values: NDArray[Any], last: float) -> NDArray[Any]:
    return np.concatenate([values, np.full((1, *values.shape[1:]), last, values.dtype)])


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """`array` on `device`."""
    # What was read may be write-protected, which a tensor cannot be.
    return send(torch.from_numpy(array if array.flags.writeable else array.copy()), device)


def send(host: Tensor, device: torch.device) -> Tensor:
    """`host` on `device`, in a way that the host need not wait for what the device does before."""
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def belongs_on(device: torch.device, utterances: Utterances) -> bool:
    """Whether a split should lie on `device`: not on the CPU, where it lies already, and not where it takes more than
    `MAX_SHARE` of the memory that is free, which is said."""
    if device.type == "cpu":
        return False
    num_bytes = sum(sequences.values.nbytes for sequences in utterances.streams().values())
    return fits(num_bytes, _free_bytes(device), device)


def fits(num_bytes: int, free: float, device: torch.device) -> bool:
    """Whether a split of `num_bytes` may lie on `device`, of whose memory `free` bytes are free; says it where not."""
    if num_bytes <= MAX_SHARE * free:
        return True
    log.warning(
        "a split of %.2f GB goes over batch by batch: it is more than %d %% of the %.2f GB that are free on %s",
        num_bytes / 1e9,
        round(100 * MAX_SHARE),
        free / 1e9,
        device,
    )
    return False


def _free_bytes(device: torch.device) -> float:
    """Of `device`; without limit where it does not say."""
    if device.type != "cuda":
        return float("inf")
    free, _ = torch.cuda.mem_get_info(device)
    return float(free)
