"""Processes that publish at the same moment. Without torch, so that twenty of them begin within a second."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from threading import Barrier

from lnln.data.store import Store
from lnln.model_store import publish

# They are forked from one process that has imported all of it.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "lnln.model_store", "lnln.data.store_s3", __name__])

_barrier: Barrier


def publish_at_once(store: Store, runs: Sequence[str], name: str) -> list[str]:
    """What each of as many processes got, which all begin at the same moment."""
    barrier = CONTEXT.Barrier(len(runs))
    with ProcessPoolExecutor(len(runs), CONTEXT, _begin, (barrier, dict(os.environ))) as pool:
        return list(pool.map(_publish, [store.url] * len(runs), runs, [name] * len(runs)))


def publish_alone(url: str, run: str, name: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    publish(Store(url), run, name)


def _begin(barrier: Barrier, environment: dict[str, str]) -> None:
    global _barrier
    _barrier = barrier
    os.environ.update(environment)


def _publish(url: str, run: str, name: str) -> str:
    _barrier.wait(60)
    return publish(Store(url), run, name)
