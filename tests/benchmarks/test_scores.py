"""What stays of a training: read as written, refused when damaged, nothing in it that the corpus must keep."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.results.plan import Plan
from benchmarks.results.scores import (
    check_same_data,
    num_resamples,
    read_all,
    read_scores,
    scores_path,
    write_scores,
)
from lnln.errors import RefusedError
from tests.benchmarks.made_scores import PLAN, made_scores, small_plan


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
    # A key that a later version has, at its default, changes nothing; one that it has no more, does.
    del values["config"]["model"]["dropout"]
    path.write_text(json.dumps(values))
    assert ("clean", 1) in read_all(tmp_path, plan)
    values["config"]["model"]["drop_out"] = 0
    path.write_text(json.dumps(values))
    assert ("clean", 1) not in read_all(tmp_path, plan)


def test_scores_of_different_data_are_not_mixed(tmp_path: Path, plan: Plan) -> None:
    clean = made_scores(plan, plan.experiment("clean"), 1)
    foreign = dataclasses.replace(made_scores(plan, plan.experiment("clean"), 2), source_sha256="ef" * 32)
    for scores in (clean, foreign):
        write_scores(scores_path(tmp_path, plan, plan.experiment("clean"), scores.seed), scores)
    with pytest.raises(RefusedError, match=r"clean-2\.json was scored on data with SHA-256 efefefefefef, this is abab"):
        read_all(tmp_path, plan)
    check_same_data(tmp_path, [clean], "ab" * 32)
    with pytest.raises(RefusedError, match=r"clean-1\.json was scored on data with SHA-256 abab"):
        check_same_data(tmp_path, [clean], "12" * 32)


def test_fewer_samples_than_could_be_solved_for_the_utterances() -> None:
    """The samples are linear in the utterances' errors, with counts that anybody can draw again."""
    assert [num_resamples(num) for num in (1, 14, 229, 686, 4659)] == [0, 10, 171, 514, 1000]
    num = 60
    counts = np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), num_resamples(num))
    assert np.linalg.matrix_rank(counts) < num
