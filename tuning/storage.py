"""Where Optuna keeps a study, and that one driver at a time continues it.

    with open_storage(store, study_id, config.tune.storage_url) as storage:
        study = optuna.create_study(storage=storage.optuna, ...)
        ...
        storage.save()                  # after every trial

The storage is a journal file in the study's folder (`tuning/journal.py`), or a database where `tune.storage_url` names
one (`tuning/database.py`). Either can be opened by optuna-dashboard at the same time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from optuna.storages import BaseStorage

from lnln.data.lease import Lease, held
from lnln.data.lock import local_folder
from lnln.data.store import Store
from tuning.database import held_database
from tuning.journal import CopiedJournal, open_journal
from tuning.record import study_folder

_JOURNAL = "optuna.journal"


class StudyStorage:
    """Optuna's storage of one study, held by this process alone."""

    def __init__(self, optuna: BaseStorage, leases: Sequence[Lease], copy: Callable[[], None] | None = None) -> None:
        self.optuna = optuna
        self._leases, self._copy = leases, copy

    @property
    def driver(self) -> str:
        """Of no other driver of any study: a name for what only this one uses."""
        return self._leases[0].token

    def confirm(self) -> None:
        """RefusedError where another driver has taken over the study, so that this one may not write for it."""
        for lease in self._leases:
            lease.confirm()

    def save(self) -> None:
        """Bring what Optuna wrote to where it lasts. Called after every trial; RefusedError as `confirm`."""
        self.confirm()
        if self._copy is not None:
            self._copy()


@contextlib.contextmanager
def open_storage(store: Store, study_id: str, storage_url: str) -> Iterator[StudyStorage]:
    """The study's Optuna storage, held against other processes, here and elsewhere, as long as the context lasts.

    RefusedError where another process continues the study, the database cannot be reached, or the journal is damaged;
    from the storage too, before it writes, where another process has taken the study over meanwhile.
    """
    folder = study_folder(study_id)
    journal = local_folder(store, folder) / _JOURNAL
    with held(store, folder, f"study {study_id}") as lease:
        if storage_url:
            with held_database(storage_url, study_id) as (database, database_lease):
                yield StudyStorage(database, [lease, database_lease])
        elif "://" in store.url:
            copied = CopiedJournal(store, f"{folder}/{_JOURNAL}", journal)
            yield StudyStorage(open_journal(journal, lease.check), [lease], copied.copy)
        else:
            yield StudyStorage(open_journal(journal, lease.confirm), [lease])
