"""Whether the completeness score w says how much of the text is there: 1 - r, with r the missing rate of text.

    made = calibration(store, system)               # None for a model that estimates no completeness
    made.gap.value, made.bins[5].mean               # mean |w - (1 - r)|; mean w where half of the text is missing

Which words fall out is drawn, so at one rate some utterances keep more than others: `within` asks whether w follows
what was really kept, beyond the rate. K trainings, M mask seeds, T rates, N utterances, R resamples of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnln.config import Rate
from lnln.corruption import make_many_masks, rate_by_modality
from lnln.data.manifest import read_features
from lnln.data.shards import read_lengths, shard_entries
from lnln.data.store import Store
from lnln.evaluate.bootstrap import draw_counts, interval, resampled_correlations
from lnln.evaluate.estimates import Estimate, estimate, suite_rates, view_order
from lnln.evaluate.scores import BOOTSTRAP_SEED, NUM_RESAMPLES
from lnln.evaluate.suites import SUITES
from lnln.evaluate.systems import System
from lnln.evaluations import Evaluation, evaluation_specs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """What w is at one missing rate of text. mean, sd: over all `num` answers; low, high: 95% of the mean, over
    utterances."""

    rate: float
    mean: float
    sd: float
    low: float
    high: float
    num: int


@dataclass(frozen=True)
class Calibration:
    """Of the labelled utterances of a split. bins: by the missing rate of text, ascending.

    gap: mean |w - (1 - r)|. correlation: of w with 1 - r, over all utterances and rates; it is 0 for a w that does not
    vary. within: of w with the share of the words that was kept, over the utterances at one rate, mean over the rates
    between 0 and 1; None where there is none such or fewer than two utterances with words.
    """

    bins: tuple[Bin, ...]
    gap: Estimate
    correlation: Estimate
    within: Estimate | None


def calibration(store: Store, system: System, suite: str = "ten_rates") -> Calibration | None:
    """Of `system` on the views of `suite`; RefusedError where its predictions or the features are gone."""
    evaluations = system.evaluations[suite]
    said = system.predictions(store, suite)
    estimated = [each.completeness for each in said]
    if any(each is None for each in estimated):
        return None
    rates = suite_rates(evaluations[0], suite)
    # (K, M, T, N)
    answers = np.stack(
        [
            np.asarray(each, np.float64)[view_order(evaluation, rates)]
            for each, evaluation in zip(estimated, evaluations, strict=True)
        ]
    )
    counts = draw_counts(answers.shape[-1], NUM_RESAMPLES, BOOTSTRAP_SEED)
    missing = np.array([rate_by_modality(rate)[0] for rate in rates])
    kept, has_words = _kept_shares(store, evaluations[0], suite, rates, said[0].utterance_id)
    return Calibration(
        bins=tuple(_bin(answers[:, :, missing == rate], float(rate), counts) for rate in np.unique(missing)),
        gap=_gap(answers, missing, counts),
        correlation=_correlation(answers, missing, counts),
        within=_within(answers, missing, counts, kept, has_words),
    )


def _bin(answers: Array, rate: float, counts: Array) -> Bin:
    low, high = interval(_means(counts, answers.mean(axis=(0, 1, 2))))
    return Bin(rate, float(answers.mean()), float(answers.std()), low, high, answers.size)


def _gap(answers: Array, missing: Array, counts: Array) -> Estimate:
    gaps = np.abs(answers - (1 - missing)[:, None]).mean(axis=2)
    return _estimate(gaps.mean(axis=-1), [_means(counts, each.mean(axis=0)) for each in gaps])


def _correlation(answers: Array, missing: Array, counts: Array) -> Estimate:
    """A resample takes an utterance with all its rates."""
    stated = np.broadcast_to((1 - missing)[:, None], answers.shape[1:])
    everyone = np.ones((1, answers.shape[-1]))
    return _estimate(
        np.stack([resampled_correlations(everyone, each, stated)[0] for each in answers]),
        [resampled_correlations(counts, each, stated).mean(axis=1) for each in answers],
    )


def _within(
    answers: Array, missing: Array, counts: Array, kept: Array, has_words: NDArray[np.bool_]
) -> Estimate | None:
    drawn = (missing > 0) & (missing < 1)
    if not drawn.any() or np.count_nonzero(has_words) < 2:
        return None
    num_masks, num_rates = answers.shape[1], int(drawn.sum())
    # (K, M T, N) and (M T, N): each view a correlation of its own.
    answers = answers[:, :, drawn][..., has_words].reshape(len(answers), num_masks * num_rates, -1)
    kept = kept[:, drawn][..., has_words].reshape(num_masks * num_rates, -1)
    everyone = np.ones((1, answers.shape[-1]))
    points = np.stack([resampled_correlations(everyone, each, kept)[0] for each in answers])
    return _estimate(
        points.reshape(-1, num_masks, num_rates).mean(axis=2),
        [resampled_correlations(counts[:, has_words], each, kept).mean(axis=1) for each in answers],
    )


def _kept_shares(
    store: Store, evaluation: Evaluation, suite: str, rates: Sequence[Rate], utterance_ids: Sequence[str]
) -> tuple[Array, NDArray[np.bool_]]:
    """(M, T, N) share of the steps of text that each view leaves, of those it could erase; (N,) whether there are any.

    Masks of one modality do not depend on another, so audio and vision are not drawn.
    """
    manifest = read_features(store, evaluation.corpus, evaluation.feature_id)
    lengths: dict[str, int] = {}
    for entry in shard_entries(manifest, evaluation.split):
        names, steps = read_lengths(store, entry)
        lengths |= dict(zip(names, steps["text"].tolist(), strict=True))
    text = np.array([lengths[name] for name in utterance_ids], np.int64)
    nothing = np.zeros_like(text)
    seeds = sorted(evaluation.mask_seeds)
    masks = make_many_masks(
        evaluation_specs(SUITES[suite].corruption(), rates, seeds),
        utterance_ids,
        {"text": text, "audio": nothing, "vision": nothing},
        keep_ends=not manifest.text_dim,
    )
    kept = np.stack([1.0 - each.realised_rates("text") for each in masks])
    return kept.reshape(len(seeds), len(rates), -1), text > (0 if manifest.text_dim else 2)


def _means(counts: Array, values: Array) -> Array:
    """(R,) means of (N,) values over the resampled utterances."""
    return np.asarray(counts @ values / counts.sum(axis=1))


def _estimate(points: Array, samples: Sequence[Array]) -> Estimate:
    """Of (K, M) points, and for each training (R,) samples."""
    made = estimate(lambda values: values[..., 0], points[..., None], np.stack(samples)[..., None])
    assert made is not None, "scores of completeness are finite"
    return made
