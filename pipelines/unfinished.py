"""What the jobs of an import have written before it ended badly, so that the same command does only what is missing.

    record = Unfinished(store, folder, plan)
    shards = run(plan, client, known=record.whole_shards(), on_done=record.add)
    record.remove()                                   # once the manifest is committed

The record is `unfinished.json` beside the manifest that is not there yet. It is a hint: each shard it names is read and
checked before it is believed, which costs a fifth of encoding it again. It is written every few seconds, so a killed
process has lost no more than those, and of two writers at once the later one's stands.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from lnln.config import fingerprint
from lnln.data.manifest import ShardEntry
from lnln.data.shard_files import shard_path
from lnln.data.store import Store, encode_json
from lnln.data.verify import are_intact
from lnln.errors import RefusedError, StoreFailedError
from pipelines.plan import Job, Plan

log = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 5.0


class Unfinished:
    """The shards that the jobs of `plan` have written to `folder`.

    A job has the arguments `split` and `utterances`, and returns a ShardEntry. Another plan's record, of shards that
    were cut otherwise, counts for nothing.
    """

    def __init__(self, store: Store, folder: str, plan: Plan) -> None:
        self._store, self._folder, self._path = store, folder, f"{folder}/unfinished.json"
        self._num_rows = {job.name: len(job.arguments["utterances"]) for job in plan.jobs}
        self._splits = {job.name: job.arguments["split"] for job in plan.jobs}
        self._plan_id = fingerprint({"jobs": [[name, num] for name, num in self._num_rows.items()]})
        self._shards: dict[str, ShardEntry] = {}
        self._saved_at = time.monotonic()

    def whole_shards(self) -> dict[str, ShardEntry]:
        """By the names of their jobs, the shards that an earlier attempt wrote, and that are there and whole."""
        claimed = {name: shard for name, shard in self._read().items() if self._is_plausible(name, shard)}
        if claimed:  # young again before it is believed: `lnln gc` removes shards that only an old record names
            self._write(claimed)
        checks = are_intact(self._store, list(claimed.values()))
        self._shards = {name: shard for (name, shard), whole in zip(claimed.items(), checks, strict=True) if whole}
        if self._shards:
            log.info("%s: %d of %d shards are there already", self._folder, len(self._shards), len(self._num_rows))
        return dict(self._shards)

    def add(self, job: Job, shard: ShardEntry) -> None:
        """Note what a job has written."""
        self._shards[job.name] = shard
        if time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the record; where the store fails, that is said elsewhere, and the next attempt has more to do."""
        if self._shards:
            with suppress(RefusedError):
                self._write(self._shards)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """For when it has done its duty."""
        self._store.remove(self._path)

    def _write(self, shards: dict[str, ShardEntry]) -> None:
        entries = {name: asdict(shard) for name, shard in shards.items()}
        self._store.write_json(self._path, signed({"plan": self._plan_id, "shards": entries}))

    def _read(self) -> dict[str, ShardEntry]:
        try:
            value: Any = self._store.read_json(self._path)
            content = value["content"]
            if signed(content) != value:
                raise RefusedError("its content does not have the SHA-256 it states")
            if content["plan"] != self._plan_id:
                return {}
            return {name: ShardEntry(**shard) for name, shard in content["shards"].items()}
        except FileNotFoundError:
            return {}
        except StoreFailedError:
            raise
        except (RefusedError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s/%s is damaged (%s): all shards are written again", self._store.url, self._path, error)
            return {}

    def _is_plausible(self, name: str, shard: ShardEntry) -> bool:
        return (
            name in self._num_rows
            and shard.num_rows == self._num_rows[name]
            and shard.path == shard_path(self._folder, self._splits[name], str(shard.sha256))
        )


def signed(content: Any) -> dict[str, Any]:
    """`content` with its SHA-256, as a record has it."""
    return {"content": content, "sha256": hashlib.sha256(encode_json(content)).hexdigest()}
