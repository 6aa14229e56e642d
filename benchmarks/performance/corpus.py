"""Generated data of published shapes: noise in sequences of log-normal lengths. It says nothing about people."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import FeatureManifest, LengthSummary, SplitEntry, commit_features, feature_folder
from lnln.data.schema import MODALITIES, Modality, Ragged, Split, Utterances
from lnln.data.shards import write_shard
from lnln.data.store import Store
from lnln.data.wordpiece import UNCASED, encode, read_vocabulary

# Padded lengths and widths of CMU-MOSI and CMU-MOSEI as MMSA publishes them, unaligned.
MOSI_PADDED: dict[Modality, int] = {"text": 50, "audio": 375, "vision": 500}
MOSI_DIMS: dict[Modality, int] = {"audio": 5, "vision": 20}
MOSEI_PADDED: dict[Modality, int] = {"text": 50, "audio": 500, "vision": 500}
MOSEI_DIMS: dict[Modality, int] = {"audio": 74, "vision": 35}
# Mean lengths; a log-normal number, cut at 3 and at the padded length, has about these.
MOSI_MEANS: dict[Modality, float] = {"text": 14, "audio": 54, "vision": 64}
MOSEI_MEANS: dict[Modality, float] = {"text": 24, "audio": 220, "vision": 220}
TEXT_DIM = 768
_SIGMA = 0.6
_SHARD_UTTERANCES = 480


def draw_lengths(
    random: np.random.Generator, num: int, means: Mapping[Modality, float], padded: Mapping[Modality, int]
) -> dict[Modality, NDArray[np.int64]]:
    """(num,) steps of each modality."""
    return {
        m: np.clip(
            np.rint(random.lognormal(np.log(means[m]) - _SIGMA**2 / 2, _SIGMA, num)).astype(np.int64), 3, padded[m]
        )
        for m in MODALITIES
    }


def write_mmsa_pickle(path: Path, nums: Mapping[Split, int], *, with_text_array: bool) -> None:
    """A pickle of MMSA's layout and of MOSI's padded shapes; with_text_array: (N, 50, 768) language features too."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        pickle.dump(
            {split: _mmsa_split(random, split, num, with_text_array) for split, num in nums.items()}, file, protocol=4
        )


def write_mosei_sized(store: Store, corpus: str, nums: Mapping[Split, int]) -> FeatureManifest:
    """Features of MOSEI's shapes as shards, made one at a time: no more than one of them is in memory."""
    random = np.random.default_rng(0)
    folder = feature_folder(corpus, "generated")
    splits: dict[Split, SplitEntry] = {}
    summaries = {}
    for split, num in nums.items():
        lengths = draw_lengths(random, num, MOSEI_MEANS, MOSEI_PADDED)
        summaries[split] = {modality: LengthSummary.of(lengths[modality]) for modality in MODALITIES}
        entries = []
        for first in range(0, num, _SHARD_UTTERANCES):
            rows = range(first, min(num, first + _SHARD_UTTERANCES))
            own = {modality: lengths[modality][rows.start : rows.stop] for modality in MODALITIES}
            frames = {m: _frames(random, own[m], dim) for m, dim in MOSEI_DIMS.items()}
            utterances = Utterances(
                utterance_id=[_utterance_id(split, row) for row in rows],
                raw_text=["generated"] * len(rows),
                label=random.uniform(-3, 3, len(rows)).astype(np.float32),
                text=Ragged.from_lengths(random.integers(1000, 30_000, own["text"].sum(), np.int32), own["text"]),
                audio=frames["audio"],
                vision=frames["vision"],
            )
            entries.append(write_shard(store, folder, split, utterances))
        splits[split] = SplitEntry(num, tuple(entries))
    manifest = FeatureManifest(
        corpus=corpus,
        feature_id="generated",
        source={"name": "generated", "sha256": "0" * 64, "num_bytes": 0, "published_as": None, "synthetic": True},
        extractors={modality: {"name": "generated"} for modality in MODALITIES},
        tokenizer=UNCASED,
        dims=MOSEI_DIMS,
        lengths=summaries,
        label_range=(-3.0, 3.0),
        statistics={m: {"mean": [0.0] * dim, "std": [1.0] * dim} for m, dim in MOSEI_DIMS.items()},
        cleaned={m: {"num_nan": 0, "num_infinite": 0} for m in MOSEI_DIMS},
        splits=splits,
    )
    return commit_features(store, manifest)


def _mmsa_split(random: np.random.Generator, split: Split, num: int, with_text_array: bool) -> dict[str, Any]:
    lengths = draw_lengths(random, num, MOSI_MEANS, MOSI_PADDED)
    words = [word for word in read_vocabulary(UNCASED) if word.isascii() and word.isalpha() and len(word) > 3]
    raw_text = [" ".join(random.choice(words, length - 2)) for length in lengths["text"]]  # and [CLS], [SEP]
    text_bert = np.zeros((num, 3, MOSI_PADDED["text"]), np.int64)
    for row, ids in enumerate(encode(raw_text)):
        text_bert[row, 0, : len(ids)], text_bert[row, 1, : len(ids)] = ids, 1
    columns = {
        "id": [_utterance_id(split, row) for row in range(num)],
        "raw_text": raw_text,
        "text_bert": text_bert,
        "regression_labels": random.uniform(-3, 3, num).astype(np.float32),
    }
    for modality, dim in MOSI_DIMS.items():
        columns[modality] = _frames(random, lengths[modality], dim).padded(MOSI_PADDED[modality])
        columns[f"{modality}_lengths"] = lengths[modality].tolist()
    if with_text_array:
        columns["text"] = _frames(random, lengths["text"], TEXT_DIM).padded(MOSI_PADDED["text"])
    return columns


def _frames(random: np.random.Generator, lengths: NDArray[np.int64], dim: int) -> Ragged:
    return Ragged.from_lengths(random.standard_normal((int(lengths.sum()), dim), np.float32), lengths)


def _utterance_id(split: Split, row: int) -> str:
    return f"{split}{row // 10:05d}$_${row % 10}"
