"""Where the simulated text comes from that a trained model reads.

    source = text_source(store, opened, manifest)                     # None for a model that reads none
    utterances = source.add(store, "test", utterances)                # of a split of that corpus
    simulate(opened, utterances)                                      # of utterances that are in no corpus

Of the features that a model was trained on it is what it was trained with. Elsewhere it is what the simulator makes
that came with the model, which knows the features of the model's own text; where nothing was learned, because the
sound itself was heard, it is what the same provider made of the other corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lnln.config import to_dict
from lnln.data.manifest import FeatureManifest
from lnln.data.regressor import DESCRIPTION, WEIGHTS, Regressor
from lnln.data.schema import Ragged, Split, Utterances
from lnln.data.simulated_text import (
    Simulation,
    add_simulated_text,
    list_simulations,
    load_simulator_folder,
    read_simulation,
    read_simulator_files,
)
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.model_store.opened import OpenedModel

# Of a model folder, where its simulated text was learned.
SIMULATOR_FILES = (DESCRIPTION, WEIGHTS)


@dataclass(frozen=True)
class TextSource:
    """simulation: of the corpus; None where the model's own simulator is applied. said: the same in words.

    identity: what evaluations have to be told apart by; "" for what the model was trained with.
    """

    simulation: Simulation | None
    simulator: Regressor | None
    identity: str
    said: str

    def add(self, store: Store, split: Split, utterances: Utterances) -> Utterances:
        """All of `split`, in corpus order, with simulated text. RefusedError where a shard is absent or damaged."""
        if self.simulation is not None:
            return add_simulated_text(store, self.simulation, split, utterances)
        assert self.simulator is not None, "a source is one of the two"
        return _simulated(self.simulator, utterances)


@dataclass(frozen=True)
class TrainedSimulation:
    """The simulated text that a model was trained with, as its features.json says it."""

    simulation_id: str
    digest: str
    provider: Mapping[str, Any]
    provider_name: str

    def is_alike(self, other: Simulation) -> bool:
        """Whether `other` was made by the same provider, of the same version, with the same knobs and weights."""
        mine, theirs = (
            {key: value for key, value in to_dict(provider).items() if key != "packages"}
            for provider in (self.provider, other.provider)
        )
        return bool(mine == theirs)

    @property
    def options(self) -> str:
        """What the command takes that makes one like it."""
        knobs = [f"--set {key}={value}" for key, value in dict(self.provider.get("knobs", {})).items()]
        return " ".join([f"--provider {self.provider_name}", *knobs])


def text_source(store: Store, opened: OpenedModel, manifest: FeatureManifest) -> TextSource | None:
    """RefusedError where the corpus has no simulated text that `opened` could read, and it brings no simulator."""
    if not opened.model.reads_simulated_text:
        return None
    trained, simulator = trained_simulation(opened), simulator_of(opened)
    found = _alike(store, trained, manifest, but_learned=simulator is not None)
    if found is not None:
        identity = "" if found.digest() == trained.digest else found.digest()
        return TextSource(found, None, identity, f"by {trained.provider_name}, {found.simulation_id} of {found.corpus}")
    if simulator is None:
        raise RefusedError(
            f"{opened.reference} reads simulated text by provider {trained.provider_name}, and corpus "
            f"{manifest.corpus} has none that was made alike; run `lnln simulate {manifest.corpus} {trained.options}`"
        )
    weights = hashlib.sha256((opened.folder / WEIGHTS).read_bytes()).hexdigest()
    return TextSource(None, simulator, weights, f"by the {trained.provider_name} that came with the model")


def _alike(
    store: Store, trained: TrainedSimulation, manifest: FeatureManifest, *, but_learned: bool
) -> Simulation | None:
    """The simulated text of these features that the model was trained with, or one that was made alike.

    but_learned: not one that was learned from these features, which is another for each corpus.
    """
    corpus, feature_id = manifest.corpus, manifest.feature_id
    there = list_simulations(store, corpus, feature_id)
    if trained.simulation_id in there:
        return read_simulation(store, corpus, feature_id, trained.simulation_id)
    found = [] if but_learned else [read_simulation(store, corpus, feature_id, each) for each in there]
    return next((each for each in found if trained.is_alike(each)), None)


def simulate(opened: OpenedModel, utterances: Utterances) -> Utterances:
    """`utterances` with what the model's own simulator makes of their audio: nothing where there is no audio, and
    nothing anywhere where the model brings no simulator."""
    simulator = simulator_of(opened)
    if simulator is not None:
        return _simulated(simulator, utterances)
    dim = int(opened.features["spec"]["simulated_text_dim"])
    nothing = Ragged.from_lengths(np.empty((0, dim), np.float32), [0] * len(utterances))
    return replace(utterances, simulated_text=nothing)


def simulator_of(opened: OpenedModel) -> Regressor | None:
    """The simulator that came with the model; None where its simulated text was not learned from features.

    RefusedError where its files are damaged, or make text of another width than the model reads.
    """
    if not any((opened.folder / name).is_file() for name in SIMULATOR_FILES):
        return None
    simulator = load_simulator_folder(opened.folder)
    spec = opened.features["spec"]
    widths = {"audio_dim": simulator.audio_dim, "simulated_text_dim": simulator.dim}
    for key, found in widths.items():
        if found != spec.get(key):
            raise RefusedError(
                f"{opened.folder} has a simulator of {key} {found}, its model takes {spec.get(key)}; train or pull the "
                "model again"
            )
    return simulator


def trained_simulation(opened: OpenedModel) -> TrainedSimulation:
    """RefusedError where the model's folder does not say it."""
    made: Any = opened.features.get("simulation")
    try:
        provider = dict(made["provider"])
        return TrainedSimulation(str(made["simulation_id"]), str(made["digest"]), provider, str(provider["name"]))
    except (TypeError, KeyError) as error:
        raise RefusedError(
            f"{opened.folder / 'features.json'} does not say which simulated text {opened.reference} was trained with; "
            "train or pull the model again"
        ) from error


def add_simulator(store: Store, simulation: Simulation | None, folder: Path) -> None:
    """Put the simulator that a model needs for new audio beside it, where one was learned."""
    for name, data in ({} if simulation is None else read_simulator_files(store, simulation)).items():
        (folder / name).write_bytes(data)


def _simulated(simulator: Regressor, utterances: Utterances) -> Utterances:
    steps = [simulator.simulate(utterances.audio[row]) for row in range(len(utterances))]
    values = np.concatenate([np.empty((0, simulator.dim), np.float32), *steps])
    return replace(utterances, simulated_text=Ragged.from_lengths(values, [len(each) for each in steps]))
