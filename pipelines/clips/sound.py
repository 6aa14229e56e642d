"""Decoded sound on a clip's timeline: mono, at the track's own rate, where its timestamps put it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.clips.tracks import Track
from pipelines.extractors.base import ClipError

Samples = NDArray[np.float32]

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 192_000
# Below this, blocks of sound follow each other without a gap, whatever their timestamps say: Matroska rounds those to
# a millisecond, and old AVI files to more.
_TOLERATED_SECONDS = Fraction(1, 100)
# ITU-R BS.775-3, annex 4, table 2: from 3/2 to 1/0. The low-frequency channel takes no part.
_WEIGHTS = {"FL": 0.7071, "FR": 0.7071, "FC": 1.0, "LFE": 0.0, "LFE2": 0.0}
_SURROUND_WEIGHT = 0.5
# A file may say how many channels it has and not which: then these, WAVE's usual order.
_USUAL_CHANNELS = {6: ("FL", "FR", "FC", "LFE", "BL", "BR")}


def mono_sound(track: Track, start: Fraction, max_seconds: float) -> tuple[Samples, int]:
    """(samples,) in [-1, 1], and their rate in hertz; the first is at `start` on the file's clock.

    Silence stands before sound that begins late and in gaps of the timestamps; what overlaps is played once. Priming
    of AAC, MP3 and Opus is dropped by FFmpeg, by the file's own record of it.
    ClipError for more than `max_seconds`, or a rate that no recorder has.
    """
    blocks: list[Samples] = []
    length, rate = 0, 0
    for frame in track.frames():
        if not rate:
            rate = frame.sample_rate
            if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
                raise ClipError("decode", f"has sound of {rate} samples a second, not {MIN_RATE_HZ} to {MAX_RATE_HZ}")
        if frame.sample_rate != rate:
            track.is_damaged = True
            continue
        block = _mono(frame, track)
        place = length if frame.pts is None else round((frame.pts * track.stream.time_base - start) * rate)
        ahead = place - length
        if not blocks or abs(ahead) > _TOLERATED_SECONDS * rate:
            if place + len(block) > max_seconds * rate + rate:
                raise ClipError("decode", f"has sound past {max_seconds:g} seconds (clips.max_seconds)")
            track.is_damaged = track.is_damaged or (ahead < 0 and bool(blocks))
            block = np.concatenate([np.zeros(ahead, np.float32), block]) if ahead > 0 else block[-ahead:]
        blocks.append(block)
        length += len(block)
        if length > max_seconds * rate + rate:  # a second more: packets may hold more than they say
            raise ClipError("decode", f"has sound past {max_seconds:g} seconds (clips.max_seconds)")
    return (np.concatenate(blocks) if blocks else np.empty(0, np.float32)), rate


def resample(sound: Samples, rate_hz: int, to_hz: int) -> Samples:
    """(round(samples * to_hz / rate_hz),) by soxr's `HQ`, which librosa takes too: no delay, in [-1, 1]."""
    try:
        import soxr
    except ImportError as error:
        raise RefusedError(
            f"sound is resampled with soxr, which is not installed ({error}); run: pip install 'lnln[media]'"
        ) from None
    assert to_hz > 0, to_hz
    if not len(sound) or rate_hz == to_hz:
        return sound
    length = max(1, round(len(sound) * to_hz / rate_hz))
    resampled = np.asarray(soxr.resample(sound, rate_hz, to_hz, quality="HQ"), np.float32)[:length]
    return np.clip(np.pad(resampled, (0, length - len(resampled))), -1, 1)


def _mono(frame: Any, track: Track) -> Samples:
    """(samples,) in [-1, 1] of an audio frame of any format and layout."""
    names = tuple(channel.name for channel in frame.layout.channels)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        values = values.astype(np.float32) / 128 - 1
    elif values.dtype.kind == "i":
        values = values * np.float32(1 / -float(np.iinfo(values.dtype).min))
    elif not np.isfinite(values).all():
        track.is_damaged = True
        values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    # Channel by channel: a matrix product would differ in the last bit from one processor to another.
    mixed = np.zeros(values.shape[1], np.float32)
    for weight, channel in zip(_weights(names, len(values)), np.clip(values, -1, 1), strict=True):
        mixed += np.float32(weight) * channel.astype(np.float32)
    return np.clip(mixed, -1, 1)


def _weights(names: tuple[str, ...], num: int) -> list[float]:
    """Of each channel; they add to 1."""
    if len(names) != num or not set(names) & set(_WEIGHTS):
        names = _USUAL_CHANNELS.get(num, ())
    weights = [_WEIGHTS.get(name, _SURROUND_WEIGHT) for name in names] or [1.0] * num
    return [weight / (sum(weights) or 1) for weight in weights]
