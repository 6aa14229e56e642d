"""Scores of a system are those of its evaluations, with the deviations that can be computed by hand."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.data.manifest import SplitEntry, commit_features
from lnln.data.shards import read_split, write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, evaluate_suites
from lnln.evaluate.bootstrap import resampled_scores
from lnln.evaluate.estimates import SuiteScores, estimate, score_suite
from lnln.evaluate.predictions import read_predictions
from lnln.evaluate.suites import SUITES
from lnln.evaluate.systems import System, score_systems
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore
from tests.published_run import published_run


def scored(run_store: RunStore, *names: str, suite: str = "ten_rates", seeds: tuple[int, ...] = (0, 1)) -> SuiteScores:
    (system,) = score_systems(run_store.store, names, [suite], mask_seeds=seeds)
    return score_suite(run_store.store, system, suite)


@pytest.mark.parametrize("suite", ["ten_rates", "absent", "grid"])
def test_one_training_has_the_numbers_of_its_evaluation(run_store: RunStore, suite: str) -> None:
    made = scored(run_store, run_store.worse, suite=suite)
    evaluation = evaluate_suites(run_store.store, run_store.worse, [suite], mask_seeds=[0, 1])[suite]
    assert made.rates == SUITES[suite].rates and made.metrics == tuple(evaluation.metrics())
    assert made.num_labelled == evaluation.num_labelled and made.baselines == evaluation.baselines
    assert made.collapse_share == pytest.approx([row["collapse_share"] for row in evaluation.by_rate()])
    for metric in made.metrics:
        mean, by_rate = made.mean[metric], made.by_rate[metric]
        assert mean.value == pytest.approx(evaluation.mean[metric])
        assert [each.value for each in by_rate] == pytest.approx([row[metric] for row in evaluation.by_rate()])
        assert mean.sd_seeds is None and (mean.sd_masks is None) == (suite == "absent")
        stored = evaluation.intervals[metric]
        assert (mean.low, mean.high) == pytest.approx((stored.low, stored.high))
        ends = [end for each in evaluation.rate_intervals[metric] for end in (each.low, each.high)]
        assert [end for each in by_rate for end in (each.low, each.high)] == pytest.approx(ends)
    sampled = made.baseline_samples["predict_mean"]["mae"]
    assert sampled.mean() == pytest.approx(made.baselines["predict_mean"]["mae"], rel=0.05)


def test_deviations_over_seeds_and_masks(run_store: RunStore) -> None:
    made = scored(run_store, run_store.worse, run_store.better, seeds=(3, 0, 1))
    evaluations = [
        evaluate_suites(run_store.store, name, mask_seeds=[0, 1, 3])["ten_rates"]
        for name in (run_store.worse, run_store.better)
    ]
    points = np.array(
        [[[v.scores["mae"] for v in each.views if v.mask_seed == seed] for seed in (0, 1, 3)] for each in evaluations]
    )
    mean = made.mean["mae"]
    assert made.seeds == (1, 2) and mean.value == pytest.approx(points.mean())
    assert mean.sd_seeds == pytest.approx(points.mean(axis=(1, 2)).std(ddof=1))
    assert mean.sd_masks == pytest.approx(points.mean(axis=(0, 2)).std(ddof=1))
    first = made.by_rate["mae"][0]
    assert first.sd_masks == pytest.approx(0, abs=1e-6), "at rate 0 nothing is drawn"


def test_the_order_in_which_views_were_scored_changes_nothing(run_store: RunStore) -> None:
    ordered = scored(run_store, run_store.better)
    backwards = evaluate(
        run_store.store, run_store.better, rates=SUITES["ten_rates"].rates[::-1], mask_seeds=[1, 0], force=True
    )
    (system,) = score_systems(run_store.store, [run_store.better], ["ten_rates"], mask_seeds=[0, 1])
    assert system.first.rates == backwards.rates, "else this shows nothing"
    made = score_suite(run_store.store, system, "ten_rates")
    assert made.rates == ordered.rates and made.basis == ordered.basis
    assert made.mean["mae"].value == pytest.approx(ordered.mean["mae"].value)
    np.testing.assert_allclose(made.points["mae"], ordered.points["mae"])
    np.testing.assert_allclose(made.samples["f1_np"], ordered.samples["f1_np"])


def test_each_metric_of_the_published_selection_has_its_own_weights(run_store: RunStore) -> None:
    run_id = published_run(run_store.store, run_store.manifest)
    own, shipped = score_systems(run_store.store, [run_id], ["ten_rates"], mask_seeds=[0])
    made = score_suite(run_store.store, shipped, "ten_rates")
    assert made.is_selected_on_test and not score_suite(run_store.store, own, "ten_rates").is_selected_on_test
    for metric in ("mae", "acc7", "f1_nn"):
        said = read_predictions(run_store.store, shipped.first, metric).labelled()
        drawn = resampled_scores(said.sentiment, said.label, (-3, 3), with_f1=True)[metric]
        np.testing.assert_allclose(made.samples[metric][0], drawn)
        assert made.points[metric][0, 0].tolist() == [view.scores[metric] for view in shipped.first.views]
    of_mae = read_predictions(run_store.store, shipped.first, "mae")
    assert not np.array_equal(of_mae.sentiment, read_predictions(run_store.store, shipped.first, "acc7").sentiment)


def test_what_compares_has_one_basis(run_store: RunStore) -> None:
    absent = scored(run_store, run_store.worse, suite="absent")
    assert absent.basis == scored(run_store, run_store.better, suite="absent").basis
    (system,) = score_systems(run_store.store, [run_store.worse], ["absent"], split="valid")
    assert absent.basis != score_suite(run_store.store, system, "absent").basis
    first, other = (scored(run_store, run_store.worse, seeds=(seed,)) for seed in (0, 2))
    assert len({absent.basis, first.basis, other.basis}) == 3


def test_unlabelled_utterances_do_not_count(run_store: RunStore) -> None:
    store, manifest = run_store.store, run_store.manifest
    utterances = read_split(store, manifest, "test")
    label = utterances.label.copy()
    label[[0, 5]] = np.nan
    entry = write_shard(store, "holes/test", "test", dataclasses.replace(utterances, label=label))
    splits = {**manifest.splits, "test": SplitEntry(14, (entry,))}
    commit_features(store, dataclasses.replace(manifest, corpus="holes", splits=splits))
    (system,) = score_systems(store, [run_store.worse], ["absent"], "holes")
    made = score_suite(store, system, "absent")
    assert made.num_labelled == 12 and np.isfinite(made.samples["mae"]).all()
    assert made.mean["mae"].value == pytest.approx(system.first.mean["mae"])


@pytest.mark.parametrize("num", [1, 2])
def test_few_utterances_of_one_class(tmp_path: Path, num: int) -> None:
    store = Store(tmp_path / "store")
    content = mmsa_content((40, 12, num))
    content["test"]["regression_labels"][:] = 0
    path = tmp_path / "few.pkl"
    path.write_bytes(pickle.dumps(content))
    manifest = import_corpus(store, path, "few")
    (system,) = score_systems(store, [finished_run(store, manifest)], ["ten_rates"], mask_seeds=[0])
    made = score_suite(store, system, "ten_rates")
    for metric in made.metrics:
        ends = [(each.low, each.value, each.high) for each in (*made.by_rate[metric], made.mean[metric])]
        assert np.isfinite(ends).all()
    assert made.mean["corr"].value == 0 == made.mean["f1_np"].value, "no label but 0"
    if num == 1:
        mae = made.mean["mae"]
        assert (mae.low, mae.high) == pytest.approx((mae.value, mae.value))


def test_what_lies_below_baselines_needs_no_training(run_store: RunStore) -> None:
    (system,) = score_systems(run_store.store, [run_store.worse], ["absent"])
    (evaluation,) = system.evaluations["absent"]
    path = f"baselines/x/{Path(evaluation.predictions['path']).name}"
    run_store.store.write(path, run_store.store.read(evaluation.predictions["path"]))
    moved = dataclasses.replace(evaluation, predictions={**evaluation.predictions, "path": path})
    ridge = System("ridge", ("ridge",), (None,), {"absent": (moved,)}, None)
    assert not score_suite(run_store.store, ridge, "absent").is_trained
    assert score_suite(run_store.store, system, "absent").is_trained


def test_a_corpus_for_testing_alone_has_the_baselines_of_the_training_corpus(run_store: RunStore) -> None:
    store, manifest = run_store.store, run_store.manifest
    alone = dataclasses.replace(
        manifest,
        corpus="alone",
        splits={"test": manifest.splits["test"]},
        lengths={"test": manifest.lengths["test"]},
        statistics={},
    )
    commit_features(store, alone)
    (system,) = score_systems(store, [run_store.worse], ["absent"], "alone")
    assert score_suite(store, system, "absent").baselines == system.first.baselines
    # The current features of the corpus need not have a training split: what the model was trained on has.
    commit_features(store, dataclasses.replace(alone, corpus="small", feature_id="abcdef123456"))
    (system,) = score_systems(store, [run_store.worse], ["absent"], "small")
    assert system.first.trained_on == f"small, features {manifest.feature_id}"
    assert score_suite(store, system, "absent").baselines == system.first.baselines


def test_damaged_predictions_are_refused_by_name(run_store: RunStore) -> None:
    (system,) = score_systems(run_store.store, [run_store.worse], ["absent"])
    path = system.first.predictions["path"]
    run_store.store.write(path, b"x")
    with pytest.raises(RefusedError, match=path):
        score_suite(run_store.store, system, "absent")


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    chance=st.integers(0, 2**16),
    shift=st.floats(-2, 2),
)
def test_an_estimate_moves_with_the_scores(shape: tuple[int, int, int], chance: int, shift: float) -> None:
    random = np.random.default_rng(chance)
    points, samples = random.normal(0, 1, shape), random.normal(0, 1, (shape[0], 50, shape[2]))
    first, moved = (estimate(lambda s: s.mean(axis=-1), points + by, samples + by) for by in (0.0, shift))
    assert first is not None and moved is not None and first.low <= first.high
    assert (moved.value, moved.low, moved.high) == pytest.approx(
        (first.value + shift, first.low + shift, first.high + shift), abs=1e-9
    )
    assert (first.sd_seeds is None, first.sd_masks is None) == (shape[0] == 1, shape[1] == 1)
    for one, other in ((first.sd_seeds, moved.sd_seeds), (first.sd_masks, moved.sd_masks)):
        assert (one is None) == (other is None) and (one is None or one == pytest.approx(other, abs=1e-9))


def test_a_measure_that_is_not_defined_everywhere_is_none() -> None:
    points, samples = np.ones((2, 1, 1)), np.ones((2, 10, 1))
    for broken in (points, samples):
        broken[0] = np.nan
        assert estimate(lambda scores: scores[..., 0], points, samples) is None
        broken[0] = 1
    assert estimate(lambda scores: scores[..., 0], points, samples) is not None
