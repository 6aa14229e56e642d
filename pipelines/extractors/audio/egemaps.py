"""The 25 low-level descriptors of eGeMAPSv02 by openSMILE, 100 frames a second: loudness, pitch, voice, formants, MFCC.

Source: Eyben et al., The Geneva Minimalistic Acoustic Parameter Set, IEEE Transactions on Affective Computing 7(2),
2016; the columns are called as openSMILE calls them. Pitch and what hangs on it is 0 where nothing is voiced.

openSMILE is under audEERING's research licence: research, teaching and private use are allowed, products and services
are not, nor are features made for them. That is why it is an extra of its own, and not the default.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np

from lnln.errors import RefusedError
from pipelines.extractors.base import Clip, Features, no_features

_STEP_SECONDS = 0.01
# Loudness and spectrum look at 20 ms, pitch and voice at 60 ms from the same start; openSMILE dates them by the former.
_FRAME_SECONDS = 0.02
# Shorter sound is filled up with silence to this, from which openSMILE makes a frame at every sample rate.
_SHORTEST_SECONDS = 0.07
# openSMILE takes 16 bits, and the package that hands them over turns 1.0 into the lowest of them.
_HIGHEST_SAMPLE = 32767 / 32768


@dataclass(frozen=True)
class Config:
    # Hz of the sound that is analysed; clips are resampled to it. The spectrum is looked at up to 8,000 Hz.
    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        if not 16_000 <= self.sample_rate <= 48_000:
            raise RefusedError(f"audio.sample_rate must be from 16,000 to 48,000 Hz, got {self.sample_rate}")


VERSION = 1
PACKAGES = ("opensmile",)


class Extractor:
    rate_hz = 1 / _STEP_SECONDS

    def __init__(self, config: Config) -> None:
        """RefusedError where openSMILE is not installed."""
        try:
            opensmile = importlib.import_module("opensmile")
        except ImportError as error:
            raise RefusedError(
                f"audio.name=egemaps needs openSMILE ({error}), which audEERING's licence allows for research and "
                "other non-commercial use only; if yours is, run: pip install 'lnln[opensmile]'"
            ) from error
        self._sample_rate = config.sample_rate
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self.columns = tuple(self._smile.feature_names)

    def extract(self, clip: Clip) -> Features:
        """(T, 25), T being about 100 a second less 4, since openSMILE's last frame has a whole window of pitch."""
        samples = clip.sound(self._sample_rate)
        if not len(samples):
            return no_features(len(self.columns))
        seconds = len(samples) / self._sample_rate
        shortage = max(0, round(_SHORTEST_SECONDS * self._sample_rate) - len(samples))
        filled = np.pad(np.clip(samples, -1, _HIGHEST_SAMPLE), (0, shortage))
        values = self._smile.process_signal(filled, self._sample_rate).to_numpy(np.float32)
        times = np.arange(len(values)) * _STEP_SECONDS + _FRAME_SECONDS / 2
        num_within = max(1, int(np.searchsorted(times, seconds, side="right")))
        return Features(values[:num_within], np.minimum(times[:num_within], seconds))
