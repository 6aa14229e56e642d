"""What a model reads of a corpus: its features and, where its config asks for it, the simulated text beside them.

config = with_simulation_in_use(store, manifest, config)        # before a run has its name
inputs = model_inputs(store, manifest, config.model)
model = build_model(config.model, inputs.spec(), ...)
train = inputs.read_split(store, "train")
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lnln.config import Config, ModelConfig
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import FeatureSpec, Split, Utterances
from lnln.data.shards import read_split
from lnln.data.simulated_text import Simulation, add_simulated_text, read_simulation, with_simulation
from lnln.data.store import Store
from lnln.errors import RefusedError

# Models that can read simulated text.
READERS = ("lnln", "sdumc")


@dataclass(frozen=True)
class ModelInputs:
    """simulation: None for a model that reads none."""

    manifest: FeatureManifest
    simulation: Simulation | None

    def spec(self) -> FeatureSpec:
        spec = self.manifest.spec()
        return spec if self.simulation is None else with_simulation(spec, self.simulation)

    def read_split(self, store: Store, split: Split) -> Utterances:
        """RefusedError where a shard, of features or of simulated text, is absent or damaged."""
        utterances = read_split(store, self.manifest, split)
        return utterances if self.simulation is None else add_simulated_text(store, self.simulation, split, utterances)


def model_inputs(store: Store, manifest: FeatureManifest, model: ModelConfig) -> ModelInputs:
    """RefusedError where `model` reads simulated text and the corpus has none of that id."""
    if not model.reads_simulated_text:
        return ModelInputs(manifest, None)
    return ModelInputs(manifest, read_simulation(store, manifest.corpus, manifest.feature_id, model.simulation))


def with_simulation_in_use(store: Store, manifest: FeatureManifest, config: Config) -> Config:
    """`config` with the id of the simulated text that its model is to read, where it leaves that open.

    So what is in use is asked once, and a run that continues reads what it began with. RefusedError where there is
    none, and for a model that reads none.
    """
    model = config.model
    if not model.reads_simulated_text:
        return config
    if model.name not in READERS:
        raise RefusedError(
            f"model {model.name} reads no simulated text; leave out model.simulated_text, or take one of "
            f"{', '.join(READERS)}"
        )
    found = read_simulation(store, manifest.corpus, manifest.feature_id, model.simulation)
    return dataclasses.replace(config, model=dataclasses.replace(model, simulation=found.simulation_id))
