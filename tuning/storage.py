"""Where Optuna keeps a study: a journal file in the study's folder, or a database (`tune.storage_url`).

A journal wants a real file system. Where the store is none, the journal lies in a folder of this machine
(`LNLN_CACHE`, else the user's cache) and is copied from the store first and to the store after every trial.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from lnln.data.lock import local_folder, only_one
from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.select import study_folder

_JOURNAL = "optuna.journal"


class StudyStorage:
    """Optuna's storage of one study, held by this process alone."""

    def __init__(self, optuna: BaseStorage) -> None:
        self.optuna = optuna

    def save(self) -> None:
        """Bring what Optuna wrote to where it lasts. Called after every trial."""


class _CopiedJournal(StudyStorage):
    """A journal on this machine that stands for the one in the store.

    Journals only grow, so a local one that begins with the store's is the newer of the two: its driver was killed
    before it could copy. Any other local one is of no use.
    """

    def __init__(self, store: Store, path: str, journal: Path) -> None:
        self._store, self._path, self._journal = store, path, journal
        self._known: bytes | None = None
        with contextlib.suppress(FileNotFoundError):
            self._known = store.read(path)
        is_newer = self._known is not None and journal.exists() and journal.read_bytes().startswith(self._known)
        if self._known is None:
            journal.unlink(missing_ok=True)
        elif not is_newer:
            journal.write_bytes(self._known)
        super().__init__(_open_journal(journal))

    def save(self) -> None:
        content = self._journal.read_bytes()

        def replace(current: bytes | None) -> bytes:
            if current != self._known:
                raise RefusedError(
                    f"{self._store.url}/{self._path} was changed by another process while this one continued the same "
                    "study; let one process at a time do so"
                )
            return content

        self._known = self._store.update(self._path, replace)


@contextlib.contextmanager
def open_storage(store: Store, study_id: str, storage_url: str) -> Iterator[StudyStorage]:
    """The study's Optuna storage, locked against other processes of this machine as long as the context lasts.

    RefusedError where another process continues the study, or the database cannot be reached.
    """
    with only_one(store, study_folder(study_id), f"study {study_id}"):
        journal = local_folder(store, study_folder(study_id)) / _JOURNAL
        if storage_url:
            yield StudyStorage(_open_database(storage_url))
        elif _is_remote(store):
            yield _CopiedJournal(store, f"{study_folder(study_id)}/{_JOURNAL}", journal)
        else:
            yield StudyStorage(_open_journal(journal))


def _is_remote(store: Store) -> bool:
    return "://" in store.url


def _open_database(url: str) -> BaseStorage:
    try:
        return RDBStorage(url)
    except Exception as error:  # SQLAlchemy, drivers and Optuna each raise their own
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RefusedError(f"cannot open the database of tune.storage_url ({reason})") from error


def _open_journal(journal: Path) -> BaseStorage:
    """The journal, mended after a driver that was killed while it wrote: its lock removed, its last half line cut."""
    with contextlib.suppress(FileNotFoundError):
        Path(f"{journal}.lock").unlink()
    try:
        content = journal.read_bytes() if journal.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)
        for line in content[:whole].splitlines():  # Optuna would notice the last one only after it wrote another
            if not isinstance(json.loads(line), dict):
                raise ValueError("a line of it is no record")
        return JournalStorage(JournalFileBackend(str(journal)))
    except Exception as error:  # Optuna raises whatever replaying a damaged line leads to
        reason = " ".join(str(error).split())
        raise RefusedError(
            f"the journal {journal} of the study is damaged ({type(error).__name__}: {reason}); "
            "restore it, or remove the study's folder to begin anew"
        ) from error
