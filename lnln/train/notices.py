"""What a run's processes have to say to whoever started it, a line each, while it runs.

    give_notice(store.url, folder, "worker 1 was lost")      # in any process of the run
    take_notices(store.url, folder)                          # in the one that started it

Through Ray's own key-value store and not the run's folder, since a full disk is among the things to be said.
"""

from __future__ import annotations

import os
import time

from ray.exceptions import RayError
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_initialized,
    _internal_kv_list,
    _internal_kv_put,
)

_NAMESPACE = "lnln-notices"


def give_notice(store_url: str, folder: str, text: str) -> None:
    """Say `text` to whoever follows the run in `folder`; to nobody where Ray cannot pass it on."""
    if not _internal_kv_initialized():
        return
    try:
        _internal_kv_put(f"{store_url}/{folder}/{time.time_ns()}-{os.getpid()}", text, namespace=_NAMESPACE)
    except RayError:  # what happens to the run matters more than what is said of it
        return


def take_notices(store_url: str, folder: str) -> list[str]:
    """What was said since the last time, oldest first."""
    if not _internal_kv_initialized():
        return []
    try:
        keys = sorted(_internal_kv_list(f"{store_url}/{folder}/", namespace=_NAMESPACE))
        values = [_internal_kv_get(key, namespace=_NAMESPACE) for key in keys]
        for key in keys:
            _internal_kv_del(key, namespace=_NAMESPACE)
    except RayError:
        return []
    return [value.decode() for value in values if value is not None]
