"""A finished run that was trained with `train.selection: published`, without training: its weights are random."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from lnln.checkpoint import describe_file, save_weights
from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store
from lnln.metrics import metric_names
from lnln.models import build_model
from lnln.runs import load_run, run_folder, selection_file, selection_folder
from tests.finished_run import finished_run


def published_run(store: Store, manifest: FeatureManifest, epochs: dict[str, int] | None = None) -> str:
    """The weights of epoch n are those of `finished_run(seed=n)`. epochs: best of each metric, default: 2 for MAE and
    Corr, 3 for the rest; epoch 1 is best in nothing."""
    run_id = finished_run(store, manifest, train={"seed": 1, "selection": "published"})
    names = metric_names(manifest.label_range)
    epochs = epochs or {name: 2 if name in ("mae", "corr") else 3 for name in names}
    folder, config = run_folder(run_id), load_run(store, run_id).config
    history = []
    for epoch in range(1, 1 + max(epochs.values())):
        better = {name: float(epoch == epochs[name]) for name in names}
        record = {"epoch": epoch, "test": {**better, "mae": 1 - better["mae"]}}
        if epoch == 1 or epoch in epochs.values():
            torch.manual_seed(epoch)
            statistics = {str(name): values for name, values in manifest.statistics.items()}
            model = build_model(config.model, manifest.spec(), statistics)
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary) / selection_file(epoch)
                save_weights(path, model.state_dict())
                record["selection_weights"] = describe_file(path)
                if epoch > 1:
                    store.upload(path, f"{selection_folder(folder)}/{path.name}")
        history.append(record)
    result = json.loads(store.read(f"{folder}/result.json"))
    store.write_json(f"{folder}/result.json", {**result, "history": history})
    return run_id
