"""A clip, decoded: sound and pictures on one timeline, as `pipelines.extractors.base.Clip` promises.

    with open_clip(data, "Oz06ZWiO20M/6.mp4", max_seconds=600) as clip:
        for picture in clip.pictures(rate_hz=5, longest_side=320): ...
        sound = clip.sound(22_050)

Time 0 is where the earlier of sound and picture begins. The file is read in one pass (`tracks.py`), and each track
is decoded once, when it is asked for, by one thread; pictures one at a time. What a decoder or a container can be made
to do by a hostile file is not known: run it in `pipelines.isolate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from pipelines.clips.pictures import grid_pictures
from pipelines.clips.sound import mono_sound, resample
from pipelines.clips.tracks import Tracks, open_container, read_tracks
from pipelines.extractors.base import ClipError, Picture


class DecodedClip:
    """One clip. `open_clip` makes it; it is of no use after that ends."""

    def __init__(self, data: bytes, name: str, tracks: Tracks, max_seconds: float) -> None:
        self.name = name
        self._data, self._tracks, self._max_seconds = data, tracks, max_seconds
        self._sound: tuple[NDArray[np.float32], int] | None = None
        self._num_tracks_read = 0
        self._is_picture_taken = False

    @property
    def has_sound(self) -> bool:
        """There is a sound track and it is not empty."""
        return self._tracks.sound is not None

    @property
    def has_picture(self) -> bool:
        """There is a picture track besides covers, and it is not empty."""
        return self._tracks.picture is not None

    @property
    def seconds(self) -> float:
        """From the earlier beginning to the later end of sound and picture, by the timestamps that are in the file."""
        return float(self._tracks.end - self._tracks.start)

    @property
    def is_truncated(self) -> bool:
        """Something is missing: the file ends early, or parts of it could not be decoded. Final once sound and pictures
        were read to their end."""
        return self._tracks.is_truncated or any(track.is_damaged for track in self._tracks.both())

    def pictures(self, rate_hz: float, longest_side: int | None = None) -> Iterator[Picture]:
        """See `Clip.pictures`, and `pictures.py` for which picture is on screen. Images are read-only.

        ClipError `decode` where a picture is too large or nothing of the clip can be decoded.
        """
        track = self._tracks.picture
        if track is None:
            return
        assert not self._is_picture_taken, "pictures are decoded once"
        self._is_picture_taken = True
        yield from grid_pictures(track, self._tracks.start, rate_hz, longest_side, self._max_seconds)
        self._refuse_nothing()

    def sound(self, rate_hz: int) -> NDArray[np.float32]:
        """See `Clip.sound`. May be asked for again, at any rate.

        ClipError `decode` where its rate is absurd or nothing of the clip can be decoded.
        """
        track = self._tracks.sound
        if track is None:
            return np.empty(0, np.float32)
        if self._sound is None:
            self._sound = mono_sound(track, self._tracks.start, self._max_seconds)
            self._refuse_nothing()
        return resample(*self._sound, rate_hz)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The clip as it came, as a file of its own folder, which is removed afterwards."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"clip{PurePosixPath(self.name).suffix}"
            path.write_bytes(self._data)
            yield path

    def _refuse_nothing(self) -> None:
        """When a track was read to its end: ClipError if it was the last, and none gave anything."""
        self._num_tracks_read += 1
        tracks = self._tracks.both()
        if self._num_tracks_read == len(tracks) and not any(track.num_frames for track in tracks):
            raise ClipError("decode", "has neither sound nor picture that can be decoded")


@contextmanager
def open_clip(data: bytes, name: str, *, max_seconds: float) -> Iterator[DecodedClip]:
    """The clip in `data`, the bytes of a media file. name: what it is called in the corpus; its ending plays no part.

    ClipError `file` for an empty file or one that is no media or names others, `decode` for one longer than
    `max_seconds`, with pictures above `MAX_SIDE_PIXELS`, or without sound and picture. RefusedError without PyAV.
    """
    with open_container(data) as container:
        yield DecodedClip(data, name, read_tracks(container, max_seconds=max_seconds), max_seconds)
