"""Small clips, made by the tests: any container, rate, rotation and layout, and pictures that say which they are.

write_clip(path / "1.mp4", seconds=2)                                   # 25 pictures and 16,000 samples a second
write_clip(path / "2.mkv", times=[0, 0.1, 0.5], sound=None)             # variable rate, picture only
write_clip(path / "3.wav", size=None, sound=tone(1.0, 8_000), sound_rate=8_000)
read_number(picture.image)                                              # which of the pictures this is
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Sound = NDArray[np.float32]

SOUND_RATE = 16_000
_NUM_BITS = 8
# Codecs by the end of the name, where they are not asked for: (video, audio).
_CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "flac"),
    ".webm": ("libvpx", "libopus"),
    ".avi": ("mpeg4", "pcm_s16le"),
    ".ts": ("libx264", "aac"),
    ".wav": (None, "pcm_s16le"),
    ".flac": (None, "flac"),
    ".mp3": ("mjpeg", "libmp3lame"),
    ".m4a": ("mjpeg", "aac"),
    ".ogg": (None, "libopus"),
}


def numbered(number: int, size: tuple[int, int]) -> Image:
    """(H, W, 3) grey picture that `read_number` knows again: eight vertical bars, the bits of `number`, white is 1."""
    width, height = size
    bits = [number >> bit & 1 for bit in range(_NUM_BITS)]
    row = np.repeat(np.array(bits, np.uint8) * 180 + 40, -(-width // _NUM_BITS))[:width]
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def read_number(image: Image) -> int:
    """The number of an upright `numbered` picture of at least 16 pixels' width, after lossy coding and shrinking."""
    width = image.shape[1]
    bar = -(-width // _NUM_BITS)
    middles = [min(bit * bar + bar // 2, width - 1) for bit in range(_NUM_BITS)]
    return sum(1 << bit for bit, x in enumerate(middles) if image[:, x].mean() > 130)


def tone(seconds: float, rate: int = SOUND_RATE, hz: float = 440.0, loudness: float = 0.5) -> Sound:
    """(1, samples) sine of `hz`."""
    times = np.arange(round(seconds * rate)) / rate
    return (loudness * np.sin(2 * np.pi * hz * times)).astype(np.float32)[None]


def silence(seconds: float, rate: int = SOUND_RATE) -> Sound:
    """(1, samples) of zeros."""
    return np.zeros((1, round(seconds * rate)), np.float32)


def clicks(seconds: float, rate: int, times: Sequence[float]) -> Sound:
    """(1, samples) of silence with 2 ms of a loud 2 kHz tone that begins at each of `times`."""
    sound = silence(seconds, rate)
    for time in times:
        start = round(time * rate)
        burst = tone(0.002, rate, 2000.0, 0.9)[:, : sound.shape[1] - start]
        sound[:, start : start + burst.shape[1]] = burst
    return sound


def write_clip(
    path: Path,
    *,
    seconds: float = 1.0,
    size: tuple[int, int] | None = (96, 64),
    rate: float | Fraction = 25,
    times: Sequence[float] | None = None,
    draw: Callable[[int, tuple[int, int]], Image] = numbered,
    rotation: int = 0,
    is_mirrored: bool = False,
    pixel_format: str = "yuv420p",
    video_codec: str | None = None,
    video_options: Mapping[str, str] | None = None,
    picture_start: float = 0.0,
    sound: Sound | str | None = "tone",
    sound_rate: int = SOUND_RATE,
    audio_codec: str | None = None,
    sound_start: float = 0.0,
    gap: tuple[float, float] | None = None,
    cover: bool = False,
    container: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write a clip at `path`, whose ending chooses the container, and return `path`.

    size: (width, height) in pixels; None: no picture. rate: pictures a second. times: when each picture begins instead,
    in seconds, ascending. draw: the picture of a number. rotation: degrees by which a player turns the picture,
    counterclockwise (a phone's: -90); is_mirrored: left and right change sides after that. picture_start, sound_start:
    seconds after time 0.
    sound: (channels, samples) in [-1, 1], 1, 2 or 6 channels; "tone": `tone(seconds, sound_rate)`; None: no sound.
    gap: (from, to) in seconds: sound samples in between are not stored, and those after it keep their times.
    cover: a picture as music files have, besides. container: FFmpeg's name of it. options: of the container.
    """
    import av

    codecs = _CODECS.get(path.suffix, ("libx264", "aac"))
    samples = tone(seconds, sound_rate) if isinstance(sound, str) else sound
    with av.open(str(path), "w", format=container, options=dict(options or {})) as file:
        parts: list[Iterator[tuple[float, int, Any, Any]]] = []
        if size is not None:
            starts = [number / Fraction(rate) for number in range(round(seconds * Fraction(rate)))]
            video = file.add_stream(
                video_codec or codecs[0] or "libx264", rate=Fraction(rate).limit_denominator(90_000)
            )
            video.width, video.height, video.pix_fmt = *size, pixel_format
            video.codec_context.options = dict(video_options or {})
            # Ticks of a whole picture for codecs that know no others, else of 1 / 90,000 s.
            clock = Fraction(1, 90_000)
            if (video_codec or codecs[0]) == "mpeg4":
                clock = 1 / Fraction(rate)
            video.codec_context.time_base = clock
            if rotation or is_mirrored:
                video.set_display_rotation(rotation, hflip=is_mirrored)
            shown = [float(time) + picture_start for time in (starts if times is None else times)]
            parts.append(_pictures(video, shown, size, draw, clock))
        if samples is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[0]]
            audio = file.add_stream(audio_codec or codecs[1], rate=sound_rate, layout=layout)
            parts.append(_sound(audio, samples, sound_rate, layout, sound_start, gap))
        if cover:
            _write_cover(file, size or (96, 64))
        for _, _, stream, frame in merge(*parts, key=lambda part: part[:2]):
            file.mux(stream.encode(frame))
        for stream in file.streams:
            if stream.codec_context is not None and not _is_cover(stream):
                file.mux(stream.encode(None))
    return path


def write_empty_tracks(path: Path) -> Path:
    """A container that announces a picture and a sound track and holds neither a picture nor a sample (MOV family)."""
    import av

    with av.open(str(path), "w", options={"movflags": "empty_moov+frag_keyframe"}) as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        file.add_stream("aac", rate=SOUND_RATE, layout="mono")
        file.start_encoding()
    return path


def truncated(path: Path, keep: float, to: Path) -> Path:
    """The first `keep` of the bytes of `path`, at `to`."""
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * keep)])
    return to


def damaged(data: bytes, seed: int, num: int = 8, start: float = 0.0) -> bytes:
    """`data` with `num` bytes replaced at random places after its part `start`."""
    random = np.random.default_rng(seed)
    content = bytearray(data)
    for place in random.integers(int(len(data) * start), len(data), num):
        content[place] = int(random.integers(0, 256))
    return bytes(content)


def _pictures(
    stream: Any,
    starts: Sequence[float],
    size: tuple[int, int],
    draw: Callable[[int, tuple[int, int]], Image],
    clock: Fraction,
) -> Iterator[tuple[float, int, Any, Any]]:
    """(time, order, stream, frame) of each picture."""
    import av

    for number, start in enumerate(starts):
        frame = av.VideoFrame.from_ndarray(draw(number, size), format="rgb24")
        frame.pts, frame.time_base = round(start / clock), clock
        yield start, 0, stream, frame


def _sound(
    stream: Any, samples: Sound, rate: int, layout: str, begin: float, gap: tuple[float, float] | None
) -> Iterator[tuple[float, int, Any, Any]]:
    """(time, order, stream, frame) of each 20 ms of sound."""
    import av

    step = max(1, rate // 50)
    left_out = range(0) if gap is None else range(round(gap[0] * rate), round(gap[1] * rate))
    for start in range(0, samples.shape[1], step):
        if start in left_out:
            continue
        block = np.ascontiguousarray(samples[:, start : start + step], np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = start + round(begin * rate)
        yield start / rate + begin, 1, stream, frame


def _write_cover(file: Any, size: tuple[int, int]) -> None:
    """A JPEG as an attached picture."""
    import av
    from av.stream import Disposition

    stream = file.add_stream("mjpeg")
    stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    frame = av.VideoFrame.from_ndarray(numbered(255, size), format="rgb24")
    file.mux([*stream.encode(frame), *stream.encode(None)])


def _is_cover(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)
