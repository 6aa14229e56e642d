"""What imports and extractions share: features that are whole are not made again, and a manifest comes last.

if (there := whole_features(store, corpus, feature_id)) is not None:
    return use_again(store, there)
record = Unfinished(store, folder, plan, SHARDS)
shards = run_recorded(plan, client, record)
return commit_recorded(store, manifest, record)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lnln.data.card import write_card
from lnln.data.manifest import (
    FeatureManifest,
    ShardEntry,
    SplitEntry,
    commit_features,
    feature_folder,
    list_corpora,
    read_features,
)
from lnln.data.quarantine import read_quarantine
from lnln.data.schema import STORED_SPLITS, Split
from lnln.data.shards import iterate_shards
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from pipelines.execute import run
from pipelines.plan import Plan
from pipelines.unfinished import ResultT, Unfinished

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)


def whole_features(store: Store, corpus: str, feature_id: str) -> FeatureManifest | None:
    """The features, if they are there and every file of theirs can be read. If not, their manifest is written over once
    the files are there again, and not removed before: another process may be faster, and its commit be whole.
    """
    path = f"{feature_folder(corpus, feature_id)}/manifest.json"
    if not store.exists(path):
        return None
    try:
        manifest = read_features(store, corpus, feature_id)
        # Decoded, and not only weighed, so that every refusal which asks for them to be made is mended by that.
        for split in manifest.splits:
            for _ in iterate_shards(store, manifest, split):
                pass
        read_quarantine(store, manifest)
    except StoreFailedError:  # which says nothing of the files
        raise
    except RefusedError as error:
        log.warning("%s is damaged (%s): making it again", feature_folder(corpus, feature_id), error)
        return None
    return manifest


def use_again(store: Store, there: FeatureManifest) -> FeatureManifest:
    """Features that are whole, from now on the ones in use for their corpus."""
    log.info("%s is already there", there.folder)
    return write_card(store, commit_features(store, there))


def run_recorded(plan: Plan, client: Client | None, record: Unfinished[ResultT]) -> list[ResultT]:
    """The result of every job, in the plan's order; only those jobs are run that `record` does not know of."""
    try:
        results: list[ResultT] = run(plan, client, known=record.whole_results(), on_done=record.add)
    except BaseException:  # what is done is noted, be it that jobs failed or that the user has had enough
        record.save()
        raise
    return results


def split_entries(plan: Plan, shards: Sequence[ShardEntry | None]) -> dict[Split, SplitEntry]:
    """The splits that have shards, by the argument `split` of the jobs of `plan`, which made `shards`."""
    entries: dict[Split, SplitEntry] = {}
    for split in STORED_SPLITS:
        own = tuple(
            shard
            for job, shard in zip(plan.jobs, shards, strict=True)
            if job.arguments["split"] == split and shard is not None
        )
        if own:
            entries[split] = SplitEntry(sum(shard.num_rows for shard in own), own)
    return entries


def commit_recorded(store: Store, manifest: FeatureManifest, record: Unfinished[ResultT]) -> FeatureManifest:
    """Make the features exist, whose shards `record` knows to be there, describe them, and drop the record."""
    feature_id = commit_features(store, manifest, anew=True).feature_id
    committed = read_features(store, manifest.corpus, feature_id)  # in the order that every later card is written in
    write_card(store, committed)
    record.remove()
    return committed


def refuse_to_replace_real(store: Store, corpus: str) -> None:
    """RefusedError where `corpus` is a real one, and made-up data is about to take its place: its runs would go on
    with that."""
    if corpus in list_corpora(store) and not read_features(store, corpus).source["synthetic"]:
        raise RefusedError(
            f"corpus {corpus!r} of {store.url} is not synthetic; give the sample another name, or import a pickle"
        )
