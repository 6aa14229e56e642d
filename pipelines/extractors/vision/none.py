"""No vision: every clip is one that lacks it, whatever its file has. For models of text and audio, or of text."""

from __future__ import annotations

from pipelines.extractors.absent import PACKAGES, VERSION, Config, Extractor

__all__ = ["PACKAGES", "VERSION", "Config", "Extractor"]
