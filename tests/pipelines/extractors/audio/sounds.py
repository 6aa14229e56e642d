"""Clips that are samples in memory, and the samples: what an audio extractor can be given without a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.abc import MetaPathFinder
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.extractors.base import Clip, Features, Picture

Samples = NDArray[np.float32]


class SoundClip:
    """`samples` at `rate` a second, and no picture."""

    name = "sound"
    has_picture = False

    def __init__(self, samples: Samples, rate: int) -> None:
        self._samples, self._rate = samples.astype(np.float32), rate

    @property
    def has_sound(self) -> bool:
        return len(self._samples) > 0

    @property
    def seconds(self) -> float:
        return len(self._samples) / self._rate

    def pictures(self, rate_hz: float, longest_side: int | None = None) -> Iterator[Picture]:
        return iter(())

    def sound(self, rate_hz: int) -> Samples:
        assert rate_hz == self._rate, "asked for at another rate than it was made at"
        return self._samples

    def file(self) -> AbstractContextManager[Path]:
        raise AssertionError("audio extractors read samples")


_: type[Clip] = SoundClip


def tone(num_samples: int, rate: int, hz: float = 440.0, amplitude: float = 0.5) -> Samples:
    """(N,) sine."""
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(num_samples) / rate)).astype(np.float32)


def noise(num_samples: int, seed: int = 0) -> Samples:
    """(N,) uniform in [-1, 1)."""
    return np.random.default_rng(seed).uniform(-1, 1, num_samples).astype(np.float32)


def check_form(features: Features, columns: tuple[str, ...], clip: SoundClip) -> None:
    """What holds of the features of any clip: all finite, a value per column, times ascending and within the clip."""
    assert features.values.shape == (len(features.times), len(columns)) and len(set(columns)) == len(columns)
    assert np.isfinite(features.values).all()
    assert (np.diff(features.times) > 0).all()
    assert ((features.times >= 0) & (features.times <= clip.seconds)).all()
    assert (len(features.values) > 0) == clip.has_sound


class _Absent(MetaPathFinder):
    """Finds nothing of one package, as on a machine where it is not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def uninstall(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends, `package` cannot be imported."""
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [_Absent(package), *sys.meta_path])
