"""A learned map from audio to text: its design, its files, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from lnln.data.regressor import DESCRIPTION, WEIGHTS, Regressor, design, load_regressor, window, window_means
from lnln.errors import RefusedError


def made(num_steps: int = 3, audio_dim: int = 2, dim: int = 5) -> Regressor:
    random = np.random.default_rng(0)
    shapes = [(audio_dim,), (audio_dim,), (4 * audio_dim, dim), (dim,)]
    mean, std, weights, intercept = (random.uniform(0.5, 2, shape).astype(np.float32) for shape in shapes)
    return Regressor(num_steps, mean, std, weights, intercept)


@given(num_steps=st.integers(1, 40), length=st.integers(1, 200))
def test_windows_cover_every_row_in_order(num_steps: int, length: int) -> None:
    windows = [window(step, num_steps, length) for step in range(num_steps)]
    covered = [row for each in windows for row in range(length)[each]]
    assert all(1 <= each.stop - each.start <= -(-length // num_steps) for each in windows)
    assert covered == sorted(covered) and set(covered) == set(range(length))
    if length >= num_steps:  # each once
        assert covered == list(range(length))


@settings(deadline=None)
@given(num_steps=st.integers(1, 9), length=st.integers(0, 30), dim=st.integers(1, 4))
def test_means_over_windows(num_steps: int, length: int, dim: int) -> None:
    rows = np.random.default_rng(length).normal(size=(length, dim)).astype(np.float32)
    means = window_means(rows, num_steps)
    assert means.shape == ((num_steps, dim) if length else (0, dim))
    if length and length % num_steps == 0:
        np.testing.assert_allclose(means, rows.reshape(num_steps, -1, dim).mean(axis=1), atol=1e-6)


def test_a_row_of_the_design_is_its_window_and_the_whole() -> None:
    audio = np.random.default_rng(1).normal(3, 2, (7, 2)).astype(np.float32)
    mean, std = audio.mean(axis=0), audio.std(axis=0)
    rows = design(audio, 3, mean, std)
    frames = (audio - mean) / std
    assert rows.shape == (3, 8)
    np.testing.assert_allclose(rows[1, :4], [*frames[2:4].mean(axis=0), *frames[2:4].std(axis=0)], atol=1e-5)
    np.testing.assert_allclose(rows[:, 4:], np.tile([0, 0, 1, 1], (3, 1)), atol=1e-5)


def test_a_column_that_never_changed_in_training_says_nothing() -> None:
    audio = np.full((4, 2), 1e6, np.float32)
    rows = design(audio, 2, np.zeros(2, np.float32), np.array([0, 1], np.float32))
    assert (rows[:, 0] == 0).all() and (rows[:, 1] == 1e6).all()


@pytest.mark.parametrize("num_frames", [0, 1, 2, 3, 100])
def test_any_length(num_frames: int) -> None:
    steps = made().simulate(np.ones((num_frames, 2), np.float32))
    assert steps.shape == ((3, 5) if num_frames else (0, 5)) and steps.dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 4), (0, 1), (3,), (1, 2, 2)])
def test_frames_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RefusedError, match="from audio of 2 dimensions, got an array of shape"):
        made().simulate(np.zeros(shape, np.float32))


def test_files_bring_it_back() -> None:
    regressor = made()
    files = regressor.files()
    again = load_regressor(files)
    assert again.files() == files == regressor.files()
    audio = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    np.testing.assert_array_equal(again.simulate(audio), regressor.simulate(audio))


def changed(**values: object) -> dict[str, bytes]:
    files = made().files()
    return {**files, DESCRIPTION: json.dumps({**json.loads(files[DESCRIPTION]), **values}).encode()}


def reshaped(name: str, values: object) -> dict[str, bytes]:
    files = made().files()
    return {**files, WEIGHTS: save({**load(files[WEIGHTS]), name: np.asarray(values)})}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {DESCRIPTION: b"{"},
        {**made().files(), DESCRIPTION: b"[]"},
        {**made().files(), WEIGHTS: b"\x00" * 9},
        {**made().files(), WEIGHTS: made().files()[WEIGHTS][:-4]},
        changed(format=2),
        changed(provider="recognition"),
        changed(num_steps=0),
        changed(num_steps="3"),
        reshaped("weights", np.zeros((7, 5), np.float32)),
        reshaped("intercept", np.zeros(4, np.float32)),
        reshaped("frame_std", np.array([np.nan, 1], np.float32)),
        reshaped("frame_mean", np.zeros(2)),
    ],
)
def test_damaged_files_are_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(RefusedError, match=r"mine cannot be read.*run `lnln simulate CORPUS` again"):
        load_regressor(files, name="mine")
