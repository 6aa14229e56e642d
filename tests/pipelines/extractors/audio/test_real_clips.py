"""Real clips with speech, where they are at hand: what the features of speech are like, from any container."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pipelines.clips.decode import open_clip
from pipelines.extractors import load
from tests.pipelines.extractors.audio.sounds import SoundClip


def clips() -> list[Path]:
    beside = Path(__file__).resolve().parents[5] / "shared" / "data" / "media"
    folder = Path(os.environ.get("LNLN_MEDIA") or beside) / "Raw"
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder.parent}; set LNLN_MEDIA")
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def test_speech_is_louder_than_silence_and_partly_voiced() -> None:
    pytest.importorskip("opensmile", reason="the extra lnln[opensmile] is not installed")
    extractor = load("audio", "egemaps")
    pitch = next(index for index, name in enumerate(extractor.columns) if name.startswith("F0"))
    silence = extractor.extract(SoundClip(np.zeros(16_000, np.float32), 16_000)).values[:, 0].mean()
    for path in clips():
        with open_clip(path.read_bytes(), path.name, max_seconds=600) as clip:
            features = extractor.extract(clip)
            assert features.times[-1] <= clip.seconds
        assert features.values[:, 0].mean() > silence + 0.02, path
        assert 0.1 < (features.values[:, pitch] > 0).mean() < 0.95, path


def test_speech_has_the_spectrum_of_speech() -> None:
    extractor = load("audio", "librosa_sims")
    silence = extractor.extract(SoundClip(np.zeros(22_050, np.float32), 22_050)).values[:, 0].mean()
    for path in clips():
        with open_clip(path.read_bytes(), path.name, max_seconds=600) as clip:
            features = extractor.extract(clip)
            assert len(features.values) == 1 + len(clip.sound(22_050)) // 512
        loudness = features.values[:, 0]
        assert loudness.mean() > silence and loudness.std() > 20, path  # words and pauses
        assert 0.01 < features.values[:, -1].mean() < 0.3, path
