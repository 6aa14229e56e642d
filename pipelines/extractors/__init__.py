"""Extractors by modality and name: `wordpiece` for text, `librosa_sims` for audio, `face` for vision, and others.

names("audio")                              # what there is
extractor = load("audio", "librosa_sims", {"num_mfcc": 13})
extractor.extract(clip)                     # see base.py, which also says how to add one
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from typing import Any

from lnln.config import from_dict, to_dict
from lnln.data.schema import Modality
from lnln.errors import RefusedError


@dataclass(frozen=True)
class Chosen:
    """An extractor by name with its whole config, before it is made. module: the file it is defined in."""

    modality: Modality
    name: str
    config: Any
    module: Any

    def __reduce__(self) -> Any:
        return choose, (self.modality, self.name, to_dict(self.config))

    def make(self) -> Any:
        """The extractor; RefusedError where a package, a program or weights are missing."""
        return self.module.Extractor(self.config)

    def record(self, extractor: Any) -> dict[str, Any]:
        """What the manifest says of it: enough to make the same features again, and to look a dimension up."""
        packages = {name: metadata.version(name) for name in self.module.PACKAGES}
        record = {
            "name": self.name,
            "version": self.module.VERSION,
            "config": to_dict(self.config),
            "packages": packages,
            **getattr(extractor, "provenance", {}),
        }
        if self.modality == "text":
            return {**record, "vocabulary": extractor.tokenizer.name}
        return {**record, "columns": list(extractor.columns), "rate_hz": float(extractor.rate_hz)}


@lru_cache
def names(modality: Modality) -> tuple[str, ...]:
    """The extractors of a modality: the files of its folder."""
    package = import_module(f"{__name__}.{modality}")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def choose(modality: Modality, name: str, config: Mapping[str, Any] | None = None) -> Chosen:
    """The extractor `name` with the knobs of `config`, the others at their defaults.

    RefusedError for an unknown name or knob, or a value outside its range.
    """
    if name not in names(modality):
        raise RefusedError(f"no extractor of {modality} is called {name!r}; there are {', '.join(names(modality))}")
    module = import_module(f"{__name__}.{modality}.{name}")
    return Chosen(modality, name, from_dict(module.Config, config or {}, where=f"{modality}."), module)


def load(modality: Modality, name: str, config: Mapping[str, Any] | None = None) -> Any:
    """`choose(...).make()`."""
    return choose(modality, name, config).make()
