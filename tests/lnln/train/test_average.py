from __future__ import annotations

import torch
from torch import nn

from lnln.train.average import WeightAverage


def test_average_follows_its_formula_and_its_own_memory() -> None:
    model = nn.BatchNorm1d(2)  # float weights and buffers, and an integer one
    average = WeightAverage(model, 0.9)
    expected = model.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            model.weight.fill_(float(step))
            model.get_buffer("num_batches_tracked").fill_(step)
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert torch.allclose(average.values["weight"], expected, rtol=1e-5)
    assert average.values["num_batches_tracked"] == 199
    assert average.values["weight"].data_ptr() != model.weight.data_ptr()


def test_a_loaded_average_is_equal() -> None:
    model = nn.Linear(2, 2)
    average, other = WeightAverage(model, 0.5), WeightAverage(nn.Linear(2, 2), 0.5)
    other.load({name: value + 1 for name, value in average.values.items()})
    assert torch.equal(other.values["weight"], average.values["weight"] + 1)
