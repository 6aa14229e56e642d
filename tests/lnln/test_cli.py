"""The front door: instant help, one-line refusals, exit codes, standard output for results alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import LNLN, lnln
from tests.corpora import mmsa_pickle

VERBS = [
    "demo",
    "import",
    "corrupt",
    "train",
    "tune",
    "evaluate",
    "report",
    "publish",
    "models",
    "pull",
    "predict",
    "verify",
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


@pytest.mark.parametrize("arguments", [["fly"], ["train"], ["tune", "sample"], ["train", "sample", "--workers", "two"]])
def test_wrong_usage_exits_with_2(arguments: list[str], tmp_path: Path) -> None:
    outcome = lnln(*arguments, store=tmp_path)
    assert outcome.code == 2
    assert outcome.out == ""


def test_an_unknown_corpus_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    for verb in (["corrupt", "nothing"], ["train", "nothing"], ["verify", "nothing"]):
        refusal = lnln(*verb, store=tmp_path / "store").refusal
        assert "nothing" in refusal
    assert "lnln import" in lnln("train", "nothing", store=tmp_path / "store").refusal


def test_an_unknown_config_key_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert "did you mean 'adversarial'" in lnln("train", "x", "--set", "loss.adverserial=1", store=store).refusal
    assert not store.exists()


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
