"""Score a model at every missing rate, from one load of the corpus, beside what needs no model.

    evaluation = evaluate(store, "mosi-lnln@best")          # or a run id, or a pulled folder
    for row in evaluation.rows(): ...

An evaluation is known by its weights, features, split and views: asked for again, the stored one is returned.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lnln import __version__
from lnln.bootstrap import interval, resampled_scores
from lnln.corruption import ViewSpec
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.schema import SPLITS, Split, Utterances
from lnln.data.shards import read_labels, read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluations import Evaluation, Interval, ViewScores, evaluation_id, evaluation_specs, read_evaluation
from lnln.metrics import baselines, classify, higher_is_better, metric_names, score
from lnln.opened import OpenedModel, open_model

log = logging.getLogger(__name__)

NUM_RESAMPLES = 1000
BOOTSTRAP_SEED = 0
Values = NDArray[np.float32]


def evaluate(
    store: Store,
    name: str,
    corpus: str | None = None,
    *,
    split: str = "test",
    rates: Sequence[float] | None = None,
    mask_seeds: Sequence[int] | None = None,
    batch_size: int = 256,
    force: bool = False,
) -> Evaluation:
    """Score the model `name` (a run, a published model, a folder) on a split of `corpus`, default: its own.

    rates and mask_seeds default to those of the model's config; every rate is scored under every mask seed. The result
    is stored below the run or model and returned as it is the next time, unless `force`. Raises RefusedError for an
    unknown model, corpus or split, features that do not fit the model, and a split without labels.
    """
    if split not in SPLITS:
        raise RefusedError(f"a split is one of {', '.join(SPLITS)}, got {split!r}")
    chosen: Split = split
    opened = open_model(store, name)
    manifest = _features_for(store, opened, corpus)
    specs = evaluation_specs(opened.corruption, rates, mask_seeds)
    _check_specs(specs)
    identity = evaluation_id(opened.weights_sha256, manifest.digest(), chosen, [spec.view_id for spec in specs])
    if not force:
        stored = _stored(store, opened.evaluations, identity)
        if stored is not None:
            return stored
    utterances = read_split(store, manifest, chosen)
    train_labels = utterances.label if chosen == "train" else read_labels(store, manifest, "train")
    predictions, completeness = predict_views(store, opened, manifest, chosen, utterances, specs, batch_size)
    table = _table(utterances, specs, predictions, completeness)
    path = f"{opened.evaluations}/{identity}-{hashlib.sha256(table).hexdigest()[:12]}.parquet"
    store.write(path, table)
    evaluation = Evaluation(
        evaluation_id=identity,
        name=opened.reference,
        model={"run_id": opened.run_id, "weights_sha256": opened.weights_sha256},
        corpus=manifest.corpus,
        feature_id=manifest.feature_id,
        manifest_digest=manifest.digest(),
        synthetic=bool(manifest.source.get("synthetic", False)),
        split=chosen,
        label_range=manifest.label_range,
        num_utterances=len(utterances),
        num_labelled=int(np.isfinite(utterances.label).sum()),
        predictions={"path": path, "sha256": hashlib.sha256(table).hexdigest(), "num_bytes": len(table)},
        bootstrap={"num_resamples": NUM_RESAMPLES, "seed": BOOTSTRAP_SEED},
        code_version=__version__,
        **score_views(specs, predictions, completeness, utterances.label, train_labels, manifest.label_range),
    )
    record = f"{opened.evaluations}/{identity}.json"
    store.write_json(record, evaluation.to_dict())
    return evaluation


def predict_views(
    store: Store,
    opened: OpenedModel,
    manifest: FeatureManifest,
    split: Split,
    utterances: Utterances,
    specs: Sequence[ViewSpec],
    batch_size: int,
) -> tuple[Values, Values]:
    """Sentiment and completeness, each (views, utterances), without gradient, on the accelerator if there is one."""
    import torch

    from lnln.batches import EvaluationBatches, Views

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = opened.load().to(device).eval()
    views = Views(utterances, split, store, manifest)
    unknown_id = manifest.tokenizer.unknown_id
    batches = EvaluationBatches(utterances, views, specs, unknown_id, batch_size=batch_size, device=device)
    sentiment, completeness = np.empty(batches.shape, np.float32), np.empty(batches.shape, np.float32)
    with torch.inference_mode():
        for batch in _shown(batches, len(batches), f"evaluate {opened.reference}"):
            output = model(batch.inputs)
            sentiment[batch.view, batch.utterance] = output.sentiment.float().cpu().numpy()
            completeness[batch.view, batch.utterance] = output.completeness.float().cpu().numpy()
    return sentiment, completeness


def score_views(
    specs: Sequence[ViewSpec],
    predictions: Values,
    completeness: Values,
    labels: Values,
    train_labels: Values,
    label_range: tuple[float, float],
) -> dict[str, Any]:
    """Every number of an Evaluation, by its field's name, from (V, N) predictions and (N,) labels (NaN: unlabelled)."""
    finest = next(metric for metric in metric_names(label_range) if metric.startswith("acc"))
    views = []
    for spec, predicted, certain in zip(specs, predictions, completeness, strict=True):
        assert spec.rates is not None
        classes = np.unique(classify(finest, predicted, label_range), return_counts=True)[1]
        views.append(
            ViewScores(
                view_id=spec.view_id,
                missing_rate=spec.rates[0],
                mask_seed=spec.seed,
                scores=score(predicted, labels, label_range),
                collapse_share=float(classes.max() / len(predicted)),
                mean_completeness=float(certain.mean()),
            )
        )
    rates = tuple(dict.fromkeys(view.missing_rate for view in views))
    constant = _constant_answers(train_labels, labels, label_range)
    labelled = np.isfinite(labels)
    drawing = {"num_resamples": NUM_RESAMPLES, "seed": BOOTSTRAP_SEED}
    samples = resampled_scores(predictions[:, labelled], labels[labelled], label_range, **drawing)
    mean = {metric: float(np.mean([view.scores[metric] for view in views])) for metric in views[0].scores}
    by_rate = {
        metric: tuple(
            Interval(
                float(np.mean([view.scores[metric] for view in views if view.missing_rate == rate])),
                *interval(drawn[:, [view.missing_rate == rate for view in views]].mean(axis=1)),
            )
            for rate in rates
        )
        for metric, drawn in samples.items()
    }
    return {
        "rates": rates,
        "mask_seeds": tuple(dict.fromkeys(view.mask_seed for view in views)),
        "views": tuple(views),
        "mean": mean,
        "intervals": {metric: Interval(mean[metric], *interval(drawn.mean(axis=1))) for metric, drawn in samples.items()},
        "rate_intervals": by_rate,
        "baselines": {name: scores for name, (scores, _) in constant.items()},
        "margins": _margins(samples, mean, constant, labels[labelled], label_range),
    }


def _constant_answers(
    train_labels: Values, labels: Values, label_range: tuple[float, float]
) -> dict[str, tuple[dict[str, float], float | None]]:
    """Scores of each baseline on `labels`, with the constant that it answers where it is one number for all metrics."""
    known = baselines(train_labels, labels, label_range)
    train = train_labels[np.isfinite(train_labels)]
    median = float(np.median(train))
    return {
        "predict_mean": (known["predict_mean"], float(train.mean())),
        "predict_median": (score(np.full(len(labels), median), labels, label_range), median),
        "one_class": (known["one_class"], None),
    }


def _margins(
    samples: dict[str, NDArray[np.float64]],
    mean: dict[str, float],
    constant: dict[str, tuple[dict[str, float], float | None]],
    labels: Values,
    label_range: tuple[float, float],
) -> dict[str, dict[str, Interval]]:
    """How much better the model's mean over views is than each baseline, on the same resamples; positive is better."""
    margins: dict[str, dict[str, Interval]] = {}
    for name, (scores, answer) in constant.items():
        if answer is None:
            continue
        drawing = {"num_resamples": NUM_RESAMPLES, "seed": BOOTSTRAP_SEED}
        drawn = resampled_scores(np.full((1, len(labels)), answer, np.float32), labels, label_range, **drawing)
        margins[name] = {}
        for metric, values in samples.items():
            sign = 1 if higher_is_better(metric) else -1
            difference = sign * (values.mean(axis=1) - drawn[metric][:, 0])
            margins[name][metric] = Interval(sign * (mean[metric] - scores[metric]), *interval(difference))
    return margins
