"""Finished runs without training: a corpus, a tiny random model, and the files that a run ends with."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from lnln.checkpoint import describe_file, save_model
from lnln.config import Config
from lnln.data.manifest import FeatureManifest
from lnln.data.model_inputs import model_inputs, with_simulation_in_use
from lnln.data.store import Store
from lnln.model_store.simulator import add_simulator
from lnln.models import build_model
from lnln.runs import run_folder, run_id_for, run_record
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_pickle

# As shallow as a whole LNLN can be.
SHALLOW: dict[str, Any] = {
    "embedding_depth": 1,
    "completeness_depth": 1,
    "proxy_depth": 1,
    "reconstructor_depth": 1,
    "dominant_depth": 1,
    "fusion_depth": 1,
}
TINY: dict[str, Any] = {
    "model": {
        "text_encoder": "tiny",
        "hidden_dim": 16,
        "num_heads": 2,
        "head_dim": 8,
        "num_tokens": 2,
        **SHALLOW,
    },
    "corruption": {"rates": [0.0, 0.5, 0.9], "validation_rates": [0.0, 0.5]},
}


def small_corpus(store: Store, folder: Path, corpus: str = "small") -> FeatureManifest:
    """40 / 12 / 14 random utterances of three modalities, imported."""
    return import_corpus(store, mmsa_pickle(folder / f"{corpus}.pkl"), corpus)


def finished_run(store: Store, manifest: FeatureManifest, seed: int = 1, score: float = 1.0, **config: Any) -> str:
    """A run on `manifest` whose model is random from `seed`; returns its id."""
    made = with_simulation_in_use(store, manifest, Config.from_dict({**TINY, "train": {"seed": seed}, **config}))
    inputs = model_inputs(store, manifest, made.model)
    torch.manual_seed(seed)
    model = build_model(made.model, inputs.spec(), {str(name): values for name, values in manifest.statistics.items()})
    run_id = run_id_for(made, manifest.corpus, manifest)
    folder = run_folder(run_id)
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary) / "model"
        save_model(local, model, manifest, inputs.simulation)
        add_simulator(store, inputs.simulation, local)
        files = {path.name: describe_file(path) for path in local.iterdir()}
        for name in files:
            store.upload(local / name, f"{folder}/model/{name}")
    store.write_json(f"{folder}/run.json", run_record(made, manifest))
    result = {
        "best_epoch": 3,
        "score": score,
        "validation": {"0.0": {"mae": score}, "0.5": {"mae": score}},
        "history": [],
        "files": files,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_workers": 1,
        "seconds": 1.0,
        "versions": {"torch": "2"},
    }
    store.write_json(f"{folder}/result.json", result)
    return run_id
