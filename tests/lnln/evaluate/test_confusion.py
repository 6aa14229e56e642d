"""Confusion matrices count what the accuracies count."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from lnln.data.store import Store
from lnln.evaluate.confusion import Confusion, confusions
from lnln.evaluate.predictions import read_predictions
from lnln.evaluate.systems import score_systems
from lnln.metrics import classify
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore
from tests.published_run import published_run


def test_the_diagonal_is_the_accuracy(run_store: RunStore) -> None:
    store = run_store.store
    (system,) = score_systems(store, [run_store.worse, run_store.better], ["ten_rates"], mask_seeds=[0, 1, 2])
    made = confusions(store, system)
    assert [each.rate for each in made] == [0.0, 0.1, 0.5, 0.9]
    labels = read_predictions(store, system.first).labelled().label
    expected = np.bincount(classify("acc7", labels, (-3, 3)) + 3, minlength=7)
    for each in made:
        views = [v for e in system.evaluations["ten_rates"] for v in e.views if v.missing_rate == each.rate]
        assert each.num_answers == len(views) == 6
        assert each.classes == ("-3", "-2", "-1", "0", "1", "2", "3")
        assert np.array_equal(each.counts.sum(axis=1), 6 * expected)
        accuracy = np.mean([view.scores["acc7"] for view in views])
        assert np.trace(each.counts) / each.counts.sum() == pytest.approx(accuracy)
        shares = each.shares()
        assert np.allclose(shares.sum(axis=1), expected > 0) and np.isfinite(shares).all()
    assert [each.rate for each in confusions(store, system, [0.5, 0.55, 1.0])] == [0.5]


def test_rows_are_labels() -> None:
    made = Confusion(0.5, ("no", "yes"), np.array([[1, 3], [0, 0]]), 2)
    assert made.shares().tolist() == [[0.25, 0.75], [0, 0]] and made.collapse_share == 0.75


def test_sims_has_five_classes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    content = mmsa_content()
    for split in content.values():
        split["regression_labels"] = (split["regression_labels"] / 3).astype(np.float32)
        for modality in ("T", "A", "V"):
            split[f"regression_labels_{modality}"] = split["regression_labels"]
    path = tmp_path / "sims.pkl"
    path.write_bytes(pickle.dumps(content))
    manifest = import_corpus(store, path, "sims")
    assert manifest.label_range == (-1.0, 1.0)
    (system,) = score_systems(store, [finished_run(store, manifest)], ["ten_rates"], mask_seeds=[0])
    (made,) = confusions(store, system, [0.0])
    assert made.classes == ("negative", "weakly negative", "neutral", "weakly positive", "positive")
    assert np.trace(made.counts) / made.counts.sum() == pytest.approx(system.first.views[0].scores["acc5"])


def test_published_selection_answers_with_the_weights_of_the_finest_accuracy(run_store: RunStore) -> None:
    run_id = published_run(run_store.store, run_store.manifest)
    shipped = score_systems(run_store.store, [run_id], ["ten_rates"], mask_seeds=[0])[1]
    (made,) = confusions(run_store.store, shipped, [0.9])
    (view,) = (view for view in shipped.first.views if view.missing_rate == 0.9)
    assert np.trace(made.counts) / made.counts.sum() == pytest.approx(view.scores["acc7"])
    assert made.collapse_share == pytest.approx(view.collapse_share)
