"""Verbs of studies: what they show, what they propose, and how they refuse."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lnln.cli import app, show
from lnln.cli.console import Console
from lnln.cli.studies import next_commands, train_arguments
from lnln.config import Config, config_for
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate.paired import Difference
from lnln.model_store import list_models
from tests.command import lnln
from tests.finished_run import TINY, finished_run
from tests.lnln.conftest import RunStore
from tests.made_study import OTHER, PAPER, complete, failed, interrupted, made_study, pruned
from tuning.choice import CAUTION, Choice, Outcome, ScoredRun, Setting, load_choice
from tuning.record import Study, save_study
from tuning.select import best_config

EVERY_STATE = (
    complete(0, 0.9, parameters=PAPER),
    complete(1, 0.85),
    pruned(2, 0.95),
    failed(3),
    interrupted(4),
)


def shown(console: Console, made: Study, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    show.study(console, made, next_commands("lnln", made, arguments))
    return capsys.readouterr().out


def test_a_study_ends_with_its_verdict_and_what_may_follow(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(Console(), made_study(*EVERY_STATE), capsys, ["sample", "--seed", "7"]).splitlines()
    assert lines[-5:] == [
        "study sample-lnln-0123456789ab: 2 complete, 1 pruned, 1 failed, 1 interrupted",
        "trial 1 is best of 2 complete: validation MAE 0.8500, the configured parameters 0.9000; the best of many on 1 "
        "seed is partly the luckiest, so the 0.0500 between them may be noise",
        "train with the best: lnln train sample --seed 7 --set loss.completeness=0.3 --set loss.adversarial=1.25 --set "
        "loss.reconstruction=0.0",
        "find out by fresh seeds: lnln choose sample-lnln-0123456789ab --seeds 2111,2112,2113",
        "see what it shows: lnln report sample-lnln-0123456789ab",
    ]
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "0", "2", "3", "4"] and rows[1][1] == "(configured)"


def test_a_study_as_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    made = made_study(*EVERY_STATE)
    value = json.loads(shown(Console(as_json=True), made, capsys, ["sample"]))
    assert value.items() >= json.loads(json.dumps(made.to_dict())).items()
    assert [trial["state"] for trial in value["trials"]] == ["complete", "complete", "pruned", "failed", "interrupted"]
    assert value["trials"][2]["reason"].startswith("stopped after epoch 1") and value["trials"][2]["values"] == {}
    assert value["best"] == {"number": 1, "parameters": OTHER, "values": {"mae": 0.85}}
    assert value["configured_trial"] == {"number": 0, "parameters": PAPER, "values": {"mae": 0.9}}
    assert value["configured"] == PAPER
    assert [trial["number"] for trial in value["front"]] == [1]
    assert value["train"].startswith("lnln train sample --set loss.completeness=0.3")
    assert value["report"] == f"lnln report {made.study_id}"


def test_a_study_of_two_objectives_shows_its_front(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        dataclasses.replace(complete(i, 0.9, parameters=PAPER if i == 0 else OTHER), values={"mae": mae, "acc7": acc7})
        for i, (mae, acc7) in enumerate([(0.9, 0.3), (0.8, 0.2), (1.0, 0.4), (1.0, 0.3)])
    ]
    made = made_study(*trials, directions={"mae": "minimize", "acc7": "maximize"})
    assert "in MAE and Acc-7 together nothing beats trial 0, 1, 2\n" in shown(Console(), made, capsys, ["sample"])
    value = json.loads(shown(Console(as_json=True), made, capsys, ["sample"]))
    assert [trial["number"] for trial in value["front"]] == [0, 1, 2]
    assert value["best"]["values"] == {"mae": 0.8, "acc7": 0.2}


@pytest.mark.parametrize(
    ("trials", "verdict", "commands"),
    [
        ((), "no trial is complete", {"report"}),
        ((failed(0), pruned(1, 0.5), interrupted(2)), "no trial is complete", {"report"}),
        (
            (complete(0, 0.8, parameters=PAPER), pruned(1, 0.7)),
            "trial 0 is best of 1 complete: validation MAE 0.8000, with the configured parameters",
            {"train", "report"},
        ),
        (
            (failed(0, parameters=PAPER), complete(1, 0.8)),
            "trial 1 is best of 1 complete: validation MAE 0.8000; the configured parameters have no score to compare "
            "it with",
            {"train", "choose", "report"},
        ),
    ],
)
def test_studies_with_little_to_say(
    trials: tuple[Any, ...], verdict: str, commands: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = made_study(*trials)
    assert f"{verdict}\n" in shown(Console(), made, capsys, ["sample"])
    value = json.loads(shown(Console(as_json=True), made, capsys, ["sample"]))
    assert value["verdict"] == verdict
    assert {verb for verb in ("train", "choose", "report") if value[verb] is not None} == commands
    assert (value["best"] is None) == ("train" not in commands)


def test_the_proposed_training_has_the_best_trials_config() -> None:
    """Whatever the study was started with, and to the last digit."""
    parameters = {"completeness": 0.1 + 0.2, "adversarial": 0.0, "learning_rate": 1e-05, "dropout": 1 / 3}
    made = made_study(complete(0, 0.9, parameters=parameters))
    overrides = ["loss.adversarial=0.5", "train.epochs=3", "corruption.rates=[0.0, 0.5]"]
    command = next_commands("lnln --store 'a b'", made, train_arguments("sample", "mosi", overrides, 7))["train"]
    words = shlex.split(command)
    assert words[:5] == ["lnln", "--store", "a b", "train", "sample"]
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    seed, config = (words[words.index(option) + 1] for option in ("--seed", "--config"))
    given = config_for("sample", "mosi", [*overrides, "train.seed=7"])
    assert config_for("sample", config, [*sets, f"train.seed={seed}"]) == best_config(given, made)


def test_the_proposed_seeds_are_fresh() -> None:
    made = made_study(complete(1, 0.8), seeds=(2112, 2111, 2114))
    assert next_commands("lnln", made, ["sample"])["choose"].endswith("--seeds 2113,2115,2116")


def made_choice(outcome: Outcome, **more: Any) -> Choice:
    """Of trial 3 against what is configured, with two seeds; its verdict is not computed."""

    def setting(trial: int | None, score: float) -> Setting:
        runs = tuple(
            ScoredRun(
                seed, f"run-{trial}-{seed}", 2, score + i, {}, {split: {"mae": score} for split in ("valid", "test")}
            )
            for i, seed in enumerate((2111, 2112))
        )
        found = Difference(score - 0.9, score - 1, score - 0.8, (2111, 2112), None, counts_training=True)
        differences = None if trial is None else {split: {"mae": found} for split in ("valid", "test")}
        return Setting(trial, dict(PAPER if trial is None else OTHER), runs, differences)

    fields: dict[str, Any] = {
        "study_id": made_study().study_id,
        "corpus": "sample",
        "feature_id": "f" * 12,
        "seeds": (2111, 2112),
        "num_trials": 12,
        "metrics": ("mae",),
        "num_utterances": {"valid": 60, "test": 60},
        "configured": setting(None, 0.9),
        "candidates": (setting(3, 0.85),),
        "chosen": 3,
        "outcome": outcome,
        "seeds_to_show": None,
        "verdict": "trial 3 is what it is",
        "code_version": "0",
    }
    return Choice(**{**fields, **more})


def test_a_choice_shows_both_settings_their_difference_and_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    made = made_choice("within noise")
    show.choice(Console(), made, command="lnln")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [made.verdict, CAUTION], "nothing is published, and nothing proposes it"
    cells = [line.split()[:2] for line in lines if line.strip().startswith(("configured", "trial"))]
    assert cells[:3] == [["configured", "0.9"], ["trial", "3"], ["trial", "3"]]
    assert "validation MAE" in lines[1] and any("difference in" in line for line in lines)
    show.choice(Console(as_json=True), made, command="lnln")
    assert Choice.from_dict(json.loads(capsys.readouterr().out)) == made


def test_a_choice_ends_with_what_was_published_or_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    show.choice(Console(), made_choice("better"), command="lnln --store x")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "publish its best run: lnln --store x publish run-3-2111 --name NAME"
    )
    show.choice(Console(), made_choice("better", published="small-lnln@v3"), command="lnln --store x")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "published: small-lnln@v3; see it: lnln --store x report small-lnln@v3"
    )
    diverged = dataclasses.replace(made_choice("diverged").candidates[0], differences=None, reason="not finite")
    show.choice(Console(), made_choice("diverged", candidates=(diverged,), chosen=None), command="lnln")
    assert "trial 3: not finite\n" in capsys.readouterr().out


def test_choosing_from_runs_that_are_there(run_store: RunStore) -> None:
    """All of the verb but the trainings, which `lnln train` made before."""
    store, loss = run_store.store, {"loss": OTHER}
    for seed in (5, 6):
        finished_run(store, run_store.manifest, seed=seed, score=1.2)
        finished_run(store, run_store.manifest, seed=seed, score=1.0 + seed / 100, **loss)
    config = Config.from_dict({**TINY, **loss}).to_dict()
    made = made_study(
        complete(0, 0.9, parameters=PAPER),
        complete(1, 0.8),
        corpus="small",
        feature_id=run_store.manifest.feature_id,
        config=config,
    )
    save_study(store, made)
    arguments = ["choose", made.study_id, "--seeds", "6,5", "--publish-as", "small-best"]
    done = CliRunner().invoke(app, ["--store", store.url, "--json", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    choice = Choice.from_dict(json.loads(done.stdout))
    assert choice == load_choice(store, made.study_id)
    assert choice.seeds == (5, 6) and [each.trial for each in choice.candidates] == [1]
    assert choice.outcome == "within noise" and choice.published is None, "random models, with the same weights"

    again = CliRunner().invoke(app, ["--store", store.url, *arguments], catch_exceptions=False)
    assert again.exit_code == 0 and choice.verdict in again.stdout and "configured" in again.stdout
    assert list_models(store) == []


def test_a_study_is_reported_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, made = Store(tmp_path / "store"), made_study(*EVERY_STATE)
    save_study(store, made)
    value = lnln("report", made.study_id, store=store.url).json
    assert value == {"report": f"reports/{made.study_id}/index.html"}
    page = (tmp_path / value["report"]).read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html") and made.study_id in page
    assert (tmp_path / "reports" / made.study_id / "trials.csv").is_file()
    elsewhere = lnln("report", made.study_id, "--folder", tmp_path / "there", store=store.url, as_json=False)
    assert elsewhere.out == f"{tmp_path / 'there' / 'index.html'}\n"
    refusal = lnln("report", "mosi-lnln@best", made.study_id, store=store.url).refusal
    assert refusal == (
        f"a study is reported alone, got mosi-lnln@best, {made.study_id}; "
        f"`lnln --store {store.url} report {made.study_id}` does that"
    )
    assert "nothing" in lnln("report", "nothing", store=store.url).refusal


@pytest.mark.parametrize(
    "option",
    [("--split", "test"), ("--split", "valid"), ("--suite", "absent"), ("--corpus", "x"), ("--reference", "x")],
)
def test_what_is_about_models_is_wrong_usage_for_a_study(tmp_path: Path, option: tuple[str, str]) -> None:
    store, made = Store(tmp_path / "store"), made_study(*EVERY_STATE)
    save_study(store, made)
    refused = CliRunner().invoke(app, ["--store", store.url, "report", made.study_id, *option])
    assert refused.exit_code == 2 and option[0] in refused.output and "this is a study" in refused.output


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "space is empty"),
        ("adversarial: {low: -1, high: 3}", "must not be negative"),
        ("adverserial: {low: 0.1, high: 3}", "unknown parameter 'adverserial'"),
        ("adversarial: {low: 3, high: 0.1}", "low below high"),
        ("adversarial: {low: .nan, high: 3}", "a finite number, got nan"),
        ("reconstruction: {low: 0, high: 1, scale: linear, zero: 0.1}", "log scale"),
        ("sentiment: {low: 0.1, high: 3}", "must not vary sentiment"),
        ("dropout: {low: 0, high: 1.5, scale: linear}", "dropout"),
        ("learning_rate: {low: 0, high: 1, scale: linear}", "learning_rate"),
    ],
)
def test_a_bad_space_is_refused_in_one_line_and_leaves_nothing(content: str, reason: str, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(content, encoding="utf-8")
    refusal = refused(tmp_path / "store", "tune", "sample", "--trials", "1", "--space", str(space))
    assert reason in refusal
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["tune", "sample", "--trials", "1", "--seeds", "1,1"],
        ["tune", "sample", "--trials", "1", "--seeds", "1,2", "--seed", "1"],
        ["tune", "sample", "--trials", "1", "--seeds", "1,2", "--set", "train.seed=1"],
        ["tune", "sample", "--trials", "1", "--parallel", "0"],
        ["tune", "sample", "--trials", "1", "--gpus-per-worker", "2"],
        ["tune", "sample", "--trials", "1", "--minutes", "0"],
        ["tune", "sample", "--trials", "1", "--minutes", "-1"],
        ["tune", "sample", "--trials", "1", "--minutes", "nan"],
        ["tune", "sample", "--trials", "1", "--minutes", "inf"],
        ["tune", "sample", "--trials", "1", "--stop"],
        ["choose", "x"],
        ["choose", "x", "--seeds", ""],
        ["choose", "x", "--seeds", "1,1"],
        ["choose", "x", "--seeds", "1,2", "--candidates", "0"],
        ["choose", "x", "--seeds", "1,2", "--parallel", "0"],
        ["choose", "x", "--seeds", "1,2", "--workers", "2-1"],
        ["choose", "x", "--seeds", "1,2", "--gpus-per-worker", "0"],
    ],
)
def test_wrong_usage_of_studies(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and done.stdout == "", done.output


def test_what_cannot_be_chosen_from_is_refused(run_store: RunStore) -> None:
    store, name = run_store.store, made_study().study_id
    fresh = ["--seeds", "2111,2112"]
    assert "no study 'absent'" in refused(store.url, "choose", "absent", *fresh)
    save_study(store, made_study(complete(0, 0.9, parameters=PAPER)))
    assert "no complete trial beside" in refused(store.url, "choose", name, *fresh)
    save_study(store, made_study(*EVERY_STATE))
    assert "1111" in refused(store.url, "choose", name, "--seeds", "1111,2111")
    assert "'../x'" in refused(store.url, "choose", name, *fresh, "--publish-as", "../x")


def test_a_cluster_that_is_not_there_is_refused(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens on port 9, discard."""
    monkeypatch.setenv("LNLN_PATIENCE_SECONDS", "1")
    tune = ["tune", "small", "--trials", "1", "--submit"]
    for more in ([], ["--stop"]):
        assert "http://127.0.0.1:9" in refused(run_store.store.url, *tune, "http://127.0.0.1:9", *more)
    assert "ftp://x" in refused(run_store.store.url, *tune, "ftp://x")
    assert not (Path(run_store.store.url) / "studies").exists()


def refused(store: str | Path, *arguments: str) -> str:
    """The one line of a refusal."""
    done = CliRunner().invoke(app, ["--store", str(store), *arguments])
    assert isinstance(done.exception, RefusedError), done.output
    assert done.stdout == "" and "\n" not in str(done.exception)
    return str(done.exception)
