"""When a trial may start: before the study's time is over, and where a Ray that others use too has room for it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Mapping

from lnln import progress
from lnln.train.room import LOOK_SECONDS, Demand, Queue

# What a trial has just left is counted as free only some seconds later, which is not worth a line.
_QUIET_LOOKS = 5


class Gate:
    """Asked before every trial, in the driver.

    max_minutes: from now on, after which no trial starts; None: no limit. queue: None on a Ray of our own, which has
    room for all trials that run at a time.
    """

    def __init__(self, max_minutes: float | None, queue: RoomQueue | None) -> None:
        self._end = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._queue = queue
        self._handler, self._was_replaced = signal.getsignal(signal.SIGINT), False

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its searcher at the start, and nobody ever reads that."""
        return {}

    def is_over(self) -> bool:
        """The time is."""
        return time.monotonic() >= self._end

    def is_interrupted(self) -> bool:
        """By Ctrl-C: Tune, which replaced its handler, has put back the one before.

        Tune itself looks for that only while a trial runs, and not while the next one waits for room.
        """
        is_replaced = signal.getsignal(signal.SIGINT) != self._handler
        self._was_replaced |= is_replaced
        return self._was_replaced and not is_replaced

    def has_room(self) -> bool:
        """There is room for a trial now, which is then taken for started."""
        return self._queue is None or self._queue.take()


class RoomQueue(Queue):
    """The queue of `train_seeds`, for someone who does not wait but asks again; says once why nothing starts."""

    def __init__(self, demand: Demand, there: Mapping[str, float]) -> None:
        super().__init__(demand.to_start(there.get("GPU", 0.0)), there, threading.Event())
        self._asked_at, self._num_looks = -math.inf, 0

    def take(self) -> bool:
        """Whether there is room; looks no oftener than once a second."""
        now = time.monotonic()
        if now - self._asked_at < LOOK_SECONDS:
            return False
        self._asked_at = now
        if self._take():
            self._asked_at, self._num_looks = -math.inf, 0
            return True
        self._num_looks += 1
        if self._num_looks == _QUIET_LOOKS:
            free = f"{self._free():g} of {self._total:g}"
            progress.line(f"the next trial waits for room: {self._needed:g} {self._resource} wanted, {free} free")
        return False
