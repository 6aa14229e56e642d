"""Means over seeds, how sure they are, and paired differences between systems.

Three kinds of chance are kept apart.

Training: seeds give other weights and other training masks. Shown as the standard deviation over seeds.
Utterances: another test set would have other utterances. `interval`: the 95% percentile interval of the mean over seeds
    when utterances are drawn again (the same ones for every view, seed and system).
Masks: every view is scored under several mask seeds and averaged; what is left of their chance is common to all
    systems, which see the same masks.

A difference between two systems has an interval of the first two together, as `lnln/evaluate/paired.py` makes it. For a
single pair of trainings the deviation between trainings of one system is pooled over all systems of the page that have
several, with as many degrees of freedom as were pooled. This takes trainings of all systems to vary alike. Where no
system has several, the interval is of the utterances alone, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.scores import SplitScores
from lnln.errors import RefusedError
from lnln.evaluate.bootstrap import interval
from lnln.evaluate.paired import Difference, TrainingChance, paired_difference
from lnln.evaluate.paired import pooled_chance as pool

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Mean over seeds; sd: standard deviation over seeds, None for one; low, high: 95%, over utterances."""

    value: float
    sd: float | None
    low: float
    high: float
    num_seeds: int


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
    training: TrainingChance | None = None,
) -> Difference | None:
    """The difference in `metric` over the seeds that both have; None where they have none in common.

    training: for a single pair (`pooled_chance`).
    """
    seeds = tuple(sorted(set(system) & set(reference)))
    if not seeds:
        return None
    mine, theirs = [system[seed] for seed in seeds], [reference[seed] for seed in seeds]
    points = [a.mean[metric] - b.mean[metric] for a, b in zip(mine, theirs, strict=True)]
    drawn = _drawn([*mine, *theirs], metric)
    return paired_difference(metric, seeds, points, drawn[: len(seeds)] - drawn[len(seeds) :], training)


def pooled_chance(systems: Sequence[Sequence[SplitScores]], metric: str) -> TrainingChance | None:
    """The chance of training, pooled over the systems that have several trainings; None where none has."""
    return pool([[each.mean[metric] for each in trainings] for trainings in systems])


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
