"""What a model said can be read again, and scored again to the same numbers."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from lnln.data.shards import read_split
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, read_predictions
from lnln.evaluate.bootstrap import interval, resampled_scores
from lnln.metrics import score
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore
from tests.published_run import published_run


def test_equal_what_was_scored(run_store: RunStore) -> None:
    made = evaluate(run_store.store, run_store.worse, rates=[0.0, 0.5, 1.0], mask_seeds=[0, 1, 2])
    said = read_predictions(run_store.store, made)
    utterances = read_split(run_store.store, run_store.manifest, "test")
    assert said.utterance_id == utterances.utterance_id and np.array_equal(said.label, utterances.label)
    assert said.sentiment.shape == (9, len(utterances)) and said.sentiment.dtype == np.float32
    assert said.completeness is not None and said.completeness.shape == said.sentiment.shape
    assert list(said.missing_rate) == [0.0, 0.5, 1.0] * 3 and list(said.mask_seed) == [0] * 3 + [1] * 3 + [2] * 3
    for view, row, estimated in zip(made.views, said.sentiment, said.completeness, strict=True):
        assert view.scores == score(row, said.label, made.label_range)
        assert view.mean_completeness == pytest.approx(float(estimated.mean()))
    drawn = resampled_scores(said.sentiment, said.label, made.label_range)
    low, high = interval(drawn["mae"].mean(axis=1))
    assert (made.intervals["mae"].low, made.intervals["mae"].high) == pytest.approx((low, high))


def test_without_the_unlabelled(run_store: RunStore) -> None:
    said = read_predictions(run_store.store, evaluate(run_store.store, run_store.worse))
    label = said.label.copy()
    label[[0, 3]] = np.nan
    few = dataclasses.replace(said, label=label).labelled()
    assert len(few.label) == len(label) - 2 == len(few.utterance_id) == few.sentiment.shape[1]
    assert np.array_equal(few.sentiment, np.delete(said.sentiment, [0, 3], axis=1))
    assert few.completeness is not None and few.completeness.shape == few.sentiment.shape


def test_a_model_without_completeness_has_none(run_store: RunStore) -> None:
    run_id = finished_run(run_store.store, run_store.manifest, model={"name": "text_only", "text_encoder": "tiny"})
    made = evaluate(run_store.store, run_id, rates=[0.0, 1.0])
    assert all(view.mean_completeness is None for view in made.views)
    said = read_predictions(run_store.store, made)
    assert said.completeness is None and said.labelled().completeness is None
    assert evaluate(run_store.store, run_id, rates=[0.0, 1.0]) == made


def test_a_metric_with_weights_of_its_own_has_its_own_predictions(run_store: RunStore) -> None:
    made = evaluate(run_store.store, published_run(run_store.store, run_store.manifest), selection="published")
    for metric in made.metrics():
        said = read_predictions(run_store.store, made, metric)
        for view, row in zip(made.views, said.sentiment, strict=True):
            assert view.scores[metric] == score(row, said.label, made.label_range)[metric]
    with pytest.raises(RefusedError, match=r"has metrics mae, .* got 'loss'"):
        read_predictions(run_store.store, made, "loss")


def test_a_damaged_or_lost_table_is_refused_by_name(run_store: RunStore) -> None:
    made = evaluate(run_store.store, run_store.worse)
    path = made.predictions["path"]
    run_store.store.write(path, run_store.store.read(path)[:-1] + b"x")
    with pytest.raises(RefusedError, match=path):
        read_predictions(run_store.store, made)
    run_store.store.remove(path)
    with pytest.raises(RefusedError, match=path):
        read_predictions(run_store.store, made)


def test_the_bootstrap_of_a_whole_evaluation_takes_seconds() -> None:
    random = np.random.default_rng(0)
    predictions, labels = (random.normal(0, 1, shape).astype(np.float32) for shape in ((33, 686), (686,)))
    started = time.process_time()
    drawn = resampled_scores(predictions, labels, (-3, 3))
    assert time.process_time() - started < 20  # measured: below 1
    assert drawn["corr"].shape == (1000, 33)
