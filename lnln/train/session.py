"""Ray for as long as it is needed: one that runs already, a cluster, or one of our own on this machine alone.

    with ray_session(num_cpus=2):
        import ray

An own Ray listens on the loopback address only, has no dashboard, and sends nothing home.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lnln.errors import RefusedError

# Ray's shared memory holds what workers hand each other through it, which is next to nothing here.
OBJECT_STORE_BYTES = 128 * 2**20

# How long a cluster may take to answer a first knock.
REACH_SECONDS = 10

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Ray's own default is 0 in future versions, which it announces at every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Seconds until the controller hears of a checkpoint: what a kill can lose, and how long a short run idles.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TOKENIZERS_PARALLELISM": "false",
}
_ALONE = {
    # No machine but this one can be reclaimed under us, so nobody needs to watch for it.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Despite its name this is what makes Ray take 127.0.0.1 for its address; by default it does on Windows and macOS.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
}


def cluster_address() -> str | None:
    """Address of the Ray cluster to join, None for a Ray of our own."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address


@contextmanager
def ray_session(num_cpus: int) -> Iterator[None]:
    """Ray is initialised inside. An initialised one is used and left running; `RAY_ADDRESS` joins a cluster.

    num_cpus: logical cores of a Ray of our own, one for each worker (and driver of a trial) at a time; they reserve
    places and need not exist.
    """
    address = cluster_address()
    with _environment(_QUIET if address else {**_QUIET, **_ALONE}):
        import ray

        if ray.is_initialized():
            yield
            return
        with _quiet_driver():
            if address:
                _join(address)
            else:
                _start_alone(num_cpus)
            try:
                yield
            finally:
                ray.shutdown()


def _join(address: str) -> None:
    import ray

    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise RefusedError(
            f"the Ray cluster at RAY_ADDRESS {address!r} does not let us in; a cluster with token authentication wants "
            "RAY_AUTH_MODE=token and its RAY_AUTH_TOKEN here too"
        ) from error


def _check_reachable(address: str) -> None:
    """RefusedError where nothing listens at `address`; Ray itself would try for many minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:  # `auto`: Ray looks for a cluster on this machine, and says so if there is none
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS):
            return
    except (OSError, ValueError) as error:
        raise RefusedError(
            f"RAY_ADDRESS is {address!r}, where no Ray cluster answers ({error}); unset it to use this machine alone"
        ) from error


def _start_alone(num_cpus: int) -> None:
    import ray
    from ray._private import ray_constants, utils

    # Ray reads the variable when it is imported, which somebody may have done before.
    before = ray_constants.ENABLE_RAY_CLUSTER, utils.get_dashboard_dependency_error
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Where ray[default] is installed the agent would load all of the dashboard, and listen on a port of its own.
    utils.get_dashboard_dependency_error = lambda: ImportError("no dashboard is wanted")
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, utils.get_dashboard_dependency_error = before


@contextmanager
def _quiet_driver() -> Iterator[None]:
    """Of a process that is lost Ray says a paragraph, on standard output; what it means to the run is said by us."""
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """`values` where the variable is not set, and everything as it was afterwards."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
