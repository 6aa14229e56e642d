"""How the learning rate moves: a factor on the rate of each parameter group, from the step alone."""

from __future__ import annotations

import math

from lnln.config import TrainConfig


def rate_factor(train: TrainConfig, num_steps: int, epoch: int, step: int) -> float:
    """Factor for step `step` of epoch `epoch` (both from 0) with `num_steps` steps in each epoch.

    `step`: climbs linearly over the first `warmup_share` of all steps, then falls along half a cosine that reaches 0
    just after the last one.

    `published` (reference.md D13), by epoch counted from 1: (epoch - 1) / 20 up to epoch 21, so the first trains at
    rate 0; 1 at epoch 22; then half a cosine over 180. Those numbers are of 200 epochs; the warm-up is a tenth of
    however many there are, the cosine the rest. A single epoch has nothing to warm up to and trains at the full rate.
    """
    if train.schedule == "published":
        return _published(train.epochs, epoch + 1)
    total = train.epochs * num_steps
    warmup = round(train.warmup_share * total)
    done = epoch * num_steps + step
    if done < warmup:
        return (done + 1) / warmup
    return _cosine((done - warmup) / max(1, total - warmup))


def _published(epochs: int, epoch: int) -> float:
    if epochs == 1:
        return 1.0
    warmup = max(1, round(epochs / 10))
    if epoch <= warmup + 2:
        return min(1.0, (epoch - 1) / warmup)
    return _cosine((epoch - warmup - 2) / (epochs - warmup))


def _cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
