"""How well a score lasts when more and more is missing: area, retention, worst case, relative and effective robustness.

    made = robustness(scores, "mae")
    made.retention[9].value                             # of what the model gains on a constant when nothing is missing
    effective_robustness(scores, reference, "mae")      # None where the reference has no gain that could last

T rates, r the missing rate, s(r) a score, b the score of the best known constant. MAE is a loss, so its gain b - s(r)
over predicting the train mean stands for it; the other metrics are taken as they are. What divides by a score is None
where that score is not above 0 for every training and on every resample of the utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnln.config import Rate
from lnln.evaluate.comparison import check_comparable, if_enough, telling_chance, training_pairs
from lnln.evaluate.estimates import Estimate, SuiteScores, estimate
from lnln.evaluate.paired import Difference, TrainingChance, paired_difference, pooled_chance
from lnln.metrics import higher_is_better

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Robustness:
    """Of one metric.

    area: under the curve over the rates, divided by their span; None where rates are no numbers on one line. retention:
    for each rate the share that is left of what there is at rate 0. relative: the same of the mean over all other
    rates. worst: the rate with the worst score; picked among T, so its interval is too narrow for a smallest value.
    """

    area: Estimate | None
    retention: tuple[Estimate | None, ...]
    worst: tuple[Rate, Estimate]
    relative: Estimate | None


@dataclass(frozen=True)
class EffectiveRobustness:
    """What is left of the differences to a reference when the difference at rate 0 is taken out, in the metric's unit.

    For each of `rates`, all above 0, and for their mean.
    """

    reference: str
    rates: tuple[Rate, ...]
    by_rate: tuple[Difference, ...]
    mean: Difference


def robustness(scores: SuiteScores, metric: str, complete: SuiteScores | None = None) -> Robustness:
    """complete: scores of the same system that have rate 0, where the suite has not (absent modalities)."""
    by_rate = scores.by_rate[metric]
    values = [each.value for each in by_rate]
    worst = int(np.argmin(values) if higher_is_better(metric) else np.argmax(values))
    return Robustness(
        area=_area(scores, metric),
        retention=tuple(_retention(scores, metric, complete, [place]) for place in range(len(scores.rates))),
        worst=(scores.rates[worst], by_rate[worst]),
        relative=_retention(scores, metric, complete, [i for i, rate in enumerate(scores.rates) if rate != 0]),
    )


def effective_robustness(
    scores: SuiteScores, reference: SuiteScores, metric: str, peers: Sequence[SuiteScores] = ()
) -> EffectiveRobustness | None:
    """How much better `scores` are at r > 0 than a model as good at r = 0 that loses what the reference loses.

    s(r) - [b + (s(0) - b) (ref(r) - b) / (ref(0) - b)], paired by training seed and utterance; what needs no training
    is paired with every training of the other side. peers: systems whose trainings say how far those of a single pair
    may differ; where none has several, the interval is of utterances alone (`counts_training`). b: of the train mean
    for MAE and Corr, of the most frequent class for accuracies and F1. Taori et al. 2020 (arXiv 2007.00644, section 2)
    draw the line of what is expected through many reference models; with one it goes through that and the constant.
    None where the reference is not above the constant at rate 0, where the two have no seed in common, and for a suite
    without rate 0.
    """
    check_comparable(scores, reference)
    rates = tuple(rate for rate in scores.rates if rate != 0)
    seeds, pairs = training_pairs(scores, reference)
    if 0 not in scores.rates or not rates or not pairs:
        return None
    mine, theirs = (list(side) for side in zip(*pairs, strict=True))
    (own, own_drawn), (expected, expected_drawn) = (_above_constant(each, metric) for each in (scores, reference))
    sign = 1 if higher_is_better(metric) else -1
    points = sign * _beyond(own[mine], expected[theirs], scores.rates)
    samples = sign * _beyond(own_drawn[mine], expected_drawn[theirs], scores.rates)
    if not (np.isfinite(points).all() and np.isfinite(samples).all()):
        return None
    known = [*{each.title: each for each in (scores, reference, *peers)}.values()]

    def difference(places: Sequence[int]) -> Difference:
        single = (own[mine[0]], expected[theirs[0]]) if len(pairs) == 1 else None
        chance = None if single is None else _chance_of_a_pair(scores, reference, known, metric, single, places)
        chosen = list(places)
        made = paired_difference(
            metric, seeds, points[..., chosen].mean(axis=-1), samples[..., chosen].mean(axis=-1), chance
        )
        return if_enough(scores, made)

    return EffectiveRobustness(
        reference=reference.title,
        rates=rates,
        by_rate=tuple(difference([place]) for place in range(len(rates))),
        mean=difference(range(len(rates))),
    )


def _above_constant(scores: SuiteScores, metric: str) -> tuple[Array, Array]:
    """Points (K, T) and samples (K, R, T) of what is better than the best known constant; more is better."""
    baseline = "one_class" if metric.startswith(("acc", "f1")) else "predict_mean"
    drawn = scores.baseline_samples[baseline][metric][:, None]
    sign = 1 if higher_is_better(metric) else -1
    points = scores.points[metric].mean(axis=1)
    return sign * (points - scores.baselines[baseline][metric]), sign * (scores.samples[metric] - drawn)


def _chance_of_a_pair(
    scores: SuiteScores,
    reference: SuiteScores,
    known: Sequence[SuiteScores],
    metric: str,
    pair: tuple[Array, Array],
    places: Sequence[int],
) -> TrainingChance | None:
    """For effective robustness over the rates above 0 at `places`, as `paired_difference` takes it; None where no
    system of `known` has several trainings. pair: (T,) gains on the constant of the two.

    A training of either side enters by its g(r) - g(0) k, g its gain on the constant and k what the reference keeps of
    its own; that of the reference as often as its gain at 0 goes into that of `scores`.
    """
    if not (scores.is_trained or reference.is_trained):
        return TrainingChance(0.0, 1)
    start, (own, expected) = list(scores.rates).index(0), pair
    kept = expected / expected[start]
    trained = []
    for each in telling_chance(known):
        gains = _above_constant(each, metric)[0]
        trained.append(np.delete(gains - gains[:, [start]] * kept, start, axis=1)[:, list(places)].mean(axis=1))
    chance = pooled_chance(trained)
    if chance is None:
        return None
    # `paired_difference` counts a training on each side, of equal weight.
    weights = float(scores.is_trained), float(reference.is_trained) * own[start] / expected[start]
    return TrainingChance(float(chance.sd * np.sqrt((weights[0] ** 2 + weights[1] ** 2) / 2)), chance.freedom)


def _area(scores: SuiteScores, metric: str) -> Estimate | None:
    if len(scores.rates) < 2 or any(isinstance(rate, tuple) for rate in scores.rates):
        return None
    order = np.argsort(np.array(scores.rates))
    places = np.array(scores.rates)[order]
    span = places[-1] - places[0]
    return estimate(
        lambda by_rate: np.trapezoid(by_rate[..., order], places, axis=-1) / span,
        scores.points[metric],
        scores.samples[metric],
    )


def _retention(
    scores: SuiteScores, metric: str, complete: SuiteScores | None, places: Sequence[int]
) -> Estimate | None:
    """Of the mean over `places`, of what there is at rate 0."""
    whole = scores if 0 in scores.rates else complete
    if whole is None or 0 not in whole.rates or not places:
        return None
    points, samples = _gains(scores, metric)
    first_points, first_samples = (gains[..., [whole.rates.index(0)]] for gains in _gains(whole, metric))
    # At rate 0 nothing is drawn, so the mask seeds of another suite need not be as many.
    first_points = np.broadcast_to(first_points.mean(axis=1, keepdims=True), (*points.shape[:2], 1))
    return estimate(
        lambda gains: _ratio(gains[..., :-1].mean(axis=-1), gains[..., -1]),
        np.concatenate([points[..., list(places)], first_points], axis=-1),
        np.concatenate([samples[..., list(places)], first_samples], axis=-1),
    )


def _gains(scores: SuiteScores, metric: str) -> tuple[Array, Array]:
    """Points (K, M, T) and samples (K, R, T) of what more is better of and a constant has none of, or little."""
    points, samples = scores.points[metric], scores.samples[metric]
    if higher_is_better(metric):
        return points, samples
    drawn = scores.baseline_samples["predict_mean"][metric]
    return scores.baselines["predict_mean"][metric] - points, drawn[None, :, None] - samples


def _beyond(own: Array, reference: Array, rates: Sequence[Rate]) -> Array:
    """(..., T - 1) gains at the rates above 0 less those that are expected of the gain at rate 0."""
    start = list(rates).index(0)
    others = [place for place in range(len(rates)) if place != start]
    kept = _ratio(reference[..., others], reference[..., [start]])
    return np.asarray(own[..., others] - own[..., [start]] * kept)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """NaN where the denominator is not above 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.asarray(np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator > 0))
