"""Compute what several rows have in common once.

The views of one utterance are nested: under neighbouring missing rates a short text often loses the same words.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from lnln.models.padding import can_ask


def by_distinct(
    read: Callable[..., tuple[Tensor, ...]],
    seen: Bool[Tensor, "B T"],
    ids: Int64[Tensor, "B T"],
    places: Int64[Tensor, "B T"],
) -> tuple[Tensor, ...]:
    """`read(seen, ids, places)`, computed for one of the rows that are equal in all that is seen. For a `read` without
    dropout that looks at nothing else; what it returns has B rows."""
    assert can_ask(ids)
    said = torch.cat([seen.long(), ids * seen, places * seen], dim=1)
    _, which = torch.unique(said, dim=0, return_inverse=True)
    rows = torch.zeros(int(which.max()) + 1, dtype=torch.long).scatter_(0, which, torch.arange(len(which)))
    return tuple(result[which] for result in read(seen[rows], ids[rows], places[rows]))
