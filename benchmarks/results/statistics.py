"""Means over seeds, how sure they are, and paired differences between systems.

Three kinds of chance are kept apart.

Training: seeds give other weights and other training masks. Shown as the standard deviation over seeds.
Utterances: another test set would have other utterances. `interval`: the 95% percentile interval of the mean over seeds
    when utterances are drawn again (the same ones for every view, seed and system).
Masks: every view is scored under several mask seeds and averaged; what is left of their chance is common to all
    systems, which see the same masks.

A difference between two systems has an interval of the first two together. To each resample of the utterances the
chance of training is added: of K pairs of trainings (one for each common seed), whose differences deviate by s, it is
s / sqrt(K) times a draw of Student's t with K - 1 degrees of freedom, as in the interval of a mean of K normal numbers.
With three pairs that is wide, since three say little about how far trainings differ.

A single pair says nothing about it: then it is sqrt(2) s times a draw of Student's t, s the deviation between trainings
of one system, pooled over all systems of the page that have several, with as many degrees of freedom as were pooled.
This takes trainings of all systems to vary alike. Where no system has several, the interval is of the utterances alone,
and says so (`counts_training` False).

Where both kinds of chance are normal and apart, these intervals hold the truth in 94 to 98 of 100 cases (simulated in
tests/benchmarks/test_statistics.py). That two trainings answer the same utterances differently is in both parts, which
widens them further.
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

# Draws of the chance of training for each resample of utterances: half of them, and the same with the other sign.
NUM_TRAINING_DRAWS = 64

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


@dataclass(frozen=True)
class TrainingChance:
    """sd: standard deviation between trainings of one system. freedom: degrees of freedom of its estimate."""

    sd: float
    freedom: int


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
    points = np.array([a.mean[metric] - b.mean[metric] for a, b in zip(mine, theirs, strict=True)])
    value = float(points.mean())
    drawn = _drawn([*mine, *theirs], metric)
    paired = (drawn[: len(seeds)] - drawn[len(seeds) :]).mean(axis=0)
    if len(seeds) > 1:
        training = TrainingChance(float(points.std(ddof=1)), len(seeds) - 1)
        error = training.sd / np.sqrt(len(seeds))
    else:
        error = np.sqrt(2) * training.sd if training is not None else 0.0
    low, high = interval(paired if training is None else with_training(paired, error, training.freedom))
    is_better = None if low <= 0 <= high else (value > 0) == higher_is_better(metric)
    return Difference(value, low, high, seeds, is_better, counts_training=training is not None)


def pooled_chance(systems: Sequence[Sequence[SplitScores]], metric: str) -> TrainingChance | None:
    """The chance of training, pooled over the systems that have several trainings; None where none has."""
    points = [np.array([each.mean[metric] for each in trainings]) for trainings in systems if len(trainings) > 1]
    freedom = sum(len(each) - 1 for each in points)
    if not freedom:
        return None
    sd = float(np.sqrt(sum(((each - each.mean()) ** 2).sum() for each in points) / freedom))
    return TrainingChance(sd, freedom)


def with_training(samples: Array, error: float, freedom: int) -> Array:
    """(R,) samples of a difference with the chance of training added: (NUM_TRAINING_DRAWS * R,).

    error: standard error of the difference by that chance, estimated with `freedom` degrees of freedom.
    """
    random = np.random.default_rng(0)
    noise = error * random.standard_t(freedom, (NUM_TRAINING_DRAWS // 2, len(samples)))
    return np.concatenate([samples + noise, samples - noise]).reshape(-1)


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
