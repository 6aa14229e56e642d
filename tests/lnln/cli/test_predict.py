"""`lnln predict`: what goes to a table, what goes to files, and what is refused as wrong usage."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyarrow.dataset
import pytest
from typer.testing import CliRunner

from lnln.cli import app
from lnln.data.shards import encode_shard, read_split
from tests.command import LNLN, lnln
from tests.lnln.conftest import RunStore


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a sentence", "--split", "test"],
        ["a sentence", "--view", "0.5"],
        ["a sentence", "--mask-seed", "0"],
        ["a sentence", "--protocol", "block"],
        ["-", "a sentence"],
        ["-", "--transcript", "x"],
        ["--corpus", "small", "shard.parquet"],
        ["--corpus", "small", "--transcript", "x"],
        ["--corpus", "small", "--view", "0.5,0.6"],
        ["--corpus", "small", "--view", "half"],
        ["--corpus", "small", "--protocol", "typo"],
        ["--out", "folder"],
        ["shard.parquet", "--out", "folder", "--split", "test"],
    ],
)
def test_what_would_be_ignored_is_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--store", str(tmp_path), "predict", "model", *arguments])
    assert done.exit_code == 2, done.output


@pytest.mark.slow
def test_a_corpus_to_files_and_sentences_from_standard_input(run_store: RunStore, tmp_path: Path) -> None:
    store, out = run_store.store.url, tmp_path / "said"
    arguments = (
        "predict",
        run_store.better,
        "--corpus",
        "small",
        "--view",
        "1/0/0.5",
        "--mask-seed",
        "1",
        "--out",
        out,
    )
    made = lnln(*arguments, store=store, LNLN_DASK="none").json
    assert made["num_utterances"] == 14 and made["num_new"] == 1 and made["view"]["rates"] == [1, 0, 0.5]
    assert len(pyarrow.dataset.dataset(str(out), format="parquet").to_table()) == 14
    again = lnln(*arguments, store=store, as_json=False, LNLN_DASK="none")
    assert again.out == f"14 predictions in {out} (1 file, 0 of them new)\n"
    shard = tmp_path / "shards" / "one.parquet"
    shard.parent.mkdir()
    shard.write_bytes(encode_shard(read_split(run_store.store, run_store.manifest, "test")))
    of_files = ("predict", run_store.better, str(shard.parent), "--out", tmp_path / "other")
    assert lnln(*of_files, store=store, LNLN_DASK="none").json["source"]["num_files"] == 1
    refusal = lnln("predict", run_store.better, "great movie", "--out", tmp_path / "third", store=store).refusal
    assert "no feature shard (.parquet) at great movie" in refusal and not (tmp_path / "third").exists()
    done = subprocess.run(
        [LNLN, "--store", store, "--json", "predict", run_store.better, "-"],
        input=b"good\n\nclip.mp4\n",
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "LNLN_CACHE": str(tmp_path / "cache")},
    )
    rows = json.loads(done.stdout)["predictions"]
    assert [(row["utterance_id"], row["input"]) for row in rows] == [("line 1", "good"), ("line 3", "clip.mp4")]
