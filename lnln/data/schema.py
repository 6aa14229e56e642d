"""What one utterance is: the words of the data contract, and the arrays that hold many utterances in memory.

Nothing here reads or writes. `shards.py` stores these arrays, `batches.py` turns them into tensors.
Padding is never stored: sequences lie end to end, and offsets say where each begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["text", "audio", "vision"]
# What is read of an utterance: its modalities, and simulated text where there is some.
Stream = Literal["text", "audio", "vision", "simulated_text"]
Split = Literal["train", "valid", "test", "unassigned"]

MODALITIES: tuple[Modality, ...] = ("text", "audio", "vision")
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
# Clips that no list assigns to a split: they wait for a prediction, and nothing is trained, chosen or scored on them.
STORED_SPLITS: tuple[Split, ...] = (*SPLITS, "unassigned")


@dataclass(frozen=True)
class Ragged:
    """N sequences of unequal length, end to end.

    values: (total steps, *item), offsets: (N + 1,) int64, sequence i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.offsets.ndim == 1 and self.offsets[0] == 0 and self.offsets[-1] == len(self.values)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[Any]:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @classmethod
    def from_lengths(cls, values: NDArray[Any], lengths: Sequence[int] | NDArray[Any]) -> Ragged:
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Ragged]) -> Ragged:
        return cls.from_lengths(
            np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts])
        )

    def rows(self, first: int, last: int) -> Ragged:
        """The sequences [first, last), not copied."""
        offsets = self.offsets[first : last + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, indices: NDArray[np.integer[Any]]) -> Ragged:
        """The sequences at `indices`, in that order, copied."""
        lengths = self.lengths[indices]
        return Ragged.from_lengths(self.values[_positions(self.offsets[indices], lengths)], lengths)

    def padded(self, length: int | None = None) -> NDArray[Any]:
        """(N, length, *item), zeros after each sequence's end; longer sequences are cut at `length`."""
        lengths = self.lengths
        length = int(lengths.max(initial=0)) if length is None else length
        out = np.zeros((len(self), length, *self.values.shape[1:]), self.values.dtype)
        kept = np.minimum(lengths, length)
        rows = np.repeat(np.arange(len(self)), kept)
        columns = _positions(np.zeros(len(self), np.int64), kept)
        out[rows, columns] = self.values[_positions(self.offsets[:-1], kept)]
        return out


def _positions(starts: NDArray[np.integer[Any]], lengths: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """For each i: starts[i], starts[i] + 1, ... (lengths[i] of them), end to end."""
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - lengths), lengths)


@dataclass(frozen=True)
class Utterances:
    """Utterances of one split, column by column, in corpus order.

    label: (N,) float32, NaN where unlabelled. modality_labels: CH-SIMS's own label of each modality, else empty.
    text: WordPiece ids int32 with [CLS] and [SEP], or float32 (total steps, dim) language features; length 0 where
    there is no transcript.
    audio, vision: float32 (total frames, dim); length 0 where the modality is absent.
    simulated_text: float32 (total steps, dim), what the features of the text might be, judged by the audio
    (`lnln/data/simulated_text.py`); None where nobody asked for it.
    """

    utterance_id: list[str]
    raw_text: list[str | None]
    label: NDArray[np.float32]
    text: Ragged
    audio: Ragged
    vision: Ragged
    modality_labels: dict[Modality, NDArray[np.float32]] = field(default_factory=dict)
    simulated_text: Ragged | None = None

    def __len__(self) -> int:
        return len(self.utterance_id)

    @property
    def text_dim(self) -> int:
        """Width of the language features; 0 where text is token ids."""
        return 0 if self.text.values.ndim == 1 else int(self.text.values.shape[1])

    def sequences(self, modality: Modality) -> Ragged:
        return {"text": self.text, "audio": self.audio, "vision": self.vision}[modality]

    def streams(self) -> dict[Stream, Ragged]:
        """Everything that a model may read."""
        streams: dict[Stream, Ragged] = {modality: self.sequences(modality) for modality in MODALITIES}
        return streams if self.simulated_text is None else {**streams, "simulated_text": self.simulated_text}

    def lengths(self) -> dict[Modality, NDArray[np.int64]]:
        """Steps before padding, per modality."""
        return {modality: self.sequences(modality).lengths for modality in MODALITIES}

    def rows(self, first: int, last: int) -> Utterances:
        """Utterances [first, last), their sequences not copied."""
        return Utterances(
            utterance_id=self.utterance_id[first:last],
            raw_text=self.raw_text[first:last],
            label=self.label[first:last],
            text=self.text.rows(first, last),
            audio=self.audio.rows(first, last),
            vision=self.vision.rows(first, last),
            modality_labels={m: labels[first:last] for m, labels in self.modality_labels.items()},
            simulated_text=None if self.simulated_text is None else self.simulated_text.rows(first, last),
        )

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Utterances:
        chosen = np.asarray(indices, np.int64)
        return Utterances(
            utterance_id=[self.utterance_id[i] for i in chosen],
            raw_text=[self.raw_text[i] for i in chosen],
            label=self.label[chosen],
            text=self.text.take(chosen),
            audio=self.audio.take(chosen),
            vision=self.vision.take(chosen),
            modality_labels={m: labels[chosen] for m, labels in self.modality_labels.items()},
            simulated_text=None if self.simulated_text is None else self.simulated_text.take(chosen),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Utterances]) -> Utterances:
        assert parts, "nothing to concatenate"
        simulated = [part.simulated_text for part in parts if part.simulated_text is not None]
        assert len(simulated) in (0, len(parts)), "all parts have simulated text, or none has"
        return cls(
            utterance_id=[name for part in parts for name in part.utterance_id],
            raw_text=[text for part in parts for text in part.raw_text],
            label=np.concatenate([part.label for part in parts]),
            text=Ragged.concatenate([part.text for part in parts]),
            audio=Ragged.concatenate([part.audio for part in parts]),
            vision=Ragged.concatenate([part.vision for part in parts]),
            modality_labels={
                m: np.concatenate([part.modality_labels[m] for part in parts]) for m in parts[0].modality_labels
            },
            simulated_text=Ragged.concatenate(simulated) if simulated else None,
        )


@dataclass(frozen=True)
class FeatureSpec:
    """What the features of a corpus look like: all that a model must know of them to be built.

    Lengths are the longest of the training split, in steps. `vocabulary_size` and `unknown_id` are the tokenizer's.
    text_dim: width of ready-made language features, 0 where text is token ids. tokenizer: Hugging Face name of the
    vocabulary of the ids, "" where it is not known or text is features (then `vocabulary_size` is 0).
    simulated_text_dim, simulated_text_length: width of a step of simulated text and the most steps; 0 where there is
    none.
    """

    audio_dim: int
    vision_dim: int
    text_length: int
    audio_length: int
    vision_length: int
    vocabulary_size: int
    unknown_id: int
    label_range: tuple[float, float]
    text_dim: int = 0
    tokenizer: str = ""
    simulated_text_dim: int = 0
    simulated_text_length: int = 0
