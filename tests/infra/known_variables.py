"""Which environment variables somebody reads: ours by our source, others by the packages that read them."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Read by the shell, Python, or a library below ours.
GENERAL = {"HOME", "OMP_NUM_THREADS", "PATH", "PYTHONUNBUFFERED", "TMPDIR"}
# Prefix of a variable: the packages whose source names those that are read. Ray's own process reads some from C++.
_READERS = {
    "AWS_": ("botocore", "lnln"),
    "DASK_": ("pipelines",),
    "DO_NOT_TRACK": ("prefect",),
    "LNLN_": ("lnln", "pipelines", "tuning"),
    "RAY_": ("ray",),
}


def is_known(name: str) -> bool:
    if name in GENERAL:
        return True
    if name.startswith("PREFECT_"):
        return name in _prefect_settings()
    readers = next((packages for prefix, packages in _READERS.items() if name.startswith(prefix)), ())
    return any(name in _names_in(package) for package in readers)


@cache
def _prefect_settings() -> frozenset[str]:
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    return frozenset(_get_settings_fields(Settings)) | {"PREFECT_HOME"}


@cache
def _names_in(package: str) -> frozenset[str]:
    """Words in capitals, with a quote or a blank before them, of the package's Python files."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    names: set[str] = set()
    for folder in spec.submodule_search_locations:
        for path in Path(folder).rglob("*.py"):
            names.update(re.findall(r"[\"'`]([A-Z][A-Z0-9_]{3,})[\"'`=]", path.read_text(errors="replace")))
    return frozenset(names)
