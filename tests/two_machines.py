"""Two machines on this one: two network namespaces, joined by a cable that can be cut, with a Ray node on each.

    with two_machines() as machines:
        machines.start_ray()
        driver = machines.first.start(LNLN, "train", "sample", out=out, err=err)
        machines.cut()

A machine has a network, process ids and a `/proc` of its own, and shares the folders of this one. Its first process
reads from a pipe whose other end only the tests hold: when they end, however roughly, so does that process, and the
kernel ends all others of the machine and removes its network. Nothing outside of the two is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lnln.train.session import OBJECT_STORE_BYTES

ADDRESSES = ("10.77.0.1", "10.77.0.2")
RAY_PORT = 6379
START_SECONDS = 120
END_SECONDS = 90
BIN = Path(sys.executable).parent

# What all nodes and drivers of a cluster are started with.
_RAY_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The head asks each node every `period` whether it lives, and waits `timeout` for the answer.
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    # By default gloo takes the address of the host's name, which may be a loopback one.
    "GLOO_SOCKET_IFNAME": "eth0",
    # A run asks for as many workers as before, until Ray Train has noticed how many there is still room for.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Machine:
    """One of the two; `pid` is its first process, as this machine numbers it."""

    address: str
    pid: int
    environment: dict[str, str]
    folder: Path

    def start(self, *command: str | Path, out: Path, err: Path, **environment: str) -> subprocess.Popen[bytes]:
        """`command` on the machine, with its two streams in files; it ends with the machine at the latest."""
        with out.open("wb") as out_file, err.open("wb") as err_file:
            return subprocess.Popen(
                self._inside(command),
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                env={**os.environ, **self.environment, **environment},
            )

    def run(self, *command: str | Path, timeout_seconds: float = 30) -> None:
        done = subprocess.run(self._inside(command), capture_output=True, text=True, timeout=timeout_seconds)
        assert done.returncode == 0, f"{command}: {done.stderr}"

    def _inside(self, command: tuple[str | Path, ...]) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--net", "--pid", "--mount", "--", *map(str, command)]


@dataclass
class TwoMachines:
    """`first` has the head of the Ray cluster; each has a CPU for a train worker."""

    first: Machine
    second: Machine
    node: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def ray_address(self) -> str:
        return f"{self.first.address}:{RAY_PORT}"

    def start_ray(self) -> None:
        _start_node(self.first, "--head", f"--port={RAY_PORT}", "--include-dashboard=false")
        self.node = _start_node(self.second, f"--address={self.ray_address}")

    def cut(self) -> None:
        """Pull the cable: every process of both machines lives on, and hears nothing from the other."""
        self.second.run("ip", "link", "set", "eth0", "down")

    def start_second_again(self) -> None:
        """Put the cable back. The node ends itself when it hears that it was given up, and another one is started, as
        what looks after the processes of a real machine does."""
        assert self.node is not None
        self.second.run("ip", "link", "set", "eth0", "up")
        self.node.wait(timeout=END_SECONDS)
        self.node = _start_node(self.second, f"--address={self.ray_address}")


@contextmanager
def two_machines() -> Iterator[TwoMachines]:
    """Both, with the cable between them, and no Ray yet; skips the test where this user may not make them."""
    with ExitStack() as stack:
        # Sockets lie below, whose paths have to be short.
        folder = Path(tempfile.mkdtemp(prefix="lnln-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environment = {**_RAY_SETTINGS, "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        machines = []
        for number, address in enumerate(ADDRESSES, start=1):
            own = folder / str(number)
            own.mkdir()
            machines.append(Machine(address, stack.enter_context(_namespaces()), environment, own))
        first, second = machines
        # From inside the first, whose eth0 is its own; the second end is born in the other.
        _try("nsenter", f"--target={first.pid}", "--net", *_cable(second.pid))
        for machine in machines:
            machine.run("ip", "address", "add", f"{machine.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                machine.run("ip", "link", "set", device, "up")
        yield TwoMachines(first, second)


@contextmanager
def _namespaces() -> Iterator[int]:
    """A network, process ids and mounts of their own; the id of their first process, with which all others end."""
    _try("unshare", *_OWN, "true")
    first = subprocess.Popen(["unshare", *_OWN, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert first.stdin is not None
    try:
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
        deadline = time.monotonic() + 10
        while not (pids := children.read_text().split()):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield int(pids[0])
    finally:
        first.stdin.close()
        first.wait(timeout=30)


_OWN = ("--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")


def _cable(pid: int) -> list[str]:
    return ["ip", "link", "add", "name", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(pid)]


def _try(*command: str) -> None:
    """Run what needs rights; where they or the program are missing, skip the test with the reason."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except FileNotFoundError as error:
        pytest.skip(f"no two machines without {error.filename} (Linux, util-linux, iproute2)")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no two machines without the rights of root: {' '.join(command)}: {error.stderr.strip()}")


def _start_node(machine: Machine, *options: str) -> subprocess.Popen[bytes]:
    """A Ray node with one CPU; back when it is part of the cluster."""
    out, err = (machine.folder / f"node.{stream}" for stream in ("out", "err"))
    node = machine.start(
        BIN / "ray",
        "start",
        *options,
        f"--node-ip-address={machine.address}",
        f"--temp-dir={machine.folder}",
        "--num-cpus=1",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--block",
        out=out,
        err=err,
    )
    deadline = time.monotonic() + START_SECONDS
    while "Ray runtime started" not in (said := out.read_text() + err.read_text()):
        assert node.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.1)
    return node
