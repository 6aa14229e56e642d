"""A clip of given pictures, where a test says what each one shows; and the real clips, where they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.clips.drawn_faces import DrawnFace, backdrop, draw_face
from pipelines.extractors.base import Picture

Image = NDArray[np.uint8]
SIZE = (320, 240)


class PictureClip:
    """A `Clip` without sound, whose pictures are `rate_hz` apart whatever is asked for. Its file is `data`."""

    name = "v/1.mp4"
    has_sound = False

    def __init__(self, images: Sequence[Image], rate_hz: float = 10.0, data: bytes = b"", seconds: float = 0.0) -> None:
        self._images, self._rate_hz, self._data = images, rate_hz, data
        self.has_picture = len(images) > 0
        self.seconds = seconds or len(images) / rate_hz

    def pictures(self, rate_hz: float, longest_side: int | None = None) -> Iterator[Picture]:
        for index, image in enumerate(self._images):
            image.flags.writeable = False  # as those of a decoded clip
            yield Picture(index / self._rate_hz, image)

    def sound(self, rate_hz: int) -> NDArray[np.float32]:
        return np.empty(0, np.float32)

    @contextmanager
    def file(self) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            path.write_bytes(self._data)
            yield path


def drawn(*faces: DrawnFace, size: tuple[int, int] = SIZE, seed: int = 0) -> Image:
    """(H, W, 3): the faces before a backdrop that depends on `seed`. size: (W, H)."""
    picture = backdrop(np.random.default_rng(seed), size)
    for face in faces:
        draw_face(picture, face)
    return picture


def speaking(num: int, x: float = 160, y: float = 120, height: float = 150) -> list[Image]:
    """Pictures of one face whose mouth opens and closes."""
    openings = 0.5 - 0.5 * np.cos(np.arange(num) * 1.3)
    return [drawn(DrawnFace(x, y, height, mouth_open=float(opening))) for opening in openings]


def noise(num: int, seed: int = 0, size: tuple[int, int] = SIZE) -> list[Image]:
    """Pictures of which every pixel is by chance."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(num)]


def real_clip(name: str) -> Path:
    """A file below Raw/ of the real clips; the test is skipped where they are not there."""
    beside = Path(__file__).resolve().parents[5] / "shared" / "data" / "media"
    path = Path(os.environ.get("LNLN_MEDIA") or beside) / "Raw" / name
    if not path.exists():
        pytest.skip(f"no real clips at {path.parent}; set LNLN_MEDIA")
    return path
