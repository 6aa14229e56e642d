"""A lock holds against another process, and lets go when its holder ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lnln.data.lease import held
from lnln.data.lock import local_folder, only_one, remove_held
from lnln.data.store import Store
from lnln.errors import RefusedError

HOLD = """
import sys, time
from lnln.data.lock import only_one
from lnln.data.store import Store
with only_one(Store(sys.argv[1]), "runs/r", "run r"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RefusedError, match="run r is being run by another process"),
            only_one(store, "runs/r", "run r"),
        ):
            pass
        with only_one(store, "runs/other", "run other"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with only_one(store, "runs/r", "run r"):
        pass


def test_a_holder_may_remove_what_it_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("runs/other/file", b"")
    with only_one(store, "runs/r", "run r"):
        store.write("runs/r/file", b"")
        store.write("runs/r/deep/er/file", b"")
        remove_held(store, "runs/r")
        assert not (tmp_path / "runs/r").exists()
        with only_one(store, "runs/r", "run r"):  # a new lock, on a folder of its own
            pass
    assert store.exists("runs/other/file")


def test_what_guards_a_folder_is_removed_after_all_else(tmp_path: Path) -> None:
    left: list[set[str]] = []

    class Watched(Store):
        def remove(self, path: str) -> None:
            left.append({file.path for file in self.list_files()})
            super().remove(path)

    store = Watched(tmp_path)
    with held(store, "runs/r", "run r"):
        store.write("runs/r/a/file", b"")
        store.write("runs/r/z", b"")
        remove_held(store, "runs/r")
    assert left == [{"runs/r/lease.json"}]
    assert not (tmp_path / "runs/r").exists()


def test_a_lock_that_was_removed_before_it_was_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while the holder still had it, taken when it had removed it and let go."""
    store = Store(tmp_path)
    taken: list[int] = []

    def flock(file: Any, operation: int) -> None:
        if not taken:
            remove_held(store, "runs/r")
        taken.append(os.fstat(file.fileno()).st_ino)

    monkeypatch.setattr("lnln.data.lock.fcntl.flock", flock)
    with only_one(store, "runs/r", "run r"):
        assert len(taken) == 2 and (tmp_path / "runs/r/lock").stat().st_ino == taken[1]


def test_what_lies_elsewhere_is_locked_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    one, other = (local_folder(Store(f"s3://bucket/{prefix}"), "runs/r") for prefix in ("one", "other"))
    assert one != other and one.is_relative_to(tmp_path / "cache")
    assert local_folder(Store(tmp_path / "store"), "runs/r") == tmp_path / "store" / "runs" / "r"
