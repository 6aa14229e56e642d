"""A corpus with simulated text, and finished runs of models that read it, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lnln.data.manifest import FeatureManifest
from lnln.data.simulated_text import Simulation
from lnln.data.store import Store
from pipelines.simulate import simulate
from pipelines.simulators import choose
from tests.finished_run import TINY, finished_run, small_corpus

NUM_STEPS = 3
SDUMC: dict[str, Any] = {**TINY["model"], "name": "sdumc", "sdumc": {"query_dim": 8, "rank_dim": 4}}
# LNLN that reads simulated text.
READING: dict[str, Any] = {**TINY["model"], "simulated_text": "when_missing"}


def simulated(store: Store, corpus: str = "small", num_steps: int = NUM_STEPS) -> Simulation:
    return simulate(store, corpus, choose("regressor", {"text_encoder": "tiny", "num_steps": num_steps})).simulation


def simulated_corpus(store: Store, folder: Path, corpus: str = "small") -> FeatureManifest:
    manifest = small_corpus(store, folder, corpus)
    simulated(store, corpus)
    return manifest


def simulated_run(store: Store, manifest: FeatureManifest, model: dict[str, Any] = SDUMC, **config: Any) -> str:
    return finished_run(store, manifest, model=model, **config)
