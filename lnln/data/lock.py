"""One process at a time: for work that two would spoil for each other, such as continuing the same run."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lnln.config import fingerprint
from lnln.data.cache import cache_folder
from lnln.data.lease import LEASE_FILE
from lnln.data.store import Store
from lnln.errors import RefusedError


def local_folder(store: Store, folder: str) -> Path:
    """Where `folder` of the store lies on this machine; for a store that is elsewhere, its place in the cache."""
    root = cache_folder() / fingerprint(store.url) if "://" in store.url else Path(store.url)
    return root / folder


@contextmanager
def only_one(store: Store, folder: str, what: str) -> Iterator[None]:
    """Hold `folder` of the store against other processes of this machine; a process that dies lets go.

    RefusedError, naming `what`, while another holds it. For a folder that several machines share, as far as their file
    system's locks reach; for a bucket, this machine alone.
    """
    path = local_folder(store, folder) / "lock"
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:  # `remove_held` elsewhere, between these two lines
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RefusedError(
                    f"{what} is being run by another process ({path} is locked); wait until it has ended"
                ) from error
            # After `remove_held` elsewhere: a lock on a removed file guards nothing, so begin again.
            if not _is_at(file, path):
                continue
            yield
            return


def remove_held(store: Store, folder: str) -> None:
    """Remove `folder` of the store, which the caller holds; its lock or lease goes last, so that nobody else is in it
    before."""
    from pyarrow.fs import FileSelector, FileType

    filesystem, path = store.arrow(folder)
    for entry in filesystem.get_file_info(FileSelector(path, allow_not_found=True)):
        if entry.type == FileType.Directory:
            filesystem.delete_dir(entry.path)
        elif entry.base_name not in ("lock", LEASE_FILE):
            filesystem.delete_file(entry.path)
    store.remove(f"{folder}/{LEASE_FILE}")
    held = local_folder(store, folder)
    (held / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another process is in it already
        held.rmdir()


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
