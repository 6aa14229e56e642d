"""Fixtures of the tests of training; a file with wants of its own has its own store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store
from tests.finished_run import small_corpus


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small get nothing from more threads, which on a busy machine wait for each other instead."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Store(tmp_path / "store")


@pytest.fixture
def manifest(store: Store, tmp_path: Path) -> FeatureManifest:
    return small_corpus(store, tmp_path)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnln.train.seeds.ray_session", lambda *_: pytest.fail("Ray was started"))
