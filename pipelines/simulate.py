"""Simulated text: a column beside the features, for models that have to do without a transcript.

    simulation = simulate(Store("./store"), "mosi", load_provider())                      # learned from the corpus
    simulation = simulate(store, "mine", load_provider("recognition"), clips="./clips")   # heard in its clips

One job per feature shard writes one shard of simulated text. A provider that learns is taught first: jobs write what
the text encoder says of each shard, and one job fits the map to that. The manifest comes last. What is there and whole
is not made again; after a failure the same command makes what is missing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lnln.config import fingerprint
from lnln.data.manifest import FeatureManifest, LengthSummary, ShardEntry, read_features
from lnln.data.schema import Modality, Split
from lnln.data.shards import read_shard
from lnln.data.simulated_text import (
    Simulation,
    SimulatorFile,
    commit_simulation,
    damaged_simulation_files,
    read_simulation,
    simulation_folder,
)
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from pipelines.commit import run_recorded, split_entries
from pipelines.execute import run
from pipelines.hear import HeardClips, find_clips, plan_hearing
from pipelines.plan import Job, Plan
from pipelines.simulated import SIMULATED, SimulatedShard, require_same, write_rows
from pipelines.simulators import Provider
from pipelines.simulators.base import CorpusText, one_thread
from pipelines.simulators.regressor import Learned, ShardPairs, learn
from pipelines.unfinished import Unfinished

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Splits that a map is learned from, and that its penalty is chosen by.
_TAUGHT: tuple[Split, ...] = ("train", "valid")


@dataclass(frozen=True)
class Outcome:
    """simulation: the one in use from now on. was_there: it was whole before, and nothing was made."""

    simulation: Simulation
    was_there: bool


def simulate(
    store: Store, corpus: str, provider: Provider, client: Client | None = None, *, clips: str | None = None
) -> Outcome:
    """The simulated text of the features in use, by `provider`; from now on the one in use.

    clips: for a provider that hears clips, the folder or s3://bucket/prefix that they lie in, as `lnln extract` takes.
    RefusedError where the corpus is unknown or has nothing to learn from, weights or clips are missing, or jobs fail.
    """
    features = read_features(store, corpus)
    heard: HeardClips | None = None
    if provider.hears_clips:
        heard = find_clips(store, provider, features, clips, client)
        record, packages, dim = heard.record, heard.packages, heard.dim
    else:
        _refuse_what_learns_from_nothing(provider, features, clips)
        teacher = _teacher(provider, CorpusText.of(features))
        record, packages, dim = provider.record(teacher), provider.packages(), teacher.dim
    simulation_id = fingerprint({"feature_id": features.feature_id, "provider": record})
    if (there := _whole(store, features, simulation_id)) is not None:
        log.info("%s is already there", there.folder)
        return Outcome(commit_simulation(store, there), was_there=True)

    blank = Simulation(
        corpus=corpus,
        feature_id=features.feature_id,
        simulation_id=simulation_id,
        provider={**record, "packages": packages},
        dim=dim,
        lengths={},
        splits={},
        files={},
    )
    try:
        return Outcome(_make(store, features, provider, record, blank, heard, client), was_there=False)
    except RefusedError:
        # Of two that make the same, the faster one has cleared away what the other was going by.
        if (there := _whole(store, features, simulation_id)) is not None:
            return Outcome(commit_simulation(store, there), was_there=True)
        raise


def _make(
    store: Store,
    features: FeatureManifest,
    provider: Provider,
    record: Mapping[str, Any],
    blank: Simulation,
    heard: HeardClips | None,
    client: Client | None,
) -> Simulation:
    """blank: the simulation as far as it is known. heard: where the provider hears clips."""
    taught: list[ShardEntry] = []
    if heard is None:
        blank, taught = _taught(store, features, provider, record, blank, client)
        plan = plan_regression(store, features, blank)
    else:
        plan = plan_hearing(store, features, blank.folder, provider, heard)
    progress = Unfinished(store, blank.folder, plan, SIMULATED)
    results = run_recorded(plan, client, progress)
    simulation = commit_simulation(store, _filled(blank, plan, results), anew=True)
    progress.remove()
    for path in (f"{blank.folder}/targets/unfinished.json", *(target.path for target in taught)):
        store.remove(path)  # it has done its duty
    return simulation


def plan_targets(
    store: Store, features: FeatureManifest, folder: str, provider: Provider, record: Mapping[str, Any]
) -> Plan:
    """One job per shard that is learned from, named `<split> <number>`."""
    arguments = {
        "store": store,
        "folder": f"{folder}/targets",
        "provider": provider,
        "record": record,
        "text": CorpusText.of(features),
        "dims": features.dims,
    }
    jobs = [
        Job(
            f"{split} {number}",
            teach_shard,
            {**arguments, "split": split, "shard": shard, "rows": range(shard.num_rows)},
        )
        for split in _TAUGHT
        if split in features.splits
        for number, shard in enumerate(features.splits[split].shards)
    ]
    return Plan(f"read the text of {features.corpus}", tuple(jobs))


def plan_regression(store: Store, features: FeatureManifest, simulation: Simulation) -> Plan:
    """One job per feature shard, named `<split> <number>`. simulation: with the files of what was learned."""
    arguments = {"store": store, "folder": simulation.folder, "files": simulation.files, "dims": features.dims}
    jobs = [
        Job(
            f"{split} {number}",
            regress_shard,
            {**arguments, "split": split, "shard": shard, "rows": range(shard.num_rows)},
        )
        for split, entry in features.splits.items()
        for number, shard in enumerate(entry.shards)
    ]
    return Plan(f"simulate {features.corpus}", tuple(jobs))


def teach_shard(
    store: Store,
    folder: str,
    provider: Provider,
    record: Mapping[str, Any],
    split: Split,
    shard: ShardEntry,
    rows: range,
    text: CorpusText,
    dims: Mapping[Modality, int],
) -> SimulatedShard:
    """Write what the simulator should say of one feature shard. rows: of the shard."""
    with one_thread():
        teacher = _teacher(provider, text)
        require_same(record, provider.record(teacher))
        utterances = read_shard(store, shard, dims)
        steps = teacher.targets(utterances)
    return write_rows(store, folder, split, utterances.utterance_id, steps, teacher.dim)


def fit(
    store: Store, features: FeatureManifest, folder: str, provider: Provider, shards: ShardPairs, dim: int
) -> dict[str, Any]:
    """`learn`, so that its sums are the same on any number of cores."""
    with one_thread():
        return learn(store, features, folder, provider.config, shards, dim)


def regress_shard(
    store: Store,
    folder: str,
    files: Mapping[str, SimulatorFile],
    split: Split,
    shard: ShardEntry,
    rows: range,
    dims: Mapping[Modality, int],
) -> SimulatedShard:
    """Write the simulated text of one feature shard. rows: of the shard."""
    with one_thread():
        learned = Learned.read(store, files)
        utterances = read_shard(store, shard, dims)
        steps = [
            learned.simulate(name, split, utterances.audio[row]) for row, name in enumerate(utterances.utterance_id)
        ]
    counts = {"utterances_without_audio": int((utterances.audio.lengths == 0).sum())}
    return write_rows(store, folder, split, utterances.utterance_id, steps, learned.final.dim, counts=counts)


@lru_cache(maxsize=1)
def _teacher(provider: Provider, text: CorpusText) -> Any:
    """Made once per process, for as long as no other is asked for."""
    return provider.make(text)


def _taught(
    store: Store,
    features: FeatureManifest,
    provider: Provider,
    record: Mapping[str, Any],
    blank: Simulation,
    client: Client | None,
) -> tuple[Simulation, list[ShardEntry]]:
    """`blank` with the files and the quality of what was learned, and what it was learned from."""
    plan = plan_targets(store, features, blank.folder, provider, record)
    progress = Unfinished(store, f"{blank.folder}/targets", plan, SIMULATED)
    results = run_recorded(plan, client, progress)
    progress.save()  # the rest may be killed too
    pairs: dict[Split, list[tuple[ShardEntry, ShardEntry]]] = {}
    for job, result in zip(plan.jobs, results, strict=True):
        pairs.setdefault(job.arguments["split"], []).append((job.arguments["shard"], result.shard))
    arguments = {
        "store": store,
        "features": features,
        "folder": blank.folder,
        "provider": provider,
        "shards": pairs,
        "dim": blank.dim,
    }
    [learned] = run(Plan(f"learn from {features.corpus}", (Job("map", fit, arguments),)), client)
    return replace(blank, files=learned["files"], quality=learned["quality"]), [result.shard for result in results]


def _filled(blank: Simulation, plan: Plan, results: Sequence[SimulatedShard]) -> Simulation:
    splits = split_entries(plan, [result.shard for result in results])
    lengths: dict[Split, list[int]] = {split: [] for split in splits}
    counts: Counter[str] = Counter()
    for job, result in zip(plan.jobs, results, strict=True):
        lengths[job.arguments["split"]] += result.lengths
        counts.update({"utterances": len(result.lengths), **result.counts})
    failed = counts.get("utterances_failed", 0)
    if failed:
        first = next(result.problem for result in results if result.problem)
        log.warning("%d utterances could not be simulated and have no steps, the first: %s", failed, first)
    return replace(
        blank,
        splits=splits,
        lengths={split: LengthSummary.of(np.array(own)) for split, own in lengths.items()},
        counts=dict(sorted(counts.items())),
    )


def _refuse_what_learns_from_nothing(provider: Provider, features: FeatureManifest, clips: str | None) -> None:
    if clips is not None:
        raise RefusedError(f"provider {provider.name} learns from features and hears no clips, got --clips {clips}")
    if "train" not in features.splits:
        raise RefusedError(
            f"corpus {features.corpus!r} has no split 'train' to learn from, it has {', '.join(features.splits)}; say "
            "in the column `mode` of its label.csv which clips are for training, and extract it again"
        )


def _whole(store: Store, features: FeatureManifest, simulation_id: str) -> Simulation | None:
    """The simulation, if it is there and every file of it is whole."""
    corpus = features.corpus
    folder = simulation_folder(corpus, features.feature_id, simulation_id)
    if not store.exists(f"{folder}/manifest.json"):
        return None
    try:
        there = read_simulation(store, corpus, features.feature_id, simulation_id)
        damaged = damaged_simulation_files(store, there)
    except StoreFailedError:  # which says nothing of the files
        raise
    except RefusedError as error:
        there, damaged = None, [str(error)]
    if damaged or there is None:
        log.warning("simulated text %s is damaged (%s): making it again", folder, damaged[0])
        return None
    return there
