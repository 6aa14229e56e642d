"""What Ray's controller does for us after every epoch: note it in the run's folder.

The driver reads `history.json` to show how far the run is, and so may anyone. `ray-state.json` is a copy of the file
in which Ray remembers its checkpoints: Ray rewrites that in place, and a kill at that moment leaves half of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from ray.train import Checkpoint, UserCallback
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

from lnln.checkpoint import read_progress
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
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
        data = store.read(_state(self._folder))
        store.write(_copy(self._folder), data)
        # What Ray would have removed when it could not write its state. A newer one may be in the making.
        state = _parse(data)
        if state is not None:
            newer = [checkpoint_name(record["epoch"] + ahead) for ahead in (1, 2)]
            _remove_all_but(store, self._folder, {*_names(state), *newer})
        # Last: from here on nothing leads back to an earlier checkpoint.
        if "test" in record:
            prune_weights(store, self._folder, history, is_over=False)


def checkpoint_name(epoch: int) -> str:
    """Folder of the checkpoint after `epoch` (from 1). Named by the epoch, so that one which Ray did not get to know
    before a run was killed is overwritten when the run continues."""
    return f"epoch-{epoch:04d}"


def epoch_of(name: str) -> int:
    """The inverse of `checkpoint_name`."""
    return int(name.removeprefix("epoch-"))


def read_history(store: Store, folder: str) -> list[dict[str, Any]]:
    """The epochs that Ray knows of, oldest first."""
    try:
        return list(store.read_json(f"{folder}/history.json"))
    except FileNotFoundError:
        return []


def has_trained(store: Store, folder: str) -> bool:
    """An epoch has ended, as far as the history or Ray knows: there is something to continue from."""
    return bool(read_history(store, folder)) or newest_epoch(store, folder) > 0


def newest_epoch(store: Store, folder: str) -> int:
    """The epoch after which Ray would continue the run, 0 where it would begin."""
    for path in (_state(folder), _copy(folder)):
        if store.exists(path) and (state := _parse(store.read(path))) is not None:
            return max((epoch_of(name) for name in _names(state)), default=0)
    return 0


def mend_state(store: Store, folder: str) -> str | None:
    """Make what Ray knows of a run what is there, before the run continues; what was damaged, in a sentence.

    A state that is missing, or that a kill cut short, is replaced by its copy; without a copy there is nothing to
    continue from. A whole state is copied again, since a kill may have come between it and its copy. So the checkpoints
    that the copy names are there: Ray removes one only after it has written a whole newer state.
    Then all checkpoints are read. Where one is damaged the run goes back to an older one: RefusedError if there is
    none. Folders of checkpoints that Ray does not know are removed, and epochs that will be trained again forgotten.
    """
    data = _whole_state(store, folder)
    damage = None
    if data is None:
        store.remove(_state(folder))
        _remove_all_but(store, folder, ())
    else:
        state, damage = _without_damaged(store, folder, json.loads(data))
        if damage is not None:
            data = json.dumps(state).encode()
        store.write(_state(folder), data)
        store.write(_copy(folder), data)
        _remove_all_but(store, folder, _names(state))
    history, newest = read_history(store, folder), newest_epoch(store, folder)
    if any(record["epoch"] > newest for record in history):
        store.write_json(f"{folder}/history.json", [record for record in history if record["epoch"] <= newest])
    return damage


def remove_orphans(store: Store, folder: str, epochs: Collection[int]) -> None:
    """Remove what a finished run does not need: the copy of Ray's state, and checkpoints that are neither known to it
    nor of `epochs`."""
    data = _whole_state(store, folder)
    if data is not None:
        store.write(_state(folder), data)
    _remove_all_but(store, folder, {*_names(json.loads(data or b"{}")), *map(checkpoint_name, epochs)})
    store.remove(_copy(folder))


def _whole_state(store: Store, folder: str) -> bytes | None:
    """Ray's state or, where that is missing or was cut short, its copy; None where there is neither."""
    for path in (_state(folder), _copy(folder)):
        if store.exists(path) and _parse(data := store.read(path)) is not None:
            return data
    return None


def _without_damaged(store: Store, folder: str, state: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """`state` up to the newest checkpoint that is whole, as must be the best one until then, from which the model is
    exported in the end; and what was wrong with those after it."""
    best: dict[int, int] = {}
    damage = ""
    for epoch in sorted(map(epoch_of, _names(state))):
        try:
            best[epoch] = read_progress(store, f"{folder}/ray/{checkpoint_name(epoch)}")["best_epoch"]
        except StoreFailedError:
            raise
        except RefusedError as error:
            damage = str(error)
    if not damage:
        return state, None
    usable = [epoch for epoch in best if best[epoch] in best]
    if not usable:
        raise RefusedError(
            f"{store.url}/{folder}: {damage}, and the run has no older one to continue from; remove "
            f"{store.url}/{folder} to train from the start"
        )
    newest = max(usable)
    kept = [index for index, name in enumerate(_names(state)) if epoch_of(name) in best and epoch_of(name) <= newest]
    results = state["checkpoint_results"]
    mended = {
        **state,
        "checkpoint_results": [results[index] for index in kept],
        "latest_checkpoint_result": next(result for result in results if epoch_of(_name(result)) == newest),
    }
    if "checkpoint_report_indices" in state:
        mended["checkpoint_report_indices"] = [state["checkpoint_report_indices"][index] for index in kept]
    return mended, damage


def _remove_all_but(store: Store, folder: str, names: Collection[str]) -> None:
    """Remove the folders of all other checkpoints."""
    from pyarrow.fs import FileSelector, FileType

    filesystem, path = store.arrow(f"{folder}/ray")
    for entry in filesystem.get_file_info(FileSelector(path, allow_not_found=True)):
        if entry.type == FileType.Directory and entry.base_name.startswith("epoch-") and entry.base_name not in names:
            filesystem.delete_dir(entry.path)


def _names(state: dict[str, Any]) -> list[str]:
    """The checkpoints that Ray knows, in its order."""
    return [_name(result) for result in state.get("checkpoint_results", [])]


def _name(result: dict[str, Any]) -> str:
    return str(result["checkpoint_dir_name"])


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
