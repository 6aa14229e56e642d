"""What is made of a modality that is left out: nothing, of one column. `none.py` of audio and of vision are this."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.extractors.base import Clip, Features, no_features


@dataclass(frozen=True)
class Config:
    """Nothing to choose."""


VERSION = 1
PACKAGES: tuple[str, ...] = ()


class Extractor:
    # One column that never has a value, since features of no columns cannot be stored.
    columns = ("absent",)
    # Of no frames.
    rate_hz = 1.0

    def __init__(self, config: Config) -> None:
        pass

    def extract(self, clip: Clip) -> Features:
        """No frames, of one column; the clip is not decoded for it."""
        return no_features(len(self.columns))
