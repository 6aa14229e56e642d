"""Audio left out."""

from __future__ import annotations

from pipelines.extractors import choose
from tests.pipelines.extractors.audio.sounds import SoundClip, noise


def test_a_clip_with_sound_has_no_frames() -> None:
    chosen = choose("audio", "none")
    extractor = chosen.make()
    assert extractor.extract(SoundClip(noise(100), 16_000)).values.shape == (0, 1)
    assert chosen.record(extractor)["columns"] == ["absent"]
