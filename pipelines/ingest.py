"""Import: an MMSA pickle, or the sample corpus, becomes feature shards and a manifest.

    manifest = import_corpus(Store("./store"), Path("unaligned_50.pkl"), "mosi")

The pickle is read here, its utterances are cut into shards of about equal size, jobs encode and write them, and the
manifest is committed last: until then no reader sees any of it. The same source has the same feature_id and is not
imported twice, unless a shard has been damaged since. After a failure the same import writes what is missing.

Peak memory is the corpus without its padding, once, and about three times SHARD_BYTES for the shard being encoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lnln.config import fingerprint
from lnln.data.card import write_card
from lnln.data.digest import digest_file
from lnln.data.manifest import (
    FeatureManifest,
    LengthSummary,
    ShardEntry,
    SplitEntry,
    check_corpus_name,
    commit_features,
    feature_folder,
    list_corpora,
    read_features,
)
from lnln.data.mmsa import MmsaCorpus, TextForm, TokenizerName, no_ids, read_mmsa
from lnln.data.sample import make_sample
from lnln.data.schema import MODALITIES, SPLITS, Ragged, Split, Utterances
from lnln.data.shards import iterate_shards, write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.progress import bar
from pipelines.execute import run
from pipelines.plan import Job, Plan
from pipelines.unfinished import Unfinished

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Raised when the same source would give other features: part of every feature_id.
IMPORT_VERSION = 1
# Bytes of sequences in one shard, uncompressed: large enough for few files, small enough for many workers.
SHARD_BYTES = 48 << 20
# Frames whose squared deviations are added up before they are added to those of the frames before.
_STATISTICS_BLOCK = 1 << 16
# Values of them that are held in float64 at one time.
_STATISTICS_PIECE = 1 << 19


def import_corpus(
    store: Store,
    path: Path,
    corpus: str,
    client: Client | None = None,
    *,
    text: TextForm | None = None,
    tokenizer: TokenizerName | None = None,
) -> FeatureManifest:
    """The features of the MMSA pickle at `path`, as corpus `corpus` of the store, and from now on the ones in use.

    text: `ids` or `features` (the language features of the array `text`); None takes ids where the file has any. The
    features of either form have a feature_id of their own, since models of the one cannot read the other. tokenizer:
    what made the ids, where the file does not show it; stated, it gives them a feature_id of their own too.

    RefusedError where the pickle or the corpus's name is refused, or shards cannot be written.
    """
    check_corpus_name(corpus)
    if not path.is_file():
        raise RefusedError(f"no MMSA pickle at {path}; give the path of a file such as unaligned_50.pkl")
    _, sha256 = digest_file(path)

    def read() -> MmsaCorpus:
        with bar(f"read {path.name}", 1) as advance:
            source = read_mmsa(path, text, tokenizer)
            advance()
        if source.source["sha256"] != sha256:
            raise RefusedError(f"{path} changed while it was read; import it again once it is whole")
        return source

    feature_id = _feature_id(sha256, text, tokenizer)
    there = _whole_features(store, corpus, feature_id)
    if text == "ids" and there is not None and there.text_dim:
        raise no_ids(path)
    return _import(store, corpus, feature_id, there, read, client)


def import_sample(store: Store, corpus: str = "sample", client: Client | None = None) -> FeatureManifest:
    """The synthetic sample corpus, made here, under the name `corpus`.

    RefusedError where that name stands for a real corpus: its runs would go on with made-up data.
    """
    check_corpus_name(corpus)
    if corpus in list_corpora(store) and not read_features(store, corpus).source["synthetic"]:
        raise RefusedError(
            f"corpus {corpus!r} of {store.url} is not synthetic; give the sample another name, or import a pickle"
        )
    source = make_sample()
    feature_id = _feature_id(source.source["sha256"])
    return _import(store, corpus, feature_id, _whole_features(store, corpus, feature_id), lambda: source, client)


def plan_import(store: Store, folder: str, source: MmsaCorpus) -> Plan:
    """One job per shard, each with its utterances; named `<split> <number>`."""
    jobs = []
    for split in SPLITS:
        utterances = source.splits.get(split)
        if utterances is None or not len(utterances):
            continue
        for number, (first, last) in enumerate(_shard_rows(utterances)):
            arguments = {"store": store, "folder": folder, "split": split, "utterances": utterances.rows(first, last)}
            jobs.append(Job(f"{split} {number}", write_shard, arguments, holds_data=True))
    return Plan(f"import {folder.partition('/')[0]}", tuple(jobs))


def _feature_id(sha256: str, text: TextForm | None = None, tokenizer: TokenizerName | None = None) -> str:
    """Equal for `ids` and None: they are read alike wherever `ids` is not refused."""
    form = {"text": text} if text == "features" else {}
    stated = {} if tokenizer is None else {"tokenizer": tokenizer}
    return fingerprint({"source": sha256, "import": IMPORT_VERSION, **form, **stated})


def _import(
    store: Store,
    corpus: str,
    feature_id: str,
    there: FeatureManifest | None,
    read: Callable[[], MmsaCorpus],
    client: Client | None,
) -> FeatureManifest:
    """there: the features as they were found, None where they have to be made of what `read` returns."""
    folder = feature_folder(corpus, feature_id)
    if there is not None:
        log.info("%s is already there", folder)
        return write_card(store, commit_features(store, there))  # perhaps not the ones in use
    source = read()
    plan = plan_import(store, folder, source)
    record = Unfinished(store, folder, plan)
    try:
        shards: list[ShardEntry] = run(plan, client, known=record.whole_shards(), on_done=record.add)
    except BaseException:  # what is done is noted, be it that jobs failed or that the user has had enough
        record.save()
        raise
    splits = {split: _split_entry(plan, shards, split) for split in SPLITS}
    manifest = FeatureManifest(
        corpus=corpus,
        feature_id=feature_id,
        source=source.source,
        extractors=source.extractors,
        tokenizer=source.tokenizer,
        dims=source.dims,
        lengths={
            split: {modality: LengthSummary.of(lengths) for modality, lengths in source.splits[split].lengths().items()}
            for split, entry in splits.items()
            if entry.shards
        },
        label_range=source.label_range,
        statistics={
            modality: _statistics(source.splits["train"].sequences(modality))
            for modality in MODALITIES
            if modality in source.dims
        },
        cleaned=source.cleaned,
        splits={split: entry for split, entry in splits.items() if entry.shards},
    )
    log.info("%s: %d shards written", folder, len(shards))
    committed = write_card(store, commit_features(store, manifest, anew=True))
    record.remove()
    return committed


def _whole_features(store: Store, corpus: str, feature_id: str) -> FeatureManifest | None:
    """The features, if they are there and every shard can be read. If not, their manifest is written over once the
    shards are there again, and not removed before: another process may be faster, and its commit be whole.
    """
    path = f"{feature_folder(corpus, feature_id)}/manifest.json"
    if not store.exists(path):
        return None
    try:
        manifest = read_features(store, corpus, feature_id)
        # Decoded, and not only weighed, so that every refusal which asks for an import is mended by one.
        for split in manifest.splits:
            for _ in iterate_shards(store, manifest, split):
                pass
    except StoreFailedError:  # which says nothing of the shards
        raise
    except RefusedError as error:
        log.warning("%s is damaged (%s): importing it again", feature_folder(corpus, feature_id), error)
        return None
    return manifest


def _split_entry(plan: Plan, shards: list[ShardEntry], split: Split) -> SplitEntry:
    own = tuple(shard for job, shard in zip(plan.jobs, shards, strict=True) if job.arguments["split"] == split)
    return SplitEntry(sum(shard.num_rows for shard in own), own)


def _shard_rows(utterances: Utterances) -> list[tuple[int, int]]:
    """Runs of rows [first, last) of about equal bytes, none far above SHARD_BYTES unless one utterance is."""
    num_bytes = np.zeros(len(utterances), np.int64)
    for modality in MODALITIES:
        sequences = utterances.sequences(modality)
        num_bytes += sequences.lengths * int(sequences.values.itemsize * np.prod(sequences.values.shape[1:], dtype=int))
    ends = np.cumsum(num_bytes)
    num_shards = max(1, -(-int(ends[-1]) // SHARD_BYTES))
    # A row belongs to the shard in which its middle byte falls.
    shard = (ends - num_bytes // 2) * num_shards // (int(ends[-1]) + 1)
    bounds = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(utterances)]
    return list(pairwise(bounds))


def _statistics(sequences: Ragged) -> dict[str, list[float]]:
    """Mean and standard deviation of each dimension over all frames; zeros where there are none.

    Nine significant digits, what float32 can tell apart: so the manifest does not depend on how a sum is rounded.
    """
    values = sequences.values
    mean = np.zeros(values.shape[1], np.float64)
    variance = np.zeros(values.shape[1], np.float64)
    if len(values):
        mean = values.mean(axis=0, dtype=np.float64)
        for begin in range(0, len(values), _STATISTICS_BLOCK):
            variance += _squared_deviations(values[begin : begin + _STATISTICS_BLOCK], mean)
        variance /= len(values)
    return {"mean": _rounded(mean), "std": _rounded(np.sqrt(variance))}


def _squared_deviations(values: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """(D,) sums over the frames, to the last bit `np.square(values - mean).sum(axis=0)`, a piece at a time."""
    num_frames = max(1, _STATISTICS_PIECE // len(mean))
    total: NDArray[np.float64] | None = None
    for begin in range(0, len(values), num_frames):
        squares = np.square(values[begin : begin + num_frames] - mean)
        if total is not None:
            squares[0] += total  # NumPy adds up frame after frame, so this goes on where the piece before ended
        total = squares.sum(axis=0)
    assert total is not None
    return total


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.9g}") for value in values]
