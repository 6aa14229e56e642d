"""A lock holds against another process, and lets go when its holder ends, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lnln.data.lock import local_folder, only_one
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


def test_what_lies_elsewhere_is_locked_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    one, other = (local_folder(Store(f"s3://bucket/{prefix}"), "runs/r") for prefix in ("one", "other"))
    assert one != other and one.is_relative_to(tmp_path / "cache")
    assert local_folder(Store(tmp_path / "store"), "runs/r") == tmp_path / "store" / "runs" / "r"
