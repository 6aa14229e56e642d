"""Gives back the places of trainings that were ended from outside: what their workers had reserved of the cluster.

Ray keeps a reservation (placement group) as long as the driver lives, whatever becomes of the actor that made it. Ray
Train starts a process for each training to look after that, which asks Ray's dashboard: a Ray of our own has none, and
there the places of a trial that was stopped early, or of a seed whose controller was lost, would be lost to all others
(ray#54305). So drivers of several trainings do it, and that process is left out (`lnln.train.recovery`).
"""

from __future__ import annotations

import time
from typing import Any

# How often to look, and how long a training may take to end after its trial.
LOOK_SECONDS = 1.0
END_SECONDS = 15.0


class Places:
    """Those reserved by this driver's actors from now on."""

    def __init__(self) -> None:
        self._others = {group.placement_group_id for group in _reserved()}
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """`free`, if it is time again."""
        if time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self.free()
            self._looked_at = time.monotonic()

    def free(self) -> int:
        """Give back those whose training is no more; how many are left."""
        import ray
        from ray.util.placement_group import PlacementGroup, remove_placement_group

        num_left = 0
        for group in _reserved():
            if group.placement_group_id in self._others:
                continue
            if group.creator_actor_dead:
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(group.placement_group_id)))
            else:
                num_left += 1
        return num_left

    def free_all(self) -> None:
        """Wait until none is left. Called when all trainings have ended, by themselves or not."""
        deadline = time.monotonic() + END_SECONDS
        while self.free() and time.monotonic() < deadline:
            time.sleep(0.1)


def _reserved() -> list[Any]:
    """The placement groups that actors of this driver made, as Ray's own table has them."""
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]

    job = ray.get_runtime_context().get_job_id()
    groups = map(PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table())
    return [
        group
        for group in groups
        if group.creator_job_id.hex() == job
        and group.state != PlacementGroupTableData.REMOVED
        and group.creator_actor_id.strip(b"\xff")  # else made by the driver itself
    ]
