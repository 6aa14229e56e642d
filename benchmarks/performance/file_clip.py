"""The baseline of section `extract`: sound and pictures of a clip on their way through files, one decoder run for each.

It is written from what the field's tools are described to do, not from their source: one program extracts the sound to
a WAV file, one every picture to an image file, and each extractor reads its files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import librosa
import numpy as np
import soundfile
from numpy.typing import NDArray

from pipelines.clips.extract_clip import ExtractorSet
from pipelines.extractors.base import Picture


class FileClip:
    """A clip that was taken apart into files. rate_hz: pictures a second among `pictures/`."""

    def __init__(self, folder: Path, rate_hz: float) -> None:
        self.name, self._folder, self._rate_hz = folder.name, folder, rate_hz
        self._pictures = sorted(folder.glob("*.jpg"))
        self.has_sound, self.has_picture = (folder / "sound.wav").exists(), bool(self._pictures)
        self.seconds = len(self._pictures) / rate_hz

    def pictures(self, rate_hz: float, longest_side: int | None = None) -> Iterator[Picture]:
        for index in range(int(self.seconds * rate_hz)):
            image = cv2.imread(str(self._pictures[int(index * self._rate_hz / rate_hz)]))
            assert image is not None, "this process has just written it"
            scale = min(1.0, (longest_side or max(image.shape)) / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            yield Picture(index / rate_hz, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def sound(self, rate_hz: int) -> NDArray[np.float32]:
        if not self.has_sound:
            return np.empty(0, np.float32)
        samples, _ = librosa.load(self._folder / "sound.wav", sr=rate_hz)
        return np.asarray(samples, np.float32)

    @contextmanager
    def file(self) -> Iterator[Path]:
        yield self._folder / "sound.wav"


def through_files(contents: Sequence[bytes], extractors: ExtractorSet, folder: Path) -> None:
    """Extract from every clip of `contents`, by way of files in `folder`."""
    for number, data in enumerate(contents):
        taken_apart = folder / str(number)
        taken_apart.mkdir()
        clip = FileClip(taken_apart, take_apart(data, taken_apart))
        extractors.audio.extract(clip)
        extractors.vision.extract(clip)


def take_apart(data: bytes, folder: Path) -> float:
    """Sound and pictures of a clip as files in `folder`; returns pictures a second."""
    with av.open(io.BytesIO(data)) as container:
        if container.streams.audio:
            stream = container.streams.audio[0]
            parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
            if parts:
                soundfile.write(folder / "sound.wav", np.concatenate(parts), stream.rate)
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            return 25.0
        for number, frame in enumerate(container.decode(container.streams.video[0])):
            cv2.imwrite(str(folder / f"{number:06d}.jpg"), frame.to_ndarray(format="bgr24"))
        return float(container.streams.video[0].average_rate or 25)
