"""Clips become utterances, each in safety from the others.

    made = extract_rows(config, [RawClip("v$_$1", "good movie", (("1.mp4", data),))], Limits())
    made.utterances, made.counts["v$_$1"], made.quarantine

Clips are decoded and extracted in a child of this process, which lives as long as it can: extractors are made once. A
clip that crashes or hangs it ends the child and goes to quarantine; the next clip gets a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lnln.config import fingerprint
from lnln.data.manifest import Tokenizer
from lnln.data.quarantine import Quarantined
from lnln.data.schema import Modality, Ragged, Utterances
from lnln.errors import RefusedError
from pipelines.clips.extract_clip import (
    ExtractedClip,
    ExtractorSet,
    RawClip,
    extract_clip,
    make_extractors,
    plain_reason,
)
from pipelines.extractors.base import ClipError
from pipelines.extractors.config import ExtractConfig
from pipelines.isolate import ChildDiedError, ChildError, ChildTimedOutError, for_this_process, note
from pipelines.steps import step_done

T = TypeVar("T")

# The modalities that are frames, and kinds of values that were set to 0.
FRAMED: tuple[Modality, ...] = ("audio", "vision")
CLEANED = ("num_nan", "num_infinite")
# Of extractors, whose weights may have to come over a network.
_MAKING_SECONDS = 3600.0


@dataclass(frozen=True)
class Limits:
    """How clips are kept from taking others with them; no part of what features mean."""

    # Decode and extract in a child process. Without one a crash ends this process, and nothing ends a clip that hangs.
    is_isolated: bool = True


@dataclass(frozen=True)
class Description:
    """What the manifest says of extractors. records: by modality. dims: of audio and vision. decoder: name, version."""

    records: Mapping[Modality, Mapping[str, Any]]
    tokenizer: Tokenizer
    dims: Mapping[Modality, int]
    decoder: str


@dataclass(frozen=True)
class ExtractedRows:
    """utterances: in the order of the clips; None where no clip could be used. counts: by utterance_id. cleaned: by
    modality, `num_nan` and `num_infinite` over all. quarantine: the clips that could not be used, in their order."""

    utterances: Utterances | None
    counts: Mapping[str, Mapping[str, int]]
    cleaned: Mapping[Modality, Mapping[str, int]]
    quarantine: tuple[Quarantined, ...]


def describe(config: ExtractConfig, limits: Limits) -> Description:
    """What the extractors of `config` are here. RefusedError where a package, a program or weights are missing."""
    try:
        return _run(limits, _MAKING_SECONDS, _describe, config)
    except ChildError as error:
        raise RefusedError(f"the extractors could not be made: {error.reason}; see what was printed above") from error


def extract_rows(
    config: ExtractConfig, clips: Iterable[RawClip], limits: Limits, *, labelled: Sequence[Modality] = ()
) -> ExtractedRows:
    """The utterances of `clips`, one step (`steps.py`) each. labelled: the modalities that have labels of their own.

    RefusedError where this machine cannot extract at all; whatever `clips` raises.
    """
    rows: list[tuple[RawClip, ExtractedClip]] = []
    quarantine: list[Quarantined] = []
    for clip in clips:
        try:
            made = _extract(config, clip, limits)
        except ClipError as error:
            quarantine.append(Quarantined(clip.utterance_id, error.stage, plain_reason(error.reason)))
        else:
            rows.append((replace(clip, files=()), made))  # the bytes have done their duty
        step_done()
    cleaned = {
        modality: {kind: sum(made.cleaned[modality][i] for _, made in rows) for i, kind in enumerate(CLEANED)}
        for modality in FRAMED
    }
    counts = {clip.utterance_id: made.counts for clip, made in rows}
    return ExtractedRows(_utterances(rows, labelled), counts, cleaned, tuple(quarantine))


def _extract(config: ExtractConfig, clip: RawClip, limits: Limits) -> ExtractedClip:
    """ClipError where the clip cannot be used, ends the process that works on it, or takes too long."""
    for is_last in (False, True):
        describe(config, limits)  # so that making extractors, where that is due, takes nothing of the clip's time
        try:
            return _run(limits, config.clips.timeout_seconds, _extract_here, config, clip)
        except ChildTimedOutError as error:
            reason = f"{error.reason}; clips.timeout_seconds allows another time"
            raise ClipError(error.noted or "decode", reason) from error
        except ChildDiedError as error:
            if is_last:  # and not for want of memory that another process had then
                raise ClipError(error.noted or "decode", error.reason) from error
    raise AssertionError("the last attempt returns or raises")


def _run(limits: Limits, timeout_seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    if limits.is_isolated:
        return for_this_process().call(function, *arguments, timeout_seconds=timeout_seconds)
    return function(*arguments)


# What runs in the child.

_made: dict[str, ExtractorSet] = {}


def _extractors(config: ExtractConfig) -> ExtractorSet:
    """Made once per process, for as long as no others are asked for: they may fill the memory."""
    key = fingerprint(config.to_dict())
    if key not in _made:
        _made.clear()
        _made[key] = make_extractors(config)
    return _made[key]


def _describe(config: ExtractConfig) -> Description:
    made = _extractors(config)
    dims = {modality: len(extractor.columns) for modality, extractor in made.framed().items()}
    return Description(made.records, made.text.tokenizer, dims, made.decoder)


def _extract_here(config: ExtractConfig, clip: RawClip) -> ExtractedClip:
    return extract_clip(_extractors(config), clip, enter=note)


def _utterances(rows: Sequence[tuple[RawClip, ExtractedClip]], labelled: Sequence[Modality]) -> Utterances | None:
    if not rows:
        return None
    clips, made = [clip for clip, _ in rows], [extracted for _, extracted in rows]

    def ragged(modality: Modality) -> Ragged:
        parts = [getattr(extracted, modality) for extracted in made]
        return Ragged.from_lengths(np.concatenate(parts), [len(part) for part in parts])

    return Utterances(
        utterance_id=[clip.utterance_id for clip in clips],
        raw_text=[clip.text for clip in clips],
        label=_labels([clip.label for clip in clips]),
        text=ragged("text"),
        audio=ragged("audio"),
        vision=ragged("vision"),
        modality_labels={m: _labels([clip.modality_labels.get(m) for clip in clips]) for m in labelled},
    )


def _labels(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)
