"""A folder of model files that a manifest vouches for: listed with size and SHA-256, fetched beside, checked, moved in.

Used by `publishing.py` for published versions and for the model of a run. The manifest is the last file written, so a
folder without one does not exist for a reader.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lnln.data.digest import digest_file
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model folder: a plain name, its size and its SHA-256 in hexadecimal."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelManifest:
    """Every file of a model folder but the manifest itself, by name."""

    files: tuple[ModelFile, ...]

    def to_bytes(self) -> bytes:
        content = {file.name: {"num_bytes": file.num_bytes, "sha256": file.sha256} for file in self.files}
        return encode_json({"files": content})

    def digest(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> ModelManifest:
        """Parse what `to_bytes` wrote. RefusedError naming `where` if it is damaged or lists what is no plain name."""
        try:
            content = json.loads(data)["files"]
            files = tuple(
                ModelFile(name, int(entry["num_bytes"]), str(entry["sha256"]))
                for name, entry in sorted(content.items())
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefusedError(
                f"{where} is not a model manifest ({type(error).__name__}); publish the run again"
            ) from error
        for file in files:
            check_file_name(file.name, where)
        return cls(files)

    @classmethod
    def of_folder(cls, folder: Path, names: Iterable[str]) -> ModelManifest:
        return cls(tuple(describe(folder / name) for name in sorted(names)))


def check_file_name(name: str, where: str) -> None:
    """Refuse all but a plain file name: what a manifest lists must stay inside the target folder on any platform."""
    plain = name and name not in (".", "..", MANIFEST) and not any(sign in name for sign in '/\\:\0"*?<>|\n\r')
    if not plain:
        raise RefusedError(f"{where} lists {name!r}, but a model folder holds plain file names only; do not trust it")


def describe(path: Path) -> ModelFile:
    """Size and SHA-256 of the file at `path`."""
    return ModelFile(path.name, *digest_file(path))


def is_whole(folder: Path, file: ModelFile) -> bool:
    """True if `folder` holds `file` with the size and SHA-256 that it should have."""
    path = folder / file.name
    if path.is_symlink() or not path.is_file() or path.stat().st_size != file.num_bytes:
        return False
    return describe(path) == file


def fetch(store: Store, prefix: str, files: Iterable[ModelFile], folder: Path) -> None:
    """Download `files` from below `prefix` into `folder`, each checked before it takes its name.

    Raises RefusedError, naming the file in the store, where one is absent there or is not what its manifest says.
    """
    for file in files:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as beside:
            target = Path(beside) / file.name
            where = f"{store.url}/{prefix}/{file.name}"
            try:
                store.download(f"{prefix}/{file.name}", target)
            except FileNotFoundError as error:
                raise RefusedError(f"{where} is absent, but its manifest lists it; publish or train again") from error
            got = describe(target)
            if got != file:
                raise RefusedError(
                    f"{where} is damaged: expected {file.num_bytes} bytes with SHA-256 {file.sha256}, "
                    f"got {got.num_bytes} bytes with {got.sha256}; restore it, or train and publish again"
                )
            target.replace(folder / file.name)


def fetch_folder(store: Store, prefix: str, manifest: ModelManifest, folder: Path) -> list[str]:
    """Make `folder` hold exactly-checked copies of all files of `manifest`; returns the names that were downloaded.

    A new folder is filled beside and renamed into place, so it is whole or absent. In a folder that is a copy already,
    only missing and damaged files are replaced. Raises RefusedError for a folder with other content.
    """
    folder = folder.resolve()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RefusedError(
            f"cannot put a model at {folder}: there is something else than a folder; give another target"
        )
    if folder.is_dir() and any(folder.iterdir()):
        if _is_copy(folder, manifest):
            return _mend(store, prefix, manifest, folder)
        if not _is_untouched_copy_of_another(folder):
            raise RefusedError(f"{folder} is not empty and is no copy of this model; give an empty or a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        beside.chmod(0o755)
        fetch(store, prefix, manifest.files, beside)
        (beside / MANIFEST).write_bytes(manifest.to_bytes())
        _move_in(beside, folder, manifest)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [file.name for file in manifest.files]


def _mend(store: Store, prefix: str, manifest: ModelManifest, folder: Path) -> list[str]:
    wanting = [file for file in manifest.files if not is_whole(folder, file)]
    fetch(store, prefix, wanting, folder)
    if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_bytes() != manifest.to_bytes():
        beside = folder / f".{MANIFEST}"
        beside.write_bytes(manifest.to_bytes())
        beside.replace(folder / MANIFEST)
    return [file.name for file in wanting]


def _is_copy(folder: Path, manifest: ModelManifest) -> bool:
    """True if the manifest there is this one, or (that lost) a file of it lies there whole: nobody else's folder."""
    with suppress(OSError):
        if (folder / MANIFEST).read_bytes() == manifest.to_bytes():
            return True
    if _read_manifest(folder) is not None:
        return False
    return any(is_whole(folder, file) for file in manifest.files)


def _is_untouched_copy_of_another(folder: Path) -> bool:
    """True if everything in `folder` is as its own manifest says: an older version, which a pull may replace."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return False
    listed = {file.name for file in manifest.files} | {MANIFEST}
    return {entry.name for entry in folder.iterdir()} <= listed and all(is_whole(folder, f) for f in manifest.files)


def _read_manifest(folder: Path) -> ModelManifest | None:
    try:
        return ModelManifest.from_bytes((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    except (OSError, RefusedError):
        return None


def _move_in(beside: Path, folder: Path, manifest: ModelManifest) -> None:
    """Rename `beside` to `folder`, away with an older version; another pull of the same model may have been first."""
    old = beside.with_name(f"{beside.name}-old")
    with suppress(FileNotFoundError):
        if any(folder.iterdir()) and not _is_copy(folder, manifest):
            folder.rename(old)
    try:
        beside.rename(folder)
    except OSError:
        if not all(is_whole(folder, file) for file in manifest.files):
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
