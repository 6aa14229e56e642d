"""The `nightly` flow: what is unchanged is left, and what hangs on a change is done again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import get_client
from prefect.testing.utilities import prefect_test_harness

from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.flows.nightly import nightly
from tests.corpora import mmsa_pickle
from tests.finished_run import TINY


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def written_at(folder: Path) -> dict[str, int]:
    """When each run, view, evaluation and report was written."""
    kinds = (
        "runs/*/result.json",
        "runs/*/evaluations/**/*.json",
        "*/views/**/*",
        "reports/*/index.html",
        "models/**/*",
    )
    return {str(path): path.stat().st_mtime_ns for kind in kinds for path in folder.glob(kind) if path.is_file()}


@pytest.mark.slow
def test_only_what_is_new_is_done(api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", "none")
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "store"
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({**TINY, "train": {"batch_size": 16, "epochs": 1}}))
    source = mmsa_pickle(tmp_path / "small.pkl")
    given: dict[str, Any] = {"config": str(config), "publish_as": "small-lnln", "store": str(folder)}

    first = nightly("small", source=str(source), **given)
    assert first["new"] == ["features", "views", "run", "evaluation", "model", "report"]
    assert first["model"] == "small-lnln@v1" and Path(first["report"]).is_file()
    before = written_at(folder)

    again = nightly("small", source=str(source), **given)
    assert again["new"] == [] and written_at(folder) == before
    assert {**again, "new": first["new"], "seconds": 0} == {**first, "seconds": 0}

    manifest = read_features(Store(folder), "small")
    shard = folder / manifest.splits["train"].shards[0].path
    whole = shard.read_bytes()
    os.chmod(shard, 0o644)  # noqa: PTH101
    shard.write_bytes(whole[:-10])
    mended = nightly("small", source=str(source), **given)
    assert mended["new"] == [] and shard.read_bytes() == whole and written_at(folder) == before

    (folder / "reports" / "small-lnln" / "chain.json").write_text("{")
    (folder / "reports" / "small-lnln" / "index.html").unlink()
    lost = nightly("small", source=str(source), **given)
    assert lost["run"] == first["run"] and Path(lost["report"]).is_file()

    other = mmsa_pickle(tmp_path / "other.pkl", num=(36, 10, 12))
    changed = nightly("small", source=str(other), **given)
    assert set(changed["new"]) >= {"features", "run", "evaluation", "model"}
    assert changed["run"] != first["run"] and changed["model"] == "small-lnln@v2"

    with get_client(sync_client=True) as client:
        states = {run.name: run.state for run in client.read_flow_runs()}
    state = states["nightly chain of small"]
    assert state is not None and state.message is not None and state.message.startswith(("new: ", "nothing is new"))
    assert {"nightly chain of small", "features of small", "views of small", "train on small as tiny"} <= states.keys()


@pytest.mark.slow
def test_what_cannot_be_is_refused_before_any_work(api: None, tmp_path: Path) -> None:
    for more, said in (
        ({"publish_as": "No such name!"}, "name"),
        ({"config": "nothing"}, "no config called"),
        ({"overrides": ["train.epoch=1"]}, "unknown config key"),
        ({"source": "a.pkl", "clips": "b"}, "from a pickle or from clips"),
    ):
        with pytest.raises(RefusedError, match=said):
            nightly("small", store=str(tmp_path / "store"), **more)
    assert not (tmp_path / "store").exists()
