"""What Ray's controller does for us after every epoch: note it in the run's folder.

The driver reads `history.json` to show how far the run is, and so may anyone. `ray-state.json` is a copy of the file
in which Ray remembers its checkpoints: Ray rewrites that in place, and a kill at that moment leaves half of it.
"""

from __future__ import annotations

import json
from typing import Any

from ray.train import Checkpoint, UserCallback
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.train.published_selection import prune_weights


class RunNotes(UserCallback):
    """Runs in the controller's process, after Ray has taken note of the checkpoint."""

    def __init__(self, store_url: str, folder: str) -> None:
        self._store_url, self._folder = store_url, folder

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        store = Store(self._store_url)
        record = metrics[0]["record"]
        earlier = [entry for entry in read_history(store, self._folder) if entry["epoch"] < record["epoch"]]
        history = [*earlier, record]
        store.write_json(f"{self._folder}/history.json", history)
        store.write(_copy(self._folder), store.read(_state(self._folder)))
        # Last: from here on nothing leads back to an earlier checkpoint.
        if "test" in record:
            prune_weights(store, self._folder, history, is_over=False)


def read_history(store: Store, folder: str) -> list[dict[str, Any]]:
    """The epochs that Ray knows of, oldest first."""
    try:
        return list(store.read_json(f"{folder}/history.json"))
    except FileNotFoundError:
        return []


def has_trained(store: Store, folder: str) -> bool:
    """An epoch has ended, as far as the history or Ray knows: there is something to continue from."""
    if read_history(store, folder):
        return True
    for path in (_state(folder), _copy(folder)):
        if store.exists(path) and (_parse(store.read(path)) or {}).get("checkpoint_results"):
            return True
    return False


def mend_state(store: Store, folder: str) -> None:
    """Put the copy in place of a state that a kill cut short; without a copy there is nothing to continue from.

    A whole state is copied again, since a kill may have come between it and its copy. So the checkpoints that the copy
    names are there: Ray removes one only after it has written a whole newer state.
    RefusedError where a checkpoint that the state names is missing all the same.
    """
    try:
        data = store.read(_state(folder))
    except FileNotFoundError:
        return
    state = _parse(data)
    if state is not None:
        store.write(_copy(folder), data)
    else:
        try:
            copy = store.read(_copy(folder))
        except FileNotFoundError:
            store.remove(_state(folder))
            return
        store.write(_state(folder), copy)
        state = _parse(copy) or {}
    for result in state.get("checkpoint_results", []):
        name = result["checkpoint_dir_name"]
        if not store.exists(f"{folder}/ray/{name}/state.json"):
            raise RefusedError(
                f"{store.url}/{folder}/ray/{name} is missing, but the run is to continue from it; remove "
                f"{store.url}/{folder} to train from the start"
            )


def remove_orphans(store: Store, folder: str) -> None:
    """Remove what a finished run does not need: checkpoints that Ray does not know, and the copy of its state."""
    from pyarrow.fs import FileSelector, FileType

    state = _parse(store.read(_state(folder))) or {}
    known = {result["checkpoint_dir_name"] for result in state["checkpoint_results"]}
    filesystem, path = store.arrow(f"{folder}/ray")
    for entry in filesystem.get_file_info(FileSelector(path)):
        if entry.type == FileType.Directory and entry.base_name.startswith("epoch-") and entry.base_name not in known:
            filesystem.delete_dir(entry.path)
    store.remove(_copy(folder))


def _state(folder: str) -> str:
    return f"{folder}/ray/{CHECKPOINT_MANAGER_SNAPSHOT_FILENAME}"


def _copy(folder: str) -> str:
    return f"{folder}/ray-state.json"


def _parse(data: bytes) -> dict[str, Any] | None:
    """The state, or None where it is not whole."""
    try:
        state = json.loads(data)
    except ValueError:
        return None
    return state if isinstance(state, dict) and "checkpoint_results" in state else None
