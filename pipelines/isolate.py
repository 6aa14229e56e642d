"""Runs functions in a child process, so that a crash or a hang ends the child and not the caller.

    with Isolated() as isolated:
        features = isolated.call(extract_clip, clip, timeout_seconds=60)

The child starts with the first call and serves all later ones, so what it has loaded stays loaded; after it died, the
next call starts another. It has the caller's environment and `sys.path`. The function and what it takes and gives are
pickled, so it must be one that can be imported. It protects from accidents; it is no sandbox for hostile programs.

The child is a `subprocess` and not a `multiprocessing` one, which the processes of Dask's nannies may not have. It
lives in a session of its own, and never longer than the caller: the kernel sends it SIGIO, which ends a process that
does nothing about it, when the caller's end of a pipe closes, even if the child hangs in C code or the caller was
killed. (PR_SET_PDEATHSIG would look at the thread that started the child, and Dask's threads come and go.) What the
child prints goes to standard error.

A call that does nothing costs 70 us, and each MB of arrays 3 ms on its way there and 3 ms on its way back. The first
call starts an interpreter, 0.2 s, and imports the function's module (medians on a busy 2-core machine).
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from lnln.errors import RefusedError
from pipelines.messages import receive, send

P = ParamSpec("P")
R = TypeVar("R")

# For starting an interpreter and importing the function's module; before the clock of a call runs.
START_SECONDS = 600.0
# What libraries of arrays take the number of their threads from.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_END_SECONDS = 5.0
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from pipelines.isolate import serve; "
    "serve(int(sys.argv[2]), int(sys.argv[3]))"
)


# The child's connection to its caller; None in other processes.
_served: socket.socket | None = None
_ALL: weakref.WeakSet[Isolated] = weakref.WeakSet()


class ChildError(Exception):
    """The child process ended within a call. noted: the last `note` of the function, None where there was none."""

    def __init__(self, reason: str, noted: str | None = None) -> None:
        super().__init__(reason, noted)  # both, so that it survives pickling
        self.reason, self.noted = reason, noted

    def __str__(self) -> str:
        return self.reason


class ChildDiedError(ChildError):
    """It crashed, was killed or exited."""


class ChildTimedOutError(ChildError):
    """It took too long, and was ended."""


class ChildTracebackError(Exception):
    """Where in the child an exception came from; its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Isolated:
    """A child process that functions are called in, one at a time; threads wait for each other. Close it, or use
    `with`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lifeline = -1
        _ALL.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, function: Callable[..., R], /, *args: Any, timeout_seconds: float | None = None, **kwargs: Any) -> R:
        """`function(*args, **kwargs)`, run in the child.

        What the function raises is raised here, with the child's traceback as its cause. timeout_seconds: of the
        function alone, not of starting a child. ChildDiedError, ChildTimedOutError: the child is gone, and the next
        call has a new one. RefusedError where no child can be started. No function is called twice.
        """
        request = pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL)
        with self._lock:
            try:
                return self._call(request, timeout_seconds)  # type: ignore[no-any-return]
            except _AnsweredError as answer:
                raise answer.error from answer.trace
            except BaseException:  # KeyboardInterrupt too: an answer that nobody has read would be taken for the next
                self._end()
                raise

    def close(self) -> None:
        """Lets the child end; it is killed where it does not. The next call would start another."""
        with self._lock:
            if self._child is not None and self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                with suppress(subprocess.TimeoutExpired):
                    self._child.wait(_END_SECONDS)
            self._end()

    def forget(self) -> None:
        """For a fork of the caller: the child is not its own, and must not live as long as it."""
        self._lock = threading.Lock()
        if self._socket is not None:
            self._socket.close()
            os.close(self._lifeline)
        self._child, self._socket, self._lifeline = None, None, -1

    def _call(self, request: bytes, timeout_seconds: float | None) -> Any:
        is_reused = self._child is not None and self._child.poll() is None
        if not is_reused:
            self._start()
        assert self._socket is not None
        noted, is_taken, limit = None, False, START_SECONDS
        deadline: float | None = time.monotonic() + START_SECONDS
        try:
            send(self._socket, request, deadline)
            while True:
                kind, value = pickle.loads(receive(self._socket, deadline))
                if kind == "taken":
                    is_taken = True
                    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
                elif kind == "noted":
                    noted = value
                elif kind == "raised":
                    raise _AnsweredError(*value)
                else:
                    return value
        except TimeoutError:
            if not is_taken:
                raise RefusedError(f"a child process did not start within {limit:g} seconds") from None
            raise ChildTimedOutError(f"took longer than {timeout_seconds:g} seconds", noted) from None
        except (EOFError, OSError):
            how = self._how_it_ended()
            if is_reused and not is_taken:  # it died since the last call, before it heard of this one
                self._end()
                return self._call(request, timeout_seconds)
            if not is_taken:
                raise RefusedError(f"a child process could not be started: it {how}; see what it printed") from None
            raise ChildDiedError(f"the process {how}", noted) from None

    def _start(self) -> None:
        self._end()
        self._socket, theirs = socket.socketpair()
        reading, self._lifeline = os.pipe()
        try:
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _BOOT,
                    json.dumps([str(entry) for entry in sys.path]),
                    str(theirs.fileno()),
                    str(reading),
                ],
                pass_fds=(theirs.fileno(), reading),
                stdin=subprocess.DEVNULL,
                stdout=2,
                start_new_session=True,
                # One core a child, as Dask gives its workers; and sums do not depend on how many there are.
                env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            )
        except OSError as error:
            raise RefusedError(f"a child process could not be started: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(reading)

    def _end(self) -> None:
        """The child is gone afterwards, whatever it did."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        if self._socket is not None:
            self._socket.close()
            os.close(self._lifeline)
        self._child, self._socket, self._lifeline = None, None, -1

    def _how_it_ended(self) -> str:
        assert self._child is not None
        try:
            code = self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            return f"exited with {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"was ended by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")


def note(text: str) -> None:
    """In a function that runs in a child: what it is at, for `ChildError.noted`. Elsewhere: nothing."""
    if _served is not None:
        send(_served, pickle.dumps(("noted", text)), None)


@lru_cache(maxsize=1)
def for_this_process() -> Isolated:
    """One child for all callers in this process, kept from call to call. It ends when the process ends."""
    isolated = Isolated()
    atexit.register(isolated.close)
    return isolated


def serve(connection: int, lifeline: int) -> None:
    """The child's side: calls what comes over the socket with the descriptor `connection`, until that closes."""
    global _served
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    _served = socket.socket(fileno=connection)
    while True:
        try:
            request = receive(_served, None)
        except (EOFError, OSError):  # the caller has closed it, or died before the lines above
            return
        answer = _answer(request, _served)
        del request
        send(_served, answer, None)
        del answer


def _answer(request: bytearray, connection: socket.socket) -> bytes:
    try:
        function, args, kwargs = pickle.loads(request)
        send(connection, pickle.dumps(("taken", None)), None)
        return pickle.dumps(("returned", function(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        trace = ChildTracebackError("".join(traceback.format_exception(error)))
        try:
            answer = pickle.dumps(("raised", (error, trace)), pickle.HIGHEST_PROTOCOL)
            pickle.loads(answer)
        except Exception:  # not every exception can be pickled, or read again
            return pickle.dumps(("raised", (RuntimeError(f"{type(error).__name__}: {error}"), trace)))
        return answer


class _AnsweredError(Exception):
    """What the function raised: the child is well."""

    def __init__(self, error: BaseException, trace: ChildTracebackError) -> None:
        self.error, self.trace = error, trace


def _forget_all() -> None:
    for isolated in list(_ALL):
        isolated.forget()


os.register_at_fork(after_in_child=_forget_all)
