"""The search of the results page: what is stored of it, when that is out of date, and a miniature of the whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.results.code import code_fingerprint, record_code
from benchmarks.results.page import render, write_page
from benchmarks.results.plan import Plan
from benchmarks.results.scores import features_digest, scores_path, write_scores
from benchmarks.results.search import (
    Search,
    is_search_missing,
    read_search,
    remove_search,
    search_path,
    write_search,
)
from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.paired import paired_difference
from lnln.runs import run_folder
from tests.benchmarks.made_scores import CODE, PLAN, made_scores, small_plan
from tests.benchmarks.test_page import tables
from tests.benchmarks.test_run import TINY, start
from tests.finished_run import finished_run, small_corpus
from tests.made_study import PAPER, complete, failed, made_study
from tuning.choice import Choice, ScoredRun, Setting, candidates_of
from tuning.choose import planned_runs
from tuning.record import STUDY_FILE, Study, save_study, study_folder
from tuning.sweep import study_id_for

WITH_SEARCH = PLAN.replace(
    "groups:",
    """\
search:
  title: Searching the loss weights
  note: Why it was done.
  num_trials: 10
  seeds: [6, 5]
  set: [tune.epochs=1, tune.pruning=none]
groups:""",
)
SECRET = "video1$_$7"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> FeatureManifest:
    folder = tmp_path_factory.mktemp("corpus")
    return small_corpus(Store(folder / "store"), folder, "tiny")


@pytest.fixture(scope="module")
def search(manifest: FeatureManifest, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """As if it had been made: the more adversarial, the better."""
    plan, num_trials = small_plan(tmp_path_factory.mktemp("plan"), WITH_SEARCH), 10
    study = study_of(plan, manifest, num_trials)
    (best,) = candidates_of(study, 1)
    runs = {
        trial: tuple(scored_run(trial, seed, mae) for seed, mae in ((5, mae), (6, mae + 0.02)))
        for trial, mae in ((None, 1.1), (best.number, 1.0))
    }
    made = paired_difference("mae", (5, 6), [-0.1, -0.1], np.full((2, 50), -0.1))
    differences = {split: {"mae": made} for split in ("valid", "test")}
    choice = Choice(
        study_id=study.study_id,
        corpus=plan.corpus,
        feature_id=manifest.feature_id,
        seeds=(5, 6),
        num_trials=num_trials,
        metrics=("mae",),
        num_utterances={"valid": 12, "test": 14},
        configured=Setting(None, PAPER, runs[None]),
        candidates=(Setting(best.number, best.parameters, runs[best.number], differences),),
        chosen=best.number,
        outcome="better",
        seeds_to_show=None,
        verdict=f"trial {best.number} is better than *all*",
        code_version="0.1.0",
    )  # fmt: skip
    return Search.of(study, choice, manifest, "2 CPU cores", CODE)


def study_of(plan: Plan, manifest: FeatureManifest, num_trials: int) -> Study:
    assert plan.search is not None
    tried = [
        {**PAPER, "adversarial": 0.1 + 0.1 * i, "reconstruction": 0.02 * (1 + i % 3)} for i in range(num_trials - 1)
    ]
    return made_study(
        complete(0, 1.05, parameters=PAPER),
        *(complete(i, 1.1 - each["adversarial"] / 10, parameters=each) for i, each in enumerate(tried, 1)),
        dataclasses.replace(failed(num_trials), reason=f"the loss is not finite: adversarial of {SECRET}"),
        study_id=study_id_for(plan.corpus, manifest.feature_id, plan.search.config(), plan.search.space),
        corpus=plan.corpus,
        feature_id=manifest.feature_id,
        config=plan.search.config().to_dict(),
        versions={"optuna": "5.0.0"},
    )


def scored_run(trial: int | None, seed: int, mae: float) -> ScoredRun:
    ids = {"valid": f"v{trial}{seed}", "test": f"t{trial}{seed}"}
    return ScoredRun(seed, f"tiny-lnln-{trial}-{seed}", 1, mae, ids, {split: {"mae": mae} for split in ids})


def test_what_is_stored_is_read_again_and_holds_no_reasons(
    tmp_path: Path, manifest: FeatureManifest, search: Search
) -> None:
    plan = small_plan(tmp_path, WITH_SEARCH)
    path = search_path(tmp_path, plan)
    write_search(path, search)
    assert read_search(tmp_path, plan) == search == read_search(tmp_path, plan, manifest)
    assert SECRET not in path.read_text() and len(search.study.of_state("failed")) == 1
    by_ped = {each.parameters[0] for each in search.importances if each.method == "PED-ANOVA"}
    assert not search.too_little and by_ped == {"completeness", "adversarial", "reconstruction"}
    assert not is_search_missing(plan, tmp_path, manifest) and not is_search_missing(plan, tmp_path, manifest, CODE)
    assert is_search_missing(plan, tmp_path, manifest, "other")
    values = json.loads(path.read_text())
    for damaged in (b"", b"[]", b"{}", json.dumps({**values, "study": {}}).encode(), path.read_bytes()[:500]):
        path.write_bytes(damaged)
        with pytest.raises(RefusedError, match=r"search\.json holds no search"):
            read_search(tmp_path, plan)
    path.write_text(json.dumps({**values, "format": 0}))
    assert read_search(tmp_path, plan) is None


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("num_trials: 10", "num_trials: 11", False),
        ("num_trials: 10", "num_trials: 9", True),
        ("seeds: [6, 5]", "seeds: [5, 6]", True),
        ("seeds: [6, 5]", "seeds: [6, 7]", False),
        ("seeds: [6, 5]", "seeds: [6, 5]\n  num_candidates: 2", False),
        ("seeds: [6, 5]", "seeds: [6, 5]\n  space: {adversarial: {low: 0.1, high: 3}}", False),
        ("tune.epochs=1", "tune.epochs=2", False),
        ("tune.epochs=1", "tune.epochs=1, tune.max_concurrent_trials=3", True),
        ("train.epochs=2", "train.epochs=3", False),
        ("Why it was done.", "Other words.", True),
    ],
)
def test_a_search_belongs_to_the_plan_that_it_was_made_by(
    tmp_path: Path, manifest: FeatureManifest, search: Search, old: str, new: str, is_same: bool
) -> None:
    write_search(search_path(tmp_path, small_plan(tmp_path, WITH_SEARCH)), search)
    assert old in WITH_SEARCH
    plan = small_plan(tmp_path, WITH_SEARCH.replace(old, new))
    assert (read_search(tmp_path, plan, manifest) is not None) == is_same
    assert is_search_missing(plan, tmp_path, manifest) != is_same


def test_a_search_on_other_features_is_missing_and_on_another_file_is_refused(
    tmp_path: Path, manifest: FeatureManifest, search: Search
) -> None:
    plan = small_plan(tmp_path, WITH_SEARCH)
    path = search_path(tmp_path, plan)
    write_search(path, dataclasses.replace(search, manifest_digest="of other features"))
    assert read_search(tmp_path, plan, manifest) is None and read_search(tmp_path, plan) is not None
    write_search(path, dataclasses.replace(search, source_sha256="ab" * 32))
    with pytest.raises(RefusedError, match="is of data with SHA-256 abababababab"):
        read_search(tmp_path, plan, manifest)
    # Without the corpus, against what the scores are of.
    clean = plan.experiment("clean")
    scores = dataclasses.replace(made_scores(plan, clean, 1), source_sha256="cd" * 32)
    write_scores(scores_path(tmp_path, plan, clean, 1), scores)
    with pytest.raises(RefusedError, match="this is cdcdcdcdcdcd"):
        write_page(plan, tmp_path, tmp_path / "page" / "results.md")


def test_the_page_shows_what_was_found(tmp_path: Path, search: Search) -> None:
    plan = small_plan(tmp_path, WITH_SEARCH)
    without = render(plan, {})
    assert "Searching" not in without and without == render(small_plan(tmp_path), {})
    page = render(plan, {}, search)
    assert page.startswith(without.rstrip("\n"))
    section = page[len(without.rstrip("\n")) :]
    assert "## Searching the loss weights\n\nWhy it was done." in section
    assert "10 trials of 1 epoch each (10 complete, 1 failed), with training seed 1111" in section
    assert "**Trial 9 is better than \\*all\\*.**" in section and "Compared before" not in section
    trials, singles, pairs, choice, differences = tables(section)
    assert len(trials) == 11 and trials[0]["trial"] == "9" and trials[0]["validation MAE"] == "1.0100"
    assert trials[-1]["validation MAE"] == "failed"
    assert {row["parameter"] for row in singles} == {"completeness", "adversarial", "reconstruction"}
    assert singles[0]["parameter"] == "adversarial" and "×" in pairs[0]["parameters"]
    assert [row["setting"] for row in choice] == ["configured", "trial 9"]
    assert choice[1]["validation MAE"] == "1.010 ± 0.014"
    assert differences[0]["test"] == "−0.100 (−0.100 to −0.100)"

    little = dataclasses.replace(search, importances=(), too_little="Importances need 8 complete trials.")
    earlier = ({"seeds": [1, 2], "trials": [3], "verdict": "nothing"},)
    again = dataclasses.replace(little, choice=dataclasses.replace(search.choice, earlier=earlier))
    said = render(plan, {}, again)
    assert "Importances need 8 complete trials." in said and "- seeds 1, 2: nothing" in said
    for each in (search, again):
        write_search(search_path(tmp_path, plan), each)
        write_page(plan, tmp_path, tmp_path / "page" / "results.md")
        assert (tmp_path / "page" / "results.md").read_text() == render(plan, {}, each)


def test_what_is_made_anew_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path, "tiny")
    plan = small_plan(tmp_path, WITH_SEARCH)
    assert plan.search is not None
    study = study_of(plan, manifest, 10)
    save_study(store, study)
    record_code(store, study_folder(study.study_id), "older", STUDY_FILE)
    planned = planned_runs(study, manifest, candidates_of(study, 1), plan.search.seeds)
    config = study.trained_config().to_dict()
    sections = {key: value for key, value in config.items() if key not in ("train", "tune")}
    train = {key: value for key, value in config["train"].items() if key != "seed"}
    made = finished_run(store, manifest, seed=5, train={**train, "seed": 5}, **sections)
    assert made == planned[None, 5]
    kept = finished_run(store, manifest, seed=1111, train={**train, "seed": 1111}, **sections)
    remove_search(store, plan.search, study.study_id, manifest)
    assert not Path(store.url, run_folder(made)).exists()
    assert not Path(store.url, study_folder(study.study_id)).exists()
    assert store.exists(f"{run_folder(kept)}/result.json")
    remove_search(store, plan.search, study.study_id, manifest)


MINIATURE = f"""
corpus: tiny
config: sample
set: [
{TINY.replace("EPOCHS", "1")}]
rates: [0, 0.5]
validation_rates: [0, 0.5]
mask_seeds: [0]
search:
  title: Searching the loss weights
  num_trials: 2
  seeds: [5, 6]
  set: [tune.epochs=1, tune.pruning=none, tune.max_concurrent_trials=1]
groups:
  main:
    kind: systems
    title: Main systems
    seeds: [1]
    against: clean
    experiments:
      clean: {{title: clean LNLN}}
      text_only: {{title: text-only baseline, set: [model.name=text_only]}}
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_search_is_run_stored_and_shown(tmp_path: Path) -> None:
    """What is configured is trained already, so the study and the two runs of its best trial are left."""
    plan = small_plan(tmp_path, MINIATURE)
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path, "tiny")
    assert plan.search is not None
    for seed in plan.search.seeds:
        sections = plan.search.config().to_dict()
        del sections["tune"]
        finished_run(store, manifest, **{**sections, "seed": seed, "train": {**sections["train"], "seed": seed}})
    process = start(tmp_path, "--only=search")
    try:
        out, _ = process.communicate(timeout=420)
    finally:
        if process.poll() is None:
            process.terminate()  # it ends what it started
            process.communicate()
    assert process.returncode == 0 and "configured: seed" not in out, out
    search = read_search(tmp_path / "scores", plan)
    assert search is not None and search.code == code_fingerprint()
    assert [trial.number for trial in search.study.of_state("complete")] == [0, 1] and search.too_little
    assert search.choice.seeds == (5, 6) and len(search.choice.candidates[0].runs) == 2
    assert search.manifest_digest == features_digest(manifest)
    assert not is_search_missing(plan, tmp_path / "scores", manifest, code_fingerprint())
    text = search_path(tmp_path / "scores", plan).read_text()
    assert "$_$" not in text and str(tmp_path) not in text
    page = (tmp_path / "page" / "results.md").read_text()
    assert "0 of 2 trainings are scored" in page and "## Searching the loss weights" in page
    assert not list((tmp_path / "store").glob("runs/*/ray")) and len(list((tmp_path / "store").glob("runs/*"))) == 4
