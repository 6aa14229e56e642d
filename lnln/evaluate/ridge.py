"""Ridge regression on the words that are left: what needs no deep model, on the same views as every model.

    evaluations = ridge_evaluations(store, manifest, ["ten_rates", "absent"])      # by suite, as of any model
    systems = baseline_systems(store, "mosi", ["ten_rates"])                       # the same as rows of every table

An utterance is how often each word piece survives in it, or the mean of the language features that survive, in
deviations of the training split. It learns from the training split under that corpus's training corruption, so it
knows what missing words look like; how much it is held back (alpha) is what gives the lowest mean MAE over the
validation rates. No audio, no vision, no chance: the same features give the same weights. What it says is clipped to
the range of the labels. Records lie in the store below `baselines/<feature_id>/ridge/`, like those of a run.

N utterances, V columns of the design: word pieces or dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.config import CorruptionConfig, config_for, to_dict
from lnln.corruption import ViewSpec, evaluation_views, make_masks, training_view
from lnln.corruption.noise import NoiseSource
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.schema import SPLITS, Modality, Ragged, Split, Utterances
from lnln.data.shards import iterate_shards, read_labels
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.evaluate.predictions import Answers
from lnln.evaluate.run import store_evaluation, stored_evaluation
from lnln.evaluate.scores import score_views
from lnln.evaluate.suites import choose_suites
from lnln.evaluate.systems import System
from lnln.evaluate.transfer import say_labels
from lnln.evaluations import Evaluation, evaluation_id, evaluation_specs

RIDGE = "ridge on text"
# Raised when the same features would give other weights.
VERSION = 1
# Copies of the training split, each corrupted afresh, and as few as keep the rows below MAX_ROWS.
MAX_DRAWS, MAX_ROWS = 10, 50_000
DRAW_SEED = 1111
# The most frequent word pieces of the training split that occur in two utterances or more.
MAX_WORDS = 4000
# For each copy of the training split.
ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
# Utterances whose design is held at a time.
_CHUNK = 2048

Array = NDArray[np.float64]
Values = NDArray[np.float32]


def ridge_evaluations(
    store: Store,
    manifest: FeatureManifest,
    suites: Sequence[str] = ("ten_rates",),
    *,
    split: Split = "test",
    mask_seeds: Sequence[int] | None = None,
    corruption: CorruptionConfig | None = None,
    trained_on: FeatureManifest | None = None,
) -> dict[str, Evaluation]:
    """By suite the evaluation of ridge regression on `split` of `manifest`: stored, or computed and stored.

    corruption: of the training split and of the views that choose alpha; default: of the config that `lnln train`
    takes for the corpus. trained_on: another corpus to learn from, of the same vocabulary and label range.
    RefusedError for an unknown suite or split, and where training or validation split are absent or have no label.
    """
    if split not in SPLITS:
        raise RefusedError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    source = manifest if trained_on is None else trained_on
    _check(manifest, source)
    ridge = Ridge(store, source, corruption or config_for(source.corpus).corruption)
    folder = f"baselines/{manifest.feature_id}/ridge"
    scored_on: Utterances | None = None
    found: dict[str, Evaluation] = {}
    for name, suite in choose_suites(suites).items():
        specs = evaluation_specs(suite.corruption(), mask_seeds=suite.mask_seeds(mask_seeds))
        identity = evaluation_id(ridge.recipe_sha256, manifest.digest(), split, [spec.view_id for spec in specs])
        stored = stored_evaluation(store, folder, identity)
        if stored is None:
            if scored_on is None:
                scored_on = _read_texts(store, manifest, split)
            stored = _evaluate(ridge, manifest, split, scored_on, specs, folder, identity)
        found[name] = stored
    return found


def baseline_systems(
    store: Store,
    corpus: str | FeatureManifest,
    suites: Sequence[str] = ("ten_rates", "absent"),
    split: Split = "test",
    mask_seeds: Sequence[int] | None = None,
) -> list[System]:
    """What stands in every table beside models on `corpus`, as systems of one training without a seed.

    corpus: by name, its current features; or its manifest. RefusedError as `ridge_evaluations`.
    """
    manifest = read_features(store, corpus) if isinstance(corpus, str) else corpus
    evaluations = ridge_evaluations(store, manifest, suites, split=split, mask_seeds=mask_seeds)
    by_suite = {suite: (evaluation,) for suite, evaluation in evaluations.items()}
    return [System(RIDGE, (RIDGE,), (None,), by_suite, None)]


@dataclass(frozen=True)
class Weights:
    """prediction = bias + design @ weights (V,), clipped to the labels. mae: mean over the validation rates."""

    weights: Array
    bias: float
    alpha: float
    mae: float

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.weights.tobytes() + np.float64(self.bias).tobytes()).hexdigest()


class Ridge:
    """Ridge regression on the texts of one corpus; nothing is read before it is asked."""

    def __init__(self, store: Store, manifest: FeatureManifest, corruption: CorruptionConfig) -> None:
        self.store, self.manifest, self.corruption = store, manifest, corruption

    @property
    def num_draws(self) -> int:
        if self.corruption.draws == "fixed":
            return 1
        return max(1, min(MAX_DRAWS, MAX_ROWS // max(1, self.manifest.splits["train"].num_utterances)))

    @property
    def recipe_sha256(self) -> str:
        """Of all that the weights follow from, so that it is known before they are."""
        recipe = {
            "ridge": VERSION,
            "trained_on": self.manifest.digest(),
            "views": [spec.to_dict() for spec in (*self._draws(), *self._validation_views())],
            "alphas": ALPHAS,
            "max_words": MAX_WORDS,
        }
        return hashlib.sha256(encode_json(recipe)).hexdigest()

    @cached_property
    def design(self) -> Design:
        return Design.of(self.manifest, self._train)

    @cached_property
    def fitted(self) -> Weights:
        """By the normal equations of all draws, for the best of ALPHAS on validation; the larger of equals."""
        products, moments, means, mean_label = self._normal_equations()
        valid = _read_labelled(self.store, self.manifest, "valid")
        tried: list[tuple[float, Array, float]] = []
        for alpha in sorted(ALPHAS, reverse=True):
            penalty = np.eye(len(means)) * alpha * self.num_draws
            weights: Array = np.linalg.solve(products + penalty, moments).astype(np.float64)
            tried.append((alpha, weights, mean_label - float(means @ weights)))
        maes = np.mean([self._maes(tried, valid, spec) for spec in self._validation_views()], axis=0)
        alpha, weights, bias = tried[int(np.argmin(maes))]
        return Weights(weights, bias, alpha, float(maes.min()))

    def predict(self, manifest: FeatureManifest, utterances: Utterances, spec: ViewSpec) -> Values:
        """(N,) what it says of `utterances`, of `manifest`, under the view `spec`."""
        fitted = self.fitted
        chunks = self.design.chunks(manifest, utterances, spec)
        parts = [self._clipped(chunk @ fitted.weights + fitted.bias) for chunk in chunks]
        return np.concatenate([np.empty(0), *parts]).astype(np.float32)

    @cached_property
    def _train(self) -> Utterances:
        return _read_labelled(self.store, self.manifest, "train")

    def _draws(self) -> list[ViewSpec]:
        return [training_view(self.corruption, DRAW_SEED, draw) for draw in range(self.num_draws)]

    def _validation_views(self) -> list[ViewSpec]:
        return evaluation_views(self.corruption, self.corruption.validation_rates)

    def _normal_equations(self) -> tuple[Array, Array, Array, float]:
        """(V, V) and (V,): products of the columns with each other and with the labels, both about their means; (V,)
        means of the columns, and that of the labels."""
        width, labels = self.design.width, self._train.label.astype(np.float64)
        products, moments, sums = np.zeros((width, width)), np.zeros(width), np.zeros(width)
        for spec in self._draws():
            start = 0
            for chunk in self.design.chunks(self.manifest, self._train, spec):
                products += chunk.T @ chunk
                moments += chunk.T @ (labels[start : start + len(chunk)] - labels.mean())
                sums += chunk.sum(axis=0, dtype=np.float64)
                start += len(chunk)
        num = len(labels) * self.num_draws
        means = sums / num
        return products - num * np.outer(means, means), moments, means, float(labels.mean())

    def _maes(self, tried: Sequence[tuple[float, Array, float]], valid: Utterances, spec: ViewSpec) -> list[float]:
        """Of each alpha with its weights and bias, on one view, of which one chunk is held at a time."""
        said: list[list[Array]] = [[] for _ in tried]
        for chunk in self.design.chunks(self.manifest, valid, spec):
            for parts, (_, weights, bias) in zip(said, tried, strict=True):
                parts.append(self._clipped(chunk @ weights + bias))
        return [float(np.abs(np.concatenate(parts) - valid.label).mean()) for parts in said]

    def _clipped(self, values: Array) -> Array:
        return values.clip(*self.manifest.label_range)


@dataclass(frozen=True)
class Design:
    """What an utterance is to the regression. column: (ids,) of each token id its column, -1 for none, and `width` of
    them; None where text is features, whose mean and deviation over the training split are `mean` and `std` (V,)."""

    width: int
    column: NDArray[np.int64] | None
    mean: Array
    std: Array

    @classmethod
    def of(cls, manifest: FeatureManifest, train: Utterances) -> Design:
        if manifest.text_dim:
            mean, std = (np.array(manifest.statistics["text"][key], np.float64) for key in ("mean", "std"))
            varies = std > 1e-6 * np.abs(mean).clip(1e-6)
            return cls(manifest.text_dim, None, mean, np.where(varies, std, 1.0))
        tokenizer = manifest.tokenizer
        row = np.repeat(np.arange(len(train)), train.text.lengths)
        seen = np.unique(np.stack([row, train.text.values.astype(np.int64)], axis=1), axis=0)[:, 1]
        num_utterances = np.bincount(seen, minlength=tokenizer.vocabulary_size)
        # What stands for no word, or for every one that is missing.
        num_utterances[[tokenizer.pad_id, tokenizer.unknown_id, tokenizer.cls_id, tokenizer.sep_id]] = 0
        words = np.flatnonzero(num_utterances > 1)
        words = np.sort(words[np.argsort(-num_utterances[words], kind="stable")][:MAX_WORDS])
        column = np.full(len(num_utterances), -1, np.int64)
        column[words] = np.arange(len(words))
        return cls(len(words), column, np.zeros(0), np.ones(0))

    def chunks(self, manifest: FeatureManifest, utterances: Utterances, spec: ViewSpec) -> Iterator[Values]:
        """(up to _CHUNK, V) float32 of the utterances under the view, one part after the other."""
        noise = NoiseSource.of(manifest) if spec.protocol == "noise" else None
        for first in range(0, len(utterances), _CHUNK):
            yield self._matrix(utterances.rows(first, first + _CHUNK), spec, noise)

    def _matrix(self, utterances: Utterances, spec: ViewSpec, noise: NoiseSource | None) -> Values:
        text, num = utterances.text, len(utterances)
        nothing = np.zeros(num, np.int64)
        lengths: dict[Modality, NDArray[np.int64]] = {"text": text.lengths, "audio": nothing, "vision": nothing}
        keep_ends = self.column is not None
        kept = make_masks(spec, utterances.utterance_id, lengths, keep_ends=keep_ends).kept["text"]
        values, survives = text.values, kept.values
        if noise is not None:
            said = noise.draw(spec, "text", utterances.utterance_id, text, kept)
            values, survives = values.copy(), np.ones_like(survives)
            values[text.offsets[said.row] + said.step] = said.value
        row = np.repeat(np.arange(num), text.lengths)[survives]
        if self.column is None:
            total, count = np.zeros((num, self.width)), np.bincount(row, minlength=num)[:, None]
            np.add.at(total, row, (values[survives] - self.mean) / self.std)
            means: Values = (total / count.clip(1)).astype(np.float32)
            return means
        # An id beyond the vocabulary is of no word that training knew.
        ids = values[survives].astype(np.int64)
        column = np.where(ids < len(self.column), self.column[np.minimum(ids, len(self.column) - 1)], -1)
        known = column >= 0
        counts = np.bincount(row[known] * self.width + column[known], minlength=num * self.width)
        design: Values = counts.reshape(num, self.width).astype(np.float32)
        return design


def _evaluate(
    ridge: Ridge,
    manifest: FeatureManifest,
    split: Split,
    utterances: Utterances,
    specs: Sequence[ViewSpec],
    folder: str,
    identity: str,
) -> Evaluation:
    source, store = ridge.manifest, ridge.store
    said = np.stack([ridge.predict(manifest, utterances, spec) for spec in specs])
    base = manifest if "train" in manifest.splits else source
    train_labels = read_labels(store, base, "train")
    numbers = score_views(specs, said, None, utterances.label, train_labels, manifest.label_range)
    is_own = source.digest() == manifest.digest()
    fitted = ridge.fitted
    model: dict[str, Any] = {
        "run_id": None,
        "weights_sha256": fitted.sha256,
        "baseline": "ridge",
        "version": VERSION,
        "recipe_sha256": ridge.recipe_sha256,
        "trained_on": {"corpus": source.corpus, "feature_id": source.feature_id, "manifest_digest": source.digest()},
        "corruption": to_dict(ridge.corruption),
        "num_draws": ridge.num_draws,
        "alpha": fitted.alpha,
        "validation_mae": fitted.mae,
        "num_columns": ridge.design.width,
    }
    return store_evaluation(
        store,
        folder,
        identity,
        (manifest, split, utterances, specs),
        {None: Answers(said, None)},
        name=RIDGE,
        model=model,
        trained_on="" if is_own else source.corpus,
        carries_over=() if is_own else _carries_over(store, source, manifest, split, utterances),
        **numbers,
    )


def _carries_over(
    store: Store, source: FeatureManifest, manifest: FeatureManifest, split: Split, utterances: Utterances
) -> tuple[str, ...]:
    what = "dimension" if manifest.text_dim else f"word piece; those that {source.corpus} does not have say nothing"
    theirs, ours = say_labels(read_labels(store, source, "train")), say_labels(utterances.label)
    return (
        f"carries over: the weight of each {what}",
        f"labels: {source.corpus} train {theirs}; {manifest.corpus} {split} {ours}",
    )


def _check(manifest: FeatureManifest, source: FeatureManifest) -> None:
    """RefusedError where ridge cannot learn from `source`, or `manifest` has another text or other labels."""
    for split in ("train", "valid"):
        if split not in source.splits:
            raise RefusedError(
                f"ridge regression learns from a training and a validation split, and corpus {source.corpus} has no "
                f"{split!r}, it has {', '.join(source.splits)}; learn from another corpus"
            )
    pairs = {
        "tokenizer": (source.tokenizer.name, manifest.tokenizer.name),
        "vocabulary": (source.tokenizer.vocabulary_size, manifest.tokenizer.vocabulary_size),
        "text dim": (source.text_dim, manifest.text_dim),
        "label range": (tuple(source.label_range), tuple(manifest.label_range)),
    }
    differing = [f"{what} {one}, not {other}" for what, (one, other) in pairs.items() if one != other]
    if differing:
        raise RefusedError(
            f"ridge regression on {source.corpus} does not fit corpus {manifest.corpus}: it takes "
            f"{'; '.join(differing)}; learn from a corpus with the same text and labels"
        )


def _read_texts(store: Store, manifest: FeatureManifest, split: Split) -> Utterances:
    """The utterances of the split without their frames, of which a large corpus has more than memory."""
    parts = [_without_frames(part) for part in iterate_shards(store, manifest, split)]
    return Utterances.concatenate(parts)


def _without_frames(utterances: Utterances) -> Utterances:
    nothing = np.zeros(len(utterances), np.int64)
    none = {
        name: Ragged.from_lengths(np.empty((0, frames.values.shape[1]), np.float32), nothing)
        for name, frames in (("audio", utterances.audio), ("vision", utterances.vision))
    }
    return replace(utterances, audio=none["audio"], vision=none["vision"], modality_labels={})


def _read_labelled(store: Store, manifest: FeatureManifest, split: Split) -> Utterances:
    """Those that have a label; RefusedError where none has."""
    utterances = _read_texts(store, manifest, split)
    rows = np.flatnonzero(np.isfinite(utterances.label))
    if not len(rows):
        raise RefusedError(
            f"ridge regression learns from labels, and no utterance of split {split} of corpus {manifest.corpus} has "
            "one; learn from another corpus"
        )
    return utterances.take(rows)
