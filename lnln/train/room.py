"""How many runs there is room for at a time, the cores of each, and the wait for room on a Ray that others use too."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# How often to look whether there is room, and how long it takes until Ray counts as taken what a run was started with.
LOOK_SECONDS = 1.0
SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Demand:
    """What each run takes: so many workers, each with so much of a GPU (up to 1) where GPUs are used."""

    fewest_workers: int
    most_workers: int
    gpus_per_worker: float

    def uses_gpus(self, num_gpus: float) -> bool:
        """As `build_trainer` decides: where there are enough for one run."""
        return num_gpus > 0 and num_gpus >= self.fewest_workers * self.gpus_per_worker

    def num_at_once(self, num_cpus: float, num_gpus: float) -> int:
        """Runs that there is room for, at least 1. Shares of a GPU are shares of one GPU."""
        if not self.uses_gpus(num_gpus):
            return max(1, int(num_cpus // self.most_workers))
        num_shares = int(num_gpus) * math.floor(1 / self.gpus_per_worker + 1e-9)
        return max(1, num_shares // self.most_workers)

    def to_start(self, num_gpus: float) -> tuple[str, float]:
        """What has to be free before a run can start, and how much of it; there are `num_gpus` in all."""
        if self.uses_gpus(num_gpus):
            return "GPU", self.fewest_workers * self.gpus_per_worker
        return "CPU", self.fewest_workers


class Queue:
    """Room for one run after the other on a Ray that others use too; Ray itself would give up after a minute."""

    def __init__(self, needed: tuple[str, float], there: Mapping[str, float], is_over: threading.Event) -> None:
        """needed: as of `Demand.to_start`. there: all that Ray has. is_over: ends every wait."""
        self._resource, self._needed = needed
        self._total, self._is_over = there.get(self._resource, 0.0), is_over
        self._lock = threading.Lock()
        self._started: list[float] = []

    def wait(self, say: Callable[[str], None]) -> None:
        """Return when there is room; `say` so where that takes a while.

        At once where there is never enough: a cluster may grow, and whether it does is Ray's to find out.
        """
        looks = 0
        while not self._take() and not self._is_over.wait(LOOK_SECONDS):
            looks += 1
            if looks == 2:  # what a run has just left is counted as free a moment later
                free = f"{self._free():g} of {self._total:g}"
                say(f"waits for room: {self._needed:g} {self._resource} wanted, {free} free")

    def _take(self) -> bool:
        with self._lock:
            num_settling = sum(time.monotonic() - at < SETTLE_SECONDS for at in self._started)
            has_room = self._free() >= (1 + num_settling) * self._needed or self._total < self._needed
            if has_room:
                self._started.append(time.monotonic())
            return has_room

    def _free(self) -> float:
        import ray

        return float(ray.available_resources().get(self._resource, 0.0))


def share_of_cores(machines: Sequence[int], num_workers: int) -> int:
    """Threads of each of so many workers on machines with so many cores, no more than the smallest machine has."""
    return max(1, min(min(machines), sum(machines) // num_workers)) if machines else 1


def cores_here() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_of_machines() -> list[int]:
    """Of the machines of an initialised Ray, those that have any to give."""
    import ray

    counts = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [count for count in counts if count]
