"""A child process that functions run in: what they give and raise comes back, no crash or hang reaches the caller."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.extractors.base import ClipError
from pipelines.isolate import ChildDiedError, ChildTimedOutError, Isolated, for_this_process, note
from tests.isolated_calls import (
    crash,
    give,
    hang_in_c,
    kill_myself,
    leave,
    leave_politely,
    negative,
    pid,
    print_much,
    refuse,
    remember,
    seen,
    sleep,
    where,
)


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    with Isolated() as isolated:
        yield isolated


def is_running(pid: int) -> bool:
    """Zombies have ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def test_one_child_serves_all_calls_and_keeps_what_it_loaded(isolated: Isolated) -> None:
    assert isolated.call(pid) == isolated.call(pid) != os.getpid()
    before = len(isolated.call(remember, 1))
    assert isolated.call(remember, number=2)[-2:] == [1, 2]
    assert len(isolated.call(remember, 3)) == before + 2
    assert not seen


@settings(max_examples=30, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda kids: st.lists(kids) | st.tuples(kids)
    )
)
def test_values_come_back_as_they_went(isolated: Isolated, value: Any) -> None:
    assert isolated.call(give, value) == value


@pytest.mark.parametrize("megabytes", [0, 1, 80])
def test_large_arrays_pass_both_ways_without_a_deadlock(isolated: Isolated, megabytes: int) -> None:
    array = np.arange(megabytes * 250_000, dtype=np.float32)
    assert np.array_equal(isolated.call(negative, array, timeout_seconds=60), -array)


def test_exceptions_are_raised_here_and_the_child_goes_on(isolated: Isolated) -> None:
    child = isolated.call(pid)
    with pytest.raises(RefusedError, match=r"^librosa is missing; run: pip install it$"):
        isolated.call(refuse, "refused")
    with pytest.raises(ClipError) as caught:
        isolated.call(refuse, "clip", timeout_seconds=5)
    assert (caught.value.stage, caught.value.reason) == ("decode", "is longer than 3 seconds")
    assert "in refuse" in str(caught.value.__cause__) and str(caught.value) == "decode: is longer than 3 seconds"
    with pytest.raises(KeyError, match="other"):
        isolated.call(refuse, "other")
    with pytest.raises(TimeoutError, match=r"^of its own$"):
        isolated.call(refuse, "timeout", timeout_seconds=5)
    with pytest.raises(RuntimeError, match=r"^OddError: odd 1 and 2$"):
        isolated.call(refuse, "odd")
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError), match="pickle"):
        isolated.call(threading.Lock)
    assert isolated.call(pid) == child


def test_what_cannot_be_sent_is_refused_before_the_child_hears_of_it(isolated: Isolated) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        isolated.call(lambda: 1)
    assert isolated.call(give, 2) == 2


@pytest.mark.parametrize(
    ("function", "args", "reason"),
    [
        (crash, (), "the process was ended by SIGSEGV"),
        (kill_myself, (), "the process was ended by SIGKILL, as the system does when memory runs out"),
        (leave, (0,), "the process exited with 0"),
        (leave, (3,), "the process exited with 3"),
        (leave_politely, (), "the process exited with 4"),
    ],
)
def test_a_child_that_dies_is_said_and_replaced(isolated: Isolated, function: Any, args: Any, reason: str) -> None:
    child = isolated.call(pid)
    with pytest.raises(ChildDiedError) as caught:
        isolated.call(function, *args, timeout_seconds=30)
    assert str(caught.value) == reason
    assert caught.value.noted == ("vision" if function is crash else None)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.noted) == (reason, caught.value.noted)
    wait_until_gone(child)
    assert isolated.call(pid) != child


@pytest.mark.parametrize("function", [sleep, hang_in_c])
def test_a_child_that_hangs_is_ended_in_time(isolated: Isolated, function: Any) -> None:
    child = isolated.call(pid)
    start = time.monotonic()
    with pytest.raises(ChildTimedOutError, match=r"^took longer than 0.3 seconds$") as caught:
        isolated.call(function, *([1000.0] if function is sleep else []), timeout_seconds=0.3)
    assert 0.3 <= time.monotonic() - start < 5
    assert caught.value.noted == ("audio" if function is sleep else None)
    wait_until_gone(child)
    assert isolated.call(sleep, 0.0, timeout_seconds=5) == "slept"


def test_a_child_that_died_between_calls_is_replaced_without_a_word(isolated: Isolated) -> None:
    child = isolated.call(pid)
    os.kill(child, signal.SIGKILL)
    wait_until_gone(child)
    assert isolated.call(give, 1) == 1


def test_what_the_child_prints_is_no_answer(isolated: Isolated, capfd: pytest.CaptureFixture[str]) -> None:
    with Isolated() as fresh:
        assert fresh.call(print_much) == "done"
    captured = capfd.readouterr()
    assert not captured.out and captured.err.count("printed") == 100_001


def test_it_runs_as_the_caller_does_in_a_session_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_OF_THE_TEST", "ünï")
    monkeypatch.syspath_prepend("/no/such/folder")
    with Isolated() as isolated:
        path, environment, folder, session = isolated.call(where)
    assert path == sys.path and environment["LNLN_OF_THE_TEST"] == "ünï"
    assert folder == str(Path.cwd()) and session != os.getsid(0)


def test_threads_wait_for_each_other(isolated: Isolated) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: isolated.call(give, number), range(100)))
    assert answers == list(range(100))


def test_a_thread_that_ends_takes_no_child_along(isolated: Isolated) -> None:
    with Isolated() as fresh:
        with ThreadPoolExecutor(1) as threads:
            child = threads.submit(fresh.call, pid).result()
        assert fresh.call(pid) == child


def test_closing_ends_the_child_and_leaves_no_descriptors() -> None:
    before = num_descriptors()
    isolated = Isolated()
    isolated.close()
    for _ in range(2):
        child = isolated.call(pid)
        assert num_descriptors() == before + 2
        isolated.close()
        isolated.close()
        assert not is_running(child) and num_descriptors() == before


def test_an_interpreter_that_does_not_start_is_no_fault_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Isolated() as isolated:
        with pytest.raises(RefusedError, match=r"^a child process could not be started: it exited with 1"):
            isolated.call(pid)
        monkeypatch.setattr(sys, "executable", "/no/such/file")
        with pytest.raises(RefusedError, match=r"^a child process could not be started: No such file"):
            isolated.call(pid)
        monkeypatch.undo()
        assert isolated.call(give, 1) == 1


def _caller(body: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own that runs `body`, prints the child's id first, and holds the child."""
    script = f"""
        import os, time
        from pathlib import Path
        from pipelines.isolate import Isolated, for_this_process
        from tests import isolated_calls as this
        isolated = for_this_process()
        print(isolated.call(this.pid), flush=True)
        mark = Path({str(folder / "mark")!r})
    """
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    text = textwrap.dedent(script) + textwrap.dedent(body)
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment)


HOW_CALLERS_DIE = {
    "idle": "time.sleep(1000)",
    "the child is deaf": "isolated.call(this.hang_in_c, mark)",
    "a fork lives on": "os.fork() or mark.write_text(str(os.getpid()))\ntime.sleep(1000)",
}


@pytest.mark.parametrize("body", HOW_CALLERS_DIE.values(), ids=HOW_CALLERS_DIE.keys())
@pytest.mark.slow
def test_no_child_outlives_a_caller_that_is_killed(body: str, tmp_path: Path) -> None:
    mark, forked = tmp_path / "mark", None
    caller = _caller(body, tmp_path)
    try:
        assert caller.stdout is not None
        child = int(caller.stdout.readline())
        deadline = time.monotonic() + 20
        while "mark" in body and not (mark.exists() and mark.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        forked = int(mark.read_text()) if "fork" in body else None
        assert is_running(child)
        caller.kill()
        wait_until_gone(child)
        assert forked is None or is_running(forked)
    finally:
        caller.kill()
        caller.wait()
        if forked is not None:
            os.kill(forked, signal.SIGKILL)


@pytest.mark.slow
def test_the_child_of_the_process_ends_with_it(tmp_path: Path) -> None:
    caller = _caller("assert for_this_process() is isolated", tmp_path)
    child = int(caller.communicate(timeout=60)[0])
    assert caller.returncode == 0
    wait_until_gone(child)


def test_a_note_outside_a_child_is_nothing() -> None:
    note("nobody listens")


@pytest.mark.slow
def test_it_works_in_a_daemonic_process_of_dask(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        Client(cluster) as client,
    ):
        first, second = (client.submit(_call_twice, key=key).result(timeout=60) for key in ("a", "b"))
        assert first == second and first[0] == first[1] != first[2]
    wait_until_gone(first[0])


def _call_twice() -> tuple[int, int, int]:
    isolated = for_this_process()
    return isolated.call(pid), isolated.call(pid), os.getpid()


def test_what_it_says_names_no_process(isolated: Isolated) -> None:
    with pytest.raises(ChildDiedError) as caught:
        isolated.call(kill_myself)
    assert not re.search(r"\d", str(caught.value))
