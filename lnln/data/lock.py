"""One process at a time: for work that two would spoil for each other, such as continuing the same run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lnln.config import fingerprint
from lnln.data.cache import cache_folder
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
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RefusedError(
                f"{what} is being run by another process ({path} is locked); wait until it has ended"
            ) from error
        yield
