"""What tests call in a child process: functions that give, raise, crash and hang. Light, as children start often."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors.base import ClipError
from pipelines.isolate import note

seen: list[int] = []


def give(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def remember(number: int) -> list[int]:
    seen.append(number)
    return seen


def negative(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return -array


def refuse(kind: str) -> None:
    if kind == "refused":
        raise RefusedError("librosa is missing; run: pip install it")
    if kind == "clip":
        raise ClipError("decode", "is longer than 3 seconds")
    if kind == "odd":
        raise OddError(1, 2)
    if kind == "timeout":
        raise TimeoutError("of its own")
    raise KeyError(kind)


class OddError(Exception):
    """Cannot be read from its pickle: it takes two arguments, and keeps one."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"odd {first} and {second}")


def crash() -> None:
    note("vision")
    ctypes.string_at(0)


def leave(code: int) -> None:
    os._exit(code)


def leave_politely() -> None:
    sys.exit(4)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds: float) -> str:
    note("decode")
    note("audio")
    time.sleep(seconds)
    return "slept"


def hang_in_c(mark: Path | None = None) -> None:
    """Holds the interpreter's lock, so that no thread of the child can run."""
    if mark is not None:
        mark.write_text(str(os.getpid()))
    while True:
        ctypes.PyDLL(None).sleep(1000)


def print_much() -> str:
    os.write(1, b"printed " * 100_000)
    print("printed")
    return "done"


def where() -> tuple[list[str], dict[str, str], str, int]:
    return sys.path, dict(os.environ), str(Path.cwd()), os.getsid(0)
