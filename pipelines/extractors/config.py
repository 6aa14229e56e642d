"""What `lnln extract` can be told: an extractor for each modality with its knobs, and how clips are read.

    config = load_extract_config("sims", ["audio.num_mfcc=13"])      # a file of this folder, or a path to a YAML file
    config.audio.make()

A section is `name` and the knobs of the extractor of that name; `python -c "from pipelines.extractors import names;
print(names('audio'))"` lists them, and each one's file begins with its knobs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Literal

from lnln.config import assign, from_dict, read_yaml, to_dict
from lnln.data.schema import MODALITIES, Modality
from lnln.errors import RefusedError
from pipelines.extractors import Chosen, choose

DEFAULT_EXTRACTORS: dict[Modality, str] = {"text": "wordpiece", "audio": "librosa_sims", "vision": "face"}

# Of CMU-MOSI and CH-SIMS: neutral is 0.
LABEL_RANGES = ((-3.0, 3.0), (-1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """How clips are read, whatever is extracted."""

    # Features as they come, or one step per word piece: frames between a word's start and end, averaged.
    align: Literal["none", "words"] = "none"
    # Longer clips go to quarantine: a whole interview that was never cut would fill the memory.
    max_seconds: float = 600.0
    # A clip whose extraction takes longer goes to quarantine. Far longer than max_seconds of film take a slow core.
    timeout_seconds: float = 600.0
    # Ends of the label scale; none: [-1, 1] where modalities have labels of their own and nearly all labels are within
    # it, else [-3, 3].
    label_range: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for key in ("max_seconds", "timeout_seconds"):
            if not getattr(self, key) > 0:
                raise RefusedError(f"clips.{key} must be above 0, got {getattr(self, key):g}")
        if self.label_range not in (None, *LABEL_RANGES):
            raise RefusedError(
                f"clips.label_range must be [-3, 3] or [-1, 1], the scales that metrics are defined on, got "
                f"{list(self.label_range or ())}; bring the labels to one of them"
            )


@dataclasses.dataclass(frozen=True)
class ExtractConfig:
    """One extraction: what features mean. Everything in it is part of the feature_id."""

    text: Chosen
    audio: Chosen
    vision: Chosen
    clips: ClipConfig

    def extractors(self) -> dict[Modality, Chosen]:
        return {"text": self.text, "audio": self.audio, "vision": self.vision}

    def to_dict(self) -> dict[str, Any]:
        """As `from_values` takes it."""
        values: dict[str, Any] = {"clips": to_dict(self.clips)}
        for modality, chosen in self.extractors().items():
            values[modality] = {"name": chosen.name, **to_dict(chosen.config)}
        return values

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ExtractConfig:
        """RefusedError for an unknown section, extractor or knob, or a value outside its range."""
        unknown = [key for key in values if key not in (*MODALITIES, "clips")]
        if unknown:
            raise RefusedError(f"unknown section {unknown[0]!r} of an extraction; there are text, audio, vision, clips")
        chosen: dict[Modality, Chosen] = {}
        for modality in MODALITIES:
            section = values.get(modality) or {}
            if not isinstance(section, Mapping):
                raise RefusedError(f"section {modality} must be a name and its knobs, got {section!r}")
            knobs = {key: value for key, value in section.items() if key != "name"}
            chosen[modality] = choose(modality, str(section.get("name", DEFAULT_EXTRACTORS[modality])), knobs)
        clips = values.get("clips") or {}
        if not isinstance(clips, Mapping):
            raise RefusedError(f"section clips must be keys and values, got {clips!r}")
        return cls(**chosen, clips=from_dict(ClipConfig, clips, where="clips."))


def extract_config_names() -> list[str]:
    """Names of the configs that come with the package."""
    folder = resources.files("pipelines.extractors")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_extract_config(name: str | None = None, overrides: Iterable[str] = ()) -> ExtractConfig:
    """The config called `name` (a file of this folder, or a path to a YAML file), with `key=value` overrides.

    RefusedError for an unknown name or key, or a value outside its range.
    """
    values: dict[str, Any] = {} if name is None else _read(name)
    for override in overrides:
        assign(values, override, example="vision.rate_hz=5")
    return ExtractConfig.from_values(values)


def _read(name: str) -> dict[str, Any]:
    return read_yaml(name, resources.files("pipelines.extractors"), extract_config_names())
