"""What a provider of simulated text is. It is one file of this folder, and its name is the file's.

    @dataclass(frozen=True)
    class Config: ...                 every knob with its meaning; refuses in __post_init__
    VERSION = 1                       raised when the same corpus gives other simulated text
    PACKAGES = ("transformers",)      distributions whose versions go into the manifest
    HEARS_CLIPS = True                it needs the clips (`SpeechSimulator`), or learns from features (`Teacher`)
    class Simulator: ...              made once per process of (config, what the text of the corpus is)

Heavy packages are imported in `Simulator.__init__`, which refuses where weights are missing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import NO_TOKENIZER, FeatureManifest, Tokenizer
from lnln.data.schema import Utterances
from pipelines.extractors.base import Clip


@dataclass(frozen=True)
class CorpusText:
    """What the text of a corpus is. text_dim: width of language features, 0 where it is ids of `tokenizer`. source:
    name or folder that the tokenizer can be loaded from, "" where there is none."""

    tokenizer: Tokenizer
    text_dim: int
    source: str

    @classmethod
    def of(cls, features: FeatureManifest) -> CorpusText:
        if features.text_dim:
            return cls(NO_TOKENIZER, features.text_dim, "")
        source = features.tokenizer.name
        if features.extraction is not None:  # by the name that it was found under
            source = str(features.extraction.config.get("text", {}).get("tokenizer", source))
        return cls(features.tokenizer, 0, source)


@dataclass(frozen=True)
class Simulated:
    """Of one utterance. steps: (T, dim) float32. text: what was recognised, None where nothing was."""

    steps: NDArray[np.float32]
    text: str | None = None


class Maker(Protocol):
    """What all simulators have. models: by the knob that names each, `name` and `sha256` of its files; knobs: those
    whose value the corpus decides."""

    @property
    def dim(self) -> int: ...

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def knobs(self) -> Mapping[str, Any]: ...


class Teacher(Maker, Protocol):
    """Of a simulator that is learned: what it should say."""

    def targets(self, utterances: Utterances) -> list[NDArray[np.float32]]:
        """(steps, dim) of each utterance; no steps where it has no text."""


class SpeechSimulator(Maker, Protocol):
    """Of one that hears clips."""

    def simulate(self, clip: Clip) -> Simulated:
        """Of the clip's sound; no steps where there is none. ClipError where it cannot be made."""


_inside: list[Any] = []
_entering = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of NumPy and torch inside are added up in the same order, however many cores there are.

    Torch's number of threads is each thread's own. BLAS has one for the process: it stays at one until the last thread
    that asked for it has left.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with _entering:
        _inside.append(threadpool_limits(limits=1, user_api="blas") if not _inside else _inside[0])
    try:
        yield
    finally:
        with _entering:
            limits = _inside.pop()
            if not _inside:
                limits.restore_original_limits()
        torch.set_num_threads(before)
