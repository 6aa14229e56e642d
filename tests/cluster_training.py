"""`lnln train` on a Ray cluster as a user starts it, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lnln.data.store import Store
from lnln.runs import Run, load_run
from lnln.train.controller import read_history
from tests.finished_run import TINY

T = TypeVar("T")

EPOCHS = 4
_TINY: dict[str, Any] = dict(TINY)
_KEYS = {f"{section}.{key}": value for section, values in _TINY.items() for key, value in values.items()}
TRAIN = [
    "train",
    "sample",
    *(f"--set={key}={json.dumps(value)}" for key, value in _KEYS.items()),
    f"--set=train.epochs={EPOCHS}",
    "--set=train.batch_size=8",
    "--set=train.learning_rate=1e-3",
]


def scores(run: Run) -> list[dict[str, Any]]:
    """Its history, but for how long it took."""
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in run.history]


@dataclass
class Driver:
    """A process of `lnln --json train` that writes its two streams to `out` and `err`, and what it had to say so far.

    The training is the only one in `store`.
    """

    process: subprocess.Popen[bytes]
    store: Store
    out: Path
    err: Path

    @property
    def said(self) -> str:
        return self.err.read_text()

    def wait_for_epoch(self, epoch: int, timeout_seconds: float = 240) -> None:
        """Until that one has ended, and the next is on its way."""
        self._wait(lambda: self._num_epochs() >= epoch, timeout_seconds)

    def wait_for(self, pattern: str, timeout_seconds: float) -> re.Match[str]:
        """The first match in what it says."""
        return self._wait(lambda: re.search(pattern, self.said), timeout_seconds)

    def result(self, timeout_seconds: float = 240) -> Run:
        """The run, once it has ended well, with a line for each thing said and nothing but one object on `out`."""
        self.process.wait(timeout_seconds)
        assert self.process.returncode == 0, self.said
        assert "Traceback" not in self.said and "raylet" not in self.said
        return load_run(self.store, json.loads(self.out.read_text())["run_id"])

    def _num_epochs(self) -> int:
        return sum(len(read_history(self.store, f"runs/{run.name}")) for run in Path(self.store.url).glob("runs/*"))

    def _wait(self, look: Callable[[], T | None], timeout_seconds: float) -> T:
        deadline = time.monotonic() + timeout_seconds
        while not (found := look()):
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.1)
        return found
