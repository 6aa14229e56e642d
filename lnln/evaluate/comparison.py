"""Which of several systems is better on the same views, by how much, and whether that is shown.

    differences = compare_systems(store, systems, systems[0], "ten_rates")       # {"text only": {"mae": Difference}}
    compare_systems(store, systems, systems[0], "ten_rates", HIGH_RATES)         # the paper's open question 1

Systems are compared over the seeds that both were trained with, and where they have none in common, as means of
unpaired trainings. A single pair takes the chance of training from all systems that have several trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lnln.config import Rate
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.estimates import SuiteScores, score_suite
from lnln.evaluate.paired import (
    Difference,
    TrainingChance,
    paired_difference,
    pooled_chance,
    unpaired_difference,
)
from lnln.evaluate.systems import System

Array = NDArray[np.float64]

# Where the paper leaves open whether its method is better than others (its limitations; open question 1).
HIGH_RATES: tuple[float, ...] = (0.7, 0.8, 0.9)
# With fewer labelled utterances nothing is called better or worse. Of equal systems a percentile bootstrap without the
# chance of training calls all different with 1 utterance, 16 to 20 of 100 with 5, 10 to 15 with 10, 6 to 9 with 30
# (simulated in tests/lnln/evaluate/test_comparison.py); it is made for 5.
FEWEST_UTTERANCES = 30


def compare_systems(
    store: Store,
    systems: Sequence[System],
    reference: System,
    suite: str,
    rates: Sequence[Rate] | None = None,
    *,
    share: float = 0.95,
) -> dict[str, dict[str, Difference]]:
    """Of each system but the reference, by title: its score less that of the reference, by metric.

    rates: over which scores are averaged, default all of the suite. share: of each interval (`paired.share_for`).
    Raises RefusedError as `score_suite`, and for systems that were scored on other views or utterances.
    """
    scored = [score_suite(store, system, suite) for system in systems if system.title != reference.title]
    return compare_scores(scored, score_suite(store, reference, suite), rates, share=share)


def compare_scores(
    scores: Sequence[SuiteScores],
    reference: SuiteScores,
    rates: Sequence[Rate] | None = None,
    *,
    share: float = 0.95,
) -> dict[str, dict[str, Difference]]:
    """`compare_systems` of what has been scored; empty where the suite has none of `rates`."""
    others = [each for each in scores if each.title != reference.title]
    for each in others:
        check_comparable(each, reference)
    places = reference.places(reference.rates if rates is None else rates)
    if not places:
        return {}
    return {
        each.title: {
            metric: _difference(each, reference, metric, places, _chance([reference, *others], metric, places), share)
            for metric in reference.metrics
        }
        for each in others
    }


def compare_by_rate(
    scores: Sequence[SuiteScores], reference: SuiteScores, *, share: float = 0.95
) -> dict[str, dict[str, tuple[Difference, ...]]]:
    """The same at each rate of the suite, in its order."""
    singly = [compare_scores(scores, reference, [rate], share=share) for rate in reference.rates]
    return {
        title: {metric: tuple(each[title][metric] for each in singly) for metric in reference.metrics}
        for title in singly[0]
    }


def compare_with_baselines(
    scores: SuiteScores,
    peers: Sequence[SuiteScores] = (),
    rates: Sequence[Rate] | None = None,
    *,
    share: float = 0.95,
) -> dict[str, dict[str, Difference]]:
    """The score less that of each constant answer, by baseline and metric; nothing for Corr, which a constant has not.

    peers: systems whose trainings say how far those of a single one may differ.
    """
    places = scores.places(scores.rates if rates is None else rates)
    if not places:
        return {}
    known = [scores, *(each for each in peers if each.title != scores.title)]
    return {
        name: {
            metric: if_enough(
                scores,
                unpaired_difference(
                    metric,
                    *_of(scores, metric, places),
                    [by_metric[metric]],
                    scores.baseline_samples[name][metric][None],
                    _chance(known, metric, places),
                    are_trained=(scores.is_trained, False),
                    share=share,
                ),
            )
            for metric in by_metric
            if metric != "corr"
        }
        for name, by_metric in scores.baselines.items()
    }


def training_pairs(scores: SuiteScores, reference: SuiteScores) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """The seeds that both were trained with, and the places of these trainings.

    What needs no training is paired with every training of the other side; then the seeds are that side's, none where
    one is not known.
    """
    if scores.is_trained and reference.is_trained:
        mine, theirs = (
            {seed: place for place, seed in reversed(list(enumerate(each.seeds))) if seed is not None}
            for each in (scores, reference)
        )
        common = tuple(sorted(set(mine) & set(theirs)))
        return common, [(mine[seed], theirs[seed]) for seed in common]
    pairs = [(i, j) for i in range(len(scores.seeds)) for j in range(len(reference.seeds))]
    trained = scores if scores.is_trained else reference
    known = tuple(seed for seed in trained.seeds if seed is not None)
    return known if len(known) == len(pairs) else (), pairs


def check_comparable(scores: SuiteScores, reference: SuiteScores) -> None:
    """RefusedError where the two were scored on other views, utterances or labels."""
    if (scores.suite, scores.basis) != (reference.suite, reference.basis):
        raise RefusedError(
            f"{scores.title} ({scores.suite}, {scores.num_labelled} labelled utterances) and {reference.title} "
            f"({reference.suite}, {reference.num_labelled}) were not scored on the same views and utterances, so they "
            "do not compare; evaluate both on one corpus, split and suite with the same mask seeds"
        )


def if_enough(scores: SuiteScores, difference: Difference) -> Difference:
    """`difference`, called neither better nor worse where it is of fewer than FEWEST_UTTERANCES."""
    return difference if scores.num_labelled >= FEWEST_UTTERANCES else replace(difference, is_better=None)


def telling_chance(scores: Sequence[SuiteScores]) -> list[SuiteScores]:
    """Those whose trainings say how far trainings differ. What was chosen on test is no system of its own."""
    return [each for each in scores if each.is_trained and not each.is_selected_on_test]


def _difference(
    scores: SuiteScores,
    reference: SuiteScores,
    metric: str,
    places: Sequence[int],
    chance: TrainingChance | None,
    share: float,
) -> Difference:
    points, samples = _of(scores, metric, places)
    expected, drawn = _of(reference, metric, places)
    seeds, pairs = training_pairs(scores, reference)
    if seeds and scores.is_trained and reference.is_trained:
        mine, theirs = (list(side) for side in zip(*pairs, strict=True))
        made = paired_difference(
            metric, seeds, points[mine] - expected[theirs], samples[mine] - drawn[theirs], chance, share
        )
    else:
        are_trained = scores.is_trained, reference.is_trained
        made = unpaired_difference(
            metric, points, samples, expected, drawn, chance, are_trained=are_trained, share=share
        )  # fmt: skip
    return if_enough(scores, made)


def _of(scores: SuiteScores, metric: str, places: Sequence[int]) -> tuple[Array, Array]:
    """(K,) scores and (K, R) samples, as means over the rates at `places`."""
    chosen = list(places)
    return (
        scores.points[metric][..., chosen].mean(axis=(1, 2)),
        scores.samples[metric][..., chosen].mean(axis=-1),
    )


def _chance(scores: Sequence[SuiteScores], metric: str, places: Sequence[int]) -> TrainingChance | None:
    return pooled_chance([_of(each, metric, places)[0] for each in telling_chance(scores)])
