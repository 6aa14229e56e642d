"""Where this machine keeps copies of what a store holds."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`LNLN_CACHE`, else `lnln` in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`)."""
    if chosen := os.environ.get("LNLN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lnln"
