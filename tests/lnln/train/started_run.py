"""A training in a process of its own, to be killed, starved and looked at from outside.

with started(store, "small", config, num_workers=2) as run:
    run.wait_for(lambda: run.num_epochs >= 2)
    os.kill(run.workers()[0], signal.SIGKILL)
    out, err = run.end()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lnln.config import Config
from lnln.data.store import Store
from lnln.runs import Run
from tests.finished_run import TINY

_TRAIN = """
import json, sys
from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.train.launch import train

url, corpus, config, num_workers = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
num_workers = tuple(num_workers) if isinstance(num_workers, list) else num_workers
try:
    print(train(Store(url), corpus, Config.from_dict(config), num_workers=num_workers).run_id)
except RefusedError as error:
    sys.exit(f"refused: {error}")
"""

_WAITING_IN_VAIN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def make_config(**train: Any) -> Config:
    defaults = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "encoder_learning_rate": 1e-3}
    return Config.from_dict({**TINY, "train": {**defaults, **train}})


def untimed(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if not key.endswith("seconds")} for record in run.history]


@dataclass
class StartedRun:
    process: subprocess.Popen[str]
    store: Store
    run_id: str
    _err: Path
    # All that ever belonged to the run, by what it looked like when last seen.
    _seen: set[psutil.Process] = field(default_factory=set)

    @property
    def folder(self) -> str:
        return f"runs/{self.run_id}"

    @property
    def num_epochs(self) -> int:
        from lnln.train.controller import read_history

        return len(read_history(self.store, self.folder))

    def said(self) -> str:
        """Standard error until now."""
        return self._err.read_text()

    def checkpoints(self) -> set[str]:
        """Folders of checkpoints, of a store that is a folder."""
        return {path.name for path in Path(self.store.url, self.folder, "ray").glob("epoch-*")}

    def workers(self) -> list[int]:
        """Process ids of the train workers that live."""
        return [process.pid for process in self._processes() if _title(process).startswith("ray::RayTrainWorker")]

    def wait_for(self, is_so: Callable[[], bool], timeout_seconds: float = 150) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not is_so():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"what was waited for did not come; {self.said()}"
            time.sleep(0.1)

    def end(self, timeout_seconds: float = 150) -> tuple[str, str]:
        """Standard output and error of the run, once it has ended by itself."""
        self._processes()
        out, _ = self.process.communicate(timeout=timeout_seconds)
        return out, self.said()

    def kill(self) -> None:
        """SIGKILL for the driver alone, whatever it has started."""
        self._processes()
        self.process.kill()
        self.process.communicate(timeout=30)

    def remaining(self, timeout_seconds: float = 30) -> list[psutil.Process]:
        """Of the processes that the run ever had, those that are there after so long.

        But for two of Ray's that do nothing: where their machine's raylet dies they tell so to a server that died with
        it, wait a minute for its answer, and end.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = [process for process in self._seen if _lives(process) and _title(process) not in _WAITING_IN_VAIN]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)

    def _processes(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(self.process.pid).children(recursive=True))
        return [process for process in self._seen if process.is_running()]


@contextmanager
def started(store: Store, corpus: str, config: Config, num_workers: int | tuple[int, int] = 1) -> Iterator[StartedRun]:
    """The run, of which nothing is left afterwards."""
    from lnln.data.manifest import read_features
    from lnln.runs import run_id_for

    run_id = run_id_for(config, corpus, read_features(store, corpus))
    command = [sys.executable, "-c", _TRAIN, store.url, corpus, json.dumps(config.to_dict()), json.dumps(num_workers)]
    with tempfile.NamedTemporaryFile("w") as err:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True, env=os.environ
        )
        run = StartedRun(process, store, run_id, Path(err.name))
        with _nothing_left(run):
            yield run


@contextmanager
def _nothing_left(run: StartedRun) -> Iterator[None]:
    process = run.process
    try:
        yield
    finally:
        run._processes()
        if process.poll() is None:
            process.kill()
            process.communicate()
        run.remaining(timeout_seconds=10)
        for left in run._seen:
            with suppress(psutil.NoSuchProcess):
                left.send_signal(signal.SIGKILL)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""
