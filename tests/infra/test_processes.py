"""Processes that outlive who starts them: found again, never mistaken, ended with all that they started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra.stack import processes
from tests.infra.stacks import processes_of

pytestmark = pytest.mark.slow

SLEEP = "import time; time.sleep(300)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(300)"
)
# Starts another one and says its process id; and one that does so in a session of its own, and ends.
PARENT = (
    f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True); {SLEEP}"
)
DESERTER = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True).pid)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "stack"
    yield made
    processes.end("one", folder=made, grace_seconds=0)
    assert not processes_of(made)


def start(folder: Path, code: str) -> psutil.Process:
    return processes.start("one", [sys.executable, "-c", code], os.environ, folder=folder, made_of="x")


def said(folder: Path) -> str:
    return wait(lambda: processes.log_of("one", folder).read_text().strip())


def wait(look: Callable[[], str | bool]) -> str:
    deadline = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return str(found)


def test_a_process_is_found_by_others_and_ended(folder: Path) -> None:
    process = start(folder, SLEEP)
    record = processes.read_record("one", folder)
    assert record is not None and record.pid == process.pid and record.made_of == "x"
    assert os.getsid(process.pid) == process.pid  # the terminal's Ctrl-C is not its own
    code = (
        f"from infra.stack.processes import find; print(find('one', __import__('pathlib').Path({str(folder)!r})).pid)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == process.pid
    assert processes.end("one", folder=folder, grace_seconds=5) == 1
    assert processes.find("one", folder) is None and processes.read_record("one", folder) is None
    assert processes.end("one", folder=folder, grace_seconds=5) == 0


def test_one_that_ended_by_itself_is_no_more(folder: Path) -> None:
    start(folder, "print('done')")
    wait(lambda: processes.find("one", folder) is None)
    assert said(folder) == "done" and processes.read_record("one", folder) is not None


def test_a_recycled_process_id_is_nobody_of_ours(folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        start(folder, "pass")
        wait(lambda: processes.find("one", folder) is None)
        path = folder / "run" / "one.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "pid": stranger.pid}))
        assert processes.find("one", folder) is not None  # as old as the record says, to the second
        path.write_text(json.dumps({**values, "pid": stranger.pid, "started": values["started"] - 60}))
        assert processes.find("one", folder) is None
        assert processes.end("one", folder=folder, grace_seconds=0) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 0, "made_of": ""}', "null"])
def test_a_damaged_record_is_none(folder: Path, text: str) -> None:
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "one.json").write_text(text)
    assert processes.find("one", folder) is None
    assert processes.end("one", folder=folder, grace_seconds=0) == 0


def test_what_does_not_listen_is_killed(folder: Path) -> None:
    process = start(folder, STUBBORN)
    assert said(folder) == "deaf"
    assert processes.end("one", folder=folder, grace_seconds=0.3) == 1
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_children_end_too(folder: Path) -> None:
    start(folder, PARENT)
    child = psutil.Process(int(said(folder)))
    assert processes.end("one", folder=folder, grace_seconds=5) == 2
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_those_that_lost_their_parent_end_too(folder: Path) -> None:
    """Also where the record is lost, as after `kill -9` of who was starting them, or after their folder was removed."""
    start(folder, DESERTER)
    wait(lambda: processes.find("one", folder) is None)
    orphan = psutil.Process(int(said(folder)))
    assert orphan.is_running()
    (folder / "run" / "one.json").unlink()
    assert processes.end("other", folder=folder, grace_seconds=1) == 0 and orphan.is_running()
    assert processes.end("one", folder=folder.parent / "elsewhere", grace_seconds=1) == 0 and orphan.is_running()
    assert processes.end("one", folder=folder, grace_seconds=1) == 1
    wait(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)
