"""The clips of a corpus, heard by a provider of simulated text: each in safety from the others, as in an extraction.

A job is the clips of one feature shard. Each is decoded and heard in a child of the process that works on the job,
which loads the models once; a clip that crashes or hangs it has no simulated text, and the next has a new child.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.schema import Split
from lnln.data.shards import read_lengths
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from pipelines.clips.decode import open_clip
from pipelines.clips.extract_clip import RawClip, plain_reason
from pipelines.clips.extract_rows import Limits
from pipelines.clips.files import WeighedClip, read_clip, weigh
from pipelines.clips.table import read_clip_table
from pipelines.extractors.base import ClipError
from pipelines.extractors.config import ClipConfig
from pipelines.isolate import ChildDiedError, ChildError, ChildTimedOutError, for_this_process
from pipelines.plan import Job, Plan
from pipelines.simulated import SimulatedShard, require_same, write_rows
from pipelines.simulators import Provider
from pipelines.simulators.base import CorpusText, Simulated
from pipelines.steps import step_done

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

# What every utterance is counted in, at 0 where it was not met.
_COUNTS = ("utterances_failed", "utterances_without_audio", "utterances_without_clip", "utterances_without_words")
# Of loading models, whose weights may have to come over a network.
_MAKING_SECONDS = 3600.0


@dataclass(frozen=True)
class HeardClips:
    """The clips of the utterances of a corpus, where there are any, and who hears them.

    by_id: by utterance_id. record, packages, dim: of the provider, `record` with what the clips weigh. ids: of each
    feature shard.
    """

    source: Store
    by_id: Mapping[str, WeighedClip]
    ids: Mapping[ShardEntry, Sequence[str]]
    record: Mapping[str, Any]
    packages: Mapping[str, str]
    dim: int
    limits: Limits


def find_clips(
    store: Store,
    provider: Provider,
    features: FeatureManifest,
    clips: str | None,
    client: Client | None,
    limits: Limits | None = None,
) -> HeardClips:
    """The clips in the folder or s3://bucket/prefix `clips` that are utterances of `features`, which lie in `store`.

    RefusedError where no folder is given, it has no clip of the corpus, or the provider's weights are missing.
    """
    if clips is None:
        raise RefusedError(
            f"provider {provider.name} hears the clips: run `lnln simulate {features.corpus} --provider "
            f"{provider.name} --clips DIR` with the folder that they lie in"
        )
    limits, source = limits or Limits(), Store(clips)
    described = _described(provider, CorpusText.of(features), limits)
    if client is not None:  # the work is elsewhere, and models may be large
        for_this_process().close()
    entries = [shard for entry in features.splits.values() for shard in entry.shards]
    ids = {shard: tuple(read_lengths(store, shard)[0]) for shard in entries}
    wanted = {name for names in ids.values() for name in names}
    table = read_clip_table(source, ClipConfig())
    own = replace(table, rows=tuple(row for row in table.rows if row.utterance_id in wanted))
    weighed, _ = weigh(source, own, client)
    if not weighed:
        raise RefusedError(
            f"none of the {len(table.rows)} clips of {source.url} is one of the {len(wanted)} utterances of corpus "
            f"{features.corpus!r}; give the folder that the corpus was extracted from"
        )
    weights = [[clip.row.utterance_id, [[file.num_bytes, file.sha256] for file in clip.files]] for clip in weighed]
    digest = hashlib.sha256(encode_json(sorted(weights))).hexdigest()
    return HeardClips(
        source=source,
        by_id={clip.row.utterance_id: clip for clip in weighed},
        ids=ids,
        record={**described.record, "clips": {"num_clips": len(weighed), "sha256": digest}},
        packages=described.packages,
        dim=described.dim,
        limits=limits,
    )


def plan_hearing(store: Store, features: FeatureManifest, folder: str, provider: Provider, heard: HeardClips) -> Plan:
    """One job per feature shard, named `<split> <number>`."""
    arguments = {
        "store": store,
        "source": heard.source,
        "folder": folder,
        "provider": provider,
        "record": {key: value for key, value in heard.record.items() if key != "clips"},
        "text": CorpusText.of(features),
        "limits": heard.limits,
    }
    jobs = []
    for split, entry in features.splits.items():
        for number, shard in enumerate(entry.shards):
            names = heard.ids[shard]
            rows = tuple((name, heard.by_id.get(name)) for name in names)
            jobs.append(
                Job(f"{split} {number}", hear_shard, {**arguments, "split": split, "rows": rows}, num_steps=len(rows))
            )
    return Plan(f"simulate {features.corpus}", tuple(jobs))


def hear_shard(
    store: Store,
    source: Store,
    folder: str,
    provider: Provider,
    record: Mapping[str, Any],
    text: CorpusText,
    limits: Limits,
    split: Split,
    rows: Sequence[tuple[str, WeighedClip | None]],
) -> SimulatedShard:
    """Write what the provider makes of the clips of one feature shard. rows: utterance_id and clip, where there is one.

    RefusedError where the provider is another one here, or a clip is not what was weighed.
    """
    described = _described(provider, text, limits)
    require_same(record, described.record)
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    silent, problem = Simulated(np.zeros((0, described.dim), np.float32)), ""
    made: list[Simulated] = []
    for name, clip in rows:
        said = silent
        if clip is None:
            counts["utterances_without_clip"] += 1
        else:
            try:
                said = _heard(provider, text, read_clip(source, clip), limits)
                if not len(said.steps):
                    counts["utterances_without_audio" if said.text is None else "utterances_without_words"] += 1
            except ClipError as error:
                counts["utterances_failed"] += 1
                problem = problem or plain_reason(f"{name}: {error}")
        made.append(said)
        step_done()
    return write_rows(
        store,
        folder,
        split,
        [name for name, _ in rows],
        [said.steps for said in made],
        described.dim,
        raw_text=[said.text for said in made],
        counts=counts,
        problem=problem,
    )


@dataclass(frozen=True)
class _Description:
    record: Mapping[str, Any]
    packages: Mapping[str, str]
    dim: int


def _described(provider: Provider, text: CorpusText, limits: Limits) -> _Description:
    """What the provider is here. RefusedError where weights are missing."""
    try:
        return _run(limits, _MAKING_SECONDS, _describe, provider, text)
    except ChildError as error:
        raise RefusedError(
            f"provider {provider.name} could not be made: {error.reason}; see what was printed above"
        ) from error


def _heard(provider: Provider, text: CorpusText, clip: RawClip, limits: Limits) -> Simulated:
    """ClipError where the clip cannot be used, ends the process that works on it, or takes too long."""
    for is_last in (False, True):
        _described(provider, text, limits)  # so that loading models takes nothing of the clip's time
        try:
            return _run(limits, provider.config.timeout_seconds, _hear, provider, text, clip)
        except ChildTimedOutError as error:
            raise ClipError("audio", f"{error.reason}; timeout_seconds allows another time") from error
        except ChildDiedError as error:
            if is_last:  # and not for want of memory that another process had then
                raise ClipError("audio", error.reason) from error
    raise AssertionError("the last attempt returns or raises")


def _run(limits: Limits, timeout_seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    if limits.is_isolated:
        return for_this_process().call(function, *arguments, timeout_seconds=timeout_seconds)
    return function(*arguments)


# What runs in the child.


@lru_cache(maxsize=1)
def _simulator(provider: Provider, text: CorpusText) -> Any:
    """Made once per process, for as long as no other is asked for: it may fill the memory."""
    return provider.make(text)


def _describe(provider: Provider, text: CorpusText) -> _Description:
    made = _simulator(provider, text)
    return _Description(provider.record(made), provider.packages(), made.dim)


def _hear(provider: Provider, text: CorpusText, clip: RawClip) -> Simulated:
    """By the first file of the clip that has sound."""
    simulator = _simulator(provider, text)
    try:
        for name, data in clip.files:
            with open_clip(data, name, max_seconds=ClipConfig().max_seconds) as decoded:
                if decoded.has_sound:
                    said: Simulated = simulator.simulate(decoded)
                    break
        else:
            said = Simulated(np.zeros((0, simulator.dim), np.float32))
    except (ClipError, RefusedError):
        raise
    except Exception as error:  # as far as is known the clip's fault
        raise ClipError("audio", plain_reason(f"{type(error).__name__}: {error}".removesuffix(": "))) from error
    if not np.isfinite(said.steps).all():
        raise ClipError("audio", "simulated text has values that are NaN or infinite")
    return said
