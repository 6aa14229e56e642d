"""A synthetic corpus, so that the whole path can be seen on any machine without other data.

A small grammar makes English phrases of known sentiment (negation, intensifiers, hedges). Two hidden moods, which the
words do not tell, move the label as well: one is heard in the audio, the other seen in the vision, and both of these
carry an echo of the words. So text does best alone, each other modality does something, and all three do better.

    corpus = make_sample()          # 240 / 60 / 60 utterances; corpus.source["synthetic"] is True

Equal arguments give equal bytes on every platform: only integers from a bit generator, whose stream NumPy keeps for
ever, and float arithmetic in a fixed order (no BLAS, no libm).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lnln.data.mmsa import MmsaCorpus
from lnln.data.schema import SPLITS, Modality, Ragged, Split, Utterances
from lnln.data.wordpiece import UNCASED, encode
from lnln.errors import RefusedError

T = TypeVar("T")

AUDIO_DIM = 8
VISION_DIM = 10
# Raised when the same arguments give other bytes.
VERSION = 1

_OPENINGS = ("well", "honestly", "um", "you know", "so", "I mean", "okay", "to be fair")
_SUBJECTS = (
    "the movie", "the film", "the story", "the acting", "the music", "the ending", "the cast", "the plot",
    "the dialogue", "the camera work", "the first half", "the villain",
)  # fmt: skip
_VERBS = ("was", "is", "felt", "seemed")
# Sentiment of the bare word, in steps of the label's scale.
_ADJECTIVES = {
    "wonderful": 2.2, "fantastic": 2.4, "brilliant": 2.3, "great": 1.9, "funny": 1.4, "good": 1.2, "decent": 0.5,
    "average": -0.2, "slow": -0.8, "boring": -1.4, "bad": -1.5, "stupid": -1.8, "terrible": -2.3, "awful": -2.3,
    "horrible": -2.4,
}  # fmt: skip
# What stands before the adjective, and what it does to its sentiment; each is as likely as it is often here.
_MODIFIERS = (
    ("", 1.0), ("", 1.0), ("", 1.0), ("", 1.0), ("really", 1.25), ("very", 1.25), ("so", 1.2), ("absolutely", 1.35),
    ("pretty", 0.9), ("a bit", 0.6), ("kind of", 0.55), ("somewhat", 0.6), ("not", -0.6), ("never", -0.7),
)  # fmt: skip
_ENDINGS = {
    "": 0.0, "and I loved it": 0.9, "and I would watch it again": 0.8, "and I hated it": -0.9,
    "and I want my money back": -0.8, "but it has its moments": 0.35, "but it is too long": -0.35,
    "which surprised me": 0.0, "if you like that kind of thing": -0.1,
}  # fmt: skip


def make_sample(seed: int = 0, num_utterances: int = 360) -> MmsaCorpus:
    """`num_utterances` synthetic utterances: two thirds train, a sixth each valid and test. At least 12."""
    if num_utterances < 12:
        raise RefusedError(f"the sample corpus has at least 12 utterances, got {num_utterances}")
    held_out = num_utterances // 6
    sizes: dict[Split, int] = {"train": num_utterances - 2 * held_out, "valid": held_out, "test": held_out}
    splits = {split: _make_split(split, sizes[split], seed * len(SPLITS) + i) for i, split in enumerate(SPLITS)}
    return MmsaCorpus(
        splits=splits,
        dims={"audio": AUDIO_DIM, "vision": VISION_DIM},
        label_range=(-3.0, 3.0),
        tokenizer=UNCASED,
        extractors={
            "text": {"name": "WordPiece", "vocabulary": UNCASED.name},
            "audio": {"name": "synthetic", "version": VERSION},
            "vision": {"name": "synthetic", "version": VERSION},
        },
        cleaned={modality: {"num_nan": 0, "num_infinite": 0} for modality in ("audio", "vision")},
        source={
            "name": f"synthetic sample (seed {seed}, {num_utterances} utterances, version {VERSION})",
            "sha256": _digest(splits),
            "num_bytes": 0,
            "published_as": None,
            "synthetic": True,
        },
    )


class _Dice:
    """Numbers whose every bit is fixed by the seed, on any platform and version of NumPy."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def integers(self, count: int) -> NDArray[np.int64]:
        """Uniform in 0 .. 65535."""
        return (self._bits.random_raw(count) >> np.uint64(48)).astype(np.int64)

    def below(self, limit: int, count: int) -> NDArray[np.int64]:
        """Uniform in 0 .. limit - 1, for a limit far below 65536."""
        return self.integers(count) * limit >> 16

    def normal(self, *shape: int) -> NDArray[np.float64]:
        """Nearly standard normal: the sum of twelve uniforms, exact because it is a sum of integers."""
        total: NDArray[np.int64] = self.integers(12 * int(np.prod(shape))).reshape(12, *shape).sum(axis=0)
        return (total - 12 * 32767.5) / 65536


def _make_split(split: Split, num_utterances: int, seed: int) -> Utterances:
    dice = _Dice(seed)
    phrases = [_phrase(dice) for _ in range(num_utterances)]
    words = np.array([sentiment for _, sentiment in phrases])
    heard, seen, noise = dice.normal(3, num_utterances)
    label = np.clip(words + 0.4 * heard + 0.4 * seen + 0.25 * noise, -3, 3)
    # Annotators' means lie on a grid, as in MOSI.
    label = np.rint(label * 5) / 5
    has_text = dice.below(50, num_utterances) > 0
    raw_text = [text if there else None for (text, _), there in zip(phrases, has_text, strict=True)]
    ids = encode(raw_text)
    return Utterances(
        # Ten clips of each made-up video.
        utterance_id=[f"sample-{split}-{i // 10:03d}$_${i % 10}" for i in range(num_utterances)],
        raw_text=raw_text,
        label=label.astype(np.float32),
        text=Ragged.from_lengths(np.concatenate(ids), [len(row) for row in ids]),
        audio=_sequences(dice, 0.4 * words + heard, AUDIO_DIM, longest=40),
        vision=_sequences(dice, 0.3 * words + seen, VISION_DIM, longest=25),
    )


def _phrase(dice: _Dice) -> tuple[str, float]:
    """One phrase and its sentiment, about -3 to 3."""
    opening = _OPENINGS[dice.below(len(_OPENINGS), 1)[0]] if dice.below(3, 1)[0] == 0 else ""
    subject, verb = _pick(dice, _SUBJECTS), _pick(dice, _VERBS)
    adjective, (modifier, factor) = _pick(dice, list(_ADJECTIVES)), _pick(dice, _MODIFIERS)
    ending = ""
    if dice.below(2, 1)[0] == 0:
        ending = _pick(dice, list(_ENDINGS))
    sentiment = _ADJECTIVES[adjective] * factor + _ENDINGS[ending]
    return " ".join(" ".join((opening, subject, verb, modifier, adjective, ending)).split()), sentiment


def _pick(dice: _Dice, choices: Sequence[T]) -> T:
    return choices[int(dice.below(len(choices), 1)[0])]


def _sequences(dice: _Dice, mood: NDArray[np.float64], dim: int, longest: int) -> Ragged:
    """Frames that show `mood` (N,) on half of their dimensions, in noise, each dimension with its own scale.

    A sixteenth of the utterances has none: nothing was recorded.
    """
    lengths = 5 + dice.below(longest - 4, len(mood))
    lengths[dice.below(16, len(mood)) == 0] = 0
    num_frames = int(lengths.sum())
    showing = np.arange(dim) % 2 == 0
    sign = np.where(np.arange(dim) % 4 == 0, 1.0, -1.0)
    # Each frame shows the mood more or less strongly, as speech and faces do.
    strength = dice.integers(num_frames) / 65536
    shown = (np.repeat(mood, lengths) * strength)[:, None] * (showing * sign)
    frames = shown + dice.normal(num_frames, dim) * 2
    frames = frames * (1 + np.arange(dim) % 3) + np.arange(dim) * 0.5
    # To a grid of 1/1024, so that no rounding of a platform shows.
    return Ragged.from_lengths((np.rint(frames * 1024) / 1024).astype(np.float32), lengths)


def _digest(splits: dict[Split, Utterances]) -> str:
    """SHA-256 of all that was made, little-endian: stands where an import has the digest of its file."""
    digest = hashlib.sha256()

    def add(values: NDArray[Any], dtype: str) -> None:
        digest.update(np.ascontiguousarray(values, dtype).tobytes())

    modalities: tuple[Modality, ...] = ("audio", "vision")
    for split in SPLITS:
        utterances = splits[split]
        digest.update("\n".join(text or "" for text in utterances.raw_text).encode())
        add(utterances.label, "<f4")
        add(utterances.text.values, "<i4")
        for modality in modalities:
            add(utterances.sequences(modality).values, "<f4")
            add(utterances.sequences(modality).offsets, "<i8")
    return digest.hexdigest()
