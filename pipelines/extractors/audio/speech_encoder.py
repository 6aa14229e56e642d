"""Hidden states of a speech encoder of Hugging Face: WavLM, wav2vec 2.0, HuBERT and others that hear the waveform.

The default is what SDUMC is given: the fifth last hidden state of WavLM-large (Chen et al., IEEE JSTSP 2022), 1024
columns, 50 frames a second. Its weights, 1.3 GB, come from the hub or from a folder; `refs/pr/6` is the branch in which
the hub keeps them as safetensors.

A clip of up to `window_seconds` is encoded whole. A longer one is encoded in windows of at most that length, which
bounds the memory (attention grows with the square), and of each window only the frames with `context_seconds` of sound
on both sides are kept, so that no frame is one that heard only half of its neighbourhood.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors import hub
from pipelines.extractors.base import Clip, Features, no_features


@dataclass(frozen=True)
class Config:
    # A Hugging Face name (`NAME@REVISION` for one of its revisions) or a folder, with safetensors weights.
    model: str = "microsoft/wavlm-large@refs/pr/6"
    # Which hidden state: -1 is the output of the last layer, 0 what the first layer is given.
    hidden_state: int = -5
    # Longest stretch of sound that is encoded at once; 30 s by WavLM-large were measured at 2.6 GB, weights and all.
    window_seconds: float = 30.0
    # Sound that a kept frame has on both sides within its window, unless the clip begins or ends there.
    context_seconds: float = 5.0

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise RefusedError("audio.model must be a Hugging Face name or a folder, got an empty one")
        if not self.context_seconds >= 0:
            raise RefusedError(f"audio.context_seconds must be 0 or more, got {self.context_seconds:g}")
        if not self.window_seconds >= 2 * self.context_seconds + 1:
            raise RefusedError(
                f"audio.window_seconds must be at least 1 second above twice audio.context_seconds "
                f"({self.context_seconds:g}), got {self.window_seconds:g}"
            )


VERSION = 1
PACKAGES = ("torch", "transformers")


class Extractor:
    def __init__(self, config: Config) -> None:
        """RefusedError where the weights are not at hand, or are of no model that hears the waveform."""
        # Weights of an embedding that only training uses; models that were tuned for transcription come without it.
        self._loaded = hub.load_model(config.model, "audio.model", unread=("masked_spec_embed",))
        self._preprocess = hub.load_preprocessor(self._loaded, "audio.model")
        architecture = self._loaded.model.config
        if not hasattr(architecture, "conv_stride") or self._loaded.model.main_input_name != "input_values":
            raise RefusedError(
                f"audio.model must hear the waveform, as wavlm, wav2vec2 and hubert do; {config.model} is a "
                f"{architecture.model_type}"
            )
        num_layers = int(architecture.num_hidden_layers)
        if not -num_layers - 1 <= config.hidden_state <= num_layers:
            raise RefusedError(
                f"audio.hidden_state must be from {-num_layers - 1} to {num_layers} for {config.model}, "
                f"got {config.hidden_state}"
            )
        self._config = config
        self._grid = _Grid.of(architecture, int(self._preprocess.sampling_rate))
        self.columns = tuple(f"hidden_{index}" for index in range(int(architecture.hidden_size)))
        self.rate_hz = self._grid.sample_rate / self._grid.stride
        self._window = math.floor(config.window_seconds * self.rate_hz)
        self._context = math.ceil(config.context_seconds * self.rate_hz)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The SHA-256 of the model's files."""
        return {"sha256": self._loaded.sha256}

    def extract(self, clip: Clip) -> Features:
        """(T, hidden size). Frame t has its middle at sample 320 t + 200 of 16,000 a second, for the usual encoders."""
        grid = self._grid
        samples = clip.sound(grid.sample_rate)
        if not len(samples):
            return no_features(len(self.columns))
        # The loudness is evened out over the whole clip, where the model's authors say so.
        heard = self._preprocess(samples, sampling_rate=grid.sample_rate, return_tensors="np").input_values[0]
        heard = np.pad(heard, (0, max(0, grid.reach - len(heard))))
        num_frames = 1 + (len(heard) - grid.reach) // grid.stride
        values = np.concatenate(
            [self._encode(heard, window)[kept] for window, kept in _windows(num_frames, self._window, self._context)]
        )
        middles = np.arange(num_frames) * grid.stride + grid.reach / 2
        return Features(values, np.minimum(middles, len(samples)) / grid.sample_rate)

    def _encode(self, heard: NDArray[np.float32], window: slice) -> NDArray[np.float32]:
        """The frames `window` of the clip, as the encoder sees them without what lies outside."""
        import torch

        grid = self._grid
        end = (window.stop - 1) * grid.stride + grid.reach
        # With the last samples too, which make no frame: some encoders normalise over all they are given.
        end = len(heard) if len(heard) - end < grid.stride else end
        part = heard[window.start * grid.stride : end]
        with torch.inference_mode():
            states = self._loaded.model(torch.from_numpy(part)[None], output_hidden_states=True).hidden_states
        encoded: NDArray[np.float32] = states[self._config.hidden_state][0].numpy()
        assert len(encoded) == window.stop - window.start, (encoded.shape, window)
        return encoded


@dataclass(frozen=True)
class _Grid:
    """Where the frames of an encoder lie. stride, reach: samples from one to the next, and that one looks at."""

    sample_rate: int
    stride: int
    reach: int

    @classmethod
    def of(cls, architecture: Any, sample_rate: int) -> _Grid:
        stride = reach = 1
        for kernel, step in zip(architecture.conv_kernel, architecture.conv_stride, strict=True):
            reach += (kernel - 1) * stride
            stride *= step
        return cls(sample_rate, stride, reach)


def _windows(num_frames: int, longest: int, context: int) -> Iterator[tuple[slice, slice]]:
    """Windows of at most `longest` frames over all `num_frames`, and which frames of each are kept: all, one after the
    other, each with `context` frames on both sides where the clip has them. The kept parts are of equal length."""
    num_windows = 1 if num_frames <= longest else math.ceil(num_frames / (longest - 2 * context))
    for index in range(num_windows):
        first, last = (num_frames * place // num_windows for place in (index, index + 1))
        start, stop = max(0, first - context), min(num_frames, last + context)
        yield slice(start, stop), slice(first - start, last - start)
