"""What stays of a training: read as written, refused when damaged, nothing in it that the corpus must keep."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.results.plan import Plan
from benchmarks.results.run import score
from benchmarks.results.scores import (
    UNIT,
    SplitScores,
    check_same_data,
    clear_unfinished,
    features_digest,
    read_all,
    read_scores,
    resample_seed,
    resampled,
    scores_path,
    write_scores,
)
from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluate.bootstrap import resampled_scores
from lnln.evaluate.predictions import Predictions, read_predictions
from lnln.runs import load_run
from tests.benchmarks.made_scores import CODE, PLAN, made_scores, small_plan
from tests.finished_run import finished_run, small_corpus


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return small_plan(tmp_path)


def test_read_as_written(tmp_path: Path, plan: Plan) -> None:
    clean = plan.experiment("clean")
    scores = made_scores(plan, clean, 1)
    path = scores_path(tmp_path, plan, clean, 1)
    assert path == tmp_path / "tiny" / "clean-1.json"
    assert read_scores(path) is None
    write_scores(path, scores)
    assert read_scores(path) == scores
    assert [entry.name for entry in path.parent.iterdir()] == ["clean-1.json"], "no temporary file stays"
    valid_only = dataclasses.replace(scores, test=None, all_missing=None)
    write_scores(path, valid_only)
    assert read_scores(path) == valid_only
    assert valid_only.is_of(plan, clean) and not valid_only.is_complete(clean)
    assert valid_only.is_complete(dataclasses.replace(clean, read_test=False))
    # A line for each key and each view, so that a difference can be read.
    assert len(path.read_text().splitlines()) < 250


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"best_epoch"', '"epoch"'),
        lambda text: text.replace('"validation": {', '"validation": [], "v": {', 1),
        lambda text: "[]",
        lambda text: text.replace('"seed": 1,', '"seed": 2,'),
    ],
)
def test_damage_is_refused_by_name(tmp_path: Path, plan: Plan, damage: object) -> None:
    path = scores_path(tmp_path, plan, plan.experiment("clean"), 1)
    write_scores(path, made_scores(plan, plan.experiment("clean"), 1))
    changed = damage(path.read_text())  # type: ignore[operator]
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(RefusedError, match=r"clean-1\.json.*remove it and run"):
        read_scores(path)


def test_scores_of_another_config_or_format_count_as_missing(tmp_path: Path, plan: Plan) -> None:
    for experiment in plan.experiments():
        write_scores(scores_path(tmp_path, plan, experiment, 1), made_scores(plan, experiment, 1))
    assert set(read_all(tmp_path, plan)) == {(each.name, 1) for each in plan.experiments()}

    other = small_plan(tmp_path, PLAN.replace("train.epochs=2", "train.epochs=3"))
    assert not read_all(tmp_path, other)
    stored_often = small_plan(tmp_path, PLAN.replace("train.epochs=2", "train.epochs=2, train.num_checkpoints=7"))
    assert len(read_all(tmp_path, stored_often)) == 4, "how much is stored on the way does not matter"
    one_mask = small_plan(tmp_path, PLAN.replace("mask_seeds: [0, 1]", "mask_seeds: [0]"))
    assert not read_all(tmp_path, one_mask)

    path = scores_path(tmp_path, plan, plan.experiment("clean"), 1)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 0}))
    assert read_scores(path) is None
    path.write_text(json.dumps(values))
    assert ("clean", 1) in read_all(tmp_path, plan)


@pytest.mark.parametrize(("key", "is_current"), [("dropout", True), ("proxy_read", False), ("mask_erased", False)])
def test_a_switch_that_came_later_makes_scores_stale_and_other_new_keys_do_not(
    tmp_path: Path, plan: Plan, key: str, is_current: bool
) -> None:
    """Before there was a choice the code did what was published; any other key begins as what there was before."""
    path = scores_path(tmp_path, plan, plan.experiment("clean"), 1)
    write_scores(path, made_scores(plan, plan.experiment("clean"), 1))
    values = json.loads(path.read_text())
    removed = values["config"]["model"].pop(key)
    path.write_text(json.dumps(values))
    assert bool(read_all(tmp_path, plan)) == is_current
    values["config"]["model"] |= {key: removed, f"{key}_of_before": 0}
    path.write_text(json.dumps(values))
    assert not read_all(tmp_path, plan), "one that is there no more does"


def test_other_code_alone_makes_nothing_stale(plan: Plan, made: tuple[Store, str]) -> None:
    manifest = read_features(made[0], "small")
    clean = plan.experiment("clean")
    scores = dataclasses.replace(
        made_scores(plan, clean, 1), feature_id=manifest.feature_id, manifest_digest=features_digest(manifest)
    )
    assert scores.is_current(plan, clean, manifest)
    assert scores.is_current(plan, clean, manifest, CODE)
    assert not scores.is_current(plan, clean, manifest, "newer")


@pytest.mark.parametrize("field", ["feature_id", "manifest_digest"])
def test_scores_of_other_features_are_not_mixed(
    tmp_path: Path, plan: Plan, made: tuple[Store, str], field: str
) -> None:
    manifest = read_features(made[0], "small")
    clean = plan.experiment("clean")
    current = [
        dataclasses.replace(
            made_scores(plan, clean, seed),
            source_sha256=str(manifest.source["sha256"]),
            feature_id=manifest.feature_id,
            manifest_digest=features_digest(manifest),
        )
        for seed in (1, 2)
    ]
    older = dataclasses.replace(current[1], **{field: "older"})  # type: ignore[arg-type]
    for scores in (current[0], older):
        write_scores(scores_path(tmp_path, plan, clean, scores.seed), scores)
    assert set(read_all(tmp_path, plan, manifest)) == {("clean", 1)}
    assert not older.is_current(plan, clean, manifest)
    with pytest.raises(RefusedError, match=r"clean-2\.json was scored on other features of the same file than clean-1"):
        read_all(tmp_path, plan)
    write_scores(scores_path(tmp_path, plan, clean, 2), current[1])
    assert len(read_all(tmp_path, plan)) == len(read_all(tmp_path, plan, manifest)) == 2


def test_the_name_of_the_file_is_no_feature(made: tuple[Store, str]) -> None:
    manifest = read_features(made[0], "small")
    renamed = dataclasses.replace(manifest, source={**manifest.source, "name": "other.pkl"})
    assert renamed.digest() != manifest.digest() and features_digest(renamed) == features_digest(manifest)
    relabelled = dataclasses.replace(manifest, label_range=(-1.0, 1.0))
    assert features_digest(relabelled) != features_digest(manifest)


def test_scores_of_different_data_are_not_mixed(tmp_path: Path, plan: Plan, made: tuple[Store, str]) -> None:
    clean = made_scores(plan, plan.experiment("clean"), 1)
    foreign = dataclasses.replace(made_scores(plan, plan.experiment("clean"), 2), source_sha256="ef" * 32)
    for scores in (clean, foreign):
        write_scores(scores_path(tmp_path, plan, plan.experiment("clean"), scores.seed), scores)
    with pytest.raises(RefusedError, match=r"clean-2\.json was scored on data with SHA-256 efefefefefef, this is abab"):
        read_all(tmp_path, plan)
    manifest = read_features(made[0], "small")
    of_these = dataclasses.replace(clean, source_sha256=str(manifest.source["sha256"]))
    check_same_data(tmp_path, [of_these], manifest)
    with pytest.raises(RefusedError, match=r"clean-1\.json was scored on data with SHA-256 abab"):
        check_same_data(tmp_path, [clean], manifest)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A store with a finished run, whose model nobody trained."""
    folder = tmp_path_factory.mktemp("run")
    store = Store(folder / "store")
    return store, finished_run(store, small_corpus(store, folder))


def solved(stored: list[int], num: int, seed: int) -> NDArray[np.float64]:
    """Who of `num` utterances is a hit, from the shares of hits on resamples whose counts anyone can draw."""
    counts = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), len(stored))
    hits: NDArray[np.float64] = np.linalg.lstsq(counts.astype(float), np.array(stored) * UNIT * num, rcond=None)[0]
    return hits.round()


def test_hits_cannot_be_solved_for_without_the_corpus() -> None:
    random = np.random.default_rng(0)
    num = 60
    labels = random.uniform(-3, 3, num).astype(np.float32)
    said = Predictions(
        missing_rate=np.zeros(1),
        mask_seed=np.zeros(1, np.int64),
        utterance_id=[f"u{i}" for i in range(num)],
        label=labels,
        sentiment=(labels + random.normal(0, 2, (1, num))).astype(np.float32),
        completeness=None,
    )
    hits = (said.sentiment[0] >= 0) == (labels >= 0)
    stored = resampled(said, (-3, 3))["acc2_nn"]
    assert len(stored) == 1000
    assert np.array_equal(solved(stored, num, resample_seed(said)), hits), "with the seed it is as easy as that"
    for seed in range(5):
        assert (solved(stored, num, seed) == hits).mean() < 0.8, "near the share of hits itself"

    other = dataclasses.replace(said, sentiment=said.sentiment + 1)
    assert resample_seed(other) == resample_seed(said) >= 2**64, "the same utterances for every model"
    renamed = dataclasses.replace(said, utterance_id=["x", *said.utterance_id[1:]])
    relabelled = dataclasses.replace(said, label=np.where(np.arange(num) == 3, 0, labels).astype(np.float32))
    turned = dataclasses.replace(said, utterance_id=said.utterance_id[::-1], label=labels[::-1])
    assert len({resample_seed(each) for each in (said, renamed, relabelled, turned)}) == 4


def test_what_is_kept_of_an_evaluation(made: tuple[Store, str]) -> None:
    store, run_id = made
    evaluation = evaluate(store, run_id, rates=(0.0, 0.5), mask_seeds=(0, 1))
    kept = SplitScores.of(store, evaluation, with_samples=True)
    said = read_predictions(store, evaluation).labelled()
    assert kept.samples == resampled(said, evaluation.label_range)
    public = resampled_scores(said.sentiment, said.label, evaluation.label_range, num_resamples=1000, seed=0)
    assert kept.samples["mae"] != [int(x) for x in np.round(public["mae"].mean(axis=1) / UNIT)]
    text = json.dumps(dataclasses.asdict(kept))
    seed = resample_seed(said)
    assert str(seed) not in text and f"{seed:x}" not in text and said.utterance_id[0] not in text


def test_nothing_is_resampled_where_everything_is_missing(tmp_path: Path, made: tuple[Store, str], plan: Plan) -> None:
    store, run_id = made
    run = load_run(store, run_id)
    scores = score(plan, plan.experiment("clean"), 1, store, run, read_features(store, "small"), "code")
    assert scores.test is not None and scores.all_missing is not None
    assert scores.test.samples["mae"] and scores.validation.samples["mae"]
    assert scores.all_missing.samples == {} and scores.all_missing.mean["mae"] > 0

    path = scores_path(tmp_path, plan, plan.experiment("clean"), 1)
    write_scores(path, scores)
    assert read_scores(path) == scores
    samples = {"mae": scores.test.samples["mae"]}
    write_scores(
        path, dataclasses.replace(scores, all_missing=dataclasses.replace(scores.all_missing, samples=samples))
    )
    with pytest.raises(RefusedError, match="of what none are kept of"):
        read_scores(path)


def test_unfinished_files_are_cleared_and_ignored(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = plan.experiment("clean")
    folder = tmp_path / "benchmarks" / "scores"
    path = scores_path(folder, plan, clean, 1)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", killed)
        write_scores(path, made_scores(plan, clean, 1))
    (left,) = path.parent.iterdir()
    assert left.name != path.name

    shutil.copy(Path(__file__).parents[2] / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for file, is_ignored in ((left, True), (path, False)):
        ignored = subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "-q", str(file)], check=False)
        assert (ignored.returncode == 0) == is_ignored

    clear_unfinished(folder)
    assert left.exists(), "this process may still be writing it"
    ended = subprocess.Popen(["true"])
    ended.wait()
    left.rename(left.with_suffix(f".{ended.pid}"))
    write_scores(path, made_scores(plan, clean, 1))
    clear_unfinished(folder)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
