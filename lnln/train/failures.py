"""Why a training failed, in one line: from what Ray wraps a worker's error in to what the user reads.

refusal(error)      the refusal that a worker raised, if that is what it was
reason_of(error)    "worker 1 was lost (its process ended)"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from lnln.errors import RefusedError

# What Ray's report of a dead worker holds, and what that says to a user; the first that fits.
_LOSSES = (
    (r"running low on memory|out of memory \(OOM\)|OutOfMemory", "its machine ran low on memory, so Ray ended it"),
    (r"node .{0,80}(?:has been marked dead|died|dead|terminated|drained|preempted)", "its machine was lost"),
    (r"is unavailable", "it does not answer"),
    (r"health check has been hanging", "it has not answered for a long time"),
    (r"worker process has died|connection error code|unexpectedly exits", "its process ended"),
)


def refusal(error: BaseException) -> RefusedError | None:
    """The refusal that a worker raised and Ray wrapped, if `error` is or holds one."""
    return next((each for each in _held(error) if isinstance(each, RefusedError)), None)


def reason_of(error: BaseException) -> str:
    """Why a training failed, in one line: a refusal, else what became of each worker, else the last line of `error`."""
    refused = refusal(error)
    if refused is not None:
        return " ".join(str(refused).split())
    failures = getattr(error, "worker_failures", {})
    if failures:
        return fate_of(failures)
    if type(error).__name__ in ("ActorDiedError", "ActorUnavailableError", "OutOfMemoryError"):
        return f"Ray's controller was lost ({_why_lost(error)})"
    return _named(getattr(error, "controller_failure", error))


def fate_of(failures: Mapping[int, BaseException]) -> str:
    """What became of the workers, by rank. Where some are lost the others failed because of it, and are not named."""
    lost = lost_workers(failures)
    if lost:
        reasons = list(dict.fromkeys(lost.values()))
        were = "was" if len(lost) == 1 else "were"
        return f"{_workers(lost)} {were} lost ({'; '.join(reasons)})"
    by_reason: dict[str, list[int]] = {}
    for rank, failure in sorted(failures.items()):
        by_reason.setdefault(_named(getattr(failure, "_base_exc", failure)), []).append(rank)
    return "; ".join(f"{_workers(ranks)}: {reason}" for reason, ranks in by_reason.items())


def lost_workers(failures: Mapping[int, BaseException]) -> dict[int, str]:
    """The workers that are no more, by rank, each with why; not those that raised something."""
    lost = {}
    for rank, failure in sorted(failures.items()):
        if type(failure).__name__ in ("WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError"):
            lost[rank] = _why_lost(failure)
    return lost


def _why_lost(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return next((reason for pattern, reason in _LOSSES if re.search(pattern, said)), _last_line(error))


def _held(error: BaseException) -> Iterator[BaseException]:
    """`error` and all that it wraps."""
    seen = [error]
    while seen:
        current = seen.pop()
        yield current
        inner = [current.__cause__, getattr(current, "_base_exc", None), getattr(current, "controller_failure", None)]
        inner += getattr(current, "worker_failures", {}).values()
        seen += [each for each in inner if isinstance(each, BaseException)]


def _workers(ranks: Mapping[int, object] | list[int]) -> str:
    return f"{'worker' if len(ranks) == 1 else 'workers'} {', '.join(map(str, ranks))}"


def _named(error: BaseException) -> str:
    """An error's type and what it says last."""
    name, line = type(error).__name__, _last_line(error)
    return line if line == name else f"{name}: {line}"


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
