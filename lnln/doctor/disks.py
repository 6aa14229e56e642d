"""Room where lnln writes: the store's folder, temporary files, the cache and the working folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lnln.data.cache import cache_folder
from lnln.doctor.finding import Finding, wrong

# A model with its optimizer's state is 0.3 to 1.3 GB, and a checkpoint is written before an older one goes.
MIN_FREE_BYTES = 2 * 1024**3
# A shard, a checkpoint and what Ray keeps of a session are some hundred files.
MIN_FREE_FILES = 10_000
_GIB = 1024**3


def disks(store_url: str) -> list[Finding]:
    """One finding for each file system, that names what lies on it."""
    places = {"temporary files": Path(tempfile.gettempdir()), "cache": cache_folder(), "working folder": Path.cwd()}
    if "://" not in store_url or store_url.startswith("file://"):
        places = {"store": Path(store_url.removeprefix("file://")).expanduser().absolute(), **places}
    by_device: dict[int, dict[str, Path]] = {}
    for name, path in places.items():
        there = _nearest(path)
        by_device.setdefault(there.stat().st_dev, {})[name] = there
    return [_look(on_it) for on_it in by_device.values()]


def _look(places: dict[str, Path]) -> Finding:
    folder = next(iter(places.values()))
    found = os.statvfs(folder)
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    names = " and ".join(filter(None, [", ".join(list(places)[:-1]), list(places)[-1]]))
    where = f"for the {names}, at {folder}"
    if free < MIN_FREE_BYTES:
        text = f"{free / _GIB:.2f} of {size / _GIB:.2f} GiB free {where}"
        return wrong("disk", text, expected=f"{MIN_FREE_BYTES / _GIB:g} GiB or more", mend=_mend(places))
    # Some file systems count no files, and say 0 of 0.
    if found.f_files and found.f_favail < MIN_FREE_FILES:
        text = f"room for {found.f_favail:,} more files {where}"
        return wrong("disk", text, expected=f"room for {MIN_FREE_FILES:,}", mend=_mend(places))
    return Finding("disk", "fine", f"{free / _GIB:.1f} GiB free {where}")


def _mend(places: dict[str, Path]) -> str:
    ways = {
        "store": "`lnln gc --delete` removes what nothing names",
        "temporary files": "TMPDIR names another folder",
        "cache": "LNLN_CACHE names another folder, and what lies in it may be removed",
        "working folder": "start from another folder",
    }
    return ", ".join(ways[name] for name in places)


def _nearest(path: Path) -> Path:
    """The deepest folder on the way to `path` that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
