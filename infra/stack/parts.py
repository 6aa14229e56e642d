"""What the parts of the stack are: the command of each, its environment, and how one sees that it works.

    for part in parts(Layout.of(folder)): ...       # in an order in which they can be started

All listen on 127.0.0.1 alone, where whoever may open a port of this machine may use them. But for Ray, which listens to
the network too and so wants a token; it is in `ray-token`, which its owner alone may read.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lnln.config import fingerprint
from lnln.train.session import OBJECT_STORE_BYTES

HOST = "127.0.0.1"
# Of Ray's nodes, which are told apart by their addresses; `ray start` makes of 127.0.0.1 that of the network.
RAY_HOSTS = ("127.0.0.2", "127.0.0.3")
STORE = "store"
BUCKET = "lnln"
POOL = "default"  # as in prefect.yaml
DASK_WORKERS = ("dask-worker-1", "dask-worker-2")

PORTS = (
    STORE,
    "prefect",
    "prefect-worker",
    "dask",
    "dask-status",
    *DASK_WORKERS,
    "ray",
    "ray-dashboard",
    "ray-client",
    "ray-head-agent",
    "ray-node-agent",
)

# Variables of whoever starts the stack that would lead its parts to other servers.
_FOREIGN = ("AWS_", "DASK_", "DISTRIBUTED_", "LNLN_", "PREFECT_", "RAY_")

_BIN = Path(sys.executable).parent
_ANSWER_SECONDS = 2.0
# Ray's sockets lie below its folder, under names of up to 70 letters, and a socket's path has 107.
_MAX_RAY_FOLDER = 36


@dataclass(frozen=True)
class Layout:
    """What a stack keeps from one `up` to the next.

    ports: by the names of PORTS. ray_folder: where Ray's sockets lie, a link to `ray/` where that has too long a path.
    """

    folder: Path
    ports: Mapping[str, int]
    cpus_per_node: int
    ray_folder: Path

    def url(self, port: str, path: str = "") -> str:
        return f"http://{HOST}:{self.ports[port]}{path}"

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "folder": str(self.folder), "ray_folder": str(self.ray_folder)}, indent=1)

    @property
    def needs_link(self) -> bool:
        return len(str(self.folder / "ray")) > _MAX_RAY_FOLDER


@dataclass(frozen=True)
class Part:
    """ports: those it listens on. needs: parts that have to work first, and with which it starts again. is_ready:
    whether it does what it is there for; may raise OSError or ValueError for no."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ports: tuple[str, ...]
    is_ready: Callable[[], bool]
    needs: tuple[str, ...] = ()
    grace_seconds: float = 10.0

    @property
    def made_of(self) -> str:
        own = {name: value for name, value in self.environment.items() if name.startswith(_FOREIGN)}
        return fingerprint({"command": list(self.command), "environment": own})


def client_environment(layout: Layout) -> dict[str, str]:
    """What `stack.env` says: with it lnln, Prefect, Dask and Ray of a shell use the stack."""
    return {
        "LNLN_STORE": f"s3://{BUCKET}/store",
        "LNLN_CACHE": str(layout.folder / "cache"),
        "AWS_ENDPOINT_URL": layout.url("store"),
        "AWS_ACCESS_KEY_ID": "stack",
        "AWS_SECRET_ACCESS_KEY": "stack",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "DASK_SCHEDULER_ADDRESS": f"tcp://{HOST}:{layout.ports['dask']}",
        "RAY_ADDRESS": f"{RAY_HOSTS[0]}:{layout.ports['ray']}",
        "RAY_API_SERVER_ADDRESS": layout.url("ray-dashboard"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(layout.folder / "ray-token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PREFECT_HOME": str(layout.folder / "prefect"),
        "PREFECT_API_URL": layout.url("prefect", "/api"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def own_environment(layout: Layout) -> dict[str, str]:
    """That of whoever starts the stack, without what leads elsewhere, and with what leads here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    path = f"{_BIN}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **client_environment(layout)}


def parts(layout: Layout) -> tuple[Part, ...]:
    """All of them; what a part needs stands before it."""
    return (_store(layout), *_prefect(layout), *_dask(layout), *_ray(layout))


def _store(layout: Layout) -> Part:
    """moto's server: conditional writes are right, and it keeps all in memory and in temporary files."""
    return Part(
        STORE,
        (sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(layout.ports["store"])),
        {**own_environment(layout), "TMPDIR": str(layout.folder / "tmp")},
        (STORE,),
        lambda: _answers(layout.url("store", "/moto-api/")),
        grace_seconds=2.0,  # it has nothing to put away
    )


def _prefect(layout: Layout) -> tuple[Part, ...]:
    prefect = (sys.executable, "-m", "prefect", "--no-prompt")
    environment = {
        **own_environment(layout),
        # What waits is looked for so often; Prefect's own 10 s and 15 s are for many workers of one server.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
        "PREFECT_WORKER_WEBSERVER_HOST": HOST,
        "PREFECT_WORKER_WEBSERVER_PORT": str(layout.ports["prefect-worker"]),
    }
    port = str(layout.ports["prefect"])
    pool = layout.url("prefect", f"/api/work_pools/{POOL}")
    return (
        Part(
            "prefect-server",
            (*prefect, "server", "start", "--host", HOST, "--port", port),
            environment,
            ("prefect",),
            lambda: _answers(layout.url("prefect", "/api/health")),
        ),
        Part(
            "prefect-worker",
            (*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", "stack", "--with-healthcheck"),
            environment,
            ("prefect-worker",),
            lambda: _answers(layout.url("prefect-worker", "/health")) and _json(pool)["status"] == "READY",
            needs=("prefect-server",),
            grace_seconds=20.0,  # it ends its flow runs, and tells the server
        ),
    )


def _dask(layout: Layout) -> tuple[Part, ...]:
    def command(role: str, status: str, *options: str) -> tuple[str, ...]:
        shown = f"{HOST}:{layout.ports[status]}"
        module = f"distributed.cli.dask_{role}"
        return (sys.executable, "-m", module, "--host", HOST, "--dashboard-address", shown, *options)

    environment = own_environment(layout)
    scheduler = Part(
        "dask-scheduler",
        command("scheduler", "dask-status", "--port", str(layout.ports["dask"])),
        environment,
        ("dask", "dask-status"),
        lambda: _answers(layout.url("dask-status", "/health")),
    )
    address = f"tcp://{HOST}:{layout.ports['dask']}"
    local = ("--local-directory", str(layout.folder / "dask"), "--nthreads", "1")
    workers = (
        Part(
            name,
            command("worker", name, address, "--name", name, *local),
            environment,
            (name,),
            lambda name=name: _answers(layout.url(name, "/health")),  # type: ignore[misc]
            needs=("dask-scheduler",),
        )
        for name in DASK_WORKERS
    )
    return (scheduler, *workers)


def _ray(layout: Layout) -> tuple[Part, ...]:
    environment = {name: value for name, value in own_environment(layout).items() if name != "RAY_ADDRESS"}
    environment |= {
        "RAY_TMPDIR": str(layout.ray_folder),  # else Ray tells all of the machine, in /tmp/ray, where its head is
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "GLOO_SOCKET_IFNAME": "lo",
    }

    def command(name: str, host: str, agent: str, *options: str) -> tuple[str, ...]:
        return (
            str(_BIN / "ray"),
            "start",
            *options,
            f"--node-ip-address={host}",
            f"--dashboard-agent-listen-port={layout.ports[agent]}",
            f"--temp-dir={layout.ray_folder / name}",
            f"--num-cpus={layout.cpus_per_node}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--block",
        )

    head = command(
        "head",
        RAY_HOSTS[0],
        "ray-head-agent",
        "--head",
        f"--port={layout.ports['ray']}",
        "--include-dashboard=true",
        f"--dashboard-host={HOST}",
        f"--dashboard-port={layout.ports['ray-dashboard']}",
        f"--ray-client-server-port={layout.ports['ray-client']}",
    )
    node = command("node", RAY_HOSTS[1], "ray-node-agent", f"--address={RAY_HOSTS[0]}:{layout.ports['ray']}")
    return (
        Part(
            "ray-head",
            head,
            environment,
            ("ray", "ray-dashboard", "ray-client", "ray-head-agent"),
            lambda: (
                _answers(layout.url("ray-dashboard", "/api/gcs_healthz"))
                and _answers(layout.url("ray-head-agent", "/api/local_raylet_healthz"))
            ),
        ),
        Part(
            "ray-node",
            node,
            environment,
            ("ray-node-agent",),
            lambda: _answers(layout.url("ray-node-agent", "/api/local_raylet_healthz")),
            needs=("ray-head",),
        ),
    )


def _answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as reply:
        return bool(reply.status < 300)


def _json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as reply:
        return json.load(reply)
