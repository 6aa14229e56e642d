"""Local folders for what a run is about to write to its store, and what killed workers left of them.

with temporary_folder(folder) as temporary: ...
remove_leftovers(folder)                            # while no worker of the run is at work on this machine
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


def temporary_folder(folder: str) -> tempfile.TemporaryDirectory[str]:
    """For the run in `folder` of the store."""
    return tempfile.TemporaryDirectory(prefix=_prefix(folder))


def remove_leftovers(folder: str) -> None:
    """Remove all `temporary_folder`s of the run; checkpoints are large, and nobody else would."""
    for path in Path(tempfile.gettempdir()).glob(f"{_prefix(folder)}*"):
        shutil.rmtree(path, ignore_errors=True)


def _prefix(folder: str) -> str:
    return f"lnln-{Path(folder).name}-"
