"""A Ray cluster of one machine as a team has it: a head with a dashboard, in processes of its own, that wants a token.

with ray_head(num_cpus=2) as head:
    subprocess.run([LNLN, ...], env={**os.environ, **head.environment})
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lnln.train.session import OBJECT_STORE_BYTES
from tests.ray_nodes import RAY, START_SECONDS, WITH_PARENT, end


@dataclass(frozen=True)
class RayHead:
    """address: of the dashboard. environment: what lets a client in. log: what the head said."""

    address: str
    environment: dict[str, str]
    log: Path


@contextmanager
def ray_head(num_cpus: int, environment: Mapping[str, str] | None = None) -> Iterator[RayHead]:
    """environment: of the cluster and so of its jobs, besides that of the tests."""
    # Sockets lie below, whose paths have to be short.
    folder = Path(tempfile.mkdtemp(prefix="lnln-"))
    port = _free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    settings = {
        **token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **(environment or {}),
    }
    command = [
        *WITH_PARENT,
        RAY,
        "start",
        "--head",
        "--port=0",
        "--node-ip-address=127.0.0.1",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}",
        "--dashboard-agent-listen-port=0",  # where its own port is taken, the agent lives on and starts no jobs
        f"--temp-dir={folder}",
        f"--num-cpus={num_cpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--block",
    ]
    log = folder / "output"
    with log.open("wb") as file:
        head = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, **settings}
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{address}/api/version", token["RAY_AUTH_TOKEN"]):
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield RayHead(address, token, log)
    finally:
        end(head)
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str, token: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
