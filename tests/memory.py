"""How much memory a piece of work takes, measured in a process of its own (Linux)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

_MEASURE = """
import sys
from pathlib import Path

def _status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))

def begin():
    global _before
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    _before = _status("VmRSS")

def end():
    print(_status("VmHWM") - _before)
"""


def peak_bytes(code: str, *arguments: str | Path) -> int:
    """The most memory that `code` has held between its calls of `begin()` and `end()`, above what it held before.

    arguments: what the code finds in `sys.argv[1:]`.
    """
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
