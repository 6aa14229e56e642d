"""Verify names every damaged file of what it was asked for, and says so where there is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.model_store import publish
from lnln.verify import verify
from pipelines.corrupt import corrupt
from tests.finished_run import TINY
from tests.lnln.conftest import RunStore


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_store_that_does_not_exist_is_refused_and_not_made(tmp_path: Path) -> None:
    for name in (None, "mosi"):
        with pytest.raises(RefusedError, match="absent does not exist"):
            verify(Store(tmp_path / "absent"), name)
    assert not (tmp_path / "absent").exists()


def test_an_empty_store_has_nothing_to_check(tmp_path: Path) -> None:
    assert verify(Store(tmp_path)) == {}
    with pytest.raises(RefusedError, match="no corpus, model or run 'mosi'; corpora and models: none"):
        verify(Store(tmp_path), "mosi")


def test_everything_whole_is_counted(run_store: RunStore) -> None:
    store = run_store.store
    views = corrupt(store, "small", Config.from_dict(TINY))
    publish(store, run_store.better, "small-lnln")
    publish(store, run_store.worse, "small-lnln")
    counts = {"corpora": 1, "feature shards": 3, "views": len(views)}
    assert verify(store, "small") == counts
    assert verify(store, "small-lnln") == {"model versions": 2}
    assert verify(store, "small-lnln@best") == {"model versions": 1}
    assert verify(store) == {**counts, "model versions": 2}


def test_a_run_is_checked_by_its_model_files(run_store: RunStore) -> None:
    counts = verify(run_store.store, run_store.better)
    folder = Path(run_store.store.url) / "runs" / run_store.better / "model"
    assert counts == {"runs": 1, "model files": len(list(folder.iterdir()))}
    damage(folder / "model.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(RefusedError) as refused:
        verify(run_store.store, run_store.better)
    assert "model.safetensors" in str(refused.value) and "config.json" in str(refused.value)
    assert verify(run_store.store, run_store.worse)["runs"] == 1


def test_an_unfinished_run_is_refused(run_store: RunStore) -> None:
    (Path(run_store.store.url) / "runs" / run_store.better / "result.json").unlink()
    with pytest.raises(RefusedError, match="not finished"):
        verify(run_store.store, run_store.better)


def test_damaged_views_and_versions_are_named(run_store: RunStore) -> None:
    store = run_store.store
    view = corrupt(store, "small", Config.from_dict(TINY))[0]
    publish(store, run_store.better, "small-lnln")
    shard = next(iter(view.splits.values())).shards[0].path
    damage(Path(store.url) / shard)
    weights = next(Path(store.url).glob("models/small-lnln/*/model.safetensors"))
    damage(weights)
    with pytest.raises(RefusedError) as refused:
        verify(store)
    assert shard in str(refused.value) and weights.relative_to(store.url).as_posix() in str(refused.value)


@pytest.mark.parametrize("name", ["nothing", "nothing@best", "../runs", "", "a b", "/", "x" * 300])
def test_an_unknown_name_is_refused_with_what_there_is(name: str, run_store: RunStore) -> None:
    with pytest.raises(RefusedError) as refused:
        verify(run_store.store, name)
    assert str(refused.value).endswith("corpora and models: small")
