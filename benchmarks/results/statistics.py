"""Means over seeds, how sure they are, and paired differences between systems.

Three kinds of chance are kept apart.

Training: seeds give other weights and other training masks. Shown as the standard deviation over seeds.
Utterances: another test set would have other utterances. `interval`: the 95% percentile interval of the mean over seeds
    when utterances are drawn again (the same ones for every view, seed and system).
Masks: every view is scored under several mask seeds and averaged; what is left of their chance is common to all
    systems, which see the same masks.

A difference between two systems has an interval of the first two together, as a hierarchical bootstrap gives it: for
each resample of the utterances the pairs of trainings (one pair for each common seed) are drawn again too, by how far
each one's difference is from the mean of all. Few pairs drawn again vary too little, by the factor (K - 1) / K in
variance for K of them; their deviations are widened by the square root of its inverse. That two trainings answer the
same utterances differently is in both parts, so the interval is rather too wide than too narrow.

With a single pair there is nothing to draw from: then normal noise of variance 2 s^2 stands for it, s^2 the variance
between the trainings of a system, pooled over all systems of the page that have several. Where there is none of these
either, the interval is of the utterances alone, and says so (`counts_training` False).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.scores import SplitScores
from lnln.errors import RefusedError
from lnln.evaluate.bootstrap import interval
from lnln.metrics import higher_is_better

# Draws of trainings for each resample of utterances.
NUM_SEED_DRAWS = 64

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean over seeds; sd: standard deviation over seeds, None for one; low, high: 95%, over utterances."""

    value: float
    sd: float | None
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True)
class Difference:
    """System minus reference, mean over `seeds`; low, high: 95%. is_better: None where the interval holds 0.

    counts_training: whether the interval allows for what another training seed would change.
    """

    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    is_better: bool | None
    counts_training: bool

    @property
    def word(self) -> str:
        return {True: "better", False: "worse", None: "no difference shown"}[self.is_better]


def summarise(trainings: Sequence[SplitScores], metric: str) -> Summary:
    """One system's trainings, one for each seed; `metric` one of their samples'."""
    points = np.array([each.mean[metric] for each in trainings])
    drawn = _drawn(trainings, metric).mean(axis=0)
    sd = float(points.std(ddof=1)) if len(points) > 1 else None
    return Summary(float(points.mean()), sd, *interval(drawn), num_seeds=len(points))


def compare(
    system: Mapping[int, SplitScores],
    reference: Mapping[int, SplitScores],
    metric: str,
    training_sd: float | None = None,
) -> Difference | None:
    """The difference in `metric` over the seeds that both have; None where they have none in common.

    training_sd: between trainings of one system, for a single pair (`pooled_sd`).
    """
    seeds = tuple(sorted(set(system) & set(reference)))
    if not seeds:
        return None
    mine, theirs = [system[seed] for seed in seeds], [reference[seed] for seed in seeds]
    points = np.array([a.mean[metric] - b.mean[metric] for a, b in zip(mine, theirs, strict=True)])
    value = float(points.mean())
    drawn = _drawn([*mine, *theirs], metric)
    paired = (drawn[: len(seeds)] - drawn[len(seeds) :]).mean(axis=0)
    low, high = interval(_with_training(paired, points - value, training_sd))
    is_better = None if low <= 0 <= high else (value > 0) == higher_is_better(metric)
    return Difference(value, low, high, seeds, is_better, len(seeds) > 1 or training_sd is not None)


def pooled_sd(systems: Sequence[Sequence[SplitScores]], metric: str) -> float | None:
    """The standard deviation between trainings, pooled over the systems that have several; None where none has."""
    points = [np.array([each.mean[metric] for each in trainings]) for trainings in systems if len(trainings) > 1]
    freedom = sum(len(each) - 1 for each in points)
    if not freedom:
        return None
    return float(np.sqrt(sum(((each - each.mean()) ** 2).sum() for each in points) / freedom))


def _with_training(samples: Array, deviations: Array, training_sd: float | None) -> Array:
    """The (R,) samples of a mean over K pairs with the chance of training added: (draws, R), flat.

    deviations: (K,) of each pair from their mean.
    """
    num_pairs, shape = len(deviations), (NUM_SEED_DRAWS, len(samples))
    random = np.random.default_rng(0)
    if num_pairs == 1:
        noise = random.normal(0, np.sqrt(2) * (training_sd or 0), shape)
    else:
        counts = random.multinomial(num_pairs, np.full(num_pairs, 1 / num_pairs), shape)
        noise = np.sqrt(num_pairs / (num_pairs - 1)) * (counts @ deviations) / num_pairs
    drawn: Array = samples + noise
    return drawn.reshape(-1)


def _drawn(trainings: Sequence[SplitScores], metric: str) -> Array:
    """(K, R) samples of trainings that were scored alike; RefusedError where they were not."""
    first = trainings[0]
    for each in trainings:
        if (set(each.view_ids), each.num_labelled) != (set(first.view_ids), first.num_labelled):
            raise RefusedError(
                "scores of different views or utterances do not compare; remove the older of them from "
                "benchmarks/scores and run `make results` again"
            )
    return np.stack([each.drawn(metric) for each in trainings])
