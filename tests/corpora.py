"""Small MMSA pickles, made by the tests: any sizes, any lengths, and a signal that a model can find."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.schema import SPLITS

CLS, SEP, UNKNOWN = 101, 102, 100
# Word ids of bert-base-uncased: the sign of the label decides which of the two lists a word comes from.
GOOD, BAD, PLAIN = (2204, 2307, 6919, 10392), (2919, 9643, 6659, 8235), (1996, 2143, 2001, 2023, 3185)


def mmsa_split(num: int, seed: int, *, text: int = 10, audio: int = 7, vision: int = 5) -> dict[str, Any]:
    """`num` utterances in MMSA's layout, padded to the given lengths; every modality has one utterance without it."""
    random = np.random.default_rng(seed)
    label = np.round(random.uniform(-3, 3, num) / 0.2) * 0.2
    text_bert = np.zeros((num, 3, text), np.int64)
    audio_lengths = random.integers(1, audio + 1, num)
    vision_lengths = random.integers(1, vision + 1, num)
    audio_lengths[0], vision_lengths[-1] = 0, 0
    frames: dict[str, NDArray[np.float32]] = {
        "audio": (random.normal(0, 1, (num, audio, 4)) + label[:, None, None] / 2).astype(np.float32),
        "vision": (random.normal(0, 1, (num, vision, 3)) - label[:, None, None]).astype(np.float32),
    }
    for i in range(num):
        words = [random.choice(GOOD if label[i] > 0 else BAD), *random.choice(PLAIN, random.integers(1, text - 3))]
        ids = [CLS, *words, SEP]
        text_bert[i, 0, : len(ids)], text_bert[i, 1, : len(ids)] = ids, 1
        frames["audio"][i, audio_lengths[i] :] = 0
        frames["vision"][i, vision_lengths[i] :] = 0
    return {
        "raw_text": [f"utterance {i}" for i in range(num)],
        "id": [f"video{seed}$_${i}" for i in range(num)],
        "text_bert": text_bert,
        **frames,
        "audio_lengths": audio_lengths.tolist(),
        "vision_lengths": vision_lengths.tolist(),
        "annotations": ["Neutral"] * num,
        "classification_labels": np.zeros(num),
        "regression_labels": label.astype(np.float32),
    }


def mmsa_content(num: tuple[int, int, int] = (40, 12, 14), seed: int = 0) -> dict[str, dict[str, Any]]:
    """What an MMSA pickle holds: three splits of `num` utterances."""
    return {split: mmsa_split(n, 3 * seed + i) for i, (split, n) in enumerate(zip(SPLITS, num, strict=True))}


def with_text_features(
    content: dict[str, dict[str, Any]], dim: int = 6, *, only: bool = True
) -> dict[str, dict[str, Any]]:
    """`content` with language features `text` of width `dim`; without token ids and transcripts where they are all."""
    for number, split in enumerate(content.values()):
        is_real = split["text_bert"][:, 1].astype(bool)
        random = np.random.default_rng(number)
        features = random.normal(split["regression_labels"][:, None, None], 1, (*is_real.shape, dim))
        split["text"] = (features * is_real[:, :, None]).astype(np.float32)
        if only:
            del split["text_bert"], split["raw_text"]
    return content


def mmsa_pickle(path: Path, *, num: tuple[int, int, int] = (40, 12, 14), seed: int = 0) -> Path:
    """An MMSA pickle of `mmsa_content` at `path`."""
    path.write_bytes(pickle.dumps(mmsa_content(num, seed)))
    return path
