"""A program that is run on one clip, held to a time and an amount of output.

with TemporaryDirectory() as folder:
    run_program([binary, "-f", clip, "-out_dir", folder], "OpenFace", Path(folder), limit_seconds=60, most_bytes=10**8)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lnln.errors import RefusedError
from pipelines.extractors.base import ClipError

_LOG = "program.log"
_POLL_SECONDS = 0.05
_LAST_WORDS = 4096  # bytes of what it said that are looked at
_MOST_WORDS = 200  # characters of them in a reason
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_program(command: Sequence[str], name: str, folder: Path, *, limit_seconds: float, most_bytes: int) -> None:
    """Run `command`, which writes into `folder`, on one thread and without input.

    ClipError `vision` where it fails, is not done after `limit_seconds`, or has written more than `most_bytes`; it and
    the processes that it started are gone then. RefusedError where it cannot be started.
    """
    with (folder / _LOG).open("wb") as log, _lifeline() as lifeline:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,
                pass_fds=(lifeline,),
            )
        except OSError as error:
            raise RefusedError(f"{command[0]} cannot be started ({error.strerror}); was {name} built here?") from error
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -process.pid)  # its whole group
        deadline = time.monotonic() + limit_seconds
        try:
            while _is_running(process):
                if time.monotonic() > deadline:
                    raise ClipError("vision", f"{name} was not done after {limit_seconds:.0f} seconds")
                if _num_bytes(folder) > most_bytes:
                    raise ClipError("vision", f"{name} wrote more than {most_bytes} bytes")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        status = process.returncode
        ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise ClipError("vision", f"{name} {ended}{last_words(folder, command)}")


def last_words(folder: Path, command: Sequence[str]) -> str:
    """The last line that the program said, as the end of a sentence; without paths and addresses, which differ from
    one time to the next."""
    with (folder / _LOG).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines()]
    said = next((line for line in reversed(lines) if line), "")
    for path in sorted({*command, str(folder)}, key=len, reverse=True):
        if "/" in path:
            said = said.replace(path, Path(path).name if path != str(folder) else "...")
    said = re.sub(r"0x[0-9a-fA-F]+", "0x...", re.sub(r"/(?:[^\s/]+/)+", ".../", said))
    return f": {said[:_MOST_WORDS]}" if said else " and said nothing"


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """The reading end of a pipe, whose owner gets SIGIO when the writing end closes, however its process ends."""
    reading, writing = os.pipe()
    try:
        fcntl.fcntl(reading, fcntl.F_SETFL, fcntl.fcntl(reading, fcntl.F_GETFL) | os.O_ASYNC)
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _num_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # written anew this moment
            total += path.stat().st_size
    return total
