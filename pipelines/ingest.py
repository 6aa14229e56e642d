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

from lnln.config import fingerprint
from lnln.data.digest import digest_file
from lnln.data.manifest import FeatureManifest, LengthSummary, check_corpus_name, feature_folder
from lnln.data.mmsa import MmsaCorpus, TextForm, TokenizerName, no_ids, read_mmsa
from lnln.data.sample import make_sample
from lnln.data.schema import MODALITIES, SPLITS, Ragged, Utterances
from lnln.data.shards import write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import bar
from pipelines.commit import (
    commit_recorded,
    refuse_to_replace_real,
    run_recorded,
    split_entries,
    use_again,
    whole_features,
)
from pipelines.frame_statistics import frame_statistics
from pipelines.plan import Job, Plan
from pipelines.unfinished import SHARDS, Unfinished

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

# Raised when the same source would give other features: part of every feature_id.
IMPORT_VERSION = 1
# Bytes of sequences in one shard, uncompressed: large enough for few files, small enough for many workers.
SHARD_BYTES = 48 << 20


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
    there = whole_features(store, corpus, feature_id)
    if text == "ids" and there is not None and there.text_dim:
        raise no_ids(path)
    return _import(store, corpus, feature_id, there, read, client)


def import_sample(store: Store, corpus: str = "sample", client: Client | None = None) -> FeatureManifest:
    """The synthetic sample corpus, made here, under the name `corpus`.

    RefusedError where that name stands for a real corpus: its runs would go on with made-up data.
    """
    check_corpus_name(corpus)
    refuse_to_replace_real(store, corpus)
    source = make_sample()
    feature_id = _feature_id(source.source["sha256"])
    return _import(store, corpus, feature_id, whole_features(store, corpus, feature_id), lambda: source, client)


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
        return use_again(store, there)  # perhaps not the ones in use
    source = read()
    plan = plan_import(store, folder, source)
    record = Unfinished(store, folder, plan, SHARDS)
    shards = run_recorded(plan, client, record)
    splits = split_entries(plan, shards)
    manifest = FeatureManifest(
        corpus=corpus,
        feature_id=feature_id,
        source=source.source,
        extractors=source.extractors,
        tokenizer=source.tokenizer,
        dims=source.dims,
        lengths={
            split: {modality: LengthSummary.of(lengths) for modality, lengths in source.splits[split].lengths().items()}
            for split in splits
        },
        label_range=source.label_range,
        statistics={
            modality: _statistics(source.splits["train"].sequences(modality))
            for modality in MODALITIES
            if modality in source.dims
        },
        cleaned=source.cleaned,
        splits=splits,
    )
    log.info("%s: %d shards written", folder, len(shards))
    return commit_recorded(store, manifest, record)


def _statistics(sequences: Ragged) -> dict[str, list[float]]:
    return frame_statistics(lambda: [sequences.values], sequences.values.shape[1])


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
