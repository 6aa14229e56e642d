"""Training over two machines by the command line, one of which is cut off while it works (`tests/two_machines.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lnln.data.store import Store
from lnln.runs import Run
from pipelines.ingest import import_sample
from tests.cluster_training import EPOCHS, TRAIN, Driver, scores
from tests.command import LNLN
from tests.two_machines import TwoMachines, two_machines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOST = r"worker \d was lost \(its machine was lost\); continuing after epoch (\d+)\n"
# Ray takes 8 to 9 s to give a machine up with the settings of these; this one may be busy.
NOTICED_SECONDS = 45


# The encoder's dropout would be another with one worker than with two.
WITHOUT_DROPOUT = "--set=train.frozen=encoder"


@pytest.fixture(scope="module")
def machines() -> Iterator[TwoMachines]:
    """Each test finds both with a node, the last leaves one."""
    with two_machines() as machines:
        machines.start_ray()
        yield machines


@pytest.fixture(scope="module")
def undisturbed(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On both, before anything happens to them."""
    return start(machines, tmp_path_factory.mktemp("undisturbed"), "--workers", "2").result()


def start(machines: TwoMachines, folder: Path, *options: str) -> Driver:
    """On the first machine, with a store in a folder that both reach, cut off or not."""
    store, out, err = Store(folder / "store"), folder / "out", folder / "err"
    import_sample(store)
    command = [LNLN, "--store", store.url, "--json", *TRAIN, WITHOUT_DROPOUT, *options]
    environment = {"RAY_ADDRESS": machines.ray_address, "LNLN_CACHE": str(folder / "cache")}
    return Driver(machines.first.start(*command, out=out, err=err, **environment), store, out, err)


def groups(machines: TwoMachines) -> list[set[str]]:
    """The addresses where there were train workers of the last run, once for each time that Ray started them all."""
    logs = machines.first.folder.glob("session_2*/logs/train/ray-train-app-controller-*.log")
    said = max(logs, key=lambda log: log.stat().st_mtime).read_text()
    lines = [line for line in said.splitlines() if "Started training worker group" in line]
    return [set(re.findall(r"\(ip=([\d.]+),", line)) for line in lines]


def test_a_machine_that_is_cut_off_and_started_again_changes_nothing_in_the_result(
    machines: TwoMachines, undisturbed: Run, tmp_path: Path
) -> None:
    driver = start(machines, tmp_path, "--workers", "2")
    driver.wait_for_epoch(2)
    machines.cut()
    assert 2 <= int(driver.wait_for(LOST, NOTICED_SECONDS)[1]) < EPOCHS
    machines.start_second_again()
    run = driver.result()

    both = {machines.first.address, machines.second.address}
    assert groups(machines) == [both, both] and driver.said.count("continuing") == 1
    assert run.num_workers == 2 and run.run_id == undisturbed.run_id
    assert scores(run) == scores(undisturbed) and run.files == undisturbed.files


def test_an_elastic_run_goes_on_with_the_machine_that_is_left(
    machines: TwoMachines, undisturbed: Run, tmp_path: Path
) -> None:
    driver = start(machines, tmp_path, "--workers", "1-2")
    driver.wait_for_epoch(2)
    machines.cut()
    driver.wait_for(LOST, NOTICED_SECONDS)
    run = driver.result()

    first, second = machines.first.address, machines.second.address
    assert groups(machines) == [{first, second}, {first}] and driver.said.count("continuing") == 1
    assert run.num_workers == 1 and run.run_id == undisturbed.run_id
    assert [record["epoch"] for record in run.history] == list(range(1, EPOCHS + 1))
    # One worker adds up in another order than two.
    expected = [record["score"] for record in undisturbed.history]
    assert [record["score"] for record in run.history] == pytest.approx(expected, abs=1e-5)
