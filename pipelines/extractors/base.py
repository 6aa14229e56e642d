"""What an extractor is: a clip goes in, one modality's features and their times come out.

An extractor is one file of `pipelines/extractors/<modality>/`, and its name is the file's. It is added by adding the
file, which has, from top to bottom:

    @dataclass(frozen=True)
    class Config: ...                 every knob with its meaning; refuses in __post_init__
    VERSION = 1                       raised when the same clip gives other features
    PACKAGES = ("librosa",)           distributions whose versions go into the manifest
    class Extractor: ...              `TextExtractor` or `FrameExtractor` below; made once per process

Heavy packages are imported in `Extractor.__init__`, which refuses with the install line where one is missing.
An extractor that reads files besides its code (weights, a vocabulary) says which in `provenance`, a mapping that goes
into the manifest: `{"sha256": {"model.safetensors": "..."}}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import Tokenizer


class ClipError(Exception):
    """This clip cannot be used, whatever is tried: it goes to quarantine, and the others go on.

    stage: `table`, `file`, `decode`, or the modality whose extractor failed. reason: one sentence.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)  # both, so that it survives pickling
        self.stage, self.reason = stage, reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


@dataclass(frozen=True)
class Picture:
    """What is on screen at `time` seconds after the clip's start. image: (H, W, 3) uint8 RGB, upright."""

    time: float
    image: NDArray[np.uint8]


class Clip(Protocol):
    """One decoded clip, as `pipelines/clips/decode.py` makes it. Time 0 is where the earlier of its streams begins."""

    name: str

    @property
    def has_sound(self) -> bool: ...

    @property
    def has_picture(self) -> bool: ...

    @property
    def seconds(self) -> float: ...

    def pictures(self, rate_hz: float, longest_side: int | None = None) -> Iterator[Picture]:
        """What is on screen at 0, 1 / rate_hz, 2 / rate_hz, ... seconds, whatever rate the file has; shrunk until no
        side is above `longest_side` pixels. Nothing where there is no picture. May be asked for once."""

    def sound(self, rate_hz: int) -> NDArray[np.float32]:
        """(samples,) mono in [-1, 1] at `rate_hz`, silent before the sound begins; empty where there is none."""

    def file(self) -> AbstractContextManager[Path]:
        """The clip as a file, for programs that read files."""


@dataclass(frozen=True)
class Features:
    """Features of one modality of one clip.

    values: (T, D) float32. times: (T,) float64, the middle of each frame in seconds; ascending. counts: what was met,
    by a name that starts with what is counted (`frames`, `frames_without_face`, `clips_without_face`); summed over
    clips.
    """

    values: NDArray[np.float32]
    times: NDArray[np.float64]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.values.ndim == 2 and self.values.dtype == np.float32, (self.values.shape, self.values.dtype)
        assert self.times.shape == self.values.shape[:1], (self.times.shape, self.values.shape)


class FrameExtractor(Protocol):
    """Of audio or vision. columns: the meaning of each dimension. rate_hz: frames a second."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def rate_hz(self) -> float: ...

    def extract(self, clip: Clip) -> Features:
        """Features of the clip, of no frames where it lacks the modality. ClipError where they cannot be made."""


class TextExtractor(Protocol):
    """Of transcripts: token ids of a vocabulary."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode(self, texts: Sequence[str | None]) -> list[NDArray[np.int32]]:
        """Ids with [CLS] and [SEP] per text, none where there is no text."""

    def encode_words(self, words: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(L,) ids of words one after the other, with [CLS] and [SEP], and (L,) which word each is of, -1 for those."""


def no_features(num_columns: int) -> Features:
    """Of a clip that lacks the modality."""
    return Features(np.empty((0, num_columns), np.float32), np.empty(0, np.float64))
