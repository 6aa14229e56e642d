"""The files of a model and what vouches for them: a manifest of sizes and SHA-256.

    manifest = ModelManifest.of_folder(folder, ["config.json", "model.safetensors"])
    all(is_whole(folder, file) for file in manifest.files)

The manifest is the last file written, so a folder without one does not exist for a reader of the store. `fetch` copies
single files out of it, `fetch.py` a whole folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lnln.data.digest import digest_file
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError

MANIFEST = "manifest.json"

_PIECE_BYTES = 1 << 20


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
                ModelFile(name, int(entry["num_bytes"]), _checked_sha256(entry["sha256"]))
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


def read_manifest_of(folder: Path) -> ModelManifest | None:
    """The manifest that lies in `folder`; None where there is none, or it is damaged."""
    try:
        return ModelManifest.from_bytes((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    except (OSError, RefusedError):
        return None


def fetch(store: Store, prefix: str, files: Iterable[ModelFile], folder: Path, parts: Path | None = None) -> None:
    """Put `files` from below `prefix` into `folder`, each checked before it takes its name; whole ones are not read.

    parts: a folder on the same file system for what is not whole yet, where what lies there is continued; by default
    one that is gone at the end.
    Raises RefusedError, naming the file in the store, where one is absent there or is not what its manifest says.
    """
    if parts is None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as beside:
            return fetch(store, prefix, files, folder, Path(beside))
    for file in files:
        if is_whole(folder, file):
            continue
        part = parts / f"{file.sha256}.part"
        where = f"{store.url}/{prefix}/{file.name}"
        try:
            num_before = _copy_rest(store, f"{prefix}/{file.name}", part, file.num_bytes)
            if num_before and not is_whole(parts, _as_part(file)):  # what was there may have been damaged since
                part.unlink()
                _copy_rest(store, f"{prefix}/{file.name}", part, file.num_bytes)
        except FileNotFoundError as error:
            raise RefusedError(f"{where} is absent, but its manifest lists it; publish or train again") from error
        got = describe(part)
        if got != _as_part(file):
            part.unlink()
            raise RefusedError(
                f"{where} is damaged: expected {file.num_bytes} bytes with SHA-256 {file.sha256}, "
                f"got {got.num_bytes} bytes with {got.sha256}; restore it, or train and publish again"
            )
        part.replace(folder / file.name)
    return None


def _copy_rest(store: Store, path: str, part: Path, num_bytes: int) -> int:
    """Append to `part` what it lacks of `path`, which should have `num_bytes`; returns how many bytes it had."""
    with part.open("ab") as target:
        num_before = target.tell()
        if num_before > num_bytes:
            num_before = target.truncate(0)
        if num_before and num_before == num_bytes:
            return num_before
        with store.open(path) as source:
            source.seek(num_before)
            while piece := source.read(_PIECE_BYTES):
                target.write(piece)
    return num_before


def _as_part(file: ModelFile) -> ModelFile:
    return ModelFile(f"{file.sha256}.part", file.num_bytes, file.sha256)


def _checked_sha256(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"no SHA-256: {value!r}")
    return value
