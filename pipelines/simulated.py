"""What a job of simulating text has done: one shard, whoever simulated it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import ShardEntry
from lnln.data.schema import Ragged, Split
from lnln.data.simulated_shards import SimulatedRows, write_simulated_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.unfinished import ResultKind


@dataclass(frozen=True)
class SimulatedShard:
    """What a job did. lengths: steps of each utterance. counts: what was met, by name. problem: of the first utterance
    that could not be simulated, "" where all could."""

    shard: ShardEntry
    lengths: tuple[int, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


def _decode(value: Any) -> SimulatedShard:
    counts = {str(name): int(number) for name, number in value["counts"].items()}
    lengths = tuple(int(length) for length in value["lengths"])
    return SimulatedShard(ShardEntry(**value["shard"]), lengths, counts, str(value["problem"]))


SIMULATED: ResultKind[SimulatedShard] = ResultKind(
    "rows", _decode, lambda result: result.shard, lambda num_given, _: num_given
)


def write_rows(
    store: Store,
    folder: str,
    split: Split,
    utterance_ids: list[str],
    steps: Sequence[NDArray[np.float32]],
    dim: int,
    *,
    raw_text: list[str | None] | None = None,
    counts: Mapping[str, int] | None = None,
    problem: str = "",
) -> SimulatedShard:
    """Write the (T, dim) steps of each utterance as one shard of `folder`, and say what they are."""
    values = np.concatenate([np.zeros((0, dim), np.float32), *steps])
    rows = SimulatedRows(utterance_ids, Ragged.from_lengths(values, [len(each) for each in steps]), raw_text)
    shard = write_simulated_shard(store, folder, split, rows)
    return SimulatedShard(shard, tuple(rows.steps.lengths.tolist()), dict(counts or {}), problem)


def require_same(asked: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """RefusedError where this process would make other simulated text."""
    for key, value in here.items():
        if asked[key] != value:
            raise RefusedError(
                f"the provider has {key} {value} on this worker, and {asked[key]} where the simulation was begun; "
                "install the same version and bring the same weights to both"
            )
