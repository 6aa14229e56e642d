"""Audio features of CH-SIMS by librosa: 20 MFCC, 12 chroma, 1 zero-crossing rate, 33 columns, 43 frames a second.

The recipe is the one that the authors of CH-SIMS give (github.com/thuiar/MMSA-FET, issue 2): sound at 22,050 Hz, MFCC
on HTK's mel scale, chroma of a constant-Q transform, and everything else as librosa has it. What their paper calls F0
(Yu et al., ACL 2020, section 3.4) is the zero-crossing rate, as they say there.

librosa compiles some of its code by numba, about half a minute, and keeps the result beside its own files or in
NUMBA_CACHE_DIR; afterwards it is ready in 4 seconds. Either is spent in `Extractor.__init__`, never on a clip.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors.base import Clip, ClipError, Features, no_features

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")

# Where the constant-Q transform ends, 7 octaves above C1, with room for its highest filter.
_LOWEST_SAMPLE_RATE = 11_025
# It halves the sample rate, and so the hop, for each octave below the highest.
_HOP_DIVISOR = 64
# Bands of librosa's mel spectrum, which the cosine transform makes MFCC of.
_NUM_MEL = 128


@dataclass(frozen=True)
class Config:
    # Hz of the sound that is analysed; clips are resampled to it.
    sample_rate: int = 22_050
    # Samples from one frame to the next: 512 at 22,050 Hz are 43 frames a second.
    hop_length: int = 512
    # Samples that a frame of MFCC and zero-crossing rate looks at (librosa's n_fft and frame_length).
    frame_length: int = 2048
    # MFCC per frame, the first being the loudness.
    num_mfcc: int = 20
    # HTK's mel scale, as CH-SIMS has it; false: Slaney's, librosa's own default.
    htk: bool = True

    def __post_init__(self) -> None:
        if not _LOWEST_SAMPLE_RATE <= self.sample_rate <= 192_000:
            raise RefusedError(f"audio.sample_rate must be from 11,025 to 192,000 Hz, got {self.sample_rate}")
        if self.hop_length < _HOP_DIVISOR or self.hop_length % _HOP_DIVISOR:
            raise RefusedError(f"audio.hop_length must be a multiple of {_HOP_DIVISOR}, got {self.hop_length}")
        if not self.hop_length <= self.frame_length <= 65_536:
            raise RefusedError(
                f"audio.frame_length must be from audio.hop_length ({self.hop_length}) to 65,536, "
                f"got {self.frame_length}"
            )
        if not 1 <= self.num_mfcc <= _NUM_MEL:
            raise RefusedError(f"audio.num_mfcc must be from 1 to {_NUM_MEL}, got {self.num_mfcc}")


VERSION = 1
PACKAGES = ("librosa", "numba", "numpy", "scipy")


class Extractor:
    def __init__(self, config: Config) -> None:
        """RefusedError where librosa is not installed."""
        try:
            self._librosa = importlib.import_module("librosa")
        except ImportError as error:
            raise RefusedError(
                f"audio.name=librosa_sims needs librosa ({error}); run: pip install 'lnln[media]'"
            ) from error
        self._config = config
        self.columns = (
            *(f"mfcc_{index}" for index in range(config.num_mfcc)),
            *(f"chroma_{name}" for name in PITCH_CLASSES),
            "zero_crossing_rate",
        )
        self.rate_hz = config.sample_rate / config.hop_length
        try:
            self._analyse(np.zeros(config.sample_rate, np.float32))  # compiles, and loads what librosa loads late
        except (UserWarning, self._librosa.ParameterError) as error:
            raise RefusedError(
                f"audio.sample_rate {config.sample_rate}, audio.frame_length {config.frame_length} and "
                f"audio.hop_length {config.hop_length} do not go together: librosa says {str(error).splitlines()[0]!r}"
            ) from error

    def extract(self, clip: Clip) -> Features:
        """(1 + N // hop_length, 33) of N samples; the middle of frame t is at sample t * hop_length."""
        samples = clip.sound(self._config.sample_rate)
        if not len(samples):
            return no_features(len(self.columns))
        try:
            values = self._analyse(samples)
        except self._librosa.ParameterError as error:  # at high sample rates the chroma of a few samples is undefined
            raise ClipError("audio", f"{len(samples)} samples are too few: {error}") from error
        return Features(values, np.arange(len(values)) / self.rate_hz)

    def _analyse(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        config, feature = self._config, self._librosa.feature
        common = {"hop_length": config.hop_length}
        with warnings.catch_warnings():
            # librosa warns of sound shorter than a window, which it fills up with silence, and of silence.
            warnings.filterwarnings("ignore", message="n_fft=.* is too large", category=UserWarning)
            warnings.filterwarnings("ignore", message="Trying to estimate tuning", category=UserWarning)
            warnings.filterwarnings("error", message="Empty filters", category=UserWarning)
            mfcc = feature.mfcc(
                y=samples,
                sr=config.sample_rate,
                n_mfcc=config.num_mfcc,
                n_fft=config.frame_length,
                htk=config.htk,
                **common,
            )
            chroma = feature.chroma_cqt(y=samples, sr=config.sample_rate, **common)
            crossings = feature.zero_crossing_rate(samples, frame_length=config.frame_length, **common)
        return np.concatenate([mfcc, chroma, crossings]).T.astype(np.float32, order="C")
