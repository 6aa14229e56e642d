"""The public research data that development has beside the checkout; it is no part of the repository.

LNLN_REAL_DATA names its folder; else `../shared/data` beside the checkout is tried.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """The file or folder `name`; the test is skipped where it is not there."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("LNLN_REAL_DATA") or beside) / name
    if not path.exists():
        pytest.skip(f"no real data at {path}; set LNLN_REAL_DATA")
    return path
