"""A model's folder out of the store: checked, continued where a copy was cut off.

    fetch_folder(store, "models/mosi-lnln/5f3a...", manifest, Path("mosi-lnln"))

A new folder appears whole or not at all: what is not whole yet lies beside it, in `.<target>.lnln-parts/`. A folder
that is there already stays the folder that it is, since somebody may stand in it, or it is a mount point, or nothing
can be written beside it: then the parts lie in it, in `.lnln-parts/`, and once all files have come they move in one by
one, the manifest last. With parts and without a manifest it is unfinished, and nobody reads a model from it.

In the parts are `<sha256>.part` for the file that is being copied, `files/` for those that have their SHA-256 already,
and `begun/`, the manifests of all whose files may lie in an unfinished folder. A process that is killed or cut off
leaves them there, and the next copy goes on at the byte where that one stopped. Who copies holds `lock` there, and lets
go by dying; others wait and then find the target whole.
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

# `_BEGUN` has a folder for each manifest.
_PARTS, _LOCK, _FILES, _BEGUN = ".lnln-parts", "lock", "files", "begun"


def fetch_folder(store: Store, prefix: str, manifest: ModelManifest, folder: Path) -> list[str]:
    """Make `folder` hold exactly-checked copies of all files of `manifest`; returns the names that it lacked.

    In a folder that is a copy already only missing and damaged files are replaced, of an untouched copy of another
    version those that differ; where none is, nothing is read from the store. Raises RefusedError for a folder with
    other content.
    """
    folder = folder.resolve()
    if not folder.name:
        raise RefusedError(f"cannot put a model at {folder}: a model takes a folder of its own; give another target")
    while True:
        parts = _parts_of(folder)
        # Without the lock another may be at work there, so all that is not whole is looked at again with it.
        if _has_manifest(folder, manifest) and not _wanting(folder, manifest) and not parts.exists():
            return []
        with _held(parts):
            if parts != _parts_of(folder):  # another has made the folder meanwhile
                _clear(parts)
                continue
            try:
                wanting = _fill(store, prefix, manifest, folder, parts)
            except StoreFailedError:  # which says nothing of what has come so far
                raise
            except RefusedError:
                _clear(parts)
                raise
            _clear(parts)
        return [file.name for file in wanting]


def is_unfinished(folder: Path) -> bool:
    """Whether a copy into `folder` was begun and has not ended, so that what lies there is no model yet."""
    return (folder / _PARTS).is_dir() and not (folder / MANIFEST).exists()


def require_finished(folder: Path) -> None:
    """RefusedError where `folder` is_unfinished."""
    if is_unfinished(folder):
        raise RefusedError(
            f"{folder} holds a part of a model, since a copy to it has not ended; `lnln pull` it there again"
        )


def _parts_of(folder: Path) -> Path:
    """Where the parts of `folder` are: in it if it is there, else beside it."""
    if folder.is_dir():
        return folder / _PARTS
    if folder.exists():
        raise RefusedError(
            f"cannot put a model at {folder}: there is something else than a folder; give another target"
        )
    return folder.with_name(f".{folder.name}{_PARTS}")


def _fill(store: Store, prefix: str, manifest: ModelManifest, folder: Path, parts: Path) -> list[ModelFile]:
    """`fetch_folder`, holding `parts`; asked anew what is there, since another may have been at work."""
    _require_place(folder, manifest, parts)
    wanting = _wanting(folder, manifest)
    files = _tidied(parts, {file.name for file in wanting})
    fetch(store, prefix, wanting, files, parts)
    if folder.is_dir():
        _move_in(files, folder, manifest, wanting, parts)
        return wanting
    _write_manifest(files, manifest, parts)
    try:
        files.rename(folder)
    except OSError:  # a machine that knows no lock may have been first
        if _wanting(folder, manifest):
            raise
    return wanting


def _require_place(folder: Path, manifest: ModelManifest, parts: Path) -> set[str]:
    """RefusedError where `folder` holds what is neither a copy of `manifest`, perhaps damaged, nor may be replaced by
    one. Returns the names of the files of other versions there, which go when this one comes."""
    entries = {entry.name for entry in folder.iterdir() if entry != parts} if folder.is_dir() else set()
    for file in manifest.files:
        if file.name in entries and (folder / file.name).is_dir():
            raise RefusedError(f"{folder / file.name} is a folder, and the model has a file of that name; remove it")
    listed = {file.name for file in manifest.files}
    theirs = read_manifest_of(folder)
    begun = [] if theirs is not None else _begun(parts)
    if begun:  # an unfinished one; what is not of a model there is left alone
        return {file.name for each in begun for file in each.files if is_whole(folder, file)} - listed
    if not entries or _is_copy(folder, manifest):
        return set()
    names = {file.name for file in theirs.files} if theirs is not None else set()
    if theirs is None or entries - names - {MANIFEST} or not all(is_whole(folder, file) for file in theirs.files):
        raise RefusedError(f"{folder} is not empty and is no copy of this model; give an empty or a new folder")
    return names - listed


def _move_in(
    files: Path, folder: Path, manifest: ModelManifest, wanting: list[ModelFile], parts: Path
) -> None:  # fmt: skip
    """Move `wanting` from `files` to `folder`, and what is there of another version away, the manifest last.

    Wherever this ends, what lies in `folder` is known, and it has no manifest unless it is this one.
    """
    replaced = _require_place(folder, manifest, parts)  # somebody may have put something there meanwhile
    if not _has_manifest(folder, manifest):
        for each in (manifest, read_manifest_of(folder)):
            if each is not None:
                _keep_begun(each, parts)
        (folder / MANIFEST).unlink(missing_ok=True)
    for file in wanting:
        (files / file.name).replace(folder / file.name)
    for name in replaced:
        (folder / name).unlink()
    _write_manifest(folder, manifest, parts)


def _begun(parts: Path) -> list[ModelManifest]:
    """Manifests of all whose files may lie in an unfinished folder."""
    found = [read_manifest_of(entry) for entry in (parts / _BEGUN).glob("*")]
    return [manifest for manifest in found if manifest is not None]


def _keep_begun(manifest: ModelManifest, parts: Path) -> None:
    folder = parts / _BEGUN / manifest.digest()
    folder.mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, manifest, parts)


def _tidied(parts: Path, wanted: set[str]) -> Path:
    """The folder of whole files in `parts`, without what is not wanted: of another version, or a stray folder."""
    for entry in parts.iterdir():
        if _is_folder(entry) != (entry.name in (_FILES, _BEGUN)):
            _remove(entry)
    files = parts / _FILES
    files.mkdir(exist_ok=True)
    for entry in files.iterdir():
        if entry.name not in wanted or _is_folder(entry):
            _remove(entry)
    return files


def _wanting(folder: Path, manifest: ModelManifest) -> list[ModelFile]:
    return [file for file in manifest.files if not is_whole(folder, file)]


def _write_manifest(folder: Path, manifest: ModelManifest, parts: Path) -> None:
    """Write it to `folder` unless it is there as it should be; whole or not at all, by way of `parts`."""
    if _has_manifest(folder, manifest):
        return
    beside = parts / MANIFEST
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
        except IsADirectoryError as error:
            raise RefusedError(f"cannot copy a model by way of {parts / _LOCK}: it is a folder; remove it") from error
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
        if entry.name != _LOCK:
            _remove(entry)
    (parts / _LOCK).unlink(missing_ok=True)
    with suppress(OSError):  # another is in it already
        parts.rmdir()


def _remove(entry: Path) -> None:
    if _is_folder(entry):
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
