"""Runs plans: in this process, or on Dask. The only module that knows Dask.

    with dask_client(Settings()) as client:     # None: in this process
        results = run(plan, client)             # in the plan's order

A failed job stops no other; at the end `StageFailedError` names all that failed, and why. A job of many steps tells of
each (`steps.py`), so that the bar moves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count, islice
from typing import TYPE_CHECKING, Any

from lnln.errors import RefusedError
from lnln.progress import bar
from pipelines.plan import Job, Plan
from pipelines.settings import Settings
from pipelines.steps import StepCount, told

if TYPE_CHECKING:
    from distributed import Client

CONNECT_TIMEOUT_SECONDS = 5
# Workers of the embedded cluster: data work is short, and training follows on the same cores.
MAX_LOCAL_WORKERS = 2
# Jobs handed to Dask ahead of time for every thread it has: no thread waits, and the scheduler holds few jobs' data.
JOBS_PER_THREAD = 2
# Failures that the message spells out; `StageFailedError.failures` holds all.
_NUM_SPELLED_OUT = 5

Outcome = tuple[Job, Any, BaseException | None]


class StageFailedError(RefusedError):
    """Some jobs of a stage failed; the others are done, and their results kept. failures: job name to reason."""

    def __init__(self, stage: str, num_jobs: int, failures: Mapping[str, str]) -> None:
        super().__init__(stage, num_jobs, failures)  # all arguments, so that it survives pickling
        self.stage, self.num_jobs, self.failures = stage, num_jobs, dict(failures)

    def __str__(self) -> str:
        reasons = [f"{name}: {reason}" for name, reason in self.failures.items()]
        hidden = len(reasons) - _NUM_SPELLED_OUT
        spelled = "; ".join(reasons[:_NUM_SPELLED_OUT]) + (f"; and {hidden} more" if hidden > 0 else "")
        return (
            f"{self.stage}: {len(self.failures)} of {self.num_jobs} jobs failed ({spelled}); "
            "the same command does what is missing once the cause is mended"
        )


def run(
    plan: Plan,
    client: Client | None = None,
    *,
    on_done: Callable[[Job, Any], None] | None = None,
    known: Mapping[str, Any] | None = None,
) -> list[Any]:
    """The result of every job, in the plan's order. Raises StageFailedError after all jobs have had their turn.

    on_done: called here, not on a worker, with each job that went well and its result, in the order they end; what it
    raises ends the stage. known: results by job name, of jobs that are done already: those are not run.
    """
    results: dict[str, Any] = dict(known or {})
    jobs = tuple(job for job in plan.jobs if job.name not in results)
    failures: dict[str, str] = {}
    first_error: BaseException | None = None
    with bar(plan.stage, sum(job.num_steps for job in jobs)) as advance:
        steps = StepCount(jobs, advance)
        outcomes = _run_here(jobs, steps) if client is None else _run_on_dask(jobs, client, steps)
        for job, result, error in outcomes:
            steps.all_done(job)
            if error is None:
                results[job.name] = result
                if on_done:
                    on_done(job, result)
            else:
                failures[job.name] = _reason(error)
                first_error = first_error or error
    if failures:
        in_order = {job.name: failures[job.name] for job in plan.jobs if job.name in failures}
        raise StageFailedError(plan.stage, len(jobs), in_order) from first_error
    return [results[job.name] for job in plan.jobs]


@contextmanager
def dask_client(settings: Settings) -> Iterator[Client | None]:
    """What `settings.dask` says: None, a client of a new cluster on this machine, or of the scheduler at an address.

    The cluster ends with the context. RefusedError when no scheduler answers at the address.
    """
    if settings.dask == "none":
        yield None
    elif settings.dask == "local":
        with _local_client() as client:
            yield client
    else:
        with _remote_client(settings.dask) as client:
            yield client


@contextmanager
def _local_client() -> Iterator[Client]:
    from distributed import Client, LocalCluster

    with (
        _quiet_logger("distributed"),
        LocalCluster(
            n_workers=min(MAX_LOCAL_WORKERS, os.cpu_count() or 1),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # None would take port 8787, and warn where it is taken
            silence_logs=logging.CRITICAL,  # what failed is said once, by StageFailedError
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _quiet_logger(name: str) -> Iterator[None]:
    """`silence_logs` reaches Dask's own handlers only; Prefect's would print the life of every Dask worker."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _remote_client(address: str) -> Iterator[Client]:
    from distributed import Client

    # Asked first, since a Client that found nobody hangs for 20 s more when it is collected.
    try:
        with ThreadPoolExecutor(1) as thread:  # a flow may have been called from a running event loop
            thread.submit(asyncio.run, _shake_hands(address)).result()
    except Exception as error:  # among them TypeError, for tls:// without certificates
        raise RefusedError(
            f"no Dask scheduler answers at {address} within {CONNECT_TIMEOUT_SECONDS} s ({_reason(error)}); "
            "mend LNLN_DASK or DASK_SCHEDULER_ADDRESS; LNLN_DASK=none works in this process"
        ) from error
    with Client(address, timeout=CONNECT_TIMEOUT_SECONDS, set_as_default=False) as client:
        if not client.nthreads():
            logging.getLogger(__name__).warning("The Dask scheduler at %s has no workers; jobs wait for one.", address)
        yield client


async def _shake_hands(address: str) -> None:
    """Raises unless something that speaks Dask's protocol listens at `address`."""
    from distributed import Security
    from distributed.comm import connect

    comm = await connect(address, timeout=CONNECT_TIMEOUT_SECONDS, **Security().get_connection_args("client"))
    comm.abort()


def _run_here(jobs: Sequence[Job], steps: StepCount) -> Iterator[Outcome]:
    for job in jobs:
        counter = count(1)
        try:
            with told(lambda job=job, counter=counter: steps.done(job.name, next(counter))):  # type: ignore[misc]
                outcome: Outcome = (job, job(), None)
        except Exception as error:
            outcome = (job, None, error)
        yield outcome


def _run_on_dask(jobs: Sequence[Job], client: Client, steps: StepCount) -> Iterator[Outcome]:
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError

    bereft = []
    with _topic_of(jobs, client, steps) as topic:
        for outcome in _outcomes(jobs, client, topic):
            # Dask blames all that a dead worker had been given, and forgets the data it held.
            if isinstance(outcome[2], (KilledWorker, FutureCancelledError)):
                bereft.append(outcome[0])
            else:
                yield outcome
        for job in bereft:  # alone, and whole with the scheduler: now a job dies for its own fault only
            yield from _outcomes([replace(job, holds_data=False)], client, topic)


@contextmanager
def _topic_of(jobs: Sequence[Job], client: Client, steps: StepCount) -> Iterator[str | None]:
    """The topic under which Dask workers tell of steps; None where no job has more than one."""
    if all(job.num_steps == 1 for job in jobs):
        yield None
        return
    topic = f"steps-{secrets.token_hex(8)}"
    client.subscribe_topic(topic, lambda event: steps.done(*event[1]))
    try:
        yield topic
    finally:
        with suppress(Exception):  # a scheduler that was lost has forgotten it
            client.unsubscribe_topic(topic)


def _outcomes(jobs: Sequence[Job], client: Client, topic: str | None) -> Iterator[Outcome]:
    """Of each job, as they end; a bounded number of them are with the scheduler at any time."""
    from distributed import Future, as_completed
    from distributed.client import FutureCancelledError

    waiting = iter(jobs)
    running: dict[Future, Job] = {}
    completed = as_completed(loop=client.loop)

    def submit() -> None:
        room = JOBS_PER_THREAD * max(1, sum(client.nthreads().values())) - len(running)
        for job in islice(waiting, max(room, 0)):
            future = client.submit(_call, _scattered(job, client) if job.holds_data else job, topic, pure=False)
            running[future] = job
            completed.add(future)

    try:
        submit()
        for future in completed:
            job = running.pop(future)
            try:
                outcome: Outcome = (job, future.result(), None)
            except FutureCancelledError as error:
                if error.reason == "scheduler-connection-lost":
                    raise
                outcome = (job, None, error)
            except Exception as error:
                outcome = (job, None, error)
            yield outcome
            submit()
    except (FutureCancelledError, OSError) as error:
        raise RefusedError(
            f"the Dask scheduler {client.scheduler.address} was lost; the same command does what is missing"
        ) from error
    finally:
        for future in running:
            future.release()


def _scattered(job: Job, client: Client) -> Any:
    """The job, its data with a worker and not with the scheduler, where it arrives three times sooner."""
    try:
        return client.scatter([job], hash=False)[0]
    except OSError:  # the worker died while it was given the data; if it was the scheduler, the future will tell
        return job


def _call(job: Job, topic: str | None) -> Any:
    """On a Dask worker. Of each step the job's name and how many that makes are sent to `topic`."""
    if topic is None:
        return job()
    from distributed import get_worker

    worker, counter = get_worker(), count(1)
    with told(lambda: worker.log_event(topic, [job.name, next(counter)])):
        return job()


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if type(error).__name__ == "KilledWorker":
        return "each Dask worker that ran it died, as they do when memory runs out"
    return text if isinstance(error, RefusedError) else f"{type(error).__name__}: {text}".removesuffix(": ")
