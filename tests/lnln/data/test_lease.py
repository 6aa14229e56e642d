"""A lease has one holder: whoever is silent loses it, whoever lives keeps it, and whoever lost it is told so."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.data import lease as lease_module
from lnln.data.lease import LEASE_FILE, LostLeaseError, held, held_by
from lnln.data.lock import remove_held
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError

FOLDER, WHAT = "studies/s", "study s"
LEASE = f"{FOLDER}/{LEASE_FILE}"

HOLD = """
import sys, time
from lnln.data import lease
from lnln.data.store import Store
lease.LEASE_SECONDS = float(sys.argv[2])
with lease.held(Store(sys.argv[1]), "studies/s", "study s") as held:
    print("held", flush=True)
    for line in sys.stdin:
        try:
            held.confirm()
        except lease.LostLeaseError as loss:
            print(loss, flush=True)
        else:
            print("ours", flush=True)
"""


@contextmanager
def holder(url: str | Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(url), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(timeout=30)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def state_of(process: subprocess.Popen[str]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def seconds_to_take(store: Store) -> float:
    began = time.monotonic()
    with held(store, FOLDER, WHAT):
        return time.monotonic() - began


def record(**changes: Any) -> bytes:
    """What a process of another machine leaves in a lease."""
    made = {
        "token": "0" * 16,
        "host": "elsewhere",
        "pid": 7,
        "since": "2031-01-01 00:00:00 UTC",
        "machine": "another boot",
        "started": "1",
        "num_renewals": 3,
    }
    return json.dumps({**made, **changes}).encode()


def short(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", seconds)


def test_a_second_process_is_refused_by_name_while_the_first_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short(monkeypatch, 3)
    with holder(tmp_path, seconds=3) as process:
        began = time.monotonic()
        with pytest.raises(RefusedError) as refusal, held(Store(tmp_path), FOLDER, WHAT):
            pass
        assert time.monotonic() - began < 3  # one sign of life is enough
        assert f"study s is being run by another process (process {process.pid} on " in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert f"study s is held by process {process.pid} on " in capsys.readouterr().err
        with held(Store(tmp_path), "studies/other", "study other"):
            pass
        assert ask(process) == "ours"


def test_a_killed_holder_of_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    with holder(tmp_path, seconds=60) as process:
        process.kill()  # and not waited for, so that it stays as a zombie
        while state_of(process) != "Z":
            time.sleep(0.01)
        assert seconds_to_take(Store(tmp_path)) < 5
    assert seconds_to_take(Store(tmp_path)) < 5


def test_a_holder_that_ends_well_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(3):
        assert seconds_to_take(store) < 5
    with pytest.raises(ZeroDivisionError), held(store, FOLDER, WHAT):
        raise ZeroDivisionError
    assert seconds_to_take(store) < 5


def test_a_number_that_another_process_has_by_now_deceives_nobody(tmp_path: Path) -> None:
    """The lease of a process of this machine whose number was given to a later one: here, to this one."""
    store = Store(tmp_path)
    with held(store, FOLDER, WHAT):
        mine = json.loads(store.read(LEASE))
    store.write(LEASE, json.dumps({**mine, "started": "1"}).encode())
    assert seconds_to_take(store) < 5


def test_a_process_that_is_there_is_no_dead_one_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proc` states the name of a program as it is, and names may look like the fields that follow."""
    program = tmp_path / ") Z 1 2 3"
    program.symlink_to("/bin/sleep")
    sleeping = subprocess.Popen([program, "60"])
    try:
        store = Store(tmp_path)
        with held(store, FOLDER, WHAT):
            mine = json.loads(store.read(LEASE))
        stat = Path(f"/proc/{sleeping.pid}/stat").read_text().split()
        # From the end, which its name does not reach: 52 fields, of which the 22nd is when it started.
        store.write(LEASE, json.dumps({**mine, "pid": sleeping.pid, "started": stat[21 - 52]}).encode())
        short(monkeypatch, 1)
        assert 1 <= seconds_to_take(store) < 20
    finally:
        sleeping.kill()
        sleeping.wait()


@pytest.mark.parametrize("since", ["1999-01-01 00:00:00 UTC", "2999-01-01 00:00:00 UTC", "now"])
def test_a_holder_elsewhere_is_waited_for_by_this_machines_clock_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    store = Store(tmp_path)
    store.write(LEASE, record(since=since))
    os.utime(tmp_path / LEASE, (0, 0))
    short(monkeypatch, 0.5)
    assert 0.5 <= seconds_to_take(store) < 20


def test_a_holder_elsewhere_that_lives_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write(LEASE, record())
    short(monkeypatch, 3)
    renewal = threading.Timer(0.5, lambda: store.write(LEASE, record(num_renewals=4)))
    renewal.start()
    refused = pytest.raises(RefusedError, match="process 7 on elsewhere, since 2031-01-01 00:00:00 UTC")
    with refused, held(store, FOLDER, WHAT):
        pass
    renewal.join()


def test_a_holder_elsewhere_that_lets_go_is_followed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write(LEASE, record())
    short(monkeypatch, 30)
    release = threading.Timer(0.5, lambda: store.write_json(LEASE, {}))
    release.start()
    assert seconds_to_take(store) < 20
    release.join()


_DAMAGED = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"{", b"null", b"[]", b"7", b'""', record(pid="seven"), record(pid=None), record(pid=[1])]),
    st.sampled_from([record(machine=lease_module._machine(), pid=pid, started="1") for pid in (-1, 0, 1 << 70)]),
    st.dictionaries(st.sampled_from(["token", "host", "pid"]), st.integers()).map(json.dumps).map(str.encode),
)


@given(content=_DAMAGED)
@settings(max_examples=40, deadline=None)
def test_a_lease_that_cannot_be_read_is_waited_for_and_taken(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    store.write(LEASE, content)
    with pytest.MonkeyPatch.context() as monkeypatch:
        short(monkeypatch, 0.06)
        with held(store, FOLDER, WHAT) as lease:
            monkeypatch.setattr(lease, "seconds", 60.0)
            lease.confirm()


def test_a_stopped_holder_loses_it_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    short(monkeypatch, 1)
    with holder(tmp_path, seconds=1) as process:
        _stop(process, tmp_path / FOLDER)
        with held(store, FOLDER, WHAT) as lease:
            process.send_signal(signal.SIGCONT)
            said = ask(process)
            assert said.startswith(f"study s was taken over by another process (process {os.getpid()} on ")
            assert process.stdin is not None
            process.stdin.close()  # it leaves its context, and must not give away what is no longer its own
            assert process.wait(30) == 0
            lease.confirm()
            assert json.loads(store.read(LEASE))["token"] == lease.token


def _stop(process: subprocess.Popen[str], folder: Path) -> None:
    """SIGSTOP, not while it holds the lock that the store takes for a change: nobody could change anything then."""
    while True:
        process.send_signal(signal.SIGSTOP)
        while state_of(process) != "T":
            time.sleep(0.01)
        if not (folder / f".{LEASE_FILE}.lock").exists():
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def test_a_holder_keeps_it_through_a_time_without_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the lease lasts; as long as nobody else could take it, it is still the holder's."""
    short(monkeypatch, 0.5)
    register = Value()
    with held_by(register, WHAT) as lease:
        register.is_away = True
        time.sleep(1)
        with pytest.raises(StoreFailedError):
            lease.check()
        with pytest.raises(StoreFailedError):
            lease.confirm()
        register.is_away = False
        lease.check()
        lease.confirm()
        before = register.content
        time.sleep(0.3)
        assert register.content != before  # renewed again
    register.is_away = True
    with held_by(Value(), WHAT):
        pass


def test_who_cannot_give_it_back_still_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    register = Value()
    with held_by(register, WHAT):
        register.is_away = True
    register.is_away = False
    short(monkeypatch, 0.5)
    with held_by(register, WHAT):  # by the clock: its holder, this process, lives on
        pass


def test_a_holder_asks_the_store_only_when_it_was_long_silent() -> None:
    register = Value()
    with held_by(register, WHAT) as lease:
        num_asked = register.num_asked
        lease.check()
        assert register.num_asked == num_asked
        lease.confirm()
        assert register.num_asked == num_asked + 1
        lease._renewed -= lease.seconds / 2
        lease.check()
        assert register.num_asked == num_asked + 2
        lease._renewed -= lease.seconds / 2
        register.content = record()
        for _ in range(2):
            with pytest.raises(LostLeaseError, match="process 7 on elsewhere"):
                lease.check()
    assert register.content == record()


def test_who_is_followed_while_it_lets_go_gives_nothing_away() -> None:
    class Late(Value):
        def read(self) -> bytes | None:
            before = super().read()
            if before is not None:  # taken over just after it was looked at
                self.content = record()
            return before

    register = Late()
    with held_by(register, WHAT):
        pass
    assert register.content == record()


def test_a_lease_that_was_removed_is_lost_and_stays_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with held(store, FOLDER, WHAT) as lease:
        store.write(f"{FOLDER}/deep/file", b"")
        remove_held(store, FOLDER)
        with pytest.raises(LostLeaseError, match="no longer held by this process"):
            lease.confirm()
    assert not (tmp_path / FOLDER).exists()


def test_a_holder_notices_by_itself_that_it_is_none_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    register = Value()
    short(monkeypatch, 2)
    with held_by(register, WHAT) as lease:
        register.content = None
        time.sleep(0.6)  # less than half its time, so `check` does not ask
        with pytest.raises(LostLeaseError):
            lease.check()
    assert register.content is None


def test_holding_does_not_travel(tmp_path: Path) -> None:
    with held(Store(tmp_path), FOLDER, WHAT) as lease:
        sent = pickle.loads(pickle.dumps(lease))
        for ask_it in (sent.check, sent.confirm):
            with pytest.raises(LostLeaseError, match="study s is held by the process that opened it"):
                ask_it()
        lease.confirm()


def test_of_many_at_once_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short(monkeypatch, 4)
    num_threads = 6
    store, barrier = Store(tmp_path), threading.Barrier(num_threads)
    inside: list[str] = []
    most, refused = [0], []
    mutex = threading.Lock()

    def work() -> None:
        barrier.wait()
        for _ in range(3):
            try:
                with held(store, FOLDER, WHAT) as lease:
                    with mutex:
                        inside.append(lease.token)
                        most[0] = max(most[0], len(inside))
                    time.sleep(0.05)
                    with mutex:
                        inside.remove(lease.token)
            except RefusedError as refusal:
                refused.append(refusal)

    threads = [threading.Thread(target=work) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert all("is being run by another process" in str(refusal) for refusal in refused)


def test_an_answer_that_was_lost_is_no_other_holder() -> None:
    """A server applies the change, its answer is lost, and the store asks what to change again."""

    class Forgetful(Value):
        def update(self, change: Callable[[bytes | None], bytes]) -> bytes:
            super().update(change)
            return super().update(change)

    register = Forgetful()
    with held_by(register, WHAT) as lease:
        lease._renew()
        lease.confirm()
    assert register.content == b"{}\n"


@pytest.mark.slow
def test_in_a_bucket_one_process_holds_it(s3_store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(s3_store_url)
    short(monkeypatch, 3)
    with holder(s3_store_url, seconds=3) as process:
        with pytest.raises(RefusedError, match="is being run by another process"), held(store, FOLDER, WHAT):
            pass
        store.write(LEASE, record())  # as another machine's, which cannot be looked at
        assert seconds_to_take(store) >= 3
        assert "taken over by another process (process 7 on elsewhere" in ask(process)


@dataclasses.dataclass
class Value:
    """A register in memory, whose server can be away."""

    content: bytes | None = None
    is_away: bool = False
    num_asked: int = 0
    mutex: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def read(self) -> bytes | None:
        self._ask()
        return self.content

    def update(self, change: Callable[[bytes | None], bytes]) -> bytes:
        self._ask()
        with self.mutex:
            self.content = change(self.content)
            return self.content

    def _ask(self) -> None:
        self.num_asked += 1
        if self.is_away:
            raise StoreFailedError("the server is away")


def test_no_thread_outlives_the_context() -> None:
    with held_by(Value(), WHAT):
        assert any(thread.name == "lease" for thread in threading.enumerate())
    assert not any(thread.name == "lease" for thread in threading.enumerate())
