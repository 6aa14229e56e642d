from __future__ import annotations

from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from lnln.errors import RefusedError
from lnln.train.failures import fate_of, lost_workers, reason_of, refusal

# As Ray 2.60 says it.
KILLED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: RayTrainWorker\n\tip: 127.0.0.1\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called."
)
STARVED = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: 848564) was "
    "16.78GB used / 23.54GB limit (0.712821)\nOOM kill reason: Memory usage 17961869312B exceeded threshold of 83412B"
)
CUT_OFF = (
    "The actor died unexpectedly before finishing this task.\n\tip: 10.77.0.2\nThe actor died because its node has "
    "died. Node Id: 913e99 the actor's node was terminated: health check failed due to missing too many heartbeats"
)


def lost(message: str) -> WorkerHealthCheckFailedError:
    failure = OutOfMemoryError(message) if message == STARVED else ActorDiedError()
    if isinstance(failure, ActorDiedError):
        failure.error_msg = message
    return WorkerHealthCheckFailedError("A worker health check failed.\nWorker info: Worker(...)", failure)


def test_what_became_of_a_worker_is_said_in_one_line() -> None:
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:48031")
    assert fate_of({0: gone, 1: lost(KILLED)}) == "worker 1 was lost (its process ended)"
    assert fate_of({0: lost(STARVED)}) == "worker 0 was lost (its machine ran low on memory, so Ray ended it)"
    assert fate_of({2: lost(CUT_OFF)}) == "worker 2 was lost (its machine was lost)"
    assert fate_of({1: lost(KILLED), 0: lost(KILLED)}) == "workers 0, 1 were lost (its process ended)"
    assert lost_workers({0: gone}) == {}
    assert fate_of({1: gone, 0: gone}) == f"workers 0, 1: RuntimeError: {gone}"
    away = "The actor e8f4 is unavailable: The actor is temporarily unavailable: RpcError: Connection reset by peer"
    assert fate_of({0: lost(away)}) == "worker 0 was lost (it does not answer)"
    silent = WorkerHealthCheckTimeoutError("A worker health check has been hanging for 600.00 seconds. Marking ...")
    assert fate_of({3: silent}) == "worker 3 was lost (it has not answered for a long time)"


def test_a_refusal_goes_before_a_loss() -> None:
    refused = RefusedError("the loss is NaN\nat step 3")
    group = WorkerGroupError("workers failed", {0: refused, 1: lost(KILLED)})
    assert refusal(group) is refused and reason_of(group) == "the loss is NaN at step 3"
    assert refusal(ControllerError(group)) is refused


def test_a_controller_s_failure_is_named() -> None:
    assert reason_of(lost(KILLED).health_check_failure) == "Ray's controller was lost (its process ended)"
    assert reason_of(ControllerError(OSError(28, "No space left on device"))) == (
        "OSError: [Errno 28] No space left on device"
    )
