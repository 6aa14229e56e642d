"""Decoded pictures on a grid of times: what is on screen at 0, 1 / rate, 2 / rate, ... seconds, upright and small.

Which picture is on screen at t: the last that begins at t or before it. Times are compared in whole milliseconds, since
Matroska, WebM and FLV keep no finer ones: so an MP4 and its copy there show the same pictures.

At the beginning: grid time k stands for the step from k / rate to (k + 1) / rate, so the first picture is also shown at
the grid time just before it. Earlier grid times have no picture, and none is made up; `Picture.time` says which those
are, so nothing shifts against the sound. At the end: until the last picture's own duration has passed.

Pixels that are not square stay as stored, and interlaced pictures are not mended.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.clips.tracks import Track, refuse_large
from pipelines.extractors.base import ClipError, Picture

Matrix = tuple[int, int, int, int]
_UPRIGHT: Matrix = (1, 0, 0, 1)


def grid_pictures(
    track: Track, start: Fraction, rate_hz: float, longest_side: int | None, max_seconds: float
) -> Iterator[Picture]:
    """Pictures of the grid that begins at `start` on the file's clock. Only they are converted.

    ClipError where a picture is too large, lies past `max_seconds`, or has a pixel format that cannot be converted.
    """
    assert rate_hz > 0, rate_hz
    rate = Fraction(rate_hz)
    step = 0
    converter = _Converter(longest_side)
    shown, image, ends = None, None, 0
    for begins, next_ends, frame in _timed(track, start, max_seconds):
        if shown is None:
            step = _last_step(begins, rate)
        while shown is not None and _milliseconds(step / rate) < begins:
            image = converter.image(shown) if image is None else image
            yield Picture(float(step / rate), image)
            step += 1
        shown, image, ends = frame, None, max(next_ends, begins + 1)
    if shown is not None:
        image = converter.image(shown)
    while image is not None and _milliseconds(step / rate) < ends:
        yield Picture(float(step / rate), image)
        step += 1


def _timed(track: Track, start: Fraction, max_seconds: float) -> Iterator[tuple[int, int, Any]]:
    """(begin, end, frame) in milliseconds after `start`, ascending. A frame without a time follows the last."""
    tick = track.stream.time_base
    origin = _milliseconds(start)
    end, last = start, 0
    for frame in track.frames():
        refuse_large(frame.width, frame.height)
        begin = end if frame.pts is None else frame.pts * tick
        end = begin + (frame.duration * tick if frame.duration else track.usual_length)
        first = _milliseconds(begin) - origin
        if first < last:  # damaged times; a decoder gives pictures in the order they are shown
            track.is_damaged = True
            continue
        if first > max_seconds * 1000:
            raise ClipError("decode", f"has pictures past {max_seconds:g} seconds (clips.max_seconds)")
        last = first
        yield first, min(_milliseconds(end) - origin, int(max_seconds * 1000)), frame


def _last_step(milliseconds: int, rate: Fraction) -> int:
    """The last grid step at or before a time."""
    step = int(milliseconds * rate / 1000) + 1
    while step and _milliseconds(step / rate) > milliseconds:
        step -= 1
    return step


def _milliseconds(seconds: Fraction) -> int:
    """Halves up, as a container's writer rounds."""
    return int((seconds * 1000 + Fraction(1, 2)) // 1)


class _Converter:
    """Makes RGB of decoded frames: shrunk until no side is above `longest_side`, upright, the same on any processor.

    Most codecs store one colour for four pixels. Where between them it was sampled is taken as on the left (ITU-R
    BT.709) for all files, as most say; some containers lose the tag, and copies would differ from their originals.
    """

    def __init__(self, longest_side: int | None) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._longest_side = longest_side
        self._flags = int(Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._matrix_of_rotation = _UPRIGHT
        self._graph: Any = None
        self._graph_is_for: tuple[int, int, str] | None = None

    def image(self, frame: Any) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, read-only: it may be shown at more than one time. ClipError for what cannot be converted."""
        import av

        width, height = frame.width, frame.height
        if self._longest_side is not None and max(width, height) > self._longest_side:
            scale = self._longest_side / max(width, height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        try:
            rgb = self._reformatter.reformat(
                self._with_colours_left(frame), width, height, "rgb24", interpolation=self._flags, threads=1
            )
            image = _upright(np.asarray(rgb.to_ndarray(), np.uint8), self._matrix(frame))
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            kind = f"{frame.width} x {frame.height} pixels, {frame.format.name}"
            raise ClipError("decode", f"has a picture ({kind}) that cannot be converted: {reason}") from None
        image.flags.writeable = False
        return image

    def _matrix(self, frame: Any) -> Matrix:
        """Of the frame, read where the rotation changes. Reading it ties PyAV's frame into a cycle, and of 640 x 360
        pixels 100 MB piled up before Python's collector came by."""
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            side_data = frame.side_data.get("DISPLAYMATRIX")
            entries = [] if side_data is None else np.frombuffer(bytes(side_data), np.int32).tolist()
            self._matrix_of_rotation = (
                (entries[0], entries[1], entries[3], entries[4]) if len(entries) == 9 else _UPRIGHT
            )
        return self._matrix_of_rotation

    def _with_colours_left(self, frame: Any) -> Any:
        """The same frame with that tag, which PyAV can set only through a filter; no pixel is copied."""
        from av.filter import Graph

        is_for = frame.width, frame.height, frame.format.name
        if is_for != self._graph_is_for:
            self._graph, self._graph_is_for = Graph(), is_for
            self._graph.threads = 1
            tag = self._graph.add("setparams", "chroma_location=left")
            source = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
            )
            source.link_to(tag)
            tag.link_to(self._graph.add("buffersink"))
            self._graph.configure()
        self._graph.push(frame)
        return self._graph.pull()


def _upright(image: NDArray[np.uint8], matrix: Matrix) -> NDArray[np.uint8]:
    """Turned and mirrored as a file's display matrix says, to the nearest quarter turn.

    It maps stored (x, y), y downwards, to shown (a x + c y, b x + d y); a, b, c, d are its entries 0, 1, 3 and 4
    (ISO/IEC 14496-12, 8.3.2).
    """
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)
        a, d = c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
