"""What a job says while it works: that a step is done. Who listens is whoever runs it, here or on a Dask worker.

with told(lambda: advance()):
    job()                        # which calls step_done() after each clip
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from lnln.progress import Advance
from pipelines.plan import Job

_listener: ContextVar[Callable[[], None] | None] = ContextVar("listener", default=None)


def step_done() -> None:
    """One of the job's steps is done; nothing where nobody listens."""
    if (listener := _listener.get()) is not None:
        listener()


@contextmanager
def told(listener: Callable[[], None]) -> Iterator[None]:
    """`listener` is called for every step that this thread does meanwhile."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class StepCount:
    """How many steps each job is known to have done: a bar never goes back, nor beyond what a job has, though one that
    is done again on another worker begins anew."""

    def __init__(self, jobs: Sequence[Job], advance: Advance) -> None:
        self._limits = {job.name: job.num_steps for job in jobs}
        self._done = dict.fromkeys(self._limits, 0)
        self._advance, self._lock = advance, threading.Lock()

    def done(self, name: str, num_steps: int) -> None:
        """Job `name` has done `num_steps` by now. May be called from any thread."""
        with self._lock:
            more = min(num_steps, self._limits[name]) - self._done[name]
            if more > 0:
                self._done[name] += more
                self._advance(more)

    def all_done(self, job: Job) -> None:
        """Whatever it told of them."""
        self.done(job.name, job.num_steps)
