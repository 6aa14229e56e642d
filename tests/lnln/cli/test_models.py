"""The verbs of the model store, as a person and as a program get their results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lnln.cli import app, models
from lnln.data.manifest import commit_features
from lnln.errors import RefusedError
from lnln.model_store import publish, pull, resolve
from lnln.runs import load_run
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore
from tests.lnln.model_store.test_importing import checkpoint
from tuning.record import Study, TrialRecord, save_study
from tuning.space import Space

STUDY = "small-lnln-0123456789ab"


def lnln(run_store: RunStore, *arguments: str, as_json: bool = True) -> Any:
    """What the verb says, as JSON or as text; what it refuses is raised."""
    options = ["--json"] if as_json else []
    done = CliRunner().invoke(app, ["--store", run_store.store.url, *options, *arguments])
    if isinstance(done.exception, RefusedError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if as_json else done.stdout


@pytest.fixture
def published(run_store: RunStore) -> RunStore:
    publish(run_store.store, run_store.worse, "small-lnln")
    publish(run_store.store, run_store.better, "small-lnln")
    return run_store


def test_all_models_are_listed(published: RunStore) -> None:
    (model,) = lnln(published, "models")["models"]
    assert [version["version"] for version in model["versions"]] == ["v1", "v2"] and model["aliases"] == {"best": "v2"}
    out = lnln(published, "models", as_json=False)
    assert "1.3000" in out and "1.2000" in out and "best" in out


def test_one_model_shows_versions_history_and_lineage(published: RunStore) -> None:
    lnln(published, "alias", "small-lnln", "production", "v1")
    shown = lnln(published, "models", "small-lnln")
    assert shown["version"] == "v2" and shown["lineage"]["run_id"] == published.better
    assert [(move["alias"], move["after"]) for move in shown["model"]["history"]] == [
        ("best", "v1"),
        ("best", "v2"),
        ("production", "v1"),
    ]
    out = lnln(published, "models", "small-lnln", as_json=False)
    assert "mean validation MAE 1.2000 below 1.3000" in out and "set by hand" in out
    assert "lineage of small-lnln@v2" in out and published.better in out
    assert lnln(published, "models", "small-lnln@production")["lineage"]["run_id"] == published.worse
    for unknown in ("nothing", "small-lnln@v3"):
        with pytest.raises(RefusedError, match=r"nothing|v3"):
            lnln(published, "models", unknown)


def test_two_versions_are_compared_by_short_and_by_whole_names(published: RunStore) -> None:
    whole = lnln(published, "models", "--compare", "small-lnln@v1", "small-lnln@best")
    assert whole == lnln(published, "models", "small-lnln", "--compare", "v1", "v2")
    assert whole["settings"] == {"train.seed": ["1", "2"]} and whole["scores"][0]["values"] == {"mae": [1.3, 1.2]}
    with pytest.raises(RefusedError, match="are both"):
        lnln(published, "models", "small-lnln", "--compare", "v2", "best")
    done = CliRunner().invoke(app, ["--store", published.store.url, "models", "--compare", "v1"])
    assert done.exit_code == 2


def test_an_alias_says_the_version(published: RunStore) -> None:
    assert lnln(published, "alias", "small-lnln", "production", "best") == {
        "alias": "small-lnln@production",
        "model": "small-lnln@v2",
    }
    with pytest.raises(RefusedError, match="cannot be set by hand"):
        lnln(published, "alias", "small-lnln", "best-corr", "v1")


def stored_study(run_store: RunStore, adversarial: float) -> None:
    """A study whose second trial has this weight."""
    run = load_run(run_store.store, run_store.worse)
    space = Space.from_dict({"adversarial": {"low": 0.1, "high": 3.0}})
    trials = tuple(
        TrialRecord(number, "failed", {"adversarial": value}, number == 0, reason="as made by the test")
        for number, value in enumerate((run.config.loss.adversarial, adversarial))
    )
    study = Study(
        study_id=STUDY,
        corpus="small",
        feature_id=run.feature_id,
        config=run.config.to_dict(),
        space=space,
        configured=space.configured(run.config),
        directions={"mae": "minimize"},
        seeds=(7,),
        sampler={"name": "random"},
        versions={},
        trials=trials,
    )
    save_study(run_store.store, study)


def test_a_run_of_a_study_is_published_with_its_trial(run_store: RunStore) -> None:
    store = run_store.store
    stored_study(run_store, 0.5)
    found = finished_run(store, run_store.manifest, seed=3, loss={"adversarial": 0.5})
    other = finished_run(store, run_store.manifest, seed=3, loss={"adversarial": 0.7})
    assert lnln(run_store, "publish", found, "--name", "small-lnln", "--study", STUDY) == {"model": "small-lnln@v1"}
    lnln(run_store, "publish", run_store.worse, "--name", "small-lnln", "--study", STUDY)
    kept = [resolve(store, f"small-lnln@{version}") for version in ("v1", "v2")]
    assert [(version.study_id, version.trial) for version in kept] == [(STUDY, 1), (STUDY, None)]
    with pytest.raises(RefusedError, match=r"no trial of study .* has the parameters of run .* adversarial 0\.7"):
        lnln(run_store, "publish", other, "--name", "small-lnln", "--study", STUDY)
    longer = finished_run(
        store, run_store.manifest, train={"seed": 3, "epochs": 3, "batch_size": 7}, loss={"adversarial": 0.5}
    )
    with pytest.raises(RefusedError, match=r"run .* is none of what study .* has train\.epochs 3, not .*batch_size 7"):
        lnln(run_store, "publish", longer, "--name", "small-lnln", "--study", STUDY)
    again = replace(run_store.manifest, feature_id="abcdef123456")
    commit_features(store, again)
    elsewhere = finished_run(store, again, seed=3, loss={"adversarial": 0.5})
    with pytest.raises(RefusedError, match=r"it has features abcdef123456, not "):
        lnln(run_store, "publish", elsewhere, "--name", "small-lnln", "--study", STUDY)
    with pytest.raises(RefusedError, match="no study"):
        lnln(run_store, "publish", other, "--name", "small-lnln", "--study", "nothing")


@pytest.fixture
def importing() -> typer.Typer:
    """The verb by itself, as `lnln import-model`."""
    from lnln.cli.session import _session

    alone = typer.Typer()
    alone.callback()(_session)
    alone.command("import-model")(models.import_model)
    return alone


def test_a_checkpoint_and_a_folder_are_imported(run_store: RunStore, importing: typer.Typer, tmp_path: Path) -> None:
    path, args = checkpoint(tmp_path)
    options = ["--store", run_store.store.url]
    given = ["import-model", str(path), "--name", "published-small", "--corpus", "small", "--args", str(args)]
    done = CliRunner().invoke(importing, [*options, "--json", *given])
    assert json.loads(done.stdout) == {"model": "published-small@v1"}, done.output
    folder = pull(run_store.store, "published-small", tmp_path / "pulled")
    done = CliRunner().invoke(importing, [*options, "import-model", str(folder), "--name", "copied"])
    first, hint = done.stdout.splitlines()
    assert first == "copied@v1" and "evaluate copied@v1 --suite ten_rates" in hint
    shown = lnln(run_store, "models", "copied", as_json=False)
    assert "published checkpoint" in shown and "first version, without a validation score" in shown
    assert " - " in lnln(run_store, "models", as_json=False)
