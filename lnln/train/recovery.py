"""When a training goes on after a failure: Ray's controller asks, `Recovery` answers.

A worker that was lost, with its machine or alone, costs the epoch that it was in: Ray starts all workers again from the
newest checkpoint that it knows, and the run ends with the weights that it would have had. What a worker refuses it
would refuse again, as it would make the same mistake again, so neither is tried twice; a connection or a device that
broke may be whole the next time.
"""

from __future__ import annotations

import re
import time
from typing import Any

import torch
from ray.exceptions import RayError
from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
)
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy, ResizeDecision, ScalingDecision
from ray.train.v2.api.config import FailureConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.train.controller import newest_epoch
from lnln.train.failures import fate_of, lost_workers, reason_of, refusal
from lnln.train.notices import give_notice

# Failures in a row without an epoch's end between them, after which a run stops.
MAX_FAILURES = 3
# A lost worker makes the others fail, and their errors may be known first: how long to wait for the reason.
REASON_SECONDS = 5.0
# How long a cluster that lost a machine may take to have room for the workers again, and how often to look.
ROOM_SECONDS = 600.0
LOOK_SECONDS = 2.0
# How long a first start waits for room, as Ray has it; and after how long without such a failure the next is another.
START_SECONDS = 60.0
STALE_SECONDS = 3 * START_SECONDS

# How gloo's and NCCL's errors of a broken connection read, all of them plain RuntimeErrors.
_CONNECTION = re.compile(r"connect|gloo|nccl|socket|peer|timed? ?out", re.IGNORECASE)


class ElasticWorkers(ElasticScalingPolicy):
    """Ray's policy for a range of workers, but where there is no room for the fewest: that would wait without end."""

    _waiting_since: float | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        decision = super().make_decision_for_non_running_worker_group()
        now = time.monotonic()
        if isinstance(decision, ResizeDecision):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > START_SECONDS:
            self._waiting_since = None
            raise InsufficientClusterResourcesError(
                f"Ray has no room for {self.scaling_config.min_workers} workers, the fewest that are wanted"
            )
        return decision


class RecoveringTrainer(TorchTrainer):
    """A TorchTrainer with policies of ours, and without two of the processes that Ray starts for a training.

    One looks after its places (`lnln.train.places`), one is for Ray's datasets: each takes a second of a core to start,
    and has nothing to do here.
    """

    def __init__(self, *args: Any, policy: FailurePolicy, **more: Any) -> None:
        super().__init__(*args, **more)
        self._policy = policy

    def _create_default_callbacks(self) -> list[Any]:
        idle = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, idle)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        arguments["failure_policy"] = self._policy
        scaling_config = self.scaling_config
        assert isinstance(scaling_config, ScalingConfig), "Ray Train V2's"
        if scaling_config.elasticity_enabled:
            arguments["scaling_policy"] = ElasticWorkers(scaling_config)
        return super()._initialize_and_run_controller(**arguments)


class Recovery(FailurePolicy):
    """Lives in the controller's process, for one run or trial.

    folder: of the run in the store; None for a trial, which keeps no checkpoints and begins again. num_workers: the
    fewest and the most.
    """

    def __init__(self, store_url: str, folder: str | None, num_workers: tuple[int, int]) -> None:
        super().__init__(FailureConfig())
        self._store_url, self._folder = store_url, folder
        self._fewest, self._most = num_workers
        self._num_failures, self._epoch = 0, 0
        self._first_epoch = self._newest_epoch()
        self._has_had_room = False
        self._unexplained_since: float | None = None
        # When a cluster without room was first and last met.
        self._without_room: tuple[float, float] | None = None

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if isinstance(training_failed_error, WorkerGroupError):
            self._has_had_room = True
            return self._after_workers(training_failed_error)
        if isinstance(training_failed_error, PreemptionError):
            self._has_had_room = True
            return self._again("a machine was reclaimed", is_counted=False)
        assert isinstance(training_failed_error, ControllerError)
        return self._after_controller(training_failed_error.controller_failure)

    def _after_workers(self, error: WorkerGroupError) -> FailureDecision:
        failures = error.worker_failures
        if refusal(error) is not None:
            return FailureDecision.RAISE
        if not lost_workers(failures):
            if len(failures) < self._most and self._is_too_early():
                return FailureDecision.NOOP
            if not all(_may_pass(failure) for failure in failures.values()):
                return FailureDecision.RAISE
        self._unexplained_since = None
        return self._again(fate_of(failures))

    def _after_controller(self, failure: Exception) -> FailureDecision:
        # A slow answer within Ray is an OSError too.
        if isinstance(failure, (StoreFailedError, OSError)) and not isinstance(failure, RayError):
            # Ray could not write down what it knows of an epoch. It keeps it in mind, and writes it after the next.
            return self._again(reason_of(failure), FailureDecision.NOOP)
        if isinstance(failure, (InsufficientClusterResourcesError, WorkerGroupStartupTimeoutError)):
            return self._after_no_room()
        if isinstance(failure, (WorkerGroupStartupFailedError, RayError)) and refusal(failure) is None:
            return self._again(f"the workers did not start ({reason_of(failure)})")
        return FailureDecision.RAISE

    def _after_no_room(self) -> FailureDecision:
        """Wait for a cluster that had room once."""
        if not self._has_had_room and self._newest_epoch() <= self._first_epoch:
            return FailureDecision.RAISE
        now = time.monotonic()
        if self._without_room is None or now - self._without_room[1] > STALE_SECONDS:
            self._without_room = now, now
            wanted = "1 worker" if self._fewest == 1 else f"{self._fewest} workers"
            self._say(f"waiting {ROOM_SECONDS:.0f} s for the cluster to have room for {wanted} again")
        first, _ = self._without_room
        self._without_room = first, now
        if now - first > ROOM_SECONDS:
            return FailureDecision.RAISE
        time.sleep(LOOK_SECONDS)
        return FailureDecision.RETRY

    def _is_too_early(self) -> bool:
        """The reason may still come. The first call begins the wait."""
        if self._unexplained_since is None:
            self._unexplained_since = time.monotonic()
        return time.monotonic() - self._unexplained_since < REASON_SECONDS

    def _again(
        self, reason: str, decision: FailureDecision = FailureDecision.RETRY, *, is_counted: bool = True
    ) -> FailureDecision:
        """`decision`, unless this was one failure too many since the last epoch that ended."""
        self._without_room = None
        epoch = self._newest_epoch()
        if epoch > self._epoch:
            self._epoch, self._num_failures = epoch, 0
        self._num_failures += is_counted
        if self._num_failures > MAX_FAILURES:
            return FailureDecision.RAISE
        self._say(f"{reason}; continuing {f'after epoch {epoch}' if epoch else 'from the start'}")
        return decision

    def _newest_epoch(self) -> int:
        """From which Ray continues, as far as the store says."""
        if self._folder is None:
            return 0
        try:
            return newest_epoch(Store(self._store_url), self._folder)
        except RefusedError:
            return self._epoch

    def _say(self, text: str) -> None:
        if self._folder is not None:
            give_notice(self._store_url, self._folder, text)


def _may_pass(failure: BaseException) -> bool:
    """Whether what a worker raised may be its connection's or its device's fault, and not the code's."""
    error = getattr(failure, "_base_exc", failure)
    if isinstance(error, (OSError, torch.AcceleratorError, torch.distributed.DistError)):
        return True
    return type(error) is RuntimeError and _CONNECTION.search(str(error)) is not None
