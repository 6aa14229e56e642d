"""What the workers of one run say to each other, and nothing where there is only one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Ranks:
    """This worker is number `rank` of `world`; `torch.distributed` is set up where there are several."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of every worker's `tensor`, which is overwritten by it."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Every worker's `value`, by rank."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The `value` of rank 0: what must be equal everywhere is decided once."""
        values = [value]
        if self.world > 1:
            distributed.broadcast_object_list(values, src=0)
        return values[0]

    def seed(self, *entropy: int) -> None:
        """Seed torch for this worker by `entropy` and its rank."""
        state = np.random.SeedSequence([*entropy, self.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))
