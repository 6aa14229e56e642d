"""The exponential average of a model's weights, which is validated and kept instead of the weights themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """average = d * average + (1 - d) * weights after every step, with d = min(decay, (1 + t) / (10 + t)).

    t counts the steps so far: a short run is not dominated by the random weights it began with.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        assert 0 < decay < 1
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, num_steps: int) -> None:
        """Take in the weights after step number `num_steps` (from 0)."""
        decay = min(self._decay, (1 + num_steps) / (10 + num_steps))
        weights = model.state_dict()
        averaged = [name for name, value in self.values.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.values[n] for n in averaged], [weights[n] for n in averaged], 1 - decay)
        for name in self.values.keys() - set(averaged):
            self.values[name].copy_(weights[name])

    def load(self, values: dict[str, Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])
