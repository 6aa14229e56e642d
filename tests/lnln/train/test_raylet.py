"""A node of a Ray cluster that is lost in the middle of an epoch: SIGKILL of its raylet, with which its workers end.

Both nodes are on this machine, as commands of their own; `tests/end_to_end/test_two_machines.py` has two machines.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_training import EPOCHS, scores
from tests.ray_nodes import Cluster, descendants, name_of, ray_cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="several nodes on one machine, and /proc: Linux")
def test_a_raylet_that_is_killed_in_an_epoch_changes_nothing_in_the_result(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node()
    before = cluster.train(tmp_path / "undisturbed")
    try:
        undisturbed = before.result()
    finally:
        before.process.kill()
        before.process.wait()
    driver = cluster.train(tmp_path / "disturbed")
    try:
        driver.wait_for_epoch(2)
        [raylet] = [pid for pid in descendants(node.pid) if name_of(pid) == "raylet"]
        os.kill(raylet, signal.SIGKILL)
        lost = driver.wait_for(r"worker \d was lost \(.*\); continuing after epoch (\d)\n", 60)
        cluster.add_node()
        run = driver.result()
    finally:
        driver.process.kill()
        driver.process.wait()

    assert 2 <= int(lost[1]) < EPOCHS and driver.said.count("continuing") == 1
    assert run.run_id == undisturbed.run_id and run.files == undisturbed.files
    assert scores(run) == scores(undisturbed)
    folders = [store.url for store in (driver.store, before.store)]
    kept = [{path.name for path in (Path(folder) / run.folder / "ray").glob("epoch-*")} for folder in folders]
    assert kept[0] == kept[1]
