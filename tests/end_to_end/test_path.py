"""The whole path by the command line, as a user walks it, on a corpus of 66 utterances."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command import lnln
from tests.corpora import mmsa_pickle

TINY = [
    "--set=model.text_encoder=tiny",
    "--set=model.hidden_dim=32",
    "--set=model.num_heads=2",
    "--set=model.head_dim=16",
    "--set=model.fusion_depth=1",
    "--set=train.epochs=2",
    "--set=train.batch_size=16",
    "--set=train.learning_rate=1e-3",
    "--set=tune.epochs=1",
    "--set=corruption.num_stored_draws=2",
]


def shard_sums(manifest: Any) -> dict[str, list[str]]:
    return {split: [shard["sha256"] for shard in entry["shards"]] for split, entry in manifest["splits"].items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_pickle_to_prediction(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pickle = mmsa_pickle(tmp_path / "tiny.pkl")

    imported = lnln("import", pickle, "--corpus", "tiny", store=store).json
    assert {split: entry["num_utterances"] for split, entry in imported["splits"].items()} == {
        "train": 40,
        "valid": 12,
        "test": 14,
    }
    again = lnln("import", pickle, "--corpus", "tiny", store=store).json
    assert again == imported

    views = lnln("corrupt", "tiny", *TINY, store=store, LNLN_DASK="local").json
    assert len(views["views"]) == 10 + 2

    run = lnln("train", "tiny", *TINY, "--workers", "2", store=store).json
    assert run["run_id"].startswith("tiny-lnln-")
    assert 0 < run["score"] < 4
    assert lnln("train", "tiny", *TINY, "--workers", "2", store=store).json == run, (
        "a finished run is not trained again"
    )

    tune = ["tune", "tiny", *TINY, "--trials"]
    study = lnln(*tune, "2", store=store).json
    assert [trial["state"] for trial in study["trials"]] == ["complete", "complete"]
    assert study["configured_trial"]["number"] == 0 and study["num_trials"]["complete"] == 2
    chosen = " ".join(f"--set loss.{name}={weight!r}" for name, weight in study["best"]["parameters"].items())
    of_runs = " ".join(item for item in TINY if not item.startswith("--set=tune."))
    assert study["train"] == f"lnln --store {store} train tiny {of_runs} {chosen}".replace("--set=", "--set ")
    again = lnln(*tune, "1", store=store)
    assert again.json == study and "has 2 trials already" in again.err, "nothing is left to do, and it says so"
    page = lnln("report", study["study_id"], "--folder", tmp_path / "reports" / "study", store=store).json["report"]
    assert study["study_id"] in Path(page).read_text()

    evaluation = lnln("evaluate", run["run_id"], store=store).json
    assert evaluation["rates"] == [i / 10 for i in range(10)]
    assert len(evaluation["views"]) == 10 and evaluation["num_labelled"] == 14
    assert {"predict_mean", "one_class"} <= set(evaluation["baselines"])

    assert lnln("publish", run["run_id"], "--name", "tiny-lnln", store=store).json["model"] == "tiny-lnln@v1"
    pull = lnln("pull", "tiny-lnln@best", tmp_path / "pulled", store=store).json
    assert pull["model"] == "tiny-lnln@v1"
    pulled = pull["folder"]
    predictions = lnln("predict", pulled, "what a good film", "bad", store=store).json["predictions"]
    assert len(predictions) == 2
    assert all(-3 <= row["sentiment"] <= 3 for row in predictions)
    assert predictions[0]["missing"] == ["audio", "vision"]
    assert "sentence 2 is empty" in lnln("predict", pulled, "what a good film", "", store=store).refusal

    path = lnln("report", "tiny-lnln@best", "--folder", tmp_path / "reports", store=store).json["report"]
    assert "Acc-7" in Path(path).read_text()
    assert lnln("verify", store=store).code == 0
    assert lnln("verify", run["run_id"], store=store).json["runs"] == 1

    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import lnln, sys; print(lnln.load('tiny-lnln@best', store=sys.argv[1]).training)",
            store,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout == "False\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_in_a_bucket(tmp_path: Path, s3_store_url: str) -> None:
    pickle = mmsa_pickle(tmp_path / "tiny.pkl")
    for store in (str(tmp_path / "store"), s3_store_url):
        assert lnln("import", pickle, "--corpus", "tiny", store=store).code == 0
        assert lnln("corrupt", "tiny", *TINY, store=store).code == 0
    sums = []
    for store in (str(tmp_path / "store"), s3_store_url):
        listed = lnln("verify", "tiny", store=store).json
        imported = lnln("import", pickle, "--corpus", "tiny", store=store).json
        sums.append((listed, imported["feature_id"], shard_sums(imported)))
    assert sums[0] == sums[1]

    run = lnln("train", "tiny", *TINY, store=s3_store_url).json
    lnln("evaluate", run["run_id"], store=s3_store_url)
    model = lnln("publish", run["run_id"], "--name", "tiny-lnln", store=s3_store_url).json["model"]
    folder = Path(lnln("pull", model, tmp_path / "pulled", store=s3_store_url).json["folder"])
    assert json.loads((folder / "config.json").read_text())
    assert len(lnln("predict", folder, "fine", store=s3_store_url).json["predictions"]) == 1
