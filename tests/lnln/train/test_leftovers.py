from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from lnln.train.leftovers import remove_leftovers, temporary_folder


def test_what_a_killed_worker_left_is_removed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    of_this, of_another = temporary_folder("runs/mosi-lnln-1"), temporary_folder("runs/mosi-lnln-12")
    (Path(of_this.name) / "model.safetensors").write_bytes(b"half")
    (tmp_path / "lnln-mosi").mkdir()
    remove_leftovers("runs/mosi-lnln-1")
    assert {path.name for path in tmp_path.iterdir()} == {Path(of_another.name).name, "lnln-mosi"}
    of_this.cleanup()
    of_another.cleanup()
