"""Views: the masks of every corrupted copy that evaluation and training ask for, beside the feature shards.

    views = corrupt(Store("./store"), "mosi", load_config("mosi"))

A job takes one feature shard and a group of views; it reads utterance ids and lengths, and writes a view shard for
each. A view's manifest is committed as soon as its last shard is there; views that are there already are skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnln.config import Config
from lnln.corruption import ViewSpec, evaluation_views, make_many_masks, rate_by_modality, training_views
from lnln.data.manifest import (
    FeatureManifest,
    ShardEntry,
    SplitEntry,
    ViewManifest,
    commit_view,
    read_features,
    read_view,
    view_folder,
)
from lnln.data.schema import MODALITIES, Modality, Split
from lnln.data.shards import read_lengths
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from lnln.data.view_shards import write_view_shard
from lnln.errors import RefusedError, StoreFailedError
from pipelines.execute import run
from pipelines.plan import Job, Plan

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Views that one job makes: reading a feature shard, whose checksum is over all of it, is paid once for all of them.
VIEWS_PER_JOB = 32


@dataclass(frozen=True)
class MaskedShard:
    """One shard of a view. erased: per modality, steps erased and steps that could have been."""

    shard: ShardEntry
    erased: dict[Modality, tuple[int, int]]


def corrupt(store: Store, corpus: str, config: Config, client: Client | None = None) -> list[ViewManifest]:
    """The evaluation views (splits valid and test) and the stored training draws (split train) that `config` names.

    RefusedError where the corpus is unknown, or jobs fail: the views that they leave incomplete do not exist, or
    are as damaged as they were found.
    """
    features = read_features(store, corpus)
    specs = [spec for spec in view_specs(config) if view_splits(features, spec)]
    views = {spec: _whole_view(store, features, spec) for spec in specs}
    missing = [spec for spec, view in views.items() if view is None]
    parts: dict[ViewSpec, dict[ShardEntry, MaskedShard]] = {spec: {} for spec in missing}

    def collect(job: Job, masked: list[MaskedShard]) -> None:
        for spec, part in zip(job.arguments["specs"], masked, strict=True):
            parts[spec][job.arguments["shard"]] = part
            if len(parts[spec]) == sum(len(features.splits[split].shards) for split in view_splits(features, spec)):
                views[spec] = commit_view(store, _view_manifest(features, spec, parts.pop(spec)), anew=True)

    run(plan_views(store, features, missing), client, on_done=collect)
    log.info("%s: %d views made, %d there already", corpus, len(missing), len(specs) - len(missing))
    return [view for view in views.values() if view is not None]


def view_specs(config: Config) -> list[ViewSpec]:
    """Every view that `config` names, once: evaluation and validation rates, then the training draws to be stored."""
    rates = sorted({*config.corruption.rates, *config.corruption.validation_rates}, key=rate_by_modality)
    num_draws = min(config.train.epochs, config.corruption.num_stored_draws)
    views = [
        *evaluation_views(config.corruption, rates),
        *training_views(config.corruption, config.train.seed, num_draws),
    ]
    return list(dict.fromkeys(views))


def view_splits(features: FeatureManifest, spec: ViewSpec) -> list[Split]:
    """The splits that a view covers: train if it is a training draw, else valid and test."""
    covered: tuple[Split, ...] = ("train",) if spec.is_training else ("valid", "test")
    return [split for split in covered if split in features.splits]


def plan_views(store: Store, features: FeatureManifest, specs: Sequence[ViewSpec]) -> Plan:
    """One job per feature shard and group of views, named `<split> <number>, views <first>-<last>`."""
    jobs = []
    for split, entry in features.splits.items():
        chosen = [spec for spec in specs if split in view_splits(features, spec)]
        groups = [chosen[first : first + VIEWS_PER_JOB] for first in range(0, len(chosen), VIEWS_PER_JOB)]
        for number, shard in enumerate(entry.shards):
            for index, group in enumerate(groups):
                first = index * VIEWS_PER_JOB
                arguments = {
                    "store": store,
                    "split": split,
                    "shard": shard,
                    "specs": group,
                    "keep_ends": not features.text_dim,
                    "folders": [view_folder(features.corpus, features.feature_id, spec.view_id) for spec in group],
                }
                name = f"{split} {number}, views {first} to {first + len(group) - 1}"
                jobs.append(Job(name, mask_shard, arguments))
    return Plan(f"corrupt {features.corpus}", tuple(jobs))


def mask_shard(
    store: Store, split: Split, shard: ShardEntry, specs: Sequence[ViewSpec], keep_ends: bool, folders: Sequence[str]
) -> list[MaskedShard]:
    """Write the masks of one feature shard for each of `specs` to the view folder beside it in `folders`.

    keep_ends: as `make_many_masks`.
    """
    utterance_ids, lengths = read_lengths(store, shard)
    made = make_many_masks(specs, utterance_ids, lengths, keep_ends=keep_ends)
    return [
        MaskedShard(write_view_shard(store, folder, split, utterance_ids, masks), masks.count_erased())
        for folder, masks in zip(folders, made, strict=True)
    ]


def _view_manifest(features: FeatureManifest, spec: ViewSpec, parts: dict[ShardEntry, MaskedShard]) -> ViewManifest:
    by_split = {
        split: [parts[shard] for shard in features.splits[split].shards] for split in view_splits(features, spec)
    }
    return ViewManifest(
        corpus=features.corpus,
        feature_id=features.feature_id,
        view_id=spec.view_id,
        spec=spec.to_dict(),
        realised_rates={
            split: {modality: _realised_rate(masked, modality) for modality in MODALITIES}
            for split, masked in by_split.items()
        },
        splits={
            split: SplitEntry(features.splits[split].num_utterances, tuple(part.shard for part in masked))
            for split, masked in by_split.items()
        },
    )


def _realised_rate(masked: Sequence[MaskedShard], modality: Modality) -> float:
    """Share of the steps that were erased, of those that could be; 0 where there were none."""
    erased, erasable = (sum(part.erased[modality][index] for part in masked) for index in (0, 1))
    return round(erased / erasable, 9) if erasable else 0.0


def _whole_view(store: Store, features: FeatureManifest, spec: ViewSpec) -> ViewManifest | None:
    """The view, if it is there and every shard is whole. If not, its manifest is written over once it is made again."""
    folder = view_folder(features.corpus, features.feature_id, spec.view_id)
    try:
        view = read_view(store, features.corpus, features.feature_id, spec.view_id)
        if view is None:
            return None
        damaged = damaged_shards(store, view)
    except StoreFailedError:  # which says nothing of the masks
        raise
    except RefusedError as error:
        view, damaged = None, [str(error)]
    if not damaged:
        return view
    log.warning("view %s is damaged (%s): making it again", folder, damaged[0])
    return None
