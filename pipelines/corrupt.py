"""Views: the masks of every corrupted copy that evaluation and training ask for, beside the feature shards.

    views = corrupt(Store("./store"), "mosi", load_config("mosi"))

A job takes one feature shard and a group of views; it reads utterance ids and lengths, and writes a view shard for
each. A view's manifest is committed as soon as its last shard is there; views that are there already are skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lnln.config import Config
from lnln.corruption import ViewSpec, evaluation_views, make_many_masks, training_views
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
from lnln.data.schema import Modality, Split
from lnln.data.shards import read_lengths
from lnln.data.store import Store
from lnln.data.verify import verify_view
from lnln.data.view_shards import write_view_shard
from lnln.errors import RefusedError
from pipelines.execute import run
from pipelines.plan import Job, Plan

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Views that one job makes: reading a feature shard is paid once for all of them.
VIEWS_PER_JOB = 10
_EVALUATION_SPLITS: tuple[Split, ...] = ("valid", "test")
_TRAINING_SPLITS: tuple[Split, ...] = ("train",)


@dataclass(frozen=True)
class MaskedShard:
    """What one job wrote for one view: the shard, and per modality how many steps are erased, of how many."""

    view_id: str
    split: Split
    shard: ShardEntry
    erased: dict[Modality, tuple[int, int]]


def corrupt(
    store: Store, corpus: str, config: Config, client: Client | None = None, *, progress: bool = True
) -> list[ViewManifest]:
    """The evaluation views (splits valid and test) and the stored training draws (split train) that `config` names.

    RefusedError where the corpus is unknown or a feature shard is damaged.
    """
    features = read_features(store, corpus)
    specs = view_specs(config)
    views = {spec.view_id: _whole_view(store, features, spec) for spec in specs}
    missing = [spec for spec in specs if views[spec.view_id] is None]
    plan = plan_views(store, features, missing)
    collector = _Collector(store, features, missing)
    run(plan, client, on_done=collector.add, progress=progress)
    log.info("%s: %d views made, %d already there", corpus, len(missing), len(specs) - len(missing))
    made = {view.view_id: view for view in collector.committed}
    return [made.get(spec.view_id) or _there(views[spec.view_id]) for spec in specs]


def view_specs(config: Config) -> list[ViewSpec]:
    """Every view that `config` names once: evaluation and validation rates, then the training draws to be stored."""
    rates = dict.fromkeys((*config.corruption.rates, *config.corruption.validation_rates))
    num_draws = min(config.train.epochs, config.corruption.num_stored_draws)
    return [
        *evaluation_views(config.corruption, sorted(rates)),
        *training_views(config.corruption, config.train.seed, num_draws),
    ]


def view_splits(features: FeatureManifest, spec: ViewSpec) -> list[Split]:
    """The splits of `features` that a view covers: train by training draws, valid and test by evaluation views."""
    splits = _TRAINING_SPLITS if spec.is_training else _EVALUATION_SPLITS
    return [split for split in splits if split in features.splits]


def plan_views(store: Store, features: FeatureManifest, specs: Sequence[ViewSpec]) -> Plan:
    """One job per feature shard and group of views, named `<split> <number>, views <first>-<last>`."""
    jobs = []
    for split, entry in features.splits.items():
        chosen = [spec for spec in specs if split in view_splits(features, spec)]
        for number, shard in enumerate(entry.shards):
            for first in range(0, len(chosen), VIEWS_PER_JOB):
                group = chosen[first : first + VIEWS_PER_JOB]
                name = f"{split} {number}, views {first}-{first + len(group) - 1}"
                arguments = {"store": store, "features": features.folder, "split": split, "shard": shard, "specs": group}
                jobs.append(Job(name, mask_shard, arguments))
    return Plan(f"corrupt {features.corpus}", tuple(jobs))
