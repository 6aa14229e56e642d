"""A Ray cluster of several nodes on this machine, each a command of its own, and what is below a process."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lnln.data.store import Store
from lnln.train.session import OBJECT_STORE_BYTES
from pipelines.ingest import import_sample
from tests.cluster_training import TRAIN, Driver
from tests.command import LNLN

START_SECONDS = 120
RAY = str(Path(sys.executable).with_name("ray"))
# Ends with its parent, however that ends, and takes the node's processes along: Ray's command answers SIGTERM so.
WITH_PARENT = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []


class Cluster:
    """Nodes of one CPU each on the loopback address, the first of them the head."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self._stack, self.num_nodes = folder, stack, 0
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
        }
        said = self._start("--head", "--port=0", "--include-dashboard=false")[1]
        found = re.search(r"--address='([\d.:]+)'", said)
        assert found is not None, said
        self.address = found[1]

    def add_node(self) -> subprocess.Popen[bytes]:
        return self._start(f"--address={self.address}")[0]

    def train(self, folder: Path) -> Driver:
        """Two workers, one on each node; `folder` is made."""
        folder.mkdir()
        store, out, err = Store(folder / "store"), folder / "out", folder / "err"
        import_sample(store)
        command = [LNLN, "--store", store.url, "--json", *TRAIN, "--workers", "2"]
        more = {**self.environment, "RAY_ADDRESS": self.address, "LNLN_CACHE": str(folder / "cache")}
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(command, stdout=out_file, stderr=err_file, env={**os.environ, **more})
        return Driver(process, store, out, err)

    def _start(self, *options: str) -> tuple[subprocess.Popen[bytes], str]:
        """`ray start --block`, and what it said when the node was part of the cluster."""
        self.num_nodes += 1
        own = self.folder / str(self.num_nodes)
        own.mkdir()
        command = [
            *WITH_PARENT,
            RAY,
            "start",
            *options,
            "--node-ip-address=127.0.0.1",
            f"--temp-dir={own}",
            "--num-cpus=1",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--block",
        ]
        environment = {**os.environ, **self.environment}
        with (own / "output").open("wb") as file:
            node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
        self._stack.callback(end, node)
        deadline = time.monotonic() + START_SECONDS
        while "--block" not in (said := (own / "output").read_text()):
            assert node.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        return node, said


def end(node: subprocess.Popen[bytes]) -> None:
    """With all processes of the node."""
    for pid in [*descendants(node.pid), node.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def descendants(pid: int) -> list[int]:
    try:
        tasks = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(child) for task in tasks for child in task.split()]
    return [*children, *(each for child in children for each in descendants(child))]


def name_of(pid: int) -> str:
    """Empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def ray_cluster(make: Callable[[Path, ExitStack], Cluster] = Cluster) -> Iterator[Cluster]:
    """What `make` makes, a head; all of the cluster ends with the context."""
    with ExitStack() as stack:
        # Sockets lie below, whose paths have to be short.
        folder = Path(tempfile.mkdtemp(prefix="lnln-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield make(folder, stack)
