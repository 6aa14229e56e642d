"""What the features of a text might be, judged by the audio alone: a linear map, NumPy and no more.

    regressor = load_regressor(files)            # of a simulation, or of a model that was trained with it
    regressor.simulate(audio)                    # (T, A) frames -> (steps, D) float32

An utterance is cut into as many equal windows as there are steps. A step is a map of its window's frames (their mean
and deviation) and of all frames (the same); it stands for the mean of the text's features over the same share of the
text. What fits the map is `pipelines/simulators/ridge.py`.

T frames, A their width, F = 4 A columns of the design, D width of a step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lnln.data.store import encode_json
from lnln.errors import RefusedError

# Raised when the files mean something else.
FORMAT = 1
NAME = "regressor"
# What the files of a learned simulator are called.
DESCRIPTION, WEIGHTS = "simulator.json", "simulator.safetensors"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regressor:
    """frame_mean, frame_std: (A,) of the training split. weights: (F, D), intercept: (D,); all float32."""

    num_steps: int
    frame_mean: NDArray[np.float32]
    frame_std: NDArray[np.float32]
    weights: NDArray[np.float32]
    intercept: NDArray[np.float32]

    @property
    def audio_dim(self) -> int:
        return len(self.frame_mean)

    @property
    def dim(self) -> int:
        return len(self.intercept)

    def simulate(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """(steps, D); no steps where there is no audio. RefusedError where frames have another width."""
        if audio.ndim != 2 or audio.shape[1] != self.audio_dim:
            raise RefusedError(
                f"text is simulated from audio of {self.audio_dim} dimensions, got an array of shape {audio.shape}; "
                "give the features of the corpus that the simulator was learned from"
            )
        rows = design(audio, self.num_steps, self.frame_mean, self.frame_std)
        return (rows @ self.weights.astype(np.float64) + self.intercept).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """By name, what `load_regressor` takes; equal regressors, equal bytes."""
        described = {"format": FORMAT, "provider": NAME, "num_steps": self.num_steps}
        tensors = {
            "frame_mean": self.frame_mean,
            "frame_std": self.frame_std,
            "weights": self.weights,
            "intercept": self.intercept,
        }
        return {DESCRIPTION: encode_json(described), WEIGHTS: save(tensors)}


def load_regressor(files: Mapping[str, bytes], *, name: str = "simulator") -> Regressor:
    """From the files of `Regressor.files`; RefusedError, by `name`, where one is missing or damaged."""
    try:
        described = json.loads(files[DESCRIPTION])
        if (described["format"], described["provider"]) != (FORMAT, NAME):
            raise ValueError(f"it is of provider {described['provider']}, format {described['format']}")
        num_steps, tensors = described["num_steps"], load(files[WEIGHTS])
        made = Regressor(num_steps, *(tensors[key] for key in ("frame_mean", "frame_std", "weights", "intercept")))
        audio_dim, dim = made.audio_dim, made.dim
        shapes = [made.frame_mean.shape, made.frame_std.shape, made.weights.shape, made.intercept.shape]
        if shapes != [(audio_dim,), (audio_dim,), (4 * audio_dim, dim), (dim,)] or not audio_dim or not dim:
            raise ValueError(f"its tensors have shapes {shapes}")
        if any(values.dtype != np.float32 or not np.isfinite(values).all() for values in tensors.values()):
            raise ValueError("its tensors are not finite float32")
        if not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"it has {num_steps} steps")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise RefusedError(
            f"{name} cannot be read ({type(error).__name__}: {error}); run `lnln simulate CORPUS` again"
        ) from error
    return made


def window(step: int, num_steps: int, length: int) -> slice:
    """The rows, of `length` of them, that belong to `step`: a `num_steps`-th part, and one at least."""
    first = step * length // num_steps
    return slice(first, max(first + 1, (step + 1) * length // num_steps))


def window_means(rows: NDArray[np.floating[Any]], num_steps: int) -> Array:
    """(T, D) -> (num_steps, D) means over equal windows; no steps where there are no rows."""
    if not len(rows):
        return np.zeros((0, rows.shape[1]))
    means = [rows[window(step, num_steps, len(rows))].mean(axis=0, dtype=np.float64) for step in range(num_steps)]
    return np.stack(means)


def design(
    audio: NDArray[np.float32], num_steps: int, frame_mean: NDArray[np.float32], frame_std: NDArray[np.float32]
) -> Array:
    """(T, A) frames -> (num_steps, F): mean and deviation of each window, then those of the utterance, all of frames
    in deviations of the training split; no rows where there are no frames."""
    if not len(audio):
        return np.zeros((0, 4 * len(frame_mean)))
    # A dimension that never changes says nothing, whatever it does elsewhere.
    is_alive = frame_std > 0
    frames = np.where(is_alive, (audio.astype(np.float64) - frame_mean) / np.where(is_alive, frame_std, 1), 0)
    whole = [frames.mean(axis=0), frames.std(axis=0)]
    rows = []
    for step in range(num_steps):
        part = frames[window(step, num_steps, len(frames))]
        rows.append(np.concatenate([part.mean(axis=0), part.std(axis=0), *whole]))
    return np.stack(rows)
