"""Running plans: order, failures, bounded work in flight; the same in this process and on Dask."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lnln.errors import RefusedError
from pipelines import execute
from pipelines.execute import StageFailedError, dask_client, run
from pipelines.plan import Job, Plan
from pipelines.settings import Settings
from pipelines.steps import step_done
from tests.dask_processes import dask_processes

if TYPE_CHECKING:
    from distributed import Client


def square(number: int) -> int:
    time.sleep(0.01 * (3 - number % 3))  # so that jobs end in another order than they began
    return number * number


def fail(number: int) -> int:
    if number % 2:
        raise ValueError(f"no\n{number}")
    raise RefusedError("shard x is damaged; import it again")


def die() -> None:
    os._exit(1)


def first_and_size(data: bytes) -> tuple[int, int]:
    return data[0], len(data)


def leave_mark(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    time.sleep(0.05)
    return number


def squares(count: int) -> tuple[Job, ...]:
    return tuple(Job(f"square {i}", square, {"number": i}) for i in range(count))


@pytest.fixture(scope="module", params=["here", pytest.param("dask", marks=pytest.mark.slow)])
def client(request: pytest.FixtureRequest) -> Iterator[Client | None]:
    with dask_client(Settings(dask="none" if request.param == "here" else "local")) as made:
        yield made


def test_results_come_in_the_order_of_the_plan(client: Client | None) -> None:
    assert run(Plan("squares", squares(9)), client) == [i * i for i in range(9)]


def test_jobs_that_hold_data(client: Client | None) -> None:
    data = [bytes([i]) * 11_000_000 for i in range(6)]
    jobs = tuple(Job(f"bytes {i}", first_and_size, {"data": data[i]}, holds_data=True) for i in range(6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(Plan("bytes", jobs), client) == [(i, 11_000_000) for i in range(6)]


@pytest.mark.slow
def test_jobs_that_hold_data_no_worker_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a worker dies while it is given a job's data: the job goes by way of the scheduler."""
    with dask_client(Settings(dask="local")) as client:
        assert client is not None
        scatter, calls = client.scatter, iter(range(100))

        def fail_at_times(*arguments: Any, **options: Any) -> Any:
            if next(calls) % 2:
                raise OSError("in <TCP (closed)>: Stream is closed")
            return scatter(*arguments, **options)

        monkeypatch.setattr(client, "scatter", fail_at_times)
        jobs = tuple(Job(f"{i}", square, {"number": i}, holds_data=True) for i in range(8))
        assert run(Plan("squares", jobs), client) == [i * i for i in range(8)]
        assert next(calls) == 8


def test_jobs_whose_results_are_known_are_not_run(client: Client | None) -> None:
    plan = Plan("some", (*squares(3), Job("odd", fail, {"number": 1}), *(Job(f"no {i}", die) for i in range(3))))
    known = {"square 1": "one", "no 0": 0, "no 1": 1, "no 2": 2, "of another plan": 7}
    done: list[str] = []
    with pytest.raises(StageFailedError, match="1 of 3 jobs failed"):
        run(plan, client, known=known, on_done=lambda job, _: done.append(job.name))
    assert sorted(done) == ["square 0", "square 2"]
    assert run(plan, client, known={**known, "odd": None}) == [0, "one", 4, None, 0, 1, 2]
    assert run(Plan("none", squares(2)), client, known={"square 0": 5, "square 1": 6}) == [5, 6]


def step_by_step(num_steps: int) -> int:
    for _ in range(num_steps):
        step_done()
    return num_steps


def test_a_job_tells_of_its_steps(client: Client | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than it has, or fewer, move the bar as far as it has; and so does a failure."""
    totals, moves = [], []

    @contextmanager
    def bar(text: str, total: int) -> Iterator[Callable[..., None]]:
        totals.append(total)
        yield lambda num_steps=1: moves.append(num_steps)

    monkeypatch.setattr(execute, "bar", bar)
    jobs = [
        Job(f"{num} of {of}", step_by_step, {"num_steps": num}, num_steps=of) for num, of in ((5, 5), (9, 3), (0, 2))
    ]
    assert run(Plan("steps", tuple(jobs)), client) == [5, 9, 0]
    assert totals == [10] and sum(moves) == 10
    with pytest.raises(StageFailedError):
        run(Plan("steps", (Job("no", fail, {"number": 1}, num_steps=4), *jobs)), client)
    assert totals == [10, 14] and sum(moves) == 24


def test_steps_that_nobody_counts() -> None:
    assert step_by_step(3) == 3


def test_an_empty_plan(client: Client | None) -> None:
    assert run(Plan("nothing", ()), client) == []


def test_failures_stop_no_other_job_and_are_listed_in_order(client: Client | None) -> None:
    done: list[tuple[str, Any]] = []
    jobs = (Job("odd", fail, {"number": 1}), *squares(4), Job("even", fail, {"number": 2}))
    with pytest.raises(StageFailedError) as caught:
        run(Plan("mixed", jobs), client, on_done=lambda job, result: done.append((job.name, result)))
    assert sorted(done) == [(f"square {i}", i * i) for i in range(4)]
    assert isinstance(caught.value, RefusedError)
    assert list(caught.value.failures.items()) == [
        ("odd", "ValueError: no 1"),
        ("even", "shard x is damaged; import it again"),
    ]
    assert str(caught.value) == (
        "mixed: 2 of 6 jobs failed (odd: ValueError: no 1; even: shard x is damaged; import it again); "
        "the same command does what is missing once the cause is mended"
    )
    assert caught.value.__cause__ is not None
    assert pickle.loads(pickle.dumps(caught.value)).failures == caught.value.failures


def test_many_failures_stay_one_readable_line(client: Client | None) -> None:
    with pytest.raises(StageFailedError, match=r"20 of 20 jobs failed .*; and 15 more") as caught:
        run(Plan("all", tuple(Job(f"job {i}", fail, {"number": 1}) for i in range(20))), client)
    assert len(caught.value.failures) == 20
    assert "\n" not in str(caught.value)


def test_what_on_done_raises_ends_the_stage(client: Client | None) -> None:
    def refuse(job: Job, result: object) -> None:
        raise RefusedError("the store is full")

    with pytest.raises(RefusedError, match="the store is full"):
        run(Plan("squares", squares(3)), client, on_done=refuse)
    assert run(Plan("squares", squares(3)), client) == [0, 1, 4]


def test_no_bar_where_standard_error_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    run(Plan("squares", squares(2)))
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_standard_error_where_it_is_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(Plan("squares", squares(2)))
    out, err = capsys.readouterr()
    assert out == ""
    assert "squares" in err
    assert "2/2" in err


@pytest.mark.parametrize(
    "address", ["nonsense", "tcp://127.0.0.1", "foo://127.0.0.1:1", "tls://127.0.0.1:1", "tcp://127.0.0.1:1"]
)
def test_an_address_without_a_scheduler_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "CONNECT_TIMEOUT_SECONDS", 1)
    with (
        pytest.raises(RefusedError, match=r"no Dask scheduler answers at .*LNLN_DASK"),
        dask_client(Settings(dask=address)),
    ):
        pass


@pytest.mark.slow
def test_few_jobs_are_in_flight_at_once(tmp_path: Path) -> None:
    with dask_client(Settings(dask="local")) as client:
        assert client is not None
        limit = execute.JOBS_PER_THREAD * sum(client.nthreads().values())
        seen: list[int] = []
        jobs = tuple(Job(f"job {i}", leave_mark, {"folder": tmp_path, "number": i}) for i in range(4 * limit))
        run(Plan("marks", jobs), client, on_done=lambda *_: seen.append(len(list(tmp_path.iterdir()))))
    assert all(started <= ended + limit for ended, started in enumerate(seen, start=1))
    assert seen[-1] == 4 * limit


@pytest.mark.slow
@pytest.mark.parametrize("holds_data", [False, True])
def test_a_worker_that_dies_takes_no_other_job_with_it(holds_data: bool) -> None:
    more = (Job(f"more {i}", square, {"number": i}, holds_data=holds_data) for i in range(3))
    jobs = (*squares(3), Job("killer", die, holds_data=holds_data), *more)
    with dask_client(Settings(dask="local")) as client, pytest.raises(StageFailedError) as caught:
        run(Plan("deaths", jobs), client)
    assert list(caught.value.failures) == ["killer"]
    assert "memory" in caught.value.failures["killer"]


@pytest.mark.slow
@pytest.mark.parametrize("holds_data", [False, True])
def test_a_cluster_of_its_own_and_the_end_of_its_scheduler(holds_data: bool, tmp_path: Path) -> None:
    """Joined by the address of its scheduler, which is killed in the middle of a stage."""
    with (
        dask_processes(tmp_path, num_workers=1) as processes,
        dask_client(Settings(dask=processes.address)) as client,
    ):
        assert client is not None
        client.wait_for_workers(1, timeout=60)
        assert run(Plan("squares", squares(5)), client) == [0, 1, 4, 9, 16]
        threading.Timer(0.5, processes.scheduler.kill).start()
        slow = tuple(
            Job(f"mark {i}", leave_mark, {"folder": tmp_path, "number": i}, holds_data=holds_data) for i in range(200)
        )
        with pytest.raises(RefusedError, match="was lost; the same command"):
            run(Plan("marks", slow), client)
