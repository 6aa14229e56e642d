"""Utterances and manifests for the tests of this folder: any lengths, zero among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import FeatureManifest, LengthSummary, ShardEntry, SplitEntry
from lnln.data.schema import MODALITIES, SPLITS, Modality, Ragged, Utterances
from lnln.data.wordpiece import UNCASED

AUDIO_DIM, VISION_DIM = 5, 3


def make_utterances(
    num: int = 12,
    seed: int = 0,
    *,
    audio: Sequence[int] | None = None,
    modality_labels: bool = False,
    text_dim: int = 0,
) -> Utterances:
    """Random utterances; text_dim: text is features of this width."""
    random = np.random.default_rng(seed)

    def sequences(lengths: Sequence[int] | NDArray[Any], *item: int) -> Ragged:
        shape = (int(np.sum(lengths)), *item)
        return Ragged.from_lengths(random.normal(size=shape).astype(np.float32), lengths)

    text_lengths = random.integers(0, 9, num)
    text_ids = Ragged.from_lengths(random.integers(0, 30522, text_lengths.sum()).astype(np.int32), text_lengths)
    kept: tuple[Modality, ...] = MODALITIES if modality_labels else ()
    return Utterances(
        utterance_id=[f"v{seed}$_${i}" for i in range(num)],
        raw_text=[None if i % 4 == 3 else f"wörd {i}\n" for i in range(num)],
        label=np.where(random.random(num) < 0.2, np.nan, random.uniform(-3, 3, num)).astype(np.float32),
        text=sequences(text_lengths, text_dim) if text_dim else text_ids,
        audio=sequences(random.integers(0, 20, num) if audio is None else audio, AUDIO_DIM),
        vision=sequences(random.integers(0, 10, num) * (random.random(num) < 0.5), VISION_DIM),
        modality_labels={m: random.uniform(-1, 1, num).astype(np.float32) for m in kept},
    )


def assert_same(left: Utterances, right: Utterances) -> None:
    assert left.utterance_id == right.utterance_id and left.raw_text == right.raw_text
    np.testing.assert_array_equal(left.label, right.label)
    assert left.modality_labels.keys() == right.modality_labels.keys()
    for modality, labels in left.modality_labels.items():
        np.testing.assert_array_equal(labels, right.modality_labels[modality])
    for modality in MODALITIES:
        one, other = left.sequences(modality), right.sequences(modality)
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.offsets, other.offsets)
        assert one.values.dtype == other.values.dtype and one.values.shape == other.values.shape


def make_manifest(shards: Sequence[ShardEntry] = (), corpus: str = "c", feature_id: str = "f1") -> FeatureManifest:
    """A manifest whose splits all have the same shards."""
    num = sum(shard.num_rows for shard in shards)
    lengths = LengthSummary.of(np.array([0, 3, 8]))
    return FeatureManifest(
        corpus=corpus,
        feature_id=feature_id,
        source={"name": "x.pkl", "sha256": "0" * 64, "num_bytes": 1, "published_as": None, "synthetic": False},
        extractors={modality: {"name": "x"} for modality in MODALITIES},
        tokenizer=UNCASED,
        dims={"audio": AUDIO_DIM, "vision": VISION_DIM},
        lengths={split: dict.fromkeys(MODALITIES, lengths) for split in SPLITS},
        label_range=(-3.0, 3.0),
        statistics={"audio": {"mean": [0.1] * AUDIO_DIM, "std": [1.0] * AUDIO_DIM}, "vision": {"mean": [], "std": []}},
        cleaned={"audio": {"num_nan": 1, "num_infinite": 2}, "vision": {"num_nan": 0, "num_infinite": 0}},
        splits={split: SplitEntry(num, tuple(shards)) for split in SPLITS},
    )
