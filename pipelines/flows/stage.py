"""What the flows have in common: tasks that may be tried again, progress that is seen, a word on what went wrong.

    @stage("train")
    def train_run(...): ...

    @flow(name="train", on_failure=[tell_of_failure], on_crashed=[tell_of_failure])

A stage returns names, never data, and Prefect keeps no results: the store knows what is done. So a stage that is tried
again does what is missing, and writes nothing twice.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.flows import Flow
from prefect.tasks import Task

from lnln import markdown, progress
from lnln.errors import RefusedError, StoreFailedError

P = ParamSpec("P")
R = TypeVar("R")

HOUR = 3600
RETRY_DELAYS_SECONDS = [30, 120]
# Set by Prefect in the process in which its worker runs a flow.
_OF_A_WORKER = "PREFECT__FLOW_RUN_ID"
_SHOW_SECONDS = 2.0
_EPOCH = re.compile(r"epoch (\d+)/(\d+)")
# Of errors that say how a request went, and not what was asked for.
_PASSING = (StoreFailedError, ConnectionError, TimeoutError)
_PASSING_NAMES = {"UnreachableError", "FutureCancelledError", "RayError", "TrainingFailedError", "CommClosedError"}


def stage(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that a worker tries again, twice, when what it needs did not answer."""

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        made: Task[P, R] = task(
            name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRY_DELAYS_SECONDS),
            retry_delay_seconds=RETRY_DELAYS_SECONDS,  # type: ignore[arg-type]
            retry_jitter_factor=0.5,
            retry_condition_fn=_is_worth_another_try,
        )(function)
        return made

    return decorate


def _is_worth_another_try(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    """Who calls a flow from Python or by `lnln demo` waits for it, and is told at once."""
    error = state.result(raise_on_failure=False)
    return _OF_A_WORKER in os.environ and isinstance(error, BaseException) and may_pass(error)


def may_pass(error: BaseException) -> bool:
    """Whether the same call may go well later: a server was away, or a machine was lost. What is refused for what it
    is would be refused again."""
    seen: BaseException | None = error
    while seen is not None:
        names = {kind.__name__ for kind in type(seen).__mro__}
        if isinstance(seen, _PASSING) or names & _PASSING_NAMES:
            return True
        seen = seen.__cause__
    return False


@contextmanager
def shown_progress(key: str, what: str) -> Iterator[Callable[[str], None]]:
    """A progress artifact that follows the bars of this process, and lines such as `epoch 3/40` that are given to it.

    A worker logs these lines for its server; any other process shows them.
    """
    log = get_run_logger()
    artifact = cast(UUID, create_progress_artifact(progress=0.0, key=key, description=what))
    share, is_over = 0.0, threading.Event()

    def follow(text: str, num_done: int, total: int) -> None:
        nonlocal share
        share = min(1.0, num_done / max(total, 1))

    def say(text: str) -> None:
        if _OF_A_WORKER in os.environ:
            log.info("%s", text)
        else:
            progress.line(text)
        if found := _EPOCH.search(text):
            follow(text, int(found[1]), int(found[2]))

    def show() -> None:
        """In a thread of its own: steps are told in whatever thread they end in, which may be that of an event loop."""
        shown = 0.0
        while not is_over.wait(_SHOW_SECONDS):
            if share != shown:
                shown = share
                with suppress(Exception):  # work goes on without being watched
                    update_progress_artifact(artifact, progress=100 * shown)

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        with progress.watched(follow):
            yield say
    finally:
        is_over.set()
        thread.join()
    with suppress(Exception):
        update_progress_artifact(artifact, progress=100.0)


def tell_of_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """An artifact of a run that failed or was lost: why, and what to do. Not of one that was cancelled."""
    with get_client(sync_client=True) as client:
        if any(earlier.is_cancelling() for earlier in client.read_flow_run_states(flow_run.id)):
            return
        client.create_artifact(
            ArtifactCreate(
                key=f"failure-{flow.name}",
                type="markdown",
                description=f"Why {flow_run.name} did not end, and what to do",
                data=failure_text(flow_run.name, state),
                flow_run_id=flow_run.id,
            )
        )


def failure_text(name: str, state: State) -> str:
    """As Markdown."""
    error = state.result(raise_on_failure=False) if state.is_failed() else None
    if isinstance(error, RefusedError):
        why = str(error)
    elif isinstance(error, BaseException):
        why = f"{type(error).__name__}: {error}"
    else:
        why = state.message or "its process ended without a word"
    if state.is_crashed():
        todo = (
            "Its process was ended from outside: by its worker, by its machine, or for want of memory (exit code -9 or "
            "137). `Retry`, or the same parameters again, continues it."
        )
    elif error is not None and may_pass(error):
        todo = (
            "What it needs did not answer, more than once. `lnln doctor` with the worker's environment says which "
            "server that is. `Retry`, or the same parameters again, does what is missing then."
        )
    elif isinstance(error, RefusedError):
        todo = "The same parameters would be refused again, until what this sentence names is mended."
    else:
        todo = "That is a mistake of ours: the log of the run has where. The same parameters do what is missing."
    return f"# {markdown.escape(name)}\n\n{markdown.escape(why)}\n\n{todo} What is done is not done again.\n"
