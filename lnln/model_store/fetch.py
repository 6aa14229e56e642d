"""A model's folder out of the store: checked, whole or absent, continued where a copy was cut off.

    fetch_folder(store, "models/mosi-lnln/5f3a...", manifest, Path("mosi-lnln"))

What is not whole yet lies beside the target, in `.<target>.lnln-parts/`: `<sha256>.part` for the file that is being
copied, `files/` for those that have their SHA-256 already. A process that is killed or cut off leaves it there, and the
next copy goes on at the byte where that one stopped. Who copies holds `lock` there, and lets go by dying; others wait
and then find the target whole.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store.files import MANIFEST, ModelFile, ModelManifest, fetch, is_whole, read_manifest_of

log = logging.getLogger(__name__)

_LOCK = "lock"


def fetch_folder(store: Store, prefix: str, manifest: ModelManifest, folder: Path) -> list[str]:
    """Make `folder` hold exactly-checked copies of all files of `manifest`; returns the names that it lacked.

    A new folder appears whole or not at all. In a folder that is a copy already only missing and damaged files are
    replaced; where none is, nothing is read from the store. Raises RefusedError for a folder with other content.
    """
    folder = folder.resolve()
    if not folder.name:
        raise RefusedError(f"cannot put a model at {folder}: a model takes a folder of its own; give another target")
    # Without the lock another may be at work there, so all that is not whole is looked at again with it.
    if _has_manifest(folder, manifest) and not _wanting(folder, manifest):
        return []
    parts = folder.with_name(f".{folder.name}.lnln-parts")
    with _held(parts):
        try:
            wanting = _fill(store, prefix, manifest, folder, parts)
        except StoreFailedError:  # which says nothing of what has come so far
            raise
        except RefusedError:
            _clear(parts)
            raise
        _clear(parts)
    return [file.name for file in wanting]


def _fill(store: Store, prefix: str, manifest: ModelManifest, folder: Path, parts: Path) -> list[ModelFile]:
    """`fetch_folder`, holding `parts`; asked anew what is there, since another may have been at work."""
    if _holds_copy(folder, manifest):
        wanting = _wanting(folder, manifest)
        fetch(store, prefix, wanting, folder, parts)
        _write_manifest(folder, manifest)
        return wanting
    files = parts / "files"
    files.mkdir(exist_ok=True)
    listed = {file.name for file in manifest.files}
    for entry in files.iterdir():  # of another version, which was not wanted to its end
        if entry.name not in listed:
            entry.unlink()
    fetch(store, prefix, manifest.files, files, parts)
    _write_manifest(files, manifest)
    _move_in(files, folder, parts / "old", manifest)
    return list(manifest.files)


def _holds_copy(folder: Path, manifest: ModelManifest) -> bool:
    """True if `folder` is a copy of what `manifest` lists, perhaps damaged; False if all of it may be put there.

    RefusedError where something else is there.
    """
    if folder.exists() and not folder.is_dir():
        raise RefusedError(
            f"cannot put a model at {folder}: there is something else than a folder; give another target"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    if _is_copy(folder, manifest):
        return True
    if not _is_untouched_copy_of_another(folder):
        raise RefusedError(f"{folder} is not empty and is no copy of this model; give an empty or a new folder")
    return False


def _wanting(folder: Path, manifest: ModelManifest) -> list[ModelFile]:
    return [file for file in manifest.files if not is_whole(folder, file)]


def _write_manifest(folder: Path, manifest: ModelManifest) -> None:
    """Write it unless it is there as it should be."""
    if _has_manifest(folder, manifest):
        return
    beside = folder / f".{MANIFEST}"
    beside.write_bytes(manifest.to_bytes())
    beside.replace(folder / MANIFEST)


def _has_manifest(folder: Path, manifest: ModelManifest) -> bool:
    try:
        return (folder / MANIFEST).read_bytes() == manifest.to_bytes()
    except OSError:
        return False


def _is_copy(folder: Path, manifest: ModelManifest) -> bool:
    """True if the manifest there is this one, or (that lost) a file of it lies there whole: nobody else's folder."""
    if _has_manifest(folder, manifest):
        return True
    if read_manifest_of(folder) is not None:
        return False
    return any(is_whole(folder, file) for file in manifest.files)


def _is_untouched_copy_of_another(folder: Path) -> bool:
    """True if everything in `folder` is as its own manifest says: an older version, which a pull may replace."""
    manifest = read_manifest_of(folder)
    if manifest is None:
        return False
    listed = {file.name for file in manifest.files} | {MANIFEST}
    return {entry.name for entry in folder.iterdir()} <= listed and all(is_whole(folder, f) for f in manifest.files)


def _move_in(files: Path, folder: Path, old: Path, manifest: ModelManifest) -> None:
    """Rename `files` to `folder`, away with an older version; a machine that knows no lock may have been first."""
    shutil.rmtree(old, ignore_errors=True)
    with suppress(FileNotFoundError):
        if any(folder.iterdir()):
            folder.rename(old)
    try:
        files.rename(folder)
    except OSError:
        if _wanting(folder, manifest):
            if old.exists():
                old.rename(folder)
            raise


@contextmanager
def _held(parts: Path) -> Iterator[None]:
    """Hold the folder `parts`, which need not exist; wait while another does."""
    while True:
        if parts.is_symlink() or parts.is_file():
            raise RefusedError(f"cannot copy a model by way of {parts}: it is no folder; remove it")
        try:
            parts.mkdir(parents=True, exist_ok=True)
            file = (parts / _LOCK).open("a")
        except (FileExistsError, FileNotFoundError):  # `_clear` elsewhere, in the middle of these lines
            continue
        with file:
            with suppress(OSError):  # a file system without locks: two that copy at once get a refusal at worst
                _wait_for_lock(file, parts)
            if not _is_at(file, parts / _LOCK):  # whoever had it before has removed it, and it guards nothing
                continue
            yield
            return


def _wait_for_lock(file: TextIO, parts: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.warning("%s is locked: another process copies a model there; waiting for it", parts)
        fcntl.flock(file, fcntl.LOCK_EX)


def _clear(parts: Path) -> None:
    """Remove the folder `parts`, which the caller holds; its lock goes last."""
    for entry in parts.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _LOCK:
            entry.unlink(missing_ok=True)
    (parts / _LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # another is in it already
        parts.rmdir()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
