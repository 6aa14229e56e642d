"""What the parts of the stack are: none of them can reach what the user's own environment leads to."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.stack.parts import _MAX_RAY_FOLDER, HOST, POOL, PORTS, Layout, client_environment, own_environment, parts
from infra.stack.stack import _write_environment

ROOT = Path(__file__).parents[2]
LAYOUT = Layout(
    Path("/srv/.stack"), {name: 40000 + number for number, name in enumerate(PORTS)}, 2, Path("/srv/.stack/ray")
)


def test_a_part_stands_after_what_it_needs_and_ports_belong_to_one() -> None:
    seen: set[str] = set()
    ports: list[str] = []
    for part in parts(LAYOUT):
        assert set(part.needs) <= seen and part.name not in seen
        seen.add(part.name)
        ports += part.ports
    assert sorted(ports) == sorted(PORTS)


def test_commands_are_there_and_listen_to_this_machine_alone() -> None:
    for part in parts(LAYOUT):
        program, *rest = part.command
        assert shutil.which(program), program
        if "-m" in rest:
            assert find_spec(rest[rest.index("-m") + 1]), part.command
        words = " ".join(part.command)
        assert "0.0.0.0" not in words and "::" not in words
        for port in part.ports:
            assert str(LAYOUT.ports[port]) in words + str(part.environment)


def test_nothing_of_the_users_own_servers_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_PROFILE": "production",
        "LNLN_STORE": "s3://production/x",
        "LNLN_DASK": "tcp://production:8786",
        "DASK_SCHEDULER_ADDRESS": "tcp://production:8786",
        "RAY_ADDRESS": "production:6379",
        "RAY_AUTH_TOKEN": "s3cret",
        "PREFECT_API_URL": "http://production:4200/api",
        "PREFECT_API_KEY": "s3cret",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for environment in (own_environment(LAYOUT), *(part.environment for part in parts(LAYOUT))):
        said = str(dict(environment))
        assert "production" not in said and "s3cret" not in said
        assert environment["OMP_NUM_THREADS"] == "1"
    assert all(
        HOST in value or "127.0.0." in value
        for name, value in client_environment(LAYOUT).items()
        if "://" in value and name != "LNLN_STORE"
    )


def test_a_part_is_known_by_what_it_is_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {part.name: part.made_of for part in parts(LAYOUT)}
    monkeypatch.setenv("TERM", "another")  # of the shell, and no matter
    assert {part.name: part.made_of for part in parts(LAYOUT)} == before
    more = {part.name: part.made_of for part in parts(replace(LAYOUT, cpus_per_node=3))}
    assert {name for name in before if before[name] != more[name]} == {"ray-head", "ray-node"}


def test_the_environment_is_for_a_shell_and_for_its_owner(tmp_path: Path) -> None:
    folder = tmp_path / "it's a $(folder)"
    folder.mkdir()
    layout = replace(LAYOUT, folder=folder)
    _write_environment(layout)
    path = folder / "stack.env"
    assert path.stat().st_mode & 0o777 == 0o600
    said = subprocess.run(["sh", "-c", '. "$0"; env', str(path)], capture_output=True, text=True, check=True).stdout
    assert all(f"{name}={value}" in said.splitlines() for name, value in client_environment(layout).items())


def test_ray_gets_a_short_path() -> None:
    assert not LAYOUT.needs_link
    assert replace(LAYOUT, folder=Path("/srv") / ("x" * 40)).needs_link
    session = "session_2026-11-21_22-39-51_996345_1475012/sockets/plasma_store"
    assert len(f"{'r' * _MAX_RAY_FOLDER}/head/{session}") <= 107


def test_the_pool_is_that_of_the_deployments() -> None:
    document: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert {deployment["work_pool"]["name"] for deployment in document["deployments"]} == {POOL}
