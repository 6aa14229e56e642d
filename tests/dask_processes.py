"""A Dask scheduler and workers as an operator starts them: commands of their own, found by the scheduler's file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class DaskProcesses:
    """A scheduler at `address`, and workers of one thread each, without a nanny: one that is killed stays dead."""

    folder: Path
    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add_worker(self) -> subprocess.Popen[bytes]:
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))
        self.workers.append(_start("worker", "--scheduler-file", str(self.folder / "scheduler.json"), *options))
        return self.workers[-1]


@contextmanager
def dask_processes(folder: Path, *, num_workers: int) -> Iterator[DaskProcesses]:
    """A scheduler on a free port of 127.0.0.1 and its workers, which may still be starting; all end with it."""
    file = folder / "scheduler.json"
    scheduler = _start("scheduler", "--port", "0", "--scheduler-file", str(file))
    processes = DaskProcesses(folder, "", scheduler)
    try:
        deadline = time.monotonic() + 60
        while not (file.exists() and file.stat().st_size):
            assert time.monotonic() < deadline and scheduler.poll() is None
            time.sleep(0.05)
        processes.address = json.loads(file.read_text())["address"]
        for _ in range(num_workers):
            processes.add_worker()
        yield processes
    finally:
        for process in [*processes.workers, scheduler]:
            process.kill()
            process.wait()


def _start(role: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--host", "127.0.0.1", "--no-dashboard", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
