"""What the jobs of an import or an extraction have written before it ended badly, so that the same command does only
what is missing.

    record = Unfinished(store, folder, plan, SHARDS)
    shards = run(plan, client, known=record.whole_results(), on_done=record.add)
    record.remove()                                   # once the manifest is committed

The record is `unfinished.json` beside the manifest that is not there yet. It is a hint: each shard it names is read and
checked before it is believed, which costs a fifth of encoding it again. It is written every few seconds, so a killed
process has lost no more than those, and of two writers at once the later one's stands.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from lnln.config import fingerprint
from lnln.data.manifest import ShardEntry
from lnln.data.shard_files import shard_path
from lnln.data.store import Store, encode_json
from lnln.data.verify import are_intact
from lnln.errors import RefusedError, StoreFailedError
from pipelines.plan import Job, Plan

log = logging.getLogger(__name__)

SAVE_EVERY_SECONDS = 5.0

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class ResultKind(Generic[ResultT]):
    """What the jobs of a plan return: a dataclass that JSON can hold, about one shard at most.

    argument: the job's argument that has the rows it was given. decode: a result from its JSON. shard: the shard that
    a result tells of, if it does. num_rows: how many of a number of rows given must then be in that shard.
    """

    argument: str
    decode: Callable[[Any], ResultT]
    shard: Callable[[ResultT], ShardEntry | None]
    num_rows: Callable[[int, ResultT], int]


# Of jobs that return the shard in which all they were given lies.
SHARDS: ResultKind[ShardEntry] = ResultKind(
    "utterances", lambda value: ShardEntry(**value), lambda shard: shard, lambda num_given, _: num_given
)


class Unfinished(Generic[ResultT]):
    """What the jobs of `plan` have written to `folder`; each has an argument `split`.

    Another plan's record, of shards that were cut otherwise, counts for nothing.
    """

    def __init__(self, store: Store, folder: str, plan: Plan, kind: ResultKind[ResultT]) -> None:
        self._store, self._folder, self._path, self._kind = store, folder, f"{folder}/unfinished.json", kind
        self._num_given = {job.name: len(job.arguments[kind.argument]) for job in plan.jobs}
        self._splits = {job.name: job.arguments["split"] for job in plan.jobs}
        self._plan_id = fingerprint({"jobs": [[name, num] for name, num in self._num_given.items()]})
        self._results: dict[str, ResultT] = {}
        self._saved_at = time.monotonic()

    def whole_results(self) -> dict[str, ResultT]:
        """By the names of their jobs, what an earlier attempt did, its shards being there and whole."""
        claimed = {name: result for name, result in self._read().items() if self._is_plausible(name, result)}
        if claimed:  # young again before it is believed: `lnln gc` removes shards that only an old record names
            self._write(claimed)
        shards = {name: shard for name, result in claimed.items() if (shard := self._kind.shard(result)) is not None}
        checks = dict(zip(shards, are_intact(self._store, list(shards.values())), strict=True))
        self._results = {name: result for name, result in claimed.items() if checks.get(name, True)}
        if self._results:
            log.info("%s: %d of %d shards are there already", self._folder, len(self._results), len(self._num_given))
        return dict(self._results)

    def add(self, job: Job, result: ResultT) -> None:
        """Note what a job has written."""
        self._results[job.name] = result
        if time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the record; where the store fails, that is said elsewhere, and the next attempt has more to do."""
        if self._results:
            with suppress(RefusedError):
                self._write(self._results)
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """For when it has done its duty."""
        self._store.remove(self._path)

    def _write(self, results: dict[str, ResultT]) -> None:
        entries = {name: asdict(result) for name, result in results.items()}  # type: ignore[call-overload]
        self._store.write_json(self._path, signed({"plan": self._plan_id, "shards": entries}))

    def _read(self) -> dict[str, ResultT]:
        try:
            value: Any = self._store.read_json(self._path)
            content = value["content"]
            if signed(content) != value:
                raise RefusedError("its content does not have the SHA-256 it states")
            if content["plan"] != self._plan_id:
                return {}
            return {name: self._kind.decode(result) for name, result in content["shards"].items()}
        except FileNotFoundError:
            return {}
        except StoreFailedError:
            raise
        except (RefusedError, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s/%s is damaged (%s): all shards are written again", self._store.url, self._path, error)
            return {}

    def _is_plausible(self, name: str, result: ResultT) -> bool:
        if name not in self._num_given:
            return False
        shard, expected = self._kind.shard(result), self._kind.num_rows(self._num_given[name], result)
        if shard is None:
            return expected == 0
        path = shard_path(self._folder, self._splits[name], str(shard.sha256))
        return shard.num_rows == expected and shard.path == path


def signed(content: Any) -> dict[str, Any]:
    """`content` with its SHA-256, as a record has it."""
    return {"content": content, "sha256": hashlib.sha256(encode_json(content)).hexdigest()}
