"""What this machine and the configured services can do, and what is wrong: `lnln doctor`.

Each check looks at one thing, changes nothing that outlasts it, and gives findings of one line each: what was
expected, what was found, and what mends it. They run beside each other with time-outs of their own, and none raises.
Client libraries of services are asked in child processes (`child.py`), so the check works, and says so, where they
hang or do not fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from lnln.doctor import disks, machine, services, stores
from lnln.doctor.finding import Finding, wrong

if TYPE_CHECKING:
    from lnln.config import Config

__all__ = ["Finding", "examine"]

Check = Callable[[], list[Finding]]


def examine(store_url: str | None = None, config: Config | None = None, num_gpus: float = 0) -> list[Finding]:
    """All checks, in the order of the path.

    config: what a training is to run with; it may ask for a GPU. num_gpus: how many it is to have in all.
    """
    from lnln.data.store import default_store

    url = store_url or default_store()
    wanted, why = _gpus_wanted(config, num_gpus)
    on_cluster = os.environ.get("RAY_ADDRESS") not in (None, "", "local")
    checks: dict[str, Check] = {
        "packages": machine.packages,
        "machine": machine.cores,
        "GPU": partial(machine.gpus, 0 if on_cluster else wanted, why),
        "disk": partial(disks.disks, url),
        "text encoder": machine.text_encoder,
        "clips": machine.clips,
        "store": partial(stores.store, url),
        "Dask": services.dask,
        "Ray": partial(services.ray, wanted, why),
        "Prefect": services.prefect,
    }
    with ThreadPoolExecutor(len(checks)) as threads:
        return [finding for found in threads.map(_try, checks, checks.values()) for finding in found]


def _try(topic: str, check: Check) -> list[Finding]:
    try:
        return check()
    except Exception as error:  # whatever it is, the other checks have something to say
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return [wrong(topic, text, expected="to be able to look", mend="pip install -c constraints.txt . again")]


def _gpus_wanted(config: Config | None, num_gpus: float) -> tuple[float, str]:
    """How many, and what wants them."""
    if num_gpus:
        return num_gpus, f"--gpus {num_gpus:g}"
    if config is not None and config.train.compile == "reduce-overhead":
        return 1, "train.compile=reduce-overhead, which records CUDA graphs"
    return 0, ""
