"""A process that outlives who starts it, and is never taken for another one.

    start("dask-scheduler", command, environment, folder=Path(".stack"))
    process = find("dask-scheduler", folder)      # None once it has ended, whoever has its id by then
    end("dask-scheduler", folder=folder)

`run/<name>.json` holds the process id and when that process started: an id is given again, both are not. Whatever a
part starts has its variable LNLN_STACK, and is found by it where the part has died, or its record was removed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

VARIABLE = "LNLN_STACK"

# Those of this process, which stay as zombies until it has asked how they ended.
_children: dict[int, subprocess.Popen[bytes]] = {}

# The clock may be set between two looks at when a process started; two processes of one id are further apart.
_SAME_START_SECONDS = 2.0


@dataclass(frozen=True)
class Record:
    """pid, started (seconds since 1970): of the process. made_of: what it was started with, as a fingerprint."""

    pid: int
    started: float
    made_of: str


def start(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    made_of: str = "",
) -> psutil.Process:
    """`command` in a session of its own, so that Ctrl-C of whoever starts it is not its own; output in `log/`."""
    for each in ("run", "log"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    with log_of(name, folder).open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment, VARIABLE: _mark(name, folder)},
            cwd=folder,
            start_new_session=True,
        )
    _children[child.pid] = child
    process = psutil.Process(child.pid)
    path = _record_path(name, folder)
    path.with_suffix(".new").write_text(json.dumps(asdict(Record(child.pid, process.create_time(), made_of))))
    path.with_suffix(".new").replace(path)
    return process


def find(name: str, folder: Path) -> psutil.Process | None:
    """The process that was started under this name, if it lives."""
    record = read_record(name, folder)
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        is_same = abs(process.create_time() - record.started) < _SAME_START_SECONDS
        return process if is_same and _is_alive(process) else None
    except (psutil.Error, ValueError):  # of an id that no process can have
        return None


def read_record(name: str, folder: Path) -> Record | None:
    """None where there is none that can be read."""
    try:
        values = json.loads(_record_path(name, folder).read_text())
        return Record(int(values["pid"]), float(values["started"]), str(values["made_of"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def end(name: str, *, folder: Path, grace_seconds: float) -> int:
    """End the process and all that it started; how many they were. What has not ended after the grace is killed."""
    first = find(name, folder)
    living = set(all_of(name, folder))
    num = len(living)
    if first is not None:
        with suppress(psutil.Error):
            first.terminate()  # psutil looks once more whether it is the same process
        _wait_for([first], grace_seconds)
    # Again, since it may have started more; and what it has left behind is told to end too.
    living |= set(all_of(name, folder))
    for process in living:
        with suppress(psutil.Error):
            process.terminate()
    for process in _wait_for(list(living), 2.0 if first is not None else grace_seconds):
        with suppress(psutil.Error):
            process.kill()
    _wait_for(list(living), 5.0)
    _record_path(name, folder).unlink(missing_ok=True)
    return num


def all_of(name: str, folder: Path) -> list[psutil.Process]:
    """The living processes of a part: its own, those below it, and those that lost their parent."""
    first = find(name, folder)
    found = set() if first is None else {first, *_below(first)}
    for process in marked(_mark(name, folder)):
        found |= {process, *_below(process)}
    return [process for process in found if _is_alive(process)]


def marked(value: str) -> Iterator[psutil.Process]:
    """The processes of this user that were started with LNLN_STACK=`value`."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(VARIABLE) == value:
                yield process


def log_of(name: str, folder: Path) -> Path:
    return folder / "log" / f"{name}.log"


def _mark(name: str, folder: Path) -> str:
    return str(folder / name)


def _record_path(name: str, folder: Path) -> Path:
    return folder / "run" / f"{name}.json"


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _is_alive(process: psutil.Process) -> bool:
    if process.pid in _children:
        _children[process.pid].poll()
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _wait_for(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that live still."""
    deadline = time.monotonic() + seconds
    while True:
        processes = [process for process in processes if _is_alive(process)]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(0.05)
