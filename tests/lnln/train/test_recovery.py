from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ray.exceptions import ActorDiedError, GetTimeoutError
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, NoopDecision
from ray.train.v2.api.config import ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.train import recovery
from lnln.train.recovery import MAX_FAILURES, ElasticWorkers, Recovery

RETRY, RAISE, NOOP = FailureDecision.RETRY, FailureDecision.RAISE, FailureDecision.NOOP
FOLDER = "runs/r"


def failed(**failures: Exception) -> WorkerGroupError:
    """Of workers a, b, c: ranks 0, 1, 2."""
    return WorkerGroupError("workers failed", {"abc".index(name): error for name, error in failures.items()})


RECLAIMED = PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"n": [1]})
LOST = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())
BROKEN = RuntimeError("Connection closed by peer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def policy(store: Store, monkeypatch: pytest.MonkeyPatch) -> Recovery:
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.0)
    return Recovery(store.url, FOLDER, (2, 2))


def end_epoch(store: Store, epoch: int) -> None:
    state = {"checkpoint_results": [{"checkpoint_dir_name": f"epoch-{epoch:04d}"}]}
    store.write(f"{FOLDER}/ray/checkpoint_manager_snapshot.json", json.dumps(state).encode())


def test_a_refusal_is_never_tried_again(policy: Recovery) -> None:
    assert policy.make_decision(failed(a=RefusedError("NaN"))) == RAISE
    assert policy.make_decision(failed(a=LOST, b=RefusedError("NaN"))) == RAISE
    assert policy.make_decision(failed(a=StoreFailedError("full"))) == RAISE
    assert policy.make_decision(ControllerError(RefusedError("no"))) == RAISE


@pytest.mark.parametrize(
    "mistake",
    [
        AssertionError("no"),
        KeyError("x"),
        TypeError("y"),
        ValueError("z"),
        NotImplementedError("no such kernel"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_a_mistake_is_not_tried_again(policy: Recovery, mistake: Exception) -> None:
    assert policy.make_decision(failed(a=mistake, b=BROKEN)) == RAISE
    assert policy.make_decision(ControllerError(mistake)) == RAISE


def test_failures_are_bounded_unless_an_epoch_ends_between_them(policy: Recovery, store: Store) -> None:
    for epoch in range(4):
        if epoch:
            end_epoch(store, epoch)
        for _ in range(MAX_FAILURES):
            assert policy.make_decision(failed(b=LOST)) == RETRY
    assert policy.make_decision(failed(b=LOST)) == RAISE


def test_a_trial_is_bounded_too(store: Store) -> None:
    policy = Recovery(store.url, None, (1, 1))
    decisions = [policy.make_decision(failed(a=LOST)) for _ in range(MAX_FAILURES + 1)]
    assert decisions == [RETRY] * MAX_FAILURES + [RAISE]


def test_the_reason_is_waited_for(policy: Recovery, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [policy.make_decision(failed(a=BROKEN)) for _ in range(9)] == [NOOP] * 9
    assert policy.make_decision(failed(a=BROKEN, b=LOST)) == RETRY
    assert policy.make_decision(failed(a=BROKEN)) == NOOP, "the next failure has a wait of its own"
    monkeypatch.setattr(recovery, "REASON_SECONDS", 0.0)
    assert policy.make_decision(failed(a=BROKEN)) == RETRY
    assert policy.make_decision(failed(a=ValueError("mine"))) == RAISE


def test_all_workers_at_once_need_no_wait(policy: Recovery) -> None:
    assert policy.make_decision(failed(a=BROKEN, b=BROKEN)) == RETRY


def test_a_state_that_ray_cannot_write_stops_nothing_at_first(policy: Recovery, store: Store) -> None:
    full = ControllerError(OSError(28, "No space left on device"))
    away = ControllerError(StoreFailedError("store s3://x: cannot write y: gone"))
    assert [policy.make_decision(error) for error in (full, away, full, full)] == [NOOP] * MAX_FAILURES + [RAISE]
    end_epoch(store, 1)
    assert policy.make_decision(full) == NOOP


def test_a_cluster_has_room_again_or_not(policy: Recovery, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room: list[TrainingFailedError] = [
        ControllerError(InsufficientClusterResourcesError("no")),
        ControllerError(WorkerGroupStartupTimeoutError(2)),
    ]
    assert [policy.make_decision(error) for error in no_room] == [RAISE] * 2, "there never was any"
    assert policy.make_decision(failed(b=LOST)) == RETRY
    assert [policy.make_decision(error) for error in no_room * 5] == [RETRY] * 10
    monkeypatch.setattr(recovery, "ROOM_SECONDS", 0.0)
    assert policy.make_decision(no_room[0]) == RAISE


def test_a_run_that_trained_has_had_room(policy: Recovery, store: Store) -> None:
    no_room = ControllerError(WorkerGroupStartupTimeoutError(2))
    assert policy.make_decision(no_room) == RAISE
    end_epoch(store, 1)
    assert policy.make_decision(no_room) == RETRY
    assert Recovery(store.url, FOLDER, (2, 2)).make_decision(no_room) == RAISE, (
        "a run that continues has yet to have it"
    )


def test_a_later_lack_of_room_has_a_wait_of_its_own(policy: Recovery, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room = ControllerError(WorkerGroupStartupTimeoutError(2))
    assert policy.make_decision(failed(b=LOST)) == RETRY
    assert policy.make_decision(no_room) == RETRY
    monkeypatch.setattr(recovery, "ROOM_SECONDS", 0.0)
    monkeypatch.setattr(recovery, "STALE_SECONDS", -1.0)
    assert policy.make_decision(no_room) == RETRY


def test_a_reclaimed_machine_is_waited_for(policy: Recovery) -> None:
    for _ in range(MAX_FAILURES + 2):
        assert policy.make_decision(PreemptionError(RECLAIMED)) == RETRY
    assert policy.make_decision(ControllerError(WorkerGroupStartupTimeoutError(2))) == RETRY


def test_a_slow_answer_within_ray_is_no_full_disk(policy: Recovery) -> None:
    assert policy.make_decision(ControllerError(GetTimeoutError("slow"))) == RETRY


def test_no_room_for_the_fewest_workers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "START_SECONDS", -1.0)
    monkeypatch.setattr(ElasticScalingPolicy, "make_decision_for_non_running_worker_group", lambda _: NoopDecision())
    workers = ElasticWorkers(ScalingConfig(num_workers=(2, 4)))
    for _ in range(2):  # the wait begins again
        assert isinstance(workers.make_decision_for_non_running_worker_group(), NoopDecision)
        with pytest.raises(InsufficientClusterResourcesError, match="no room for 2 workers, the fewest"):
            workers.make_decision_for_non_running_worker_group()


def test_workers_that_die_while_they_start_are_started_again(policy: Recovery) -> None:
    for error in (WorkerGroupStartupFailedError("no"), ActorDiedError()):
        assert policy.make_decision(ControllerError(error)) == RETRY


def test_a_store_that_is_away_is_no_reason_to_give_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert Recovery(str(tmp_path / "file"), FOLDER, (1, 1)).make_decision(failed(a=LOST)) == RETRY
