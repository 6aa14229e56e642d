"""What the flows have in common: what is worth another try, progress, and what is told of a failure."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prefect.client.schemas.objects import State
from prefect.states import Crashed, Failed

from lnln import progress
from lnln.errors import RefusedError, StoreFailedError
from pipelines.execute import StageFailedError
from pipelines.flows import stage as stage_module
from pipelines.flows.stage import failure_text, may_pass
from tuning.jobs import UnreachableError


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreFailedError("the store is away"), True),
        (UnreachableError("no dashboard"), True),
        (ConnectionResetError("reset"), True),
        (caused(RefusedError("no Dask scheduler answers"), TimeoutError()), True),
        (caused(StageFailedError("corrupt", 3, {"a": "b"}), StoreFailedError("away")), True),
        (caused(RefusedError("no Dask scheduler"), caused(RuntimeError("x"), ConnectionError())), True),
        (RefusedError("no such corpus"), False),
        (caused(RefusedError("no MMSA pickle"), FileNotFoundError("x.pkl")), False),
        (caused(RefusedError("not allowed"), PermissionError("x.pkl")), False),
        (KeyError("a mistake"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_what_may_go_well_later_is_tried_again(error: BaseException, expected: bool) -> None:
    assert may_pass(error) is expected


@pytest.mark.parametrize("error", [StoreFailedError("away"), RefusedError("no")])
def test_who_waits_for_a_flow_is_told_at_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    state: State[Any] = Failed(data=error)
    monkeypatch.delenv(stage_module._OF_A_WORKER, raising=False)
    assert not stage_module._is_worth_another_try(None, None, state)  # type: ignore[arg-type]
    monkeypatch.setenv(stage_module._OF_A_WORKER, "1")
    tried = stage_module._is_worth_another_try(None, None, state)  # type: ignore[arg-type]
    assert tried is isinstance(error, StoreFailedError)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (Failed(data=RefusedError("no corpus <b>x</b>")), ["no corpus &lt;b&gt;x&lt;/b&gt;", "would be refused again"]),
        (Failed(data=StoreFailedError("s3://b does not answer")), ["does not answer", "`lnln doctor`"]),
        (Failed(data=KeyError("rows")), ["KeyError", "a mistake of ours"]),
        (Crashed(message="Process exited with status code: -9"), ["status code: -9", "want of memory", "`Retry`"]),
        (Crashed(), ["without a word"]),
    ],
)
def test_a_failure_says_what_it_was_and_what_to_do(state: object, said: list[str]) -> None:
    text = failure_text("views of mosi", state)  # type: ignore[arg-type]
    assert text.startswith("# views of mosi\n") and text.endswith("What is done is not done again.\n")
    assert all(each in text for each in said), text


def test_a_bar_is_watched_from_any_thread_and_only_inside() -> None:
    seen: list[tuple[str, int, int]] = []
    with progress.bar("before", 1) as advance, progress.watched(lambda *step: seen.append(step)):
        advance()
        with progress.bar("inside", 3) as inner:
            thread = threading.Thread(target=inner)
            thread.start()
            thread.join()
            inner(2)
    with progress.bar("after", 1) as advance:
        advance()
    assert seen == [("before", 1, 1), ("inside", 1, 3), ("inside", 3, 3)]
