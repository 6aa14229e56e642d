"""Rank 0's writes to the store, with patience: a disk that is full or a store that is away may be neither for long.

patience = Patience(store, folder, seconds)
patience.write("the checkpoint of epoch 4", write, after=3)
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.train.notices import give_notice

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a run waits for its store. folder: of the run. seconds: from the first failure of a write on."""

    store: Store
    folder: str
    seconds: float

    def write(self, what: str, write: Callable[[], T], *, after: int) -> T:
        """What `write` returns, which is called until it goes well. after: the epoch that is safe in any case.

        RefusedError at the end of patience, and at once where the run has been removed.
        """
        begun, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        is_first = True
        while True:
            try:
                self._require_run()
                result = write()
            except (StoreFailedError, OSError, SafetensorError) as error:
                reason = f"{what} cannot be written: {_reason(error)}; {_room(self.store)}"
                left = begun + self.seconds - time.monotonic()
                if left <= 0:
                    safe = f"after epoch {after}" if after else "from the start"
                    raise RefusedError(f"{reason}; make room, and the same command continues {safe}") from error
                if is_first:
                    give_notice(self.store.url, self.folder, f"{reason}; trying again for {self.seconds:.0f} s")
                is_first = False
                time.sleep(min(pause, left))
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            else:
                if not is_first:
                    give_notice(
                        self.store.url, self.folder, f"{what} was written after {time.monotonic() - begun:.0f} s"
                    )
                return result

    def _require_run(self) -> None:
        if not self.store.exists(f"{self.folder}/run.json"):
            raise RefusedError(
                f"{self.store.url}/{self.folder} was removed while the run trained; the same command trains it again"
            )


def _reason(error: Exception) -> str:
    """One line; the store names itself, else it was the folder for temporary files."""
    text = " ".join(str(error).split())
    return text if isinstance(error, StoreFailedError) else f"{tempfile.gettempdir()}: {text}"


def _room(store: Store) -> str:
    """How much is free where it may have been too little."""
    places = [Path(tempfile.gettempdir()), *([] if "://" in store.url else [Path(store.url)])]
    free = []
    for place in places:
        with contextlib.suppress(OSError):
            free.append(f"{shutil.disk_usage(place).free / 2**20:.1f} MiB are free in {place}")
    return ", ".join(free)
