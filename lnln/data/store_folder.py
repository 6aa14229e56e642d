"""A store in a folder: temporary file, fsync, then one step that makes it visible (rename or hard link)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lnln.data.store import StoreAbilities, StoredFile, UnfinishedUpload

# What a file system without hard links answers (FAT, some network and FUSE mounts).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Folder:
    """Files below `root`, which need not exist before the first write."""

    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def exists(self, path: str) -> bool:
        return (self._root / path).is_file()

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
        if target.exists():
            return False
        with _temporary(target) as temporary:
            _write_through(temporary, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with _locked(target):
                    if target.exists():
                        return False
                    temporary.replace(target)
        _sync_folder(target.parent)
        return True

    def write(self, path: str, data: bytes) -> None:
        self._replace(self._root / path, lambda temporary: _write_through(temporary, data))

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        target = self._root / path
        while True:
            before = _content(target)
            after = change(before)
            if after == before:
                return after
            with _temporary(target) as temporary:
                _write_through(temporary, after)
                # Held as shortly as can be: a process that is stopped while it has the lock stops all others.
                with _locked(target):
                    is_as_before = _content(target) == before
                    if is_as_before:
                        temporary.replace(target)
            if is_as_before:
                _sync_folder(target.parent)
                return after

    def open(self, path: str) -> BinaryIO:
        return (self._root / path).open("rb")

    def upload(self, source: Path, path: str) -> None:
        self._replace(self._root / path, lambda temporary: _copy_through(source, temporary))

    def download(self, path: str, target: Path) -> None:
        self._replace(target, lambda temporary: _copy_through(self._root / path, temporary))

    def remove(self, path: str) -> None:
        (self._root / path).unlink(missing_ok=True)

    def arrow(self, path: str) -> tuple[Any, str]:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem(), str(self._root / path)

    def probe(self) -> StoreAbilities:
        return StoreAbilities(conditional_create=True, conditional_update=True)

    def clock(self) -> float:
        return time.time()

    def list_files(self, follow_links: bool) -> Iterator[StoredFile]:
        for folder, subfolders, names in os.walk(self._root, followlinks=follow_links):
            if follow_links:
                subfolders[:] = [name for name in subfolders if not _leads_back(Path(folder) / name)]
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat() if follow_links else path.lstat()
                    if stat.S_ISREG(status.st_mode):
                        yield StoredFile(path.relative_to(self._root).as_posix(), status.st_size, status.st_mtime)

    def remove_unchanged(self, file: StoredFile) -> bool:
        path = self._root / file.path
        try:
            if path.lstat().st_mtime != file.modified:
                return False
            return _remove_lock(path) if path.name.endswith(".lock") else _remove_if_of(path, file.modified)
        except FileNotFoundError:
            return False

    def list_uploads(self) -> Iterator[UnfinishedUpload]:
        return iter(())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), upload.path)

    def _replace(self, target: Path, fill: Callable[[Path], None]) -> None:
        with _temporary(target) as temporary:
            fill(temporary)
            temporary.replace(target)
        _sync_folder(target.parent)


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that was walked through to come here: whoever follows it never ends."""
    return folder.is_symlink() and folder.resolve() in [above.resolve() for above in folder.parents]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A hidden name beside `target` that no manifest lists; what is left under it afterwards is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_through(source: Path, path: Path) -> None:
    with source.open("rb") as reader, path.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power cut; some network file systems cannot, and say so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target`, over threads and processes. The lock file is gone afterwards."""
    lock = target.with_name(f".{target.name}.lock")
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The holder before us removes the file: a lock on a removed file guards nothing, so begin again.
        if _is_same_file(descriptor, lock):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _remove_lock(lock: Path) -> bool:
    """Remove a lock file that its holder left when it died; False where somebody holds it."""
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_same_file(descriptor, lock):
            return False
        lock.unlink()
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _remove_if_of(path: Path, modified: float) -> bool:
    """Take `path` away and only then look at it: a writer may have replaced it since it was looked at."""
    taken = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    path.rename(taken)
    is_new = taken.lstat().st_mtime != modified
    if is_new:
        _put_back(taken, path)
    taken.unlink(missing_ok=True)
    return not is_new


def _put_back(taken: Path, path: Path) -> None:
    """Unless there is one newer still; `taken` may remain."""
    try:
        os.link(taken, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with _locked(path):  # as `create` does there
            if not path.exists():
                taken.rename(path)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
