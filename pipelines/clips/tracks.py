"""The sound and the picture track of a media file, still compressed: one pass over the file, nothing decoded yet.

    container = open_container(data)
    tracks = read_tracks(container, max_seconds=600)
    for frame in tracks.sound.frames(): ...

The packets of both tracks are kept, which takes at most the size of the file once more. So sound and pictures can be
asked for in any order, each is decoded once and only if it is asked for, and length, beginning and missing parts of a
file are known before the first picture is decoded.

Clips come from anywhere, and FFmpeg knows formats that are lists of other files or addresses (HLS, concat, DASH, SDP).
Only formats that hold their own media are opened, and whatever else FFmpeg wants to open on the way is refused.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from lnln.errors import RefusedError
from pipelines.extractors.base import ClipError

# Demuxers that read one file and nothing beside it; an ending of a name plays no part.
FORMATS = (
    "mov", "matroska", "avi", "flv", "asf", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "ogg", "wav", "w64",
    "aiff", "caf", "au", "flac", "mp3", "aac", "ac3", "eac3", "dts", "amr", "ape", "wv", "tta", "rm", "mxf", "nut",
    "dv", "ivf", "gif", "yuv4mpegpipe", "gxf", "swf", "voc", "nsv", "wtv",
)  # fmt: skip
# Of these the header says how long the file is meant to be, so one that was cut off shows.
_FORMATS_THAT_STATE_LENGTH = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "wav", "flac")
# What may be missing at the end before a file counts as cut off: encoders round, and last pictures have no length.
_TOLERATED_SECONDS = 0.5
# Twice a side of digital cinema's 4K, which is 4096 x 2160 (DCI, Digital Cinema System Specification, 3.2.1).
MAX_SIDE_PIXELS = 8192
MAX_PIXELS = 8192 * 4320
_TICKS_PER_SECOND = 1_000_000  # of a container's duration (AV_TIME_BASE)


@dataclass
class Track:
    """One stream's packets. start, end: seconds on the file's own clock, of what a player would show or play.

    plays_from: where an encoder's priming ends. num_frames: decoded so far. is_damaged: a packet or frame could not be
    decoded, or is marked corrupt.
    """

    stream: Any
    packets: deque[Any] = field(default_factory=deque)
    start: Fraction | None = None
    end: Fraction = Fraction(0)
    plays_from: Fraction | None = None
    is_damaged: bool = False
    num_frames: int = 0

    @property
    def usual_length(self) -> Fraction:
        """Of a picture without a duration, in seconds; 0 for sound."""
        rate = self.stream.average_rate if self.stream.type == "video" else None
        return 1 / Fraction(rate) if rate else Fraction(0)

    def add(self, packet: Any) -> None:
        """Keep a packet, the next in the file's order."""
        tick = self.stream.time_base
        ticks = packet.pts if packet.pts is not None else packet.dts
        begins = self.end if ticks is None else ticks * tick
        self.packets.append(packet)
        self.is_damaged = self.is_damaged or packet.is_corrupt
        if packet.has_sidedata("skip_samples"):
            self.plays_from = begins + self._skipped(packet)
        if packet.is_discard:  # before the first edit of an MP4: decoded, never shown
            return
        first = begins if self.plays_from is None else max(begins, self.plays_from)
        end = begins + (packet.duration * tick if packet.duration else self.usual_length)
        self.start, self.end = (first, end) if self.start is None else (min(self.start, first), max(self.end, end))

    def frames(self) -> Iterator[Any]:
        """Decoded frames in the order they are shown; what cannot be decoded is passed over. Frees its packets."""
        import av

        while True:
            packet = self.packets.popleft() if self.packets else None
            try:
                frames = self.stream.codec_context.decode(packet)
            except EOFError:
                return
            except (av.FFmpegError, ValueError):
                frames, self.is_damaged = [], True
            for frame in frames:
                self.num_frames += 1
                self.is_damaged = self.is_damaged or frame.is_corrupt
                yield frame
            if packet is None:
                return

    def _skipped(self, packet: Any) -> Fraction:
        """Seconds from a packet's beginning on that the decoder drops: an encoder's priming. In whole ticks, as
        FFmpeg has it."""
        samples = int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")
        rate, tick = self.stream.codec_context.sample_rate, self.stream.time_base
        return (samples / (rate * tick) + Fraction(1, 2)) // 1 * tick if rate else Fraction(0)


@dataclass
class Tracks:
    """The first sound and the first picture track that can be decoded. is_truncated: the file ends too early."""

    sound: Track | None
    picture: Track | None
    is_truncated: bool

    @property
    def start(self) -> Fraction:
        """Where the earlier one begins, on the file's clock."""
        return min(track.start for track in self.both() if track.start is not None)

    @property
    def end(self) -> Fraction:
        return max(track.end for track in self.both())

    def both(self) -> list[Track]:
        return [track for track in (self.sound, self.picture) if track is not None]


def open_container(data: bytes) -> Any:
    """A PyAV container that reads from memory and opens nothing else.

    ClipError `file` where it is empty or no media, RefusedError where PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise RefusedError(
            f"clips are read with PyAV, which is not installed ({error}); run: pip install 'lnln[media]'"
        ) from None
    if not data:
        raise ClipError("file", "is empty")
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}
    try:
        return av.open(io.BytesIO(data), options=options, io_open=_refuse, metadata_errors="replace")
    except _AnotherFileError:
        raise ClipError("file", "names other files instead of holding its own media") from None
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ClipError("file", f"cannot be opened as a media file ({reason})") from None


def read_tracks(container: Any, *, max_seconds: float) -> Tracks:
    """The packets of the first sound and the first picture track.

    ClipError `file` where it has neither; `decode` where it is longer than `max_seconds`, pictures are too large,
    or neither track holds anything.
    """
    sound, picture = _first(container, "audio"), _first(container, "video")
    if not any(stream.type in ("audio", "video") for stream in container.streams):
        raise ClipError("file", "has neither a sound nor a picture track")
    if sound is None and picture is None:
        raise ClipError("decode", "has no track that FFmpeg can decode")
    stated = _stated_seconds(container)
    if stated is not None and stated > max_seconds:
        raise _too_long(max_seconds)
    if picture is not None:
        refuse_large(picture.codec_context.width, picture.codec_context.height)
    tracks = {stream.index: Track(stream) for stream in (sound, picture) if stream is not None}
    last, is_cut = _fill(tracks, container, max_seconds)
    held = {index: track for index, track in tracks.items() if track.start is not None}
    if not held:
        raise ClipError("decode", "has neither sound nor picture")
    found = last - Fraction(container.start_time or 0, _TICKS_PER_SECOND)
    both = Tracks(
        sound=held.get(sound.index) if sound is not None else None,
        picture=held.get(picture.index) if picture is not None else None,
        is_truncated=is_cut or (stated is not None and stated - found > _TOLERATED_SECONDS),
    )
    if both.end - both.start > max_seconds:
        raise _too_long(max_seconds)
    return both


def _fill(tracks: Mapping[int, Track], container: Any, max_seconds: float) -> tuple[Fraction, bool]:
    """Gives tracks their packets, by stream index. Returns where the last packet of any stream ends, in seconds on the
    file's clock, and whether the file breaks off."""
    import av

    last = Fraction(0)
    try:
        for packet in container.demux():
            track = tracks.get(packet.stream_index)
            if track is not None and packet.size:
                track.add(packet)
                if track.start is not None and track.end - track.start > max_seconds:
                    raise _too_long(max_seconds)
            if packet.size and packet.pts is not None:
                last = max(last, (packet.pts + (packet.duration or 0)) * packet.time_base)
    except _AnotherFileError:
        raise ClipError("file", "names other files instead of holding its own media") from None
    except (av.FFmpegError, ValueError, OSError):
        return last, True
    return last, False


def refuse_large(width: int, height: int) -> None:
    """ClipError for a picture that no camera takes."""
    if max(width, height) > MAX_SIDE_PIXELS or width * height > MAX_PIXELS:
        raise ClipError("decode", f"has pictures of {width} x {height} pixels; no side may be above {MAX_SIDE_PIXELS}")


class _AnotherFileError(Exception):
    """FFmpeg wanted to open something besides the clip."""


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise _AnotherFileError(url)


def _first(container: Any, kind: str) -> Any:
    """The first stream of a kind that can be decoded and is no cover of an album; decoded by one thread, so that a
    worker takes the one core it was given."""
    from av.stream import Disposition

    for stream in container.streams:
        is_cover = stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
        if stream.type == kind and stream.codec_context is not None and not is_cover:
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return stream
    return None


def _stated_seconds(container: Any) -> Fraction | None:
    """How long the header says the file is; None where it says nothing, or FFmpeg guesses from the size."""
    if container.format.name not in _FORMATS_THAT_STATE_LENGTH or container.duration is None:
        return None
    return Fraction(container.duration, _TICKS_PER_SECOND)


def _too_long(max_seconds: float) -> ClipError:
    return ClipError("decode", f"is longer than {max_seconds:g} seconds (clips.max_seconds)")
