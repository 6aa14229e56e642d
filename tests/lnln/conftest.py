"""Fixtures of the tests of `lnln`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store


class RunStore(NamedTuple):
    """A store with the corpus `small` and two finished runs on it; `better` has the lower validation MAE."""

    store: Store
    manifest: FeatureManifest
    worse: str
    better: str


@pytest.fixture(scope="session")
def run_store_template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    from tests.finished_run import finished_run, small_corpus

    folder = tmp_path_factory.mktemp("runs")
    store = Store(folder / "store")
    manifest = small_corpus(store, folder)
    worse = finished_run(store, manifest, seed=1, score=1.3)
    better = finished_run(store, manifest, seed=2, score=1.2)
    return folder / "store", worse, better


@pytest.fixture
def run_store(run_store_template: tuple[Path, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """A copy that a test may change, with a cache folder of its own."""
    template, worse, better = run_store_template
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(template, tmp_path / "store")
    store = Store(tmp_path / "store")
    return RunStore(store, read_features(store, "small"), worse, better)
