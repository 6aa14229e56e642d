"""The CH-SIMS recipe: known tones come out where they should, and any length of any sound comes out finite."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.extractors import choose, load
from pipelines.extractors.audio.librosa_sims import PITCH_CLASSES
from pipelines.extractors.base import ClipError
from tests.pipelines.extractors.audio.sounds import SoundClip, check_form, noise, tone, uninstall

RATE = 22_050


@lru_cache
def sims() -> Any:
    return load("audio", "librosa_sims")


@pytest.fixture
def extractor() -> Any:
    return sims()


def column(extractor: Any, samples: Any, name: str) -> Any:
    return extractor.extract(SoundClip(samples, RATE)).values[:, extractor.columns.index(name)]


def test_it_has_the_33_columns_of_ch_sims(extractor: Any) -> None:
    assert len(extractor.columns) == 33
    assert extractor.columns[0] == "mfcc_0" and extractor.columns[20] == "chroma_C"
    assert extractor.columns[32] == "zero_crossing_rate"
    assert extractor.rate_hz == pytest.approx(43.066, abs=1e-3)


@pytest.mark.parametrize("octave", [0.5, 1, 2])
@pytest.mark.parametrize("steps", range(0, 12, 5))
def test_a_tone_has_its_chroma_at_its_pitch(extractor: Any, octave: float, steps: int) -> None:
    samples = tone(RATE, RATE, hz=440 * octave * 2 ** (steps / 12))
    chroma = extractor.extract(SoundClip(samples, RATE)).values[:, 20:32].mean(axis=0)
    assert PITCH_CLASSES[chroma.argmax()] == PITCH_CLASSES[(PITCH_CLASSES.index("A") + steps) % 12]


@pytest.mark.parametrize("hz", [110.0, 440.0, 3000.0])
def test_a_tone_crosses_zero_twice_a_period(extractor: Any, hz: float) -> None:
    crossings = column(extractor, tone(2 * RATE, RATE, hz), "zero_crossing_rate")
    assert crossings[5:-5] == pytest.approx(np.full(len(crossings) - 10, 2 * hz / RATE), rel=0.03, abs=1 / 2048)


def test_the_first_mfcc_is_the_loudness(extractor: Any) -> None:
    loud, quiet = (column(extractor, amplitude * noise(RATE), "mfcc_0").mean() for amplitude in (0.5, 0.05))
    # 20 decibels in each of 128 bands, under the orthonormal cosine transform.
    assert loud - quiet == pytest.approx(20 * np.sqrt(128), rel=0.01)


def test_a_frame_lies_where_its_time_says(extractor: Any) -> None:
    samples = np.zeros(2 * RATE, np.float32)
    samples[RATE : RATE + 200] = noise(200)
    features = extractor.extract(SoundClip(samples, RATE))
    assert features.times[features.values[:, 0].argmax()] == pytest.approx(1.0, abs=1 / extractor.rate_hz)


def test_it_is_what_librosa_makes(extractor: Any) -> None:
    import librosa

    samples = noise(70_000)
    values = extractor.extract(SoundClip(samples, RATE)).values
    mfcc = librosa.feature.mfcc(y=samples, sr=RATE, n_mfcc=20, htk=True)
    np.testing.assert_array_equal(values[:, :20], mfcc.T)
    np.testing.assert_array_equal(values[:, 20:32], librosa.feature.chroma_cqt(y=samples, sr=RATE).T)
    slaney = load("audio", "librosa_sims", {"htk": False}).extract(SoundClip(samples, RATE)).values
    assert not np.allclose(values[:, :20], slaney[:, :20])


@example(num_samples=1, kind="noise")
@settings(max_examples=25, deadline=None)
@given(
    num_samples=st.one_of(st.integers(0, 40), st.integers(0, 6000)),
    kind=st.sampled_from(["noise", "zero", "one", "faint"]),
)
def test_any_length_of_any_sound_gives_finite_features(num_samples: int, kind: str) -> None:
    extractor = sims()
    factor = {"zero": 0.0, "faint": 1e-30}.get(kind, 1.0)
    samples = np.ones(num_samples, np.float32) if kind == "one" else noise(num_samples)
    clip = SoundClip(np.float32(factor) * samples, RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = extractor.extract(clip)
    check_form(features, extractor.columns, clip)
    assert len(features.values) == (1 + num_samples // 512 if num_samples else 0)


def test_the_same_sound_gives_the_same_bytes(extractor: Any) -> None:
    first, second = (
        made.extract(SoundClip(noise(50_000), RATE)) for made in (extractor, load("audio", "librosa_sims"))
    )
    assert first.values.tobytes() == second.values.tobytes() and first.values.flags.c_contiguous


def test_knobs_change_what_they_say() -> None:
    knobs = {"sample_rate": 16_000, "hop_length": 256, "frame_length": 1024, "num_mfcc": 13}
    extractor = load("audio", "librosa_sims", knobs)
    assert len(extractor.columns) == 26 and extractor.rate_hz == 62.5
    clip = SoundClip(noise(16_000), 16_000)
    features = extractor.extract(clip)
    check_form(features, extractor.columns, clip)
    assert features.values.shape == (63, 26)


@pytest.mark.parametrize(
    "knobs",
    [
        {"sample_rate": 8000},
        {"hop_length": 100},
        {"hop_length": 0},
        {"frame_length": 256},
        {"num_mfcc": 0},
        {"num_mfcc": 129},
    ],
)
def test_values_out_of_range_are_refused(knobs: dict[str, int]) -> None:
    with pytest.raises(RefusedError, match=f"audio.{next(iter(knobs))} must be"):
        choose("audio", "librosa_sims", knobs)


def test_knobs_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(RefusedError, match="do not go together: librosa says 'Empty filters"):
        load("audio", "librosa_sims", {"sample_rate": 192_000})


def test_where_librosa_needs_more_samples_the_clip_is_at_fault() -> None:
    extractor = load("audio", "librosa_sims", {"sample_rate": 96_000, "frame_length": 8192, "hop_length": 1024})
    with pytest.raises(ClipError, match="audio: 1 samples are too few"):
        extractor.extract(SoundClip(np.ones(1, np.float32), 96_000))


def test_the_record_says_what_made_them(extractor: Any) -> None:
    record = choose("audio", "librosa_sims").record(extractor)
    assert record["config"]["htk"] is True and record["packages"]["librosa"] and len(record["columns"]) == 33


def test_without_librosa_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall("librosa", monkeypatch)
    with pytest.raises(RefusedError, match=r"pip install 'lnln\[media\]'"):
        load("audio", "librosa_sims")
