"""Whether one way to train is better than another: paired differences, and how sure they are.

    difference = paired_difference("mae", seeds, points, samples)      # word: better, worse, no difference shown

K pairs of trainings, one pair for each seed, R resamples of the utterances.

Two kinds of chance go into an interval. Another set of utterances: they are drawn again, the same ones for both sides,
every view and every seed. Another training: to each resample its chance is added. Of K pairs, whose differences deviate
by s, it is s / sqrt(K) times a draw of Student's t with K - 1 degrees of freedom, as in the interval of a mean of K
normal numbers. With three pairs that is wide, since three say little about how far trainings differ.

A single pair says nothing about it: then it is sqrt(2) s times a draw of Student's t, s the deviation between trainings
of one system that the caller knows from elsewhere (`TrainingChance`). Without that the interval is of the utterances
alone, and says so (`counts_training` False).

Where both kinds of chance are normal and apart, these intervals hold the truth in 94 to 98 of 100 cases (simulated in
tests/lnln/evaluate/test_paired.py). That two trainings answer the same utterances differently is in both parts, which
widens them further.

Several systems against one: `share_for` gives intervals that all hold together, so that whichever is picked afterwards,
the best too, its interval is true as often as is said (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnln.evaluations import format_score
from lnln.metrics import higher_is_better

# Draws of the chance of training for each resample of utterances: half of them, and the same with the other sign.
NUM_TRAINING_DRAWS = 64
# More than anyone would train, and than few trainings can tell of.
MOST_SEEDS = 60

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """System minus reference, mean over `seeds`; low, high: what the truth lies between in `share` of all cases.

    is_better: None where the interval holds 0. counts_training: whether the interval allows for what another training
    seed would change.
    """

    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    is_better: bool | None
    counts_training: bool
    share: float = 0.95

    @property
    def word(self) -> str:
        return {True: "better", False: "worse", None: "no difference shown"}[self.is_better]


@dataclass(frozen=True)
class TrainingChance:
    """sd: standard deviation between trainings of one system. freedom: degrees of freedom of its estimate."""

    sd: float
    freedom: int


def paired_difference(
    metric: str,
    seeds: Sequence[int],
    points: ArrayLike,
    samples: ArrayLike,
    training: TrainingChance | None = None,
    share: float = 0.95,
) -> Difference:
    """The difference in `metric`, and its interval.

    points: (K,) differences of the pairs, system minus reference. samples: (K, R), the same on each resample of the
    utterances. training: for a single pair.
    """
    points, samples = np.asarray(points, np.float64), np.asarray(samples, np.float64)
    assert len(seeds) == len(points) == len(samples) > 0, (len(seeds), points.shape, samples.shape)
    value, drawn = float(points.mean()), samples.mean(axis=0)
    if len(seeds) > 1:
        training = TrainingChance(float(points.std(ddof=1)), len(seeds) - 1)
        error = training.sd / np.sqrt(len(seeds))
    else:
        error = np.sqrt(2) * training.sd if training is not None else 0.0
    low, high = _middle(drawn if training is None else with_training(drawn, error, training.freedom), share)
    is_better = None if low <= 0 <= high else (low > 0) == higher_is_better(metric)
    return Difference(value, low, high, tuple(seeds), is_better, training is not None, share)


def format_signed(metric: str, value: float) -> str:
    """A difference as tables print it: with its sign, 0 without."""
    text, zero = format_score(metric, value), format_score(metric, 0.0)
    if text in (zero, f"-{zero}"):
        return zero
    return text.replace("-", "−") if value < 0 else f"+{text}"


def format_difference(metric: str, difference: Difference) -> str:
    """The value with its interval."""
    low, high = (format_signed(metric, end) for end in (difference.low, difference.high))
    return f"{format_signed(metric, difference.value)} ({low} to {high})"


def share_for(num_systems: int) -> float:
    """The share of each of `num_systems` intervals that makes all of them hold together in 95 of 100 cases or more."""
    return 1 - 0.05 / num_systems


def seeds_to_show(points: ArrayLike, samples: ArrayLike, share: float = 0.95) -> int | None:
    """How many pairs would show a difference as large as the mean of `points`, were they to deviate as these K do.

    That many would show a true difference of this size about every other time. None where more utterances would be
    needed instead, or more than MOST_SEEDS pairs. At least three pairs: fewer do not tell how far trainings differ.
    """
    points, samples = np.asarray(points, np.float64), np.asarray(samples, np.float64)
    assert len(points) > 2, points
    sd, drawn = float(points.std(ddof=1)), samples.mean(axis=0)
    for num in range(2, MOST_SEEDS + 1):
        low, high = _middle(with_training(drawn, sd / np.sqrt(num), num - 1), share)
        if not low <= 0 <= high:
            return num
    return None


def with_training(samples: Array, error: float, freedom: int) -> Array:
    """(R,) samples of a difference with the chance of training added: (NUM_TRAINING_DRAWS * R,).

    error: standard error of the difference by that chance, estimated with `freedom` degrees of freedom.
    """
    random = np.random.default_rng(0)
    noise = error * random.standard_t(freedom, (NUM_TRAINING_DRAWS // 2, len(samples)))
    return np.concatenate([samples + noise, samples - noise]).reshape(-1)


def _middle(samples: Array, share: float) -> tuple[float, float]:
    tail = round(50 * (1 - share), 9)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
