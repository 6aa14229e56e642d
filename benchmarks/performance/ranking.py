"""Section `ranking`: SDUMC's Rank-N-Contrast, beside the loop over columns of pairs that is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.performance.measure import Comparison, Contender, compare
from benchmarks.performance.plain_rank_contrast import plain_rank_contrast
from lnln.losses import rank_contrast

BATCH_SIZES = (32, 96)
NUM_STEPS = 5
RANK_DIM = 64
TEMPERATURE = 2.0
MAX_DIFFERENCE = 1e-4

EXPLANATION = """\
The loss alone, forward and backward, of both flows of a batch of 32 or 96 utterances (64 or 192 features of width \
64), as a training step of SDUMC has it once. Labels are thirds, so that some are equal. The baseline goes through the \
columns of the matrix of pairs, as published, in float32; ours sorts the labels' distances and adds up along them, in \
float64. Values and gradients of both are compared before anything is measured. Everything runs on one thread, and \
seconds are seconds of CPU time. Asked was 50 times as fast at a batch of 96."""


def measure_ranking(
    folder: Path, repetitions: int, batch_sizes: tuple[int, ...] = BATCH_SIZES, num_steps: int = NUM_STEPS
) -> list[Comparison]:
    """All comparisons of the section; nothing is written to `folder`."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_measure(size, num_steps, repetitions) for size in batch_sizes]
    finally:
        torch.set_num_threads(num_threads)


def _measure(batch_size: int, num_steps: int, repetitions: int) -> Comparison:
    features, label = make_features(batch_size)
    check_equal(gradient(ours, features, label), gradient(theirs, features, label))

    def steps(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(num_steps):
                gradient(loss, features, label)

        return run

    return compare(
        f"Rank-N-Contrast of {batch_size} utterances in two flows",
        Contender("sorted", steps(ours)),
        [Contender("published loop over columns", steps(theirs))],
        repetitions=repetitions,
        clock="core",
        unit="steps",
        amount=float(num_steps),
    )


def make_features(batch_size: int) -> tuple[Tensor, Tensor]:
    """Of both flows (2, B, 64), and labels (B,)."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, batch_size, RANK_DIM, generator=generator)
    return features, torch.randint(-9, 10, (batch_size,), generator=generator) / 3


def ours(features: Tensor, label: Tensor) -> Tensor:
    return rank_contrast(features, label, TEMPERATURE).mean()


def theirs(features: Tensor, label: Tensor) -> Tensor:
    return plain_rank_contrast(features.flatten(0, 1), label.repeat(len(features)), TEMPERATURE)


def gradient(loss: Callable[[Tensor, Tensor], Tensor], features: Tensor, label: Tensor) -> Tensor:
    """The loss and the gradient of every feature, in one row."""
    features = features.clone().requires_grad_()
    value = loss(features, label)
    (found,) = torch.autograd.grad(value, features)
    return torch.cat([value.detach().reshape(1), found.flatten()])


def check_equal(mine: Tensor, expected: Tensor) -> None:
    """ValueError where the two would be compared at different work."""
    difference = float((mine - expected).norm() / expected.norm())
    if not difference < MAX_DIFFERENCE:
        raise ValueError(f"loss and gradient differ by {difference:.1e} of their norm, expected rounding")
