"""Optuna's journal of a study: a file that its driver alone extends, mended when the next driver opens it.

A driver that is stopped in the middle of a write and goes on after another has taken its lease must not write into the
other's journal. So whoever takes a study puts a copy in the journal's place, and whoever extends a journal opens the
file first and asks for the lease then: what such a driver still writes goes to a file that is no longer there.

A journal wants a real file system. For a store in a bucket it lies on this machine, where it is extended, and is copied
to the store after every trial.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError

_RECORD = b'{"op_code":'


def open_journal(journal: Path, check: Callable[[], None]) -> JournalStorage:
    """The journal at `journal`, begun where there is none. check: raises where this process may not extend it any more.

    What a killed driver left is put right: its lock, and the half line that it wrote last. RefusedError for a journal
    that is damaged otherwise.
    """
    folder = Store(journal.parent)
    folder.remove(f"{journal.name}.lock")
    content = _read(folder, journal.name) or b""
    try:
        folder.write(journal.name, mended(content))
        return JournalStorage(_HeldJournal(journal, check))
    except StoreFailedError:
        raise
    except Exception as error:  # Optuna raises whatever replaying a damaged line leads to
        reason = " ".join(str(error).split())
        raise RefusedError(
            f"the journal {journal} of the study is damaged ({type(error).__name__}: {reason}); "
            "restore it, or remove the study's folder to begin anew"
        ) from error


def mended(content: bytes) -> bytes:
    """`content` without half lines: of a writer that was killed, at the end or, where another wrote after it, before a
    whole record on the same line. Nobody was told that such a record was kept. ValueError for lines that hold none."""
    whole = content[: content.rfind(b"\n") + 1]
    return b"".join(_record(line) for line in whole.splitlines(keepends=True))


def _record(line: bytes) -> bytes:
    try:
        value = json.loads(line)
    except ValueError:
        # A quote within a record is escaped, so this begins one wherever it stands.
        begin = line.rfind(_RECORD)
        if begin <= 0:
            raise
        return _record(line[begin:])
    if not isinstance(value, dict):
        raise ValueError("a line of it is no record")
    return line


class _HeldJournal(JournalFileBackend):
    """Written by who holds the study; the lock beside it is for others that open it, such as optuna-dashboard."""

    def __init__(self, journal: Path, check: Callable[[], None]) -> None:
        super().__init__(str(journal), _Lock(str(journal)))
        self._journal, self._check = journal, check

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._lock.acquire()
        try:
            with self._journal.open("ab") as file:
                self._check()  # after it was opened and before it is written: see above
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()


class _Lock(JournalFileSymlinkLock):
    """May be removed by another driver while this one has it: its owner was taken for gone."""

    def release(self) -> None:
        with contextlib.suppress(RuntimeError):
            super().release()


class CopiedJournal:
    """A journal on this machine that stands for the one at `path` of the store.

    Journals only grow, so a local one that begins with the store's is the newer of the two: its driver was killed
    before it could copy. Any other local one is of no use.
    """

    def __init__(self, store: Store, path: str, journal: Path) -> None:
        self._store, self._path, self._journal = store, path, journal
        self._known = _read(store, path)
        folder = Store(journal.parent)
        local = _read(folder, journal.name)
        if self._known is None:
            folder.remove(journal.name)
        elif local is None or not local.startswith(self._known):
            folder.write(journal.name, self._known)

    def copy(self) -> None:
        """To the store; RefusedError where that has another than this one began from."""
        content = self._journal.read_bytes()

        def replace(current: bytes | None) -> bytes:
            if current not in (self._known, content):
                raise RefusedError(
                    f"{self._store.url}/{self._path} was changed by another process while this one continued the same "
                    "study; let one process at a time do so"
                )
            return content

        self._known = self._store.update(self._path, replace)


def _read(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except FileNotFoundError:
        return None
