from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lnln.errors import RefusedError
from pipelines.extractors.base import ClipError
from pipelines.extractors.program import last_words, run_program


def script(path: Path, lines: str) -> Path:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def run(tmp_path: Path, folder: Path, lines: str, *, limit_seconds: float = 20, most_bytes: int = 10**6) -> None:
    command = [str(script(tmp_path / "program.sh", lines)), str(folder)]
    run_program(command, "It", folder, limit_seconds=limit_seconds, most_bytes=most_bytes)


def is_alive(pid: int) -> bool:
    """Runs, and is not only waiting to be counted as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(*pids: int) -> None:
    """A signal reaches a process a moment after it was sent."""
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} {[pid for pid in pids if is_alive(pid)]} still run"
        time.sleep(0.01)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
    return path.read_text()


def test_what_it_writes_is_there(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, folder, 'echo "$OMP_NUM_THREADS" > "$1/made"; cat; true')
    assert (folder / "made").read_text() == "1\n"  # and `cat` ended, since there is no input


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("exit 3", "It ended with status 3 and said nothing"),
        ("echo first; echo; echo '  no face model  ' >&2; exit 1", "It ended with status 1: no face model"),
        ("kill -SEGV $$", "It was ended by SIGSEGV and said nothing"),
        ('echo "cannot open $1/features.csv at 0x7ffd1234"; exit 1', "cannot open .../features.csv at 0x..."),
        ("echo cannot open /var/lib/some/model.dat; exit 1", "cannot open .../model.dat"),
        ("printf 'a%.0s' $(seq 10000); exit 1", "It ended with status 1: " + "a" * 200),
        (r"printf '\377\376 broken'; exit 1", "broken"),
    ],
)
def test_why_it_failed_is_said_without_what_differs_each_time(
    tmp_path: Path, folder: Path, lines: str, reason: str
) -> None:
    with pytest.raises(ClipError) as caught:
        run(tmp_path, folder, lines)
    assert caught.value.stage == "vision"
    assert reason in caught.value.reason
    assert str(tmp_path) not in caught.value.reason and len(caught.value.reason) < 300


def test_one_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, folder: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ClipError, match="It was not done after 1 seconds"):
        run(tmp_path, folder, 'sleep 600 & echo $! > "$1/pid"; wait', limit_seconds=1)
    assert time.monotonic() - started < 10
    wait_for_end(int((folder / "pid").read_text()))


def test_what_it_leaves_running_is_ended(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, folder, 'sleep 600 & echo $! > "$1/pid"')
    wait_for_end(int((folder / "pid").read_text()))


@pytest.mark.parametrize("place", ["$1/features.csv", "/dev/stdout"])
def test_one_that_writes_without_end_is_stopped(tmp_path: Path, folder: Path, place: str) -> None:
    with pytest.raises(ClipError, match="It wrote more than 1000000 bytes"):
        run(tmp_path, folder, f'while true; do head -c 100000 /dev/zero; sleep 0.01; done > "{place}"')
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10**8


def test_it_does_not_outlive_a_caller_that_is_killed(tmp_path: Path, folder: Path) -> None:
    program = script(tmp_path / "program.sh", 'sleep 600 & echo "$$ $!" > "$1/pids"; wait')
    caller = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from pathlib import Path; from pipelines.extractors.program import run_program; run_program("
            f"[{str(program)!r}, {str(folder)!r}], 'It', Path({str(folder)!r}), limit_seconds=600, most_bytes=10**6)",
        ],
        cwd=Path(__file__).resolve().parents[3],
    )
    try:
        pids = [int(pid) for pid in wait_for(folder / "pids").split()]
        time.sleep(0.2)
    finally:
        caller.kill()
        caller.wait()
    wait_for_end(*pids)


def test_a_file_that_is_no_program_is_refused(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\x7fELF of another machine")
    path.chmod(0o755)
    with pytest.raises(RefusedError, match=r"cannot be started .*was It built here"):
        run_program([str(path)], "It", folder, limit_seconds=5, most_bytes=10)


def test_no_descriptor_is_left_open(tmp_path: Path, folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run(tmp_path, folder, "true")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert last_words(folder, []) == " and said nothing"
