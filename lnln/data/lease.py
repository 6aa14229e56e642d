"""One holder at a time over any number of machines: for work that two would spoil for each other.

    with held(store, "studies/x", "study x") as lease:
        ...
        lease.confirm()                  # LostLeaseError where another has taken it meanwhile
        store.write(...)

Who holds a folder stands in its `lease.json`, and says so anew every few seconds. Who wants it watches that file: when
it has stood still for LEASE_SECONDS by the watcher's own clock, its holder is taken for gone, so no two clocks are ever
compared. A holder that ended on the watcher's machine is known to be gone at once. One that was only stopped may go on
later, and between its `confirm` and its write it may be stopped again: what must never be written by two is guarded
where it is written too (`tuning/journal.py`, `tuning/database.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.progress import line

# How long a holder may be silent. Long against a store's bad minute, short against a person's patience.
LEASE_SECONDS = 60.0
LEASE_FILE = "lease.json"
# Renewals in that time, and how often a watcher looks.
_RENEWALS, _LOOKS = 12, 60

_FREE = encode_json({})


class LostLeaseError(RefusedError):
    """The lease is another's by now, so this process may not write any more."""


class Register(Protocol):
    """One value that all machines see, changed in one step; None while there is none."""

    def read(self) -> bytes | None: ...
    def update(self, change: Callable[[bytes | None], bytes]) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process that holds a lease. since: by its clock, for people. machine, started: None where nothing tells them.

    machine: one boot of one machine, and the process numbers in it. started: in ticks since that boot.
    """

    token: str
    host: str
    pid: int
    since: str
    machine: str | None
    started: str | None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def has_ended(self) -> bool:
        """Whether that is certain; of a process of another machine it never is."""
        if self.machine is None or self.machine != _machine():
            return False
        started = _started(self.pid)
        return started != self.started if started is not None else _is_unused(self.pid)


class Lease:
    """What `held` gives out. seconds: how long it outlasts its last renewal."""

    def __init__(self, register: Register, what: str, seconds: float) -> None:
        self._register, self._what, self.seconds = register, what, seconds
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        pid = os.getpid()
        self._holder = Holder(secrets.token_hex(8), socket.gethostname(), pid, since, _machine(), _started(pid))
        self._num_renewals = 0
        self._renewed, self._is_taken = 0.0, False
        self._loss: LostLeaseError | None = None
        self._mutex = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def token(self) -> str:
        """Different for every holder that ever was."""
        return self._holder.token

    def check(self) -> None:
        """LostLeaseError where another may hold it. Asks the store only where it was not renewed for half its time."""
        if self._loss is not None:
            raise self._loss
        if _now() - self._renewed > self.seconds / 2:
            self._renew()

    def confirm(self) -> None:
        """LostLeaseError where another holds it, as the store has it now."""
        if self._loss is not None:
            raise self._loss
        self.require(self._register.read())

    def __reduce__(self) -> tuple[Callable[[str], Lease], tuple[str]]:
        """Holding does not travel: in another process, or from a file, it is a lease that was lost."""
        return _lost, (self._what,)

    def take(self) -> None:
        """Wait until it is free or its holder is known to be gone; RefusedError as soon as that shows that it lives."""
        seen, first = self._register.read(), _now()  # in this order: it was written before `first`
        if not self._try_to_take(seen) and not _is_free(seen):
            line(f"{self._what} is held by {_holder_of(seen)}; looking for {self.seconds:g} s whether it still runs")
        while not self._is_taken:
            time.sleep(self.seconds / _LOOKS)
            content = self._register.read()
            if content != seen and not _is_free(content):
                raise RefusedError(
                    f"{self._what} is being run by another process ({_holder_of(content)}); wait until it has ended, "
                    "or end it and run the same command again"
                )
            if content != seen:
                seen, first = content, _now()
            self._try_to_take(seen, is_silent=_now() - first >= self.seconds)
        self._thread.start()

    def release(self) -> None:
        """Let others have it at once. Where the store is away, they have it when they have waited."""
        self._is_over.set()
        self._thread.join()
        with suppress(RefusedError, OSError):
            self.confirm()  # an update would make the folder again that its holder removed
            self._register.update(self._freed)

    def _try_to_take(self, seen: bytes | None, *, is_silent: bool = False) -> bool:
        holder = _holder_of(seen)
        if not (_is_free(seen) or is_silent or (isinstance(holder, Holder) and holder.has_ended())):
            return False
        asked = _now()
        mine = self._content()

        def take(content: bytes | None) -> bytes:
            if content not in (seen, mine):  # `mine`: this call did it, and the answer was lost
                raise _ChangedError
            return mine

        try:
            self._register.update(take)
        except _ChangedError:
            return False
        self._renewed, self._is_taken = asked, True
        return True

    def _keep(self) -> None:
        while not self._is_over.wait(self.seconds / _RENEWALS):
            try:
                self._renew()
            except LostLeaseError as loss:
                self._loss = loss
                return
            except (RefusedError, OSError):  # the store is away; as long as nobody takes the lease it is ours
                continue

    def _renew(self) -> None:
        with self._mutex:
            self._num_renewals += 1
            asked = _now()
            mine = self._content()

            def renew(content: bytes | None) -> bytes:
                self.require(content)
                return mine

            self._register.update(renew)
            self._renewed = asked

    def _freed(self, content: bytes | None) -> bytes:
        self.require(content)
        return _FREE

    def require(self, content: bytes | None) -> None:
        """LostLeaseError unless the register's `content` says that it is ours."""
        holder = _holder_of(content)
        if isinstance(holder, Holder) and holder.token == self.token:
            return
        if _is_free(content):
            raise LostLeaseError(
                f"{self._what} is no longer held by this process: its lease was given up or removed by another while "
                "this one did not answer; the same command continues it"
            )
        raise LostLeaseError(
            f"{self._what} was taken over by another process ({holder}) while this one did not answer; "
            "it goes on there, and nothing more is written here"
        )

    def _content(self) -> bytes:
        return encode_json({**dataclasses.asdict(self._holder), "num_renewals": self._num_renewals})


@contextmanager
def held(store: Store, folder: str, what: str) -> Iterator[Lease]:
    """Hold `folder` of the store against all other processes, here and elsewhere; RefusedError, naming `what`, where
    one of them does."""
    with held_by(_StoredLease(store, f"{folder}/{LEASE_FILE}"), what) as lease:
        yield lease


@contextmanager
def held_by(register: Register, what: str) -> Iterator[Lease]:
    """As `held`, with the holder's record in any register."""
    lease = Lease(register, what, LEASE_SECONDS)
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def _lost(what: str) -> Lease:
    lease = Lease(_Nothing(), what, LEASE_SECONDS)
    lease._loss = LostLeaseError(f"{what} is held by the process that opened it, not by what it was sent to")
    return lease


class _Nothing:
    def read(self) -> bytes | None:
        return None

    def update(self, change: Callable[[bytes | None], bytes]) -> bytes:
        return change(None)


class _ChangedError(Exception):
    """The lease is no longer as it was seen."""


class _StoredLease:
    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path

    def read(self) -> bytes | None:
        try:
            return self._store.read(self._path)
        except FileNotFoundError:
            return None

    def update(self, change: Callable[[bytes | None], bytes]) -> bytes:
        return self._store.update(self._path, change)


def _is_free(content: bytes | None) -> bool:
    return content is None or content == _FREE


def _holder_of(content: bytes | None) -> Holder | str:
    """Who stands in a lease; in words where that cannot be told."""
    try:
        value = json.loads(content or b"")
        holder = Holder(**{field.name: value[field.name] for field in dataclasses.fields(Holder)})
    except (ValueError, TypeError, KeyError):
        return "a process whose record cannot be read"
    return holder if isinstance(holder.pid, int) and holder.pid > 0 else "a process without a number"


def _now() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where it has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _machine() -> str | None:
    """This boot of this machine, with the process numbers that this process sees; None where Linux does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process of this machine started, in ticks since the boot; 0 if it is dead, None if that cannot be seen."""
    try:
        # The name of the program stands in parentheses and may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return "0" if state in "ZXx" else fields[18]


def _is_unused(pid: int) -> bool:
    """Whether no process of this machine has this number; of other users' processes `/proc` may not tell."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False
