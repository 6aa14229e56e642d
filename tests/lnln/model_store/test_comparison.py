"""Two versions side by side: what differs, and scores on the same views alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnln.cli import show
from lnln.cli.console import Console
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluate.suites import MASK_SEEDS, SUITES
from lnln.evaluations import evaluation_specs
from lnln.model_store import compare, import_model, publish, pull, resolve
from lnln.model_store.scores import TEN_RATES_MASK_SEEDS, view_sets
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_pickle
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore


@pytest.fixture
def store(run_store: RunStore) -> Store:
    """With v1 and v2 of `small-lnln`, which differ in their seed and two keys."""
    other = finished_run(
        run_store.store, run_store.manifest, seed=2, score=1.2, loss={"adversarial": 0.5, "completeness": 0.0}
    )
    publish(run_store.store, run_store.worse, "small-lnln")
    publish(run_store.store, other, "small-lnln")
    return run_store.store


def test_the_views_that_are_looked_for_are_those_of_the_suite() -> None:
    suite = SUITES["ten_rates"]
    assert TEN_RATES_MASK_SEEDS == MASK_SEEDS
    specs = evaluation_specs(suite.corruption(), mask_seeds=suite.mask_seeds())
    assert view_sets(suite.corruption())[0] == [spec.view_id for spec in specs]


def test_what_differs_and_nothing_else(store: Store) -> None:
    compared = compare(store, "small-lnln@v1", "small-lnln@best")
    assert [version.version for version in compared.versions] == ["v1", "v2"]
    assert compared.settings == {
        "loss.completeness": ("0.9", "0.0"),
        "loss.adversarial": ("0.8", "0.5"),
        "train.seed": ("1", "2"),
    }
    (validation,) = compared.scores
    assert validation.split == "valid" and validation.values == {"mae": (1.3, 1.2)}
    (note,) = compared.notes
    assert "`lnln evaluate small-lnln@v1 --suite ten_rates`" in note and "small-lnln@v2" in note


def test_scores_on_test_are_of_the_same_views(store: Store) -> None:
    first = evaluate(store, "small-lnln@v1")
    assert len(compare(store, "small-lnln@v1", "small-lnln@v2").scores) == 1, "one of them alone says nothing"
    evaluate(store, "small-lnln@v2", rates=[0.5])
    assert len(compare(store, "small-lnln@v1", "small-lnln@v2").scores) == 1, "nor do other views"
    second = evaluate(store, resolve(store, "small-lnln@v2").run_id)
    compared = compare(store, "small-lnln@v1", "small-lnln@v2")
    assert compared.notes == ()
    _, test = compared.scores
    assert test.values == {metric: (first.mean[metric], second.mean[metric]) for metric in first.metrics()}
    assert test.intervals["acc7"] == (first.intervals["acc7"], second.intervals["acc7"])
    assert test.what == "protocol frame, rates 0, 0.5, 0.9, mask seeds 0, 14 utterances"


def test_versions_of_other_features_and_without_scores_are_not_compared(store: Store, tmp_path: Path) -> None:
    manifest = import_corpus(store, mmsa_pickle(tmp_path / "another.pkl", seed=5), "another")
    publish(store, finished_run(store, manifest), "other")
    compared = compare(store, "small-lnln@v1", "other")
    assert compared.scores == () and compared.settings["corpus"] == ("small", "another")
    assert "they are of other features" in compared.notes[0]
    folder = pull(store, "small-lnln@v1", tmp_path / "pulled")
    (folder / "manifest.json").unlink()
    import_model(store, folder, "bare")
    compared = compare(store, "bare", "small-lnln@v1")
    assert compared.scores == () and compared.notes[0].startswith("bare@v1 came without a validation score")
    assert compared.settings["imported from"] == ("pulled", "") and "model.name" not in compared.settings


def test_a_version_is_not_compared_with_itself_nor_with_nothing(store: Store) -> None:
    with pytest.raises(RefusedError, match="are both small-lnln@v2"):
        compare(store, "small-lnln", "small-lnln@v2")
    with pytest.raises(RefusedError, match="no version or alias 'v9'"):
        compare(store, "small-lnln", "small-lnln@v9")
    store.write(f"{resolve(store, 'small-lnln@v1').folder}/lineage.json", b"[]")
    with pytest.raises(RefusedError, match=r"lineage\.json must hold a JSON object"):
        compare(store, "small-lnln@v1", "small-lnln@v2")
    store.remove(f"{resolve(store, 'small-lnln@v1').folder}/lineage.json")
    with pytest.raises(RefusedError, match=r"lineage\.json is absent"):
        compare(store, "small-lnln@v1", "small-lnln@v2")


def test_a_comparison_is_shown(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for version in ("v1", "v2"):
        evaluate(store, f"small-lnln@{version}")
    compared = compare(store, "small-lnln@v1", "small-lnln@v2")
    show.comparison(Console(), compared, command="lnln")
    out = capsys.readouterr().out
    assert "loss.adversarial" in out and "-0.1000" in out and "Acc-7" in out
    assert out.splitlines()[-1].endswith("lnln report small-lnln@v1 small-lnln@v2")
