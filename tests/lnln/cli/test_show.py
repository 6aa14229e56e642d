"""Each kind of result as a person reads it, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from lnln.cli import show
from lnln.cli.console import Console
from lnln.data.manifest import LengthSummary, SplitEntry
from lnln.data.simulated_text import Simulation
from lnln.doctor import Finding
from lnln.evaluate import evaluate
from lnln.model_store import list_models, publish
from lnln.runs import load_run
from tests.extracted_corpus import LEFT_OUT, extracted_corpus
from tests.lnln.conftest import RunStore

PREDICTION = {
    "input": "fine",
    "utterance_id": "sentence 1",
    "sentiment": 0.5,
    "label_text": "neutral",
    "label": None,
    "completeness": 0.9,
    "missing": ["audio", "vision"],
    "notes": ["text cut from 99 to 50 steps"],
}


def test_a_corpus_says_its_dims_without_python(run_store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    show.corpus(Console(), run_store.manifest)
    out = capsys.readouterr().out
    assert "dims audio 4, vision 3" in out
    assert "{" not in out


def test_a_run_says_whether_it_finished_before(run_store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(run_store.store, run_store.better)
    for scores in run.validation.values():
        scores["corr"] = 0.1
    show.run(Console(), run, was_finished=False)
    assert "finished before" not in capsys.readouterr().out
    show.run(Console(), run, was_finished=True)
    assert f"{run.run_id} finished before: mean validation MAE 1.2000" in capsys.readouterr().out
    show.run(Console(as_json=True), run, was_finished=True)
    assert json.loads(capsys.readouterr().out)["run_id"] == run.run_id


def test_seeds_of_a_corpus_without_a_modality_say_so(run_store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    runs = {seed: load_run(run_store.store, run_id) for seed, run_id in ((1, run_store.worse), (2, run_store.better))}
    deaf = {seed: dataclasses.replace(run, absent_modalities=("vision",)) for seed, run in runs.items()}
    show.seeds(Console(), deaf, {3: "the disk is full"}, were_finished=[], command="lnln")
    out = capsys.readouterr().out
    assert "vision is absent from every utterance" in out and "finished before" not in out
    assert out.splitlines()[-1] == f"compare them: lnln report {run_store.worse} {run_store.better}"
    show.seeds(Console(as_json=True), runs, {3: "the disk is full"}, were_finished=[1], command="lnln")
    assert json.loads(capsys.readouterr().out)["failed"] == [{"seed": 3, "reason": "the disk is full"}]


def test_predictions_show_their_notes(capsys: pytest.CaptureFixture[str]) -> None:
    show.predictions(Console(), [PREDICTION])
    out = capsys.readouterr().out
    assert "audio, vision" in out and "sentence 1: text cut from 99 to 50 steps" in out


def test_a_completeness_that_is_not_known_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    show.predictions(Console(), [{**PREDICTION, "completeness": None}])
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("fine")]
    assert row.split()[:4] == ["fine", "+0.50", "neutral", "-"]
    show.predictions(Console(as_json=True), [{**PREDICTION, "completeness": None}])
    assert json.loads(capsys.readouterr().out)["predictions"][0]["completeness"] is None


def test_a_modality_that_the_corpus_lacks_is_said(run_store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(run_store.store, run_store.better)
    for scores in run.validation.values():
        scores["corr"] = 0.1
    bare = dataclasses.replace(run, absent_modalities=("audio", "vision"))
    show.run(Console(), bare, was_finished=False)
    said = "audio and vision are absent from every utterance of the training split of small; trained without them"
    assert said in capsys.readouterr().out
    made = dataclasses.replace(evaluate(run_store.store, run_store.better), absent_modalities=("vision",))
    show.evaluation(Console(), made)
    assert "trained without vision" in capsys.readouterr().out


def test_findings_have_headers(capsys: pytest.CaptureFixture[str]) -> None:
    show.findings(Console(), [Finding("store", "fine", "can be written")])
    assert capsys.readouterr().out.split()[:3] == ["what", "state", "found"]


def test_models_show_their_aliases(run_store: RunStore, capsys: pytest.CaptureFixture[str]) -> None:
    show.models(Console(), list_models(run_store.store))
    assert "nothing published yet" in capsys.readouterr().out
    publish(run_store.store, run_store.better, "small-lnln")
    show.models(Console(), list_models(run_store.store))
    assert "best" in capsys.readouterr().out


@pytest.fixture
def outcome(run_store: RunStore) -> dict[str, Any]:
    return {
        "run_id": run_store.better,
        "evaluation": evaluate(run_store.store, run_store.better).to_dict(),
        "predictions": [PREDICTION],
        "model": "small-lnln@v1",
        "folder": "models/small-lnln",
        "report": "reports/small-lnln/index.md",
        "study_report": "store/reports/small-lnln-0/index.html",
        "seconds": 12.3,
    }


def test_a_demo_ends_with_scores_predictions_and_what_to_try(
    outcome: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show.demo(Console(), outcome, command="lnln --store x", is_sample=True)
    out = capsys.readouterr().out
    parts = [
        "missing rate",
        "95% interval",
        "predict the train mean",
        "neutral",
        "reports/small-lnln",
        "small-lnln-0",
        "Try next:",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)
    assert "lnln --store x predict models/small-lnln" in out
    assert "lnln --store x import unaligned_50.pkl" in out


def test_a_demo_on_a_corpus_of_ones_own_does_not_propose_to_import_one(
    outcome: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show.demo(Console(), {**outcome, "study_report": None}, command="lnln", is_sample=False)
    out = capsys.readouterr().out
    assert "import" not in out and "search" not in out


def test_a_demo_as_json_is_one_object(outcome: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    show.demo(Console(as_json=True), outcome, command="lnln", is_sample=True)
    made = json.loads(capsys.readouterr().out)
    assert len(made["evaluation"]["rates"]) == 3 and made["predictions"] == [PREDICTION]


def test_a_demo_says_how_lnln_comes_on_the_path_where_it_is_not(
    outcome: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    show.demo(Console(), outcome, command="lnln", is_sample=True)
    assert "  source .venv/bin/activate " in capsys.readouterr().out
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    show.demo(Console(), outcome, command="lnln", is_sample=True)
    assert "activate" not in capsys.readouterr().out


def test_an_extraction_says_what_it_met_and_what_it_left_out(
    run_store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, left_out = run_store.store, sorted(LEFT_OUT)
    manifest = extracted_corpus(store, tmp_path)
    assert manifest.extraction is not None and manifest.extraction.quarantine is not None
    show.extraction(Console(), manifest, left_out, store_url=store.url)
    out = capsys.readouterr().out
    assert "unassigned" in out and "vision frames without face" in out and "7 of 1,400" in out
    assert "clips without text" not in out, "there were none"
    assert out.count("is no <b>media</b> file") == show.NUM_QUARANTINED_SHOWN - 1
    assert out.splitlines()[-1] == (
        f"and 10 more; all 30 that are not in the corpus are in {store.url}/{manifest.extraction.quarantine.path}"
    )
    show.extraction(Console(as_json=True), manifest, left_out, store_url=store.url)
    value = json.loads(capsys.readouterr().out)
    assert value["quarantine"] == [dataclasses.asdict(row) for row in left_out]
    assert value["extraction"]["counts"]["clips_without_text"] == 0 and value["corpus"] == "clips"


def test_an_extraction_that_left_nothing_out_has_no_such_table(
    run_store: RunStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show.extraction(
        Console(), extracted_corpus(run_store.store, tmp_path, left_out=[]), [], store_url=run_store.store.url
    )
    out = capsys.readouterr().out
    assert "what was met" in out and "not in the corpus" not in out and "stage" not in out


def test_clips_without_a_prediction_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    show.predictions(Console(), [PREDICTION], LEFT_OUT[:1])
    assert "a/notes.txt: no prediction, at stage table: Raw/a/notes.txt" in capsys.readouterr().out
    show.predictions(Console(as_json=True), [PREDICTION], LEFT_OUT[:1])
    assert json.loads(capsys.readouterr().out)["quarantine"] == [dataclasses.asdict(LEFT_OUT[0])]
    show.predictions(Console(as_json=True), [PREDICTION])
    assert json.loads(capsys.readouterr().out) == {"predictions": [PREDICTION]}


def test_simulated_text_is_shown_with_what_the_audio_tells(capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"num_utterances": 9, "simulated": {"r2": -0.1, "cosine": 0.5}, "mean_step": {"r2": 0.0, "cosine": 0.6}}
    better = {**scores, "simulated": {"r2": 0.25, "cosine": 0.7}}
    made = Simulation(
        "tiny",
        "f" * 12,
        "a" * 12,
        {"name": "regressor"},
        32,
        {"train": LengthSummary(0, 7.5, 8, 2)},
        {"train": SplitEntry(30, ())},
        {},
        {"penalty": 1.0, "num_folds": 5, "train": scores, "valid": better},
        {"utterances": 30, "utterances_failed": 2, "utterances_without_clip": 1},
    )
    show.simulation(Console(), made, was_there=True)
    said = capsys.readouterr().out
    for part in ("was there already", "32 dimensions", "0.250", "-0.100", "2 utterances could not be heard", "1 utter"):
        assert part in said
    assert "On train, none of which its map has seen, the mean step is as near" in said
    show.simulation(Console(as_json=True), made, was_there=False)
    value = json.loads(capsys.readouterr().out)
    assert value["simulation_id"] == "a" * 12 and value["was_there"] is False and value["quality"]["penalty"] == 1.0
