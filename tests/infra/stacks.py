"""Looking for processes of a stack, by what they were started with and by the paths that they were given."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from infra.stack.processes import VARIABLE


def processes_of(folder: Path) -> list[str]:
    """Command lines of all living processes that a stack in `folder` has started, however indirectly."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = " ".join(process.cmdline())
            started_by = process.environ().get(VARIABLE, "")
            if started_by.startswith(f"{folder}/") or f"{folder}/" in command:
                found.append(f"{process.pid} {command[:200]}")
    return found
