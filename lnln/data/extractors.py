"""What is kept of an extractor, so that features made by another one are told apart: its name, version and config,
and the SHA-256 of weights and programs that it used.

mine, theirs = identity_of(manifest.extractors), read_extractors(data)
if (difference := find_difference(mine, theirs)) is not None: ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lnln.data.schema import MODALITIES, Modality

# By modality, what the manifest says of its extractor: at least a name.
Extractors = Mapping[Modality, Mapping[str, Any]]

# clips: how clips are read for any extractor, its version and whether frames are aligned to words.
_KEPT = ("name", "version", "config", "sha256", "clips")

# Knobs that say where an extractor finds its weights, vocabulary or program.
_PLACES = ("model", "tokenizer", "binary")


@dataclass(frozen=True)
class Difference:
    """Two extractors of one modality, each in a few words that tell it from the other."""

    modality: Modality
    first: str
    second: str


def identity_of(extractors: Extractors) -> dict[Modality, dict[str, Any]]:
    """Of the records of extractors, what must be equal for features to mean the same."""
    given = [modality for modality in MODALITIES if modality in extractors]
    values = {m: {key: extractors[m][key] for key in _KEPT if key in extractors[m]} for m in given}
    identity: dict[Modality, dict[str, Any]] = json.loads(json.dumps(values))  # lists for tuples, as files have them
    return identity


def find_difference(first: Extractors, second: Extractors) -> Difference | None:
    """The first modality whose extractors are not the same, None where all are. Both as `identity_of` gives them."""
    for modality in MODALITIES:
        one, other = first.get(modality, {}), second.get(modality, {})
        if _without_places(one) != _without_places(other):
            return Difference(modality, _say(one, other), _say(other, one))
    return None


def _without_places(extractor: Mapping[str, Any]) -> dict[str, Any]:
    """Where weights and programs were found says nothing once their SHA-256 is known."""
    config = extractor.get("config")
    if "sha256" not in extractor or not isinstance(config, Mapping):
        return dict(extractor)
    return {**extractor, "config": {key: value for key, value in config.items() if key not in _PLACES}}


def _say(extractor: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Name and version, and of the config what the other one has otherwise."""
    name = str(extractor.get("name", "none"))
    version = f" version {extractor['version']}" if "version" in extractor else ""
    if name != str(other.get("name", "none")):
        return f"{name}{version}"
    config, others = extractor.get("config", {}), other.get("config", {})
    knobs = [key for key in sorted({*config, *others}) if config.get(key, ...) != others.get(key, ...)]
    said = [f"{key} {config[key]}" if key in config else f"no {key}" for key in knobs]
    clips, other_clips = extractor.get("clips", {}), other.get("clips", {})
    said += [
        f"clips.{key} {clips.get(key, 'not stated')}"
        for key in clips | other_clips
        if clips.get(key) != other_clips.get(key)
    ]
    if extractor.get("sha256") != other.get("sha256"):
        said.append(_say_sha256(extractor.get("sha256")))
    return f"{name}{version}" + (f" with {', '.join(said)}" if said else "")


def _say_sha256(files: Any) -> str:
    """files: SHA-256 by the name of the file."""
    if not isinstance(files, Mapping):
        return "no SHA-256 stated"
    return "SHA-256 " + ", ".join(f"{str(sha256)[:12]}… of {name}" for name, sha256 in files.items())
