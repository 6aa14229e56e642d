"""Providers of simulated text by name: `regressor` learns from a corpus, `recognition` and `speech_llm` hear its clips.

names()                                          # what there is
chosen = choose("regressor", {"num_steps": 4})
chosen.make(CorpusText.of(features))             # see base.py, which also says how to add one
"""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from typing import Any

from lnln.config import assign, from_dict, to_dict
from lnln.errors import RefusedError
from pipelines.simulators.base import CorpusText

DEFAULT_PROVIDER = "regressor"
# Files of this folder that are no provider.
_SHARED = ("base", "ridge", "texts", "speech")
# `transformers` cannot be imported by two threads at once.
_making = threading.Lock()


@dataclass(frozen=True)
class Provider:
    """A provider by name with its whole config, before it is made. module: the file it is defined in."""

    name: str
    config: Any
    module: Any

    def __reduce__(self) -> Any:
        return choose, (self.name, to_dict(self.config))

    @property
    def hears_clips(self) -> bool:
        """It needs the clips; one that does not learns from the features of the corpus."""
        return bool(self.module.HEARS_CLIPS)

    def make(self, text: CorpusText) -> Any:
        """The simulator; RefusedError where weights are missing, or are not for the text of the corpus."""
        with _making:
            return self.module.Simulator(self.config, text)

    def record(self, simulator: Any) -> dict[str, Any]:
        """What the simulation_id is made of, beside the features."""
        return {
            "name": self.name,
            "version": self.module.VERSION,
            "knobs": {**to_dict(self.config), **simulator.knobs},
            "models": to_dict(simulator.models),
        }

    def packages(self) -> dict[str, str]:
        return {name: metadata.version(name) for name in self.module.PACKAGES}


@lru_cache
def names() -> tuple[str, ...]:
    """The providers: the files of this folder."""
    found = (module.name for module in pkgutil.iter_modules(import_module(__name__).__path__))
    return tuple(sorted(name for name in found if name not in _SHARED))


def choose(name: str = DEFAULT_PROVIDER, knobs: Mapping[str, Any] | None = None) -> Provider:
    """The provider `name` with `knobs`, the others at their defaults.

    RefusedError for an unknown name or knob, or a value outside its range.
    """
    if name not in names():
        raise RefusedError(f"no provider of simulated text is called {name!r}; there are {', '.join(names())}")
    module = import_module(f"{__name__}.{name}")
    return Provider(name, from_dict(module.Config, knobs or {}), module)


def load_provider(name: str = DEFAULT_PROVIDER, overrides: Iterable[str] = ()) -> Provider:
    """`choose`, its knobs given as `key=value`."""
    knobs: dict[str, Any] = {}
    for override in overrides:
        assign(knobs, override, example="num_steps=16")
    return choose(name, knobs)
