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

Trainings with no seed in common are not paired: `unpaired_difference` has the standard error of a difference of two
means, from the deviation between trainings that both sides share.

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
# Equal scores that were summed in another order differ by less.
ROUNDING = 1e-9

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """System minus reference, mean over `seeds`; low, high: what the truth lies between in `share` of all cases.

    seeds: of the pairs; empty where they are not known, or trainings are not paired. is_better: None where the interval
    holds 0, or utterances are too few for a word. counts_training: whether the interval allows for what another
    training seed would change.
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

    seeds: of the pairs; empty where they are not known. points: (K,) differences of the pairs, system minus reference.
    samples: (K, R), the same on each resample of the utterances. training: for a single pair.
    """
    points, samples = np.asarray(points, np.float64), np.asarray(samples, np.float64)
    assert len(points) == len(samples) > 0 and len(seeds) in (0, len(points)), (seeds, points.shape, samples.shape)
    value, drawn = float(points.mean()), samples.mean(axis=0)
    if len(points) > 1:
        training = TrainingChance(float(points.std(ddof=1)), len(points) - 1)
        error = training.sd / np.sqrt(len(points))
    else:
        error = np.sqrt(2) * training.sd if training is not None else 0.0
    low, high = _middle(drawn if training is None else with_training(drawn, error, training.freedom), share)
    return Difference(value, low, high, tuple(seeds), _is_better(metric, low, high), training is not None, share)


def unpaired_difference(
    metric: str,
    points: ArrayLike,
    samples: ArrayLike,
    reference_points: ArrayLike,
    reference_samples: ArrayLike,
    training: TrainingChance | None = None,
    *,
    are_trained: tuple[bool, bool] = (True, True),
    share: float = 0.95,
) -> Difference:
    """The difference in `metric` between two systems whose trainings are not paired.

    points, samples: (K,) scores and (K, R) samples of the system; the reference may have another K. training: for one
    training on each side. are_trained: whether each side has a chance of training; what needs no training has none.
    """
    sides = []
    for own, drawn in ((points, samples), (reference_points, reference_samples)):
        sides.append((np.asarray(own, np.float64), np.asarray(drawn, np.float64)))
        assert len(sides[-1][0]) == len(sides[-1][1]) > 0, (sides[-1][0].shape, sides[-1][1].shape)
    value = float(sides[0][0].mean() - sides[1][0].mean())
    drawn = sides[0][1].mean(axis=0) - sides[1][1].mean(axis=0)
    trained = [own for (own, _), is_trained in zip(sides, are_trained, strict=True) if is_trained]
    chance = pooled_chance(trained) or training
    if trained and chance is not None:
        error = chance.sd * np.sqrt(sum(1 / len(own) for own in trained))
        drawn = with_training(drawn, error, chance.freedom)
    low, high = _middle(drawn, share)
    counts_training = not trained or chance is not None
    return Difference(value, low, high, (), _is_better(metric, low, high), counts_training, share)


def pooled_chance(points: Sequence[ArrayLike]) -> TrainingChance | None:
    """The chance of training, pooled over systems that have several trainings; None where none has.

    points: of each system the scores of its trainings. Takes trainings of all systems to vary alike.
    """
    several = [np.asarray(each, np.float64) for each in points if np.size(each) > 1]
    freedom = sum(len(each) - 1 for each in several)
    if not freedom:
        return None
    return TrainingChance(float(np.sqrt(sum(((each - each.mean()) ** 2).sum() for each in several) / freedom)), freedom)


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


def _is_better(metric: str, low: float, high: float) -> bool | None:
    return None if low <= ROUNDING and high >= -ROUNDING else (low > 0) == higher_is_better(metric)


def _middle(samples: Array, share: float) -> tuple[float, float]:
    tail = round(50 * (1 - share), 9)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
