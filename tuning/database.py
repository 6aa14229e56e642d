"""Optuna's storage in a database, for one driver at a time, whichever store each driver has.

The lease on a study is a row of the table `lnln_leases`. Every transaction of Optuna's looks at it last and keeps it
locked until it is committed, so a driver that was taken for gone commits nothing after another has taken the lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import sqlalchemy as sql
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from lnln.data.lease import Lease, held_by
from lnln.errors import RefusedError, StoreFailedError

_LEASES = sql.Table(
    "lnln_leases",
    sql.MetaData(),
    sql.Column("study_id", sql.String(512), primary_key=True),
    sql.Column("content", sql.String(2048), nullable=False),
)
# Rounds of read, change and write that others may win before this one gives up.
_MAX_ROUNDS = 20


@contextlib.contextmanager
def held_database(url: str, study_id: str) -> Iterator[tuple[RDBStorage, Lease]]:
    """The database at `url`, with the study held against other processes that use it.

    RefusedError where one of them holds it, the database cannot be reached, or lasts no longer than this process;
    StoreFailedError where it fails meanwhile.
    """
    storage = _open(url)
    lease_row = _LeaseRow(sql.create_engine(url), study_id)
    try:
        with held_by(lease_row, f"study {study_id} in the database of tune.storage_url") as lease:
            sql.event.listen(storage.engine, "commit", lambda connection: lease.require(lease_row.locked(connection)))
            yield storage, lease
    except (StorageInternalError, sql.exc.SQLAlchemyError) as error:
        raise StoreFailedError(
            f"the database of tune.storage_url failed ({_reason(error)}); the same command continues the study"
        ) from error
    finally:
        storage.scoped_session.remove()
        storage.engine.dispose()
        lease_row.close()


class _LeaseRow:
    """A `lnln.data.lease.Register` in the database."""

    def __init__(self, engine: sql.Engine, study_id: str) -> None:
        self._engine, self._study_id = engine, study_id
        self._selected = sql.select(_LEASES.c.content).where(_LEASES.c.study_id == study_id)

    def read(self) -> bytes | None:
        with _refusing("read"), self._engine.connect() as connection:
            return _encoded(connection.scalar(self._selected))

    def locked(self, connection: sql.Connection) -> bytes | None:
        """Its value, which stays as it is until the connection's transaction ends."""
        return _encoded(connection.scalar(self._selected.with_for_update()))

    def update(self, change: Callable[[bytes | None], bytes]) -> bytes:
        for _ in range(_MAX_ROUNDS):
            before = self.read()
            after = change(before)
            if after == before or self._replace(before, after):
                return after
        raise StoreFailedError("others kept changing the lease in the database of tune.storage_url; try again later")

    def close(self) -> None:
        self._engine.dispose()

    def _replace(self, before: bytes | None, after: bytes) -> bool:
        content = after.decode()
        with _refusing("write"):
            try:
                with self._engine.begin() as connection:
                    if before is None:
                        connection.execute(_LEASES.insert().values(study_id=self._study_id, content=content))
                        return True
                    is_as_before = (_LEASES.c.study_id == self._study_id) & (_LEASES.c.content == before.decode())
                    changed = connection.execute(_LEASES.update().where(is_as_before).values(content=content))
                    return changed.rowcount == 1
            except sql.exc.IntegrityError:  # another inserted it first
                return False


def _open(url: str) -> RDBStorage:
    try:
        where = sql.make_url(url)
        is_in_memory = where.get_backend_name() == "sqlite" and (where.database or ":memory:") == ":memory:"
        storage = None if is_in_memory else RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
        if storage is not None:
            _LEASES.create(storage.engine, checkfirst=True)
    except Exception as error:  # SQLAlchemy, drivers and Optuna each raise their own
        raise RefusedError(f"cannot open the database of tune.storage_url ({_reason(error)})") from error
    if storage is None:
        raise RefusedError(f"the database of tune.storage_url must outlast this process, got {url!r}; name a file")
    return storage


@contextlib.contextmanager
def _refusing(verb: str) -> Iterator[None]:
    try:
        yield
    except sql.exc.SQLAlchemyError as error:
        raise StoreFailedError(
            f"cannot {verb} the lease in the database of tune.storage_url ({_reason(error)})"
        ) from error


def _encoded(content: str | None) -> bytes | None:
    return None if content is None else content.encode()


def _reason(error: Exception) -> str:
    """SQLAlchemy adds the statement, its parameters and a link, each on a line of its own."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
