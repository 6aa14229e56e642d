"""Every score of a system under a suite of views, with its interval and its deviations over seeds and masks.

    scores = score_suite(store, system, "ten_rates")
    scores.mean["mae"].value, scores.mean["mae"].low, scores.by_rate["mae"][9].sd_seeds

K trainings, M mask seeds, T rates, R resamples of the utterances. The resamples are the same for all systems on one
split, so whatever is made of several systems' samples is paired. They are those of the evaluations (`BOOTSTRAP_SEED`),
which anyone can draw: who has samples can solve for the errors of single utterances, so samples stay with the corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lnln.config import Rate, fingerprint
from lnln.data.manifest import read_features
from lnln.data.shards import read_labels
from lnln.data.store import Store
from lnln.evaluate.bootstrap import interval, resampled_scores
from lnln.evaluate.predictions import Predictions, read_predictions
from lnln.evaluate.scores import BOOTSTRAP_SEED, NUM_RESAMPLES
from lnln.evaluate.suites import SUITES
from lnln.evaluate.systems import System
from lnln.evaluations import Evaluation
from lnln.metrics import baseline_answers, metric_names, score_answers

Array = NDArray[np.float64]
# (..., T) scores by rate to (...); NaN where it is not defined.
Measure = Callable[[Array], Array]
# Where the store keeps what needs no training.
UNTRAINED = "baselines/"


@dataclass(frozen=True)
class Estimate:
    """The mean over trainings and mask seeds. low, high: 95% over utterances, by bootstrap.

    sd_seeds: standard deviation between trainings, each the mean over mask seeds; None for one training. sd_masks:
    between mask seeds, each the mean over trainings; None for one mask seed.
    """

    value: float
    low: float
    high: float
    sd_seeds: float | None
    sd_masks: float | None


@dataclass(frozen=True)
class SuiteScores:
    """One system under the views of one suite, whose `rates` are in the suite's order.

    seeds: of the K trainings. points: (K, M, T) scores by metric. samples: (K, R, T), means over mask seeds.
    collapse_share: by rate, mean share of the predictions in their most frequent class. baselines: scores of constant
    answers, baseline_samples: (R,) the same on each resample. basis: fingerprint of the views, utterances and labels:
    what compares has the same. is_trained: whether chance took part in making it. is_selected_on_test: what must not
    be called better or worse than anything.
    """

    title: str
    suite: str
    rates: tuple[Rate, ...]
    seeds: tuple[int | None, ...]
    label_range: tuple[float, float]
    num_labelled: int
    points: Mapping[str, Array]
    samples: Mapping[str, Array]
    collapse_share: tuple[float, ...]
    baselines: dict[str, dict[str, float]]
    baseline_samples: Mapping[str, Mapping[str, Array]]
    basis: str
    is_trained: bool = True
    is_selected_on_test: bool = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """In the order of tables."""
        return metric_names(self.label_range)

    @cached_property
    def by_rate(self) -> dict[str, tuple[Estimate, ...]]:
        """By metric, in the order of `rates`."""
        return {metric: tuple(self._estimate(metric, [i]) for i in range(len(self.rates))) for metric in self.metrics}

    @cached_property
    def mean(self) -> dict[str, Estimate]:
        """Plain mean over the rates, the paper's overall figure."""
        return {metric: self._estimate(metric, range(len(self.rates))) for metric in self.metrics}

    def places(self, rates: Sequence[Rate]) -> list[int]:
        """Where those of `rates` that the suite has stand in it."""
        return [self.rates.index(rate) for rate in rates if rate in self.rates]

    def over(self, rates: Sequence[Rate]) -> dict[str, Estimate]:
        """Plain mean over those of `rates` that the suite has, by metric; empty where it has none."""
        places = self.places(rates)
        return {metric: self._estimate(metric, places) for metric in self.metrics} if places else {}

    def _estimate(self, metric: str, places: Sequence[int]) -> Estimate:
        chosen = list(places)
        made = estimate(lambda scores: scores[..., chosen].mean(axis=-1), self.points[metric], self.samples[metric])
        assert made is not None, "scores are finite"
        return made


def estimate(measure: Measure, points: Array, samples: Array) -> Estimate | None:
    """What `measure` makes of points (K, M, T) and samples (K, R, T).

    The value is that of the mean scores; deviations, and the interval, are of what is made of the means over mask
    seeds, over trainings and of each resample. None where the measure is not defined for all of these.
    """
    value = float(measure(points.mean(axis=(0, 1))))
    drawn = measure(samples.mean(axis=0))
    by_seed, by_mask = measure(points.mean(axis=1)), measure(points.mean(axis=0))
    if not (np.isfinite(value) and all(np.isfinite(made).all() for made in (drawn, by_seed, by_mask))):
        return None
    return Estimate(value, *interval(drawn), _deviation(by_seed), _deviation(by_mask))


def score_suite(store: Store, system: System, suite: str) -> SuiteScores:
    """The scores of `system` on the views of `suite`, from its evaluations and their predictions.

    Raises RefusedError where predictions are absent or damaged, and where the features that were scored are gone.
    """
    evaluations = system.evaluations[suite]
    first = evaluations[0]
    rates = suite_rates(first, suite)
    orders = [view_order(each, rates) for each in evaluations]
    drawn = [_draw(store, each) for each in evaluations]
    said = read_predictions(store, first).labelled()
    baselines, baseline_samples = _baselines(store, first, said)
    metrics = metric_names(first.label_range)
    return SuiteScores(
        title=system.title,
        suite=suite,
        rates=rates,
        seeds=system.seeds,
        label_range=first.label_range,
        num_labelled=len(said.label),
        points={
            metric: np.stack(
                [
                    np.array([view.scores[metric] for view in each.views])[order]
                    for each, order in zip(evaluations, orders, strict=True)
                ]
            )
            for metric in metrics
        },
        samples={
            metric: np.stack([each[metric][:, order].mean(axis=1) for each, order in zip(drawn, orders, strict=True)])
            for metric in metrics
        },
        collapse_share=_collapse_share(evaluations, orders),
        baselines=baselines,
        baseline_samples=baseline_samples,
        basis=_basis(first, said),
        is_trained=not all(str(each.predictions["path"]).startswith(UNTRAINED) for each in evaluations),
        is_selected_on_test=any(each.selection == "published" for each in evaluations),
    )


def suite_rates(evaluation: Evaluation, suite: str) -> tuple[Rate, ...]:
    """Those of `suite` that were scored, in its order."""
    return tuple(rate for rate in SUITES[suite].rates if rate in evaluation.rates)


def view_order(evaluation: Evaluation, rates: Sequence[Rate]) -> NDArray[np.int64]:
    """(M, T): which view of `evaluation` has which mask seed, in ascending order, and which of `rates`."""
    found = {(view.mask_seed, view.missing_rate): number for number, view in enumerate(evaluation.views)}
    return np.array([[found[seed, rate] for rate in rates] for seed in sorted(evaluation.mask_seeds)], np.int64)


def _draw(store: Store, evaluation: Evaluation) -> dict[str, Array]:
    """(R, V) samples by metric; a metric that was selected for has the predictions of its own weights."""
    by_weights: dict[int | None, list[str]] = {}
    for metric in evaluation.metrics():
        by_weights.setdefault(evaluation.epochs.get(metric), []).append(metric)
    samples: dict[str, Array] = {}
    for metrics in by_weights.values():
        said = read_predictions(store, evaluation, metrics[0]).labelled()
        drawn = _resample(said.sentiment, said.label, evaluation.label_range)
        samples |= {metric: drawn[metric] for metric in metrics}
    return samples


def _resample(
    predictions: NDArray[np.float32], labels: NDArray[np.float32], label_range: Sequence[float]
) -> dict[str, Array]:
    return resampled_scores(
        predictions, labels, label_range, num_resamples=NUM_RESAMPLES, seed=BOOTSTRAP_SEED, with_f1=True
    )


def _baselines(
    store: Store, evaluation: Evaluation, said: Predictions
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Array]]]:
    """Scores and samples of what needs no model, by name and metric."""
    manifest = read_features(store, evaluation.corpus, evaluation.feature_id)
    if "train" not in manifest.splits:
        # Then `evaluate` takes the labels that the model was trained on: of another corpus, or of other features.
        corpus, _, feature_id = evaluation.trained_on.partition(", features ")
        manifest = read_features(store, corpus, feature_id or None)
    answers = baseline_answers(read_labels(store, manifest, "train"), said.label, evaluation.label_range)
    different = sorted({answer for by_metric in answers.values() for answer in by_metric.values()})
    constants = np.repeat(np.array(different, np.float32)[:, None], len(said.label), axis=1)
    drawn = _resample(constants, said.label, evaluation.label_range)
    return score_answers(answers, said.label, evaluation.label_range), {
        name: {metric: drawn[metric][:, different.index(answer)] for metric, answer in by_metric.items()}
        for name, by_metric in answers.items()
    }


def _collapse_share(evaluations: Sequence[Evaluation], orders: Sequence[NDArray[np.int64]]) -> tuple[float, ...]:
    shares = [
        np.array([view.collapse_share for view in each.views])[order]
        for each, order in zip(evaluations, orders, strict=True)
    ]
    return tuple(float(share) for share in np.mean(shares, axis=(0, 1)))


def _basis(evaluation: Evaluation, said: Predictions) -> str:
    labels = hashlib.sha256(said.label.astype("<f4").tobytes()).hexdigest()
    return fingerprint([sorted(view.view_id for view in evaluation.views), said.utterance_id, labels])


def _deviation(values: ArrayLike) -> float | None:
    array = np.asarray(values)
    return float(array.std(ddof=1)) if array.size > 1 else None
