"""eGeMAPS by openSMILE: loudness and pitch of known sounds, frames where their times say, any length of sound."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.extractors import choose, load
from tests.pipelines.extractors.audio.sounds import SoundClip, check_form, noise, tone, uninstall

pytest.importorskip("opensmile", reason="the extra lnln[opensmile] is not installed")

RATE = 16_000


@lru_cache
def egemaps(rate: int = RATE) -> Any:
    return load("audio", "egemaps", {"sample_rate": rate})


def column(samples: Any, start: str) -> Any:
    index = next(i for i, name in enumerate(egemaps().columns) if name.startswith(start))
    return egemaps().extract(SoundClip(samples, RATE)).values[:, index]


def test_it_has_25_columns_at_100_frames_a_second() -> None:
    assert len(egemaps().columns) == 25 and egemaps().rate_hz == 100
    assert len(column(tone(RATE, RATE), "Loudness")) == 96


def test_louder_sound_has_more_loudness() -> None:
    silent, quiet, loud = (column(tone(RATE, RATE, amplitude=a), "Loudness").mean() for a in (0.0, 0.05, 0.5))
    assert silent < 0.01 < quiet < loud


def test_full_scale_does_not_overflow() -> None:
    """openSMILE's package makes 16 bits of samples, and the lowest number of 1.0."""
    square = np.sign(tone(RATE, RATE, hz=200))
    near = column(0.999 * square, "Loudness")
    for amplitude in (1.0, 1.3):  # resampling goes beyond 1
        np.testing.assert_allclose(column(amplitude * square, "Loudness"), near, rtol=0.01)


def test_the_pitch_of_a_tone_is_found() -> None:
    pitch = column(np.sign(tone(RATE, RATE, hz=150)), "F0semitoneFrom27.5Hz")
    assert np.median(pitch) == pytest.approx(12 * np.log2(150 / 27.5), abs=0.1)
    assert not column(0.1 * noise(RATE), "F0semitoneFrom27.5Hz").any(), "noise has none"


def test_a_frame_lies_where_its_time_says() -> None:
    samples = np.zeros(2 * RATE, np.float32)
    samples[RATE : RATE + 160] = 0.5  # its middle is at 1.005 s
    features = egemaps().extract(SoundClip(samples, RATE))
    loudness = features.values[:, 0]
    assert np.average(features.times, weights=loudness) == pytest.approx(1.005, abs=0.005)


@settings(max_examples=25, deadline=None)
@given(
    num_samples=st.one_of(st.integers(0, 10), st.integers(0, 6000)),
    rate=st.sampled_from([RATE, 22_050, 48_000]),
    is_silent=st.booleans(),
)
def test_any_length_gives_finite_features(num_samples: int, rate: int, is_silent: bool) -> None:
    extractor = egemaps(rate)
    clip = SoundClip(np.zeros(num_samples, np.float32) if is_silent else noise(num_samples), rate)
    features = extractor.extract(clip)
    check_form(features, extractor.columns, clip)
    np.testing.assert_array_equal(features.values, extractor.extract(clip).values)


def test_other_sample_rates_are_refused() -> None:
    for rate in (8_000, 96_000):
        with pytest.raises(RefusedError, match=r"audio\.sample_rate must be from 16,000"):
            choose("audio", "egemaps", {"sample_rate": rate})


def test_without_opensmile_the_refusal_says_what_its_licence_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall("opensmile", monkeypatch)
    with pytest.raises(RefusedError, match=r"non-commercial use only.*pip install 'lnln\[opensmile\]'"):
        load("audio", "egemaps")
