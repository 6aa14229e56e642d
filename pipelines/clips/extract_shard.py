"""The job of an extraction: clips of one shard are read, made into utterances, and written.

A job done twice, here or elsewhere, writes the same bytes and returns the same record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnln.data.manifest import ShardEntry
from lnln.data.quarantine import Quarantined
from lnln.data.read_ahead import read_ahead
from lnln.data.schema import Modality, Split
from lnln.data.shards import write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.clips.extract_rows import CLEANED, FRAMED, Description, Limits, describe, extract_rows
from pipelines.clips.files import WeighedClip, read_clip
from pipelines.extractors.config import ExtractConfig
from pipelines.unfinished import ResultKind


@dataclass(frozen=True)
class ExtractedShard:
    """What a job did. shard: None where no clip could be used. counts: over its clips. cleaned: by modality, `num_nan`
    and `num_infinite`. quarantine: the clips that could not be used."""

    shard: ShardEntry | None
    counts: Mapping[str, int]
    cleaned: Mapping[Modality, Mapping[str, int]]
    quarantine: tuple[Quarantined, ...]


def _decode(value: Any) -> ExtractedShard:
    shard = None if value["shard"] is None else ShardEntry(**value["shard"])
    counts = {str(name): int(number) for name, number in value["counts"].items()}
    cleaned = {modality: {kind: int(value["cleaned"][modality][kind]) for kind in CLEANED} for modality in FRAMED}
    return ExtractedShard(shard, counts, cleaned, tuple(Quarantined(**row) for row in value["quarantine"]))


EXTRACTED: ResultKind[ExtractedShard] = ResultKind(
    "clips", _decode, lambda result: result.shard, lambda num_given, result: num_given - len(result.quarantine)
)


def extract_shard(
    store: Store,
    source: Store,
    folder: str,
    split: Split,
    clips: Sequence[WeighedClip],
    config: ExtractConfig,
    made_by: Description,
    labelled: Sequence[Modality],
    limits: Limits,
) -> ExtractedShard:
    """Write the utterances of `clips` as one shard of `folder`; no shard where none can be used.

    made_by: what `describe` said where the extraction was begun. RefusedError where it says something else here, or a
    clip is not what was weighed.
    """
    _require_same(made_by, describe(config, limits))
    raw = read_ahead(lambda clip: read_clip(source, clip), clips)
    made = extract_rows(config, raw, limits, labelled=labelled)
    counts: Counter[str] = Counter()
    for of_clip in made.counts.values():
        counts.update(of_clip)
    shard = None if made.utterances is None else write_shard(store, folder, split, made.utterances, made_by.records)
    return ExtractedShard(shard, dict(counts), made.cleaned, made.quarantine)


def _require_same(asked: Description, here: Description) -> None:
    """RefusedError where this process would make other features."""
    if asked.decoder != here.decoder:
        raise RefusedError(
            f"clips are decoded by {here.decoder} on this worker, and by {asked.decoder} where the extraction was "
            "begun; install the same versions on both"
        )
    for modality, record in asked.records.items():
        found = here.records[modality]
        for key in record:
            if record[key] != found.get(key):
                raise RefusedError(
                    f"the extractor of {modality} has {key} {_short(found.get(key))} on this worker, and "
                    f"{_short(record[key])} where the extraction was begun; install the same versions on both"
                )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
