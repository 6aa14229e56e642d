"""How far a run is, for whoever started it: a line per epoch on standard error.

The workers may sit on other machines, so the driver reads what the run writes to the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError

POLL_SECONDS = 1.0


@contextmanager
def following(
    store: Store,
    folder: str,
    config: Config,
    num_workers: int | tuple[int, int],
    progress: Callable[[str], None] | None,
) -> Iterator[None]:
    """While inside, hand `progress` a line for each epoch that ends, and for all that the run has to say."""
    from lnln.train.controller import newest_epoch, read_history
    from lnln.train.notices import take_notices

    if progress is None:
        yield
        return
    take_notices(store.url, folder)  # of an earlier run on the same cluster
    done = newest_epoch(store, folder)
    begin = f"continuing after epoch {done}" if done else "starting"
    progress(f"{folder}: {begin} with {_workers(num_workers)}")
    ended = threading.Event()

    def follow() -> None:
        shown = done
        while True:
            is_last = ended.wait(POLL_SECONDS)
            try:
                history = read_history(store, folder)
            except RefusedError:  # an unreachable store is the workers' to report
                history = []
            for record in history:
                if record["epoch"] > shown:
                    progress(epoch_line(record, config.train.epochs))
                    shown = record["epoch"]
            for notice in take_notices(store.url, folder):
                progress(notice)
            if is_last:
                return

    thread = threading.Thread(target=follow, name="training progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _workers(num_workers: int | tuple[int, int]) -> str:
    if isinstance(num_workers, tuple):
        return f"{num_workers[0]} to {num_workers[1]} workers"
    return "1 worker" if num_workers == 1 else f"{num_workers} workers"


def epoch_line(record: dict[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    seconds = record["train_seconds"] + record["validation_seconds"]
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  loss {record['loss']['total']:.4f}  "
        f"valid MAE {record['score']:.4f}  rate {record['learning_rate']:.1e}  {seconds:.1f} s"
    )
