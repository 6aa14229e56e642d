"""The front door: instant help, one-line refusals, exit codes, standard output for results alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lnln import __version__
from lnln.cli import app
from lnln.cli.arguments import global_options_first, read_gpus, read_seeds, read_workers
from lnln.data.schema import MODALITIES
from lnln.data.store import Store
from lnln.model_store import publish
from tests.command import LNLN, lnln
from tests.corpora import mmsa_pickle
from tests.lnln.conftest import RunStore

VERBS = [
    "demo",
    "import",
    "extract",
    "corrupt",
    "simulate",
    "train",
    "tune",
    "choose",
    "ablate",
    "evaluate",
    "report",
    "publish",
    "import-model",
    "alias",
    "models",
    "pull",
    "predict",
    "verify",
    "gc",
    "doctor",
]


def test_help_imports_nothing_heavy_and_names_every_verb() -> None:
    script = (
        "import sys\nfrom lnln.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'dask', 'prefect', 'pyarrow', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f" {verb} " in done.stdout


def test_every_verb_explains_itself() -> None:
    for verb in VERBS:
        done = subprocess.run([LNLN, verb, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Usage" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["train"],
        ["tune", "sample"],
        ["train", "sample", "--workers", "two"],
        ["train", "sample", "--workers", "0"],
        ["train", "sample", "--workers", "-1"],
        ["train", "sample", "--workers", "4-2"],
        ["train", "sample", "--workers", "0-2"],
        ["train", "sample", "--workers", "1-2-3"],
        ["train", "sample", "--workers", "2-"],
        ["tune", "sample", "--trials", "1", "--workers", "1-2"],
        ["train", "sample", "--gpus-per-worker", "0"],
        ["train", "sample", "--gpus-per-worker", "-0.5"],
        ["train", "sample", "--gpus-per-worker", "1.5"],
        ["train", "sample", "--gpus-per-worker", "nan"],
        ["train", "sample", "--gpus-per-worker", "half"],
        ["train", "sample", "--seeds", "1,x"],
        ["train", "sample", "--seeds", ""],
        ["train", "sample", "--seeds", "1,1.5"],
        ["train", "sample", "--seeds", "1,2,1"],
        ["train", "sample", "--seeds", "1", "--seed", "1"],
        ["train", "sample", "--seeds", "1,2", "--set", "train.seed=7"],
        ["train", "sample", "--parallel", "2"],
        ["train", "sample", "--seeds", "1,2", "--parallel", "0"],
        ["models", "--store"],
        ["evaluate", "x", "--rates", "0,half"],
        ["evaluate", "x", "--rates", "0,1/0"],
        ["evaluate", "x", "--rates", "1/0/0/0"],
        ["evaluate", "x", "--rates", "1//0"],
        ["evaluate", "x", "--mask-seeds", "0.5"],
        ["evaluate", "x", "--protocol", "frames"],
        ["evaluate", "x", "--suite", "absent", "--rates", "0"],
        ["evaluate", "x", "--suite", "absent", "--protocol", "block"],
        ["report", "x", "--mask-seeds", "0,y"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    outcome = lnln(*arguments, store=tmp_path)
    assert outcome.code == 2
    assert outcome.out == ""


def test_an_unknown_corpus_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    for verb in (
        ["corrupt", "nothing"],
        ["simulate", "nothing"],
        ["train", "nothing"],
        ["tune", "nothing", "--trials", "1"],
    ):
        refusal = lnln(*verb, store=tmp_path / "store").refusal
        assert "nothing" in refusal
    assert "lnln import" in lnln("train", "nothing", store=tmp_path / "store").refusal


def test_an_unknown_config_key_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert "did you mean 'adversarial'" in lnln("train", "x", "--set", "loss.adverserial=1", store=store).refusal
    assert not store.exists()


def test_help_names_every_extractor_and_config() -> None:
    from pipelines.extractors import names
    from pipelines.extractors.config import DEFAULT_EXTRACTORS, extract_config_names

    done = CliRunner().invoke(app, ["extract", "--help"])
    said = [" ".join(line.split()) for line in done.output.splitlines()]
    for modality in MODALITIES:
        assert f"{modality}: {', '.join(names(modality))}" in said
    defaults = ", ".join(DEFAULT_EXTRACTORS[modality] for modality in MODALITIES)
    assert f"configs: {', '.join(extract_config_names())}; without one {defaults}" in said


def test_extracting_what_is_no_folder_of_clips_is_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert "label.csv" in lnln("extract", tmp_path / "nothing", "--corpus", "x", store=store).refusal
    assert (
        "no extractor of audio" in lnln("extract", "x", "--corpus", "x", "--set", "audio.name=y", store=store).refusal
    )
    assert "'../x'" in lnln("extract", tmp_path, "--corpus", "../x", store=store).refusal
    assert not store.exists()


def test_a_folder_of_clips_is_extracted_and_what_is_left_out_is_listed(tmp_path: Path) -> None:
    from tests.clips import write_clip

    clips, store = tmp_path / "clips", str(tmp_path / "store")
    (clips / "Raw" / "v").mkdir(parents=True)
    write_clip(clips / "Raw" / "v" / "1.mkv", seconds=0.4)
    (clips / "Raw" / "v" / "2.mkv").write_bytes(b"no clip")
    (clips / "label.csv").write_text("video_id,clip_id,text,label,mode\nv,1,good,1,train\nv,2,bad,-1,train\n")
    verb = ["extract", str(clips), "--corpus", "mine", "--set", "audio.name=none", "--set", "vision.name=none"]
    said = CliRunner().invoke(app, ["--store", store, *verb])
    assert said.exit_code == 0, said.output
    assert "v$_$2" in said.output and "clips quarantined" in said.output and "1 of 2" in said.output
    found = CliRunner().invoke(app, ["--store", store, "--json", *verb])
    assert found.exit_code == 0, found.output
    value = json.loads(found.stdout)
    assert [row["utterance_id"] for row in value["quarantine"]] == ["v$_$2"]
    assert value["extraction"]["counts"]["clips_extracted"] == 1 and value["splits"]["train"]["num_utterances"] == 1
    assert (tmp_path / "store" / value["extraction"]["quarantine"]["path"]).is_file()

    (clips / "Raw" / "v" / "1.mkv").write_bytes(b"no clip")
    none_left = lnln(*verb, store=tmp_path / "other")
    assert "v$_$1" in none_left.refusal


def test_names_that_would_leave_the_store_are_refused(tmp_path: Path) -> None:
    pickle = mmsa_pickle(tmp_path / "tiny.pkl", num=(3, 2, 2))
    for name in ("../elsewhere", "/absolute", "", "runs", "a b", ".."):
        refusal = lnln("import", pickle, "--corpus", name, store=tmp_path / "store").refusal
        assert "corpus" in refusal
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["tiny.pkl"]


def test_unknown_models_runs_and_stores_are_refused(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for verb in (
        ["evaluate", "nothing"],
        ["publish", "nothing", "--name", "x"],
        ["pull", "nothing@best", str(tmp_path / "there")],
        ["predict", "nothing", "a sentence"],
        ["report", "nothing"],
    ):
        assert "nothing" in lnln(*verb, store=store).refusal
    assert not (tmp_path / "there").exists()
    assert "s3://" in lnln("models", store="ftp://host/path").refusal


def test_json_is_the_only_thing_on_standard_output(tmp_path: Path) -> None:
    for arguments in (["models"], ["models", "--json"], ["models", "--store", tmp_path / "other", "--quiet"]):
        outcome = lnln(*arguments, store=tmp_path / "store")
        assert json.loads(outcome.out) == {"models": []} and outcome.err == ""
    outcome = lnln("models", store=tmp_path / "store")
    assert json.loads(outcome.out) == {"models": []}
    outcome = lnln("doctor", store=tmp_path / "store")
    assert {finding["topic"] for finding in json.loads(outcome.out)["findings"]} >= {"packages", "machine", "store"}


def test_import_and_verify_in_a_folder(tmp_path: Path) -> None:
    store = tmp_path / "store"
    imported = lnln("import", mmsa_pickle(tmp_path / "tiny.pkl"), "--corpus", "tiny", store=store).json
    assert lnln("verify", "tiny", store=store).json["feature shards"] == 3

    shard = store / imported["splits"]["valid"]["shards"][0]["path"]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert shard.name in lnln("verify", "tiny", store=store).refusal
    assert shard.name in lnln("train", "tiny", "--set=model.text_encoder=tiny", store=store).refusal

    manifest = store / "tiny" / "features" / imported["feature_id"] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"num_utterances": 40', '"num_utterances": 41'))
    assert "manifest.json" in lnln("verify", "tiny", store=store).refusal


@pytest.mark.parametrize(
    ("given", "moved"),
    [
        ("train sample --json", "--json train sample"),
        ("train sample --store x --seed 1 --quiet", "--store x --quiet train sample --seed 1"),
        ("--quiet models --store=x", "--quiet --store=x models"),
        ("--store x models --store y", "--store x --store y models"),
        ("predict m -- --json --store x", "predict m -- --json --store x"),
        ("predict m --json -- --json", "--json predict m -- --json"),
        ("models --store", "--store"),
        ("models --store -- x", "--store"),
        ("train --help", "train --help"),
        ("", ""),
    ],
)
def test_global_options_may_stand_anywhere_before_two_dashes(given: str, moved: str) -> None:
    assert global_options_first(given.split()) == moved.split()


def test_the_version(tmp_path: Path) -> None:
    done = subprocess.run([LNLN, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{__version__}\n"


@pytest.mark.parametrize("dask", ["none", pytest.param("local", marks=pytest.mark.slow)])
def test_quiet_leaves_standard_error_empty(dask: str, tmp_path: Path) -> None:
    pickle = mmsa_pickle(tmp_path / "tiny.pkl", num=(6, 4, 4))
    for arguments in (
        ["import", pickle, "--corpus", "tiny"],
        ["corrupt", "tiny", "--set=corruption.num_stored_draws=1"],
    ):
        outcome = lnln(*arguments, "--quiet", store=tmp_path / "store", LNLN_DASK=dask)
        assert outcome.code == 0 and outcome.err == "", outcome.err


def test_a_demo_makes_no_corpus_without_its_data(tmp_path: Path) -> None:
    refusal = lnln("demo", "--corpus", "mosi", store=tmp_path / "store").refusal
    assert "mosi" in refusal and "--data" in refusal
    assert not (tmp_path / "store").exists()


def test_verify_says_so_where_there_is_nothing(tmp_path: Path) -> None:
    assert "does not exist" in lnln("verify", store=tmp_path / "absent").refusal
    done = CliRunner().invoke(app, ["--store", str(tmp_path), "verify"])
    assert done.exit_code == 0 and done.output.startswith("nothing to check")


def test_training_again_what_is_finished_says_so(run_store: RunStore) -> None:
    from lnln.runs import load_run

    run = load_run(run_store.store, run_store.better)
    path = Path(run_store.store.url) / run.folder / "result.json"
    result = json.loads(path.read_text())
    for scores in result["validation"].values():
        scores["corr"] = 0.1
    path.write_text(json.dumps(result))
    config = Path(run_store.store.url) / "config.yaml"
    config.write_text(json.dumps(run.config.to_dict()))  # JSON is YAML
    done = CliRunner().invoke(app, ["--store", run_store.store.url, "train", "small", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert f"run {run.run_id} finished before" in done.output


@pytest.mark.parametrize(
    ("text", "workers"), [("1", 1), ("16", 16), ("2-4", (2, 4)), ("1-10", (1, 10)), ("3-3", 3), ("02", 2)]
)
def test_workers_are_a_number_or_a_range(text: str, workers: int | tuple[int, int]) -> None:
    assert read_workers("--workers", text) == workers


@pytest.mark.parametrize("wrong", ["", "0", "-", "2-", "-2", "4-2", "0-0", "1-2-3", "2--3", "two", "1.5", "²", "2 - 4"])
def test_what_is_no_number_of_workers_is_wrong_usage(wrong: str) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(repr(wrong))):
        read_workers("--workers", wrong)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_a_worker_takes_a_gpu_or_a_share_of_one(share: float) -> None:
    assert read_gpus("--gpus-per-worker", share) == share


def test_seeds_keep_their_order_and_differ() -> None:
    assert read_seeds("--seeds", None) is None
    assert read_seeds("--seeds", "1113,1111") == [1113, 1111]
    with pytest.raises(typer.BadParameter, match="different seeds, got '1,01'"):
        read_seeds("--seeds", "1,01")


def test_runs_of_several_seeds_are_shown_with_mean_and_sd(run_store: RunStore, tmp_path: Path) -> None:
    from lnln.runs import load_run
    from tests.finished_run import finished_run

    store = run_store.store
    first = load_run(store, finished_run(store, run_store.manifest, seed=7, score=1.0))
    ids = [first.run_id, *(finished_run(store, run_store.manifest, seed=8 + i, score=1.3 + i) for i in range(2))]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(first.config.to_dict()))  # JSON is YAML
    train = ["train", "small", "--config", str(config), "--seeds"]
    found = lnln(*train, "7,8,9", store=store.url).json
    assert [(run["seed"], run["run_id"], run["score"]) for run in found["runs"]] == [
        (7, ids[0], 1.0),
        (8, ids[1], 1.3),
        (9, ids[2], 2.3),
    ]
    assert found["mean"] == pytest.approx(4.6 / 3) and found["sd"] == pytest.approx(0.6806859, abs=1e-6)
    assert found["failed"] == [] and found["report"] == f"lnln --store {store.url} report {' '.join(ids)}"

    shown = lnln(*train, "9,7", store=store.url, as_json=False)
    assert shown.code == 0 and shown.out.index(ids[2]) < shown.out.index(ids[0])
    assert "2 seeds: mean validation MAE 1.6500, sd 0.9192" in shown.out and "finished before: 9, 7" in shown.out
    assert f"lnln --store {store.url} report {ids[2]} {ids[0]}" in shown.out.splitlines()[-1]

    alone = lnln(*train, "8", store=store.url).json
    assert alone["mean"] == 1.3 and alone["sd"] is None and [run["seed"] for run in alone["runs"]] == [8]

    # One that fails: the others are shown, and the command says which and why.
    store.write(f"runs/{ids[1]}/result.json", b"{}")
    failed = lnln(*train, "7,8,9", store=store.url)
    assert failed.refusal.startswith(f"seed 8 failed: {store.url}/runs/{ids[1]} is damaged")
    value = json.loads(failed.out)
    assert [run["seed"] for run in value["runs"]] == [7, 9] and value["mean"] == pytest.approx(1.65)
    assert [entry["seed"] for entry in value["failed"]] == [8] and "is damaged" in value["failed"][0]["reason"]
    assert ids[1] not in value["report"]
    none_left = lnln(*train, "8", store=store.url)
    assert none_left.out == "" and "seed 8 failed" in none_left.refusal


def json_of(store: Store, *arguments: str) -> object:
    done = CliRunner().invoke(app, ["--store", store.url, "--json", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_what_is_pulled_and_aliased_is_named_by_its_version(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    publish(run_store.store, run_store.better, "small-lnln")
    pulled = json_of(run_store.store, "pull", "small-lnln", str(tmp_path / "pulled"))
    assert pulled == {"model": "small-lnln@v2", "folder": str(tmp_path / "pulled")}
    set_to = json_of(run_store.store, "alias", "small-lnln", "first", "v1")
    assert set_to == {"alias": "small-lnln@first", "model": "small-lnln@v1"}
    pulled = json_of(run_store.store, "pull", "small-lnln@first", str(tmp_path / "first"))
    assert pulled == {"model": "small-lnln@v1", "folder": str(tmp_path / "first")}


def test_rates_and_mask_seeds_of_an_evaluation(run_store: RunStore) -> None:
    made = json_of(run_store.store, "evaluate", run_store.better, "--rates", "0,0.3", "--mask-seeds", "1,2,3")
    assert isinstance(made, dict)
    assert made["rates"] == [0, 0.3] and made["mask_seeds"] == [1, 2, 3] and len(made["views"]) == 6


def test_evaluate_suites(run_store: RunStore) -> None:
    value = json_of(run_store.store, "evaluate", run_store.better, "--suite", "absent,grid", "--mask-seeds", "4")
    assert isinstance(value, dict)
    made = value["suites"]
    assert list(made) == ["absent", "grid"] and len(made["absent"]["rates"]) == 6 and len(made["grid"]["rates"]) == 27
    shown = CliRunner().invoke(app, ["--store", run_store.store.url, "evaluate", run_store.better, "--suite", "absent"])
    assert "L+V" in shown.stdout and "Absent modalities" in shown.stdout
    refused = lnln("evaluate", run_store.better, "--suite", "ten", store=run_store.store.url).refusal
    assert "one of ten_rates, absent, text_missing, block, noise, grid or all, got 'ten'" in refused


def test_protocol_and_rates_of_each_modality_of_an_evaluation(run_store: RunStore) -> None:
    made = json_of(
        run_store.store, "evaluate", run_store.better, "--protocol", "modality", "--rates", "0.5,1/0/0,1/1/1"
    )
    assert isinstance(made, dict)
    assert made["protocol"] == "modality" and made["rates"] == [0.5, [1, 0, 0], 1]
    assert (
        "within [0, 1]" in lnln("evaluate", run_store.better, "--rates", "1/0/1.5", store=run_store.store.url).refusal
    )


def test_an_evaluation_by_published_selection_says_so_or_is_refused(run_store: RunStore) -> None:
    from lnln.evaluations import PUBLISHED_SELECTION
    from tests.published_run import published_run

    run_id = published_run(run_store.store, run_store.manifest)
    made = json_of(run_store.store, "evaluate", run_id, "--selection", "published")
    assert isinstance(made, dict)
    assert made["selection"] == "published" and made["note"] == PUBLISHED_SELECTION
    store = run_store.store.url
    assert "was not trained with" in lnln("evaluate", run_store.better, "--selection=published", store=store).refusal
    assert "one of validation, published" in lnln("evaluate", run_id, "--selection", "best", store=store).refusal


def test_a_corpus_with_a_label_out_of_range_is_not_trained_on(run_store: RunStore) -> None:
    import numpy as np

    from lnln.data.manifest import SplitEntry, commit_features
    from lnln.data.shards import read_split, write_shard

    store, manifest = run_store.store, run_store.manifest
    utterances = read_split(store, manifest, "train")
    entry = write_shard(store, manifest.folder, "train", replace(utterances, label=np.full_like(utterances.label, 9)))
    splits = {**manifest.splits, "train": SplitEntry(len(utterances), (entry,))}
    commit_features(store, replace(manifest, corpus="broken", splits=splits))
    outcome = lnln("train", "broken", "--set", "model.text_encoder=tiny", store=store.url)
    assert "label" in outcome.refusal and "Traceback" not in outcome.err and outcome.out == ""


def test_a_report_goes_to_a_folder_of_its_own(
    run_store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.finished_run import TINY, finished_run

    monkeypatch.chdir(tmp_path)
    model = {**TINY["model"], "mode": "reference"}
    reference = finished_run(run_store.store, run_store.manifest, seed=3, model=model)
    made = json_of(run_store.store, "report", run_store.better, run_store.worse)
    assert made == {"report": f"reports/{run_store.better}/index.html"}
    options = ["--suite", "absent", "--split", "valid", "--mask-seeds", "0", "--reference", "theirs"]
    titled = json_of(run_store.store, "report", f"ours={run_store.better}", f"theirs={reference}", *options)
    assert titled == {"report": f"reports/{run_store.better}/index.html"}
    (corpus,) = json.loads((tmp_path / "reports" / run_store.better / "scores.json").read_text())["corpora"]
    assert (corpus["split"], corpus["reference"], list(corpus["suites"])) == ("valid", "theirs", ["absent"])


def test_a_sentence_may_look_like_an_option_and_a_file_is_no_sentence(run_store: RunStore, tmp_path: Path) -> None:
    store = run_store.store.url
    outcome = lnln("predict", run_store.better, "--", "--json", "--store", store=store)
    assert [row["input"] for row in outcome.json["predictions"]] == ["--json", "--store"]
    (tmp_path / "clip.csv").write_text("x")
    refusal = lnln("predict", run_store.better, "fine", tmp_path / "clip.csv", store=store).refusal
    assert "was trained on features that were imported" in refusal
    assert len(lnln("predict", run_store.better, "fine " * 2000, store=store).json["predictions"]) == 1
