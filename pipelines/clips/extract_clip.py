"""One clip becomes one utterance's features: decoded once, and each extractor takes its part.

    extractors = make_extractors(config)               # once per process
    made = extract_clip(extractors, RawClip("v$_$1", "good movie", (("1.mp4", data),)))
    made.audio                                         # (T, D)

What is wrong with the clip is a ClipError, whose stage says where; what is wrong with this machine, a RefusedError.
"""

from __future__ import annotations

import errno
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.schema import Modality
from lnln.errors import RefusedError
from pipelines.clips.align import align_to_words
from pipelines.clips.decode import DecodedClip, open_clip
from pipelines.clips.word_times import Word
from pipelines.extractors.base import ClipError, Features, FrameExtractor, TextExtractor
from pipelines.extractors.config import ClipConfig, ExtractConfig

# Raised when the same clips and extractors would give other features: part of every feature_id.
EXTRACT_VERSION = 1
# What every clip is counted in, at 0 where it was not met.
COUNTS = (
    "clips_extracted",
    "clips_without_text",
    "clips_without_audio",
    "clips_without_vision",
    "clips_without_label",
    "clips_truncated",
)
_MAX_REASON = 300
# Errors that the next clip would meet too: a full disk, too many open files.
_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}
# The distributions that decode clips and resample their sound.
_DECODERS = ("av", "soxr")


@dataclass(frozen=True)
class RawClip:
    """A clip before anything is made of it. files: (name, bytes) of each file that it may be, the likeliest first."""

    utterance_id: str
    text: str | None
    files: tuple[tuple[str, bytes], ...]
    words: tuple[Word, ...] = ()
    label: float | None = None
    modality_labels: Mapping[Modality, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtractedClip:
    """text: (L,) int32 ids. audio, vision: (T, D) float32, finite. cleaned: by modality, how many values were NaN and
    how many infinite, and set to 0."""

    text: NDArray[np.int32]
    audio: NDArray[np.float32]
    vision: NDArray[np.float32]
    counts: Mapping[str, int]
    cleaned: Mapping[Modality, tuple[int, int]]


@dataclass(frozen=True)
class ExtractorSet:
    """Those of a config, made. records: by modality, what the manifest says of each. decoder: name and version of what
    reads clips, whatever is extracted."""

    text: TextExtractor
    audio: FrameExtractor
    vision: FrameExtractor
    clips: ClipConfig
    records: Mapping[Modality, Mapping[str, Any]]
    decoder: str

    def framed(self) -> dict[Modality, FrameExtractor]:
        return {"audio": self.audio, "vision": self.vision}


def make_extractors(config: ExtractConfig) -> ExtractorSet:
    """RefusedError where a package, a program or weights are missing."""
    try:
        decoder = ", ".join(f"{name} {metadata.version(name)}" for name in _DECODERS)
    except metadata.PackageNotFoundError as error:
        raise RefusedError(
            f"clips are decoded by {error.name}, which is not installed; pip install 'lnln[media]'"
        ) from None
    made: dict[Modality, Any] = {}
    refusals: list[str] = []
    for modality, chosen in config.extractors().items():
        try:
            made[modality] = chosen.make()
        except RefusedError as error:
            refusals.append(str(error))
    if refusals:  # all at once: each may take a download to mend
        raise RefusedError("; and ".join(refusals))
    read = {"align": config.clips.align, "version": EXTRACT_VERSION}
    records = {m: {**chosen.record(made[m]), "clips": read} for m, chosen in config.extractors().items()}
    return ExtractorSet(**made, clips=config.clips, records=records, decoder=decoder)


def extract_clip(
    extractors: ExtractorSet, clip: RawClip, enter: Callable[[str], None] = lambda stage: None
) -> ExtractedClip:
    """What `extractors` make of the clip. enter: told the stage that begins: `decode` or a modality.

    ClipError where the clip cannot be decoded, an extractor fails on it, or nothing at all comes of it.
    """
    enter("text")
    with _blamed_on("text"):
        if clip.words:
            ids, word_of_piece = extractors.text.encode_words([word.word for word in clip.words])
        else:
            [ids] = extractors.text.encode([clip.text])
    enter("decode")
    counts = Counter(dict.fromkeys(COUNTS, 0))
    made: dict[Modality, NDArray[np.float32]] = {}
    cleaned: dict[Modality, tuple[int, int]] = {}
    with _blamed_on("decode"), _open(clip, extractors.clips) as decoded:
        counts["clips_without_audio"] += not decoded.has_sound
        counts["clips_without_vision"] += not decoded.has_picture
        for modality, extractor in extractors.framed().items():
            enter(modality)
            with _blamed_on(modality):
                features = extractor.extract(decoded)
            assert features.values.shape[1] == len(extractor.columns), (modality, features.values.shape)
            counts.update({_full_name(modality, name): number for name, number in features.counts.items()})
            counts[f"{modality}_frames"] = len(features.values)
            features, cleaned[modality] = _clean(modality, features)
            made[modality] = features.values
            if clip.words:
                made[modality], counts[f"{modality}_words_without_frames"] = align_to_words(
                    features, clip.words, word_of_piece
                )
        counts["clips_truncated"] += decoded.is_truncated  # known once all was read
    if not (len(ids) or len(made["audio"]) or len(made["vision"])):
        raise ClipError("decode", "neither text nor audio nor vision came of it")
    counts["clips_extracted"] += 1
    counts["clips_without_text"] += not len(ids)
    counts["clips_without_label"] += clip.label is None
    return ExtractedClip(ids, made["audio"], made["vision"], dict(counts), cleaned)


@contextmanager
def _open(clip: RawClip, config: ClipConfig) -> Iterator[DecodedClip]:
    """The first file of the clip with a picture; where none has one, the first. ClipError where one cannot be read."""
    *others, last = clip.files
    for name, data in others:
        with open_clip(data, name, max_seconds=config.max_seconds) as decoded:
            if decoded.has_picture:
                yield decoded
                return
    with open_clip(last[1], last[0], max_seconds=config.max_seconds) as decoded:
        if decoded.has_picture or not others:
            yield decoded
            return
    with open_clip(others[0][1], others[0][0], max_seconds=config.max_seconds) as decoded:
        yield decoded


@contextmanager
def _blamed_on(stage: str) -> Iterator[None]:
    """Whatever goes wrong is the clip's fault, as far as is known; but for what is this machine's: RefusedError."""
    try:
        yield
    except (ClipError, RefusedError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise RefusedError(
                f"no clip can be worked on here: {error}; mend that and run the command again"
            ) from error
        raise ClipError(stage, plain_reason(f"{type(error).__name__}: {error}".removesuffix(": "))) from error


def plain_reason(text: str) -> str:
    """`text` on one line, without what differs from one time to the next: addresses and names of temporary files."""
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/\S*/(?=[^\s/])", "", " ".join(text.split()))
    text = re.sub(r"0x[0-9a-fA-F]+", "0x…", text)
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 1]}…"


def _clean(modality: Modality, features: Features) -> tuple[Features, tuple[int, int]]:
    """The features with what is not finite set to 0, how many of that were NaN, and how many infinite.

    ClipError where that is half of the values or more: then something is damaged, and not dirty.
    """
    is_wrong = ~np.isfinite(features.values)
    num_wrong, num_nan = int(is_wrong.sum()), int(np.isnan(features.values).sum())
    if not num_wrong:
        return features, (0, 0)
    if 2 * num_wrong >= features.values.size:
        raise ClipError(modality, f"{num_wrong:,} of {features.values.size:,} values are NaN or infinite")
    return replace(features, values=np.where(is_wrong, np.float32(0), features.values)), (num_nan, num_wrong - num_nan)


def _full_name(modality: Modality, name: str) -> str:
    """Of a count of an extractor, as the manifest has it: frames are of a modality, clips of all."""
    return name if name.startswith("clips") else f"{modality}_{name}"
