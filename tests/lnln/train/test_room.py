from __future__ import annotations

import threading
import time

import pytest

from lnln.train.room import LOOK_SECONDS, Demand, Queue, share_of_cores


@pytest.mark.parametrize(
    ("demand", "num_cpus", "num_gpus", "expected"),
    [
        (Demand(1, 1, 1.0), 8, 0, 8),
        (Demand(3, 3, 1.0), 8, 0, 2),
        (Demand(1, 1, 1.0), 0.5, 0, 1),
        (Demand(16, 16, 1.0), 8, 0, 1),
        (Demand(2, 4, 1.0), 8, 0, 2),
        (Demand(1, 1, 1.0), 8, 3, 3),
        (Demand(2, 2, 1.0), 8, 3, 1),
        # A worker that takes a share of a GPU takes it of one.
        (Demand(1, 1, 0.5), 8, 3, 6),
        (Demand(1, 1, 0.4), 8, 2, 4),
        (Demand(1, 1, 0.1), 8, 1, 10),
        (Demand(1, 1, 0.7), 8, 2, 2),
        # Too few GPUs for one run: they train on CPUs.
        (Demand(4, 4, 1.0), 8, 3, 2),
        (Demand(2, 4, 1.0), 8, 3, 1),
    ],
)
def test_as_many_as_fit(demand: Demand, num_cpus: float, num_gpus: float, expected: int) -> None:
    assert demand.num_at_once(num_cpus, num_gpus) == expected


@pytest.mark.parametrize(
    ("demand", "num_gpus", "expected"),
    [
        (Demand(2, 4, 1.0), 0, ("CPU", 2)),
        (Demand(2, 4, 1.0), 2, ("GPU", 2)),
        (Demand(2, 4, 1.0), 1, ("CPU", 2)),
        (Demand(1, 1, 0.25), 1, ("GPU", 0.25)),
    ],
)
def test_what_has_to_be_free(demand: Demand, num_gpus: float, expected: tuple[str, float]) -> None:
    assert demand.to_start(num_gpus) == expected


@pytest.mark.parametrize(
    ("machines", "num_workers", "expected"),
    [([8], 2, 4), ([8], 3, 2), ([2], 5, 1), ([16, 16], 4, 8), ([16, 4], 2, 4), ([16, 16], 1, 16), ([], 2, 1)],
)
def test_cores_are_shared_among_the_workers_of_all_runs(machines: list[int], num_workers: int, expected: int) -> None:
    assert share_of_cores(machines, num_workers) == expected


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What Ray says is free. That it says so while runs come and go is a test of `test_seeds.py`."""
    free = {"CPU": 1.0}
    monkeypatch.setattr("ray.available_resources", lambda: free)
    return free


def test_a_run_waits_for_room_and_says_so(free: dict[str, float]) -> None:
    def wait(queue: Queue) -> tuple[threading.Thread, list[str]]:
        lines: list[str] = []
        thread = threading.Thread(target=queue.wait, args=(lines.append,), daemon=True)
        thread.start()
        return thread, lines

    there, is_over = {"CPU": 3.0}, threading.Event()
    one = Queue(("CPU", 1), there, is_over)
    thread, lines = wait(one)
    thread.join(30)
    assert not thread.is_alive() and lines == []
    # Ray does not know yet what that run takes.
    second, _ = wait(one)
    for_ever, _ = wait(Queue(("CPU", 3), there, is_over))
    thread, lines = wait(Queue(("CPU", 2), there, is_over))
    deadline = time.monotonic() + 30
    while not lines and time.monotonic() < deadline:
        time.sleep(0.1)
    assert thread.is_alive() and lines == ["waits for room: 2 CPU wanted, 1 of 3 free"]
    assert second.is_alive() and for_ever.is_alive()
    free["CPU"] = 2
    thread.join(30)
    assert not thread.is_alive() and len(lines) == 1

    free.clear()  # as Ray does
    thread, lines = wait(Queue(("CPU", 4), there, is_over))
    thread.join(30)
    assert not thread.is_alive() and lines == [], "Ray may find a machine"

    is_over.set()
    for waiting in (for_ever, second):
        waiting.join(30)
        assert not waiting.is_alive()


def test_what_was_just_started_counts_until_ray_counts_it(
    free: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    free["CPU"] = 3
    begin = time.monotonic()
    monkeypatch.setattr("lnln.train.room.SETTLE_SECONDS", 2 * LOOK_SECONDS)
    queue = Queue(("CPU", 2), {"CPU": 3.0}, threading.Event())
    for _ in range(2):
        queue.wait(lambda _: None)
    assert time.monotonic() - begin >= 2 * LOOK_SECONDS
