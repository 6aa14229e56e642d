"""Where a published model comes from: `lineage.json`, enough to make it again and to know what may be fed to it.

    run_lineage(run, features, Origin("mosi-lnln-0123456789ab", trial=7))
    imported_lineage(features, model_config, num_parameters, imported)

Both have the same keys. Of what was imported those of its training are None, since nothing here has seen it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lnln import __version__
from lnln.config import ModelConfig, to_dict
from lnln.metrics import TITLES
from lnln.runs import Run


@dataclass(frozen=True)
class Origin:
    """The study whose parameters a run was trained with. trial: their number in it, None for the configured ones."""

    study_id: str
    trial: int | None


@dataclass(frozen=True)
class ImportedFile:
    """What a version was made from instead of a run. name: without its folder; sha256: of a folder, of its manifest.

    kind: `published checkpoint` or `model folder`.
    """

    name: str
    kind: str
    num_bytes: int
    sha256: str


def run_lineage(run: Run, features: Mapping[str, Any], origin: Origin | None) -> dict[str, Any]:
    """Of a finished run. features: its features.json."""
    return {
        **_fed_with(features),
        "corpus": run.corpus,
        "feature_id": run.feature_id,
        "manifest_digest": run.manifest_digest,
        "run_id": run.run_id,
        "model": to_dict(run.config.model),
        "config": run.config.to_dict(),
        "config_fingerprint": run.config.fingerprint(),
        "view_ids": to_dict(run.view_ids),
        "seed": run.config.train.seed,
        "study": None if origin is None else to_dict(origin),
        "imported": None,
        "selection": {
            "metric": "mae",
            "value": run.score,
            "epoch": run.best_epoch,
            "rates": list(run.config.corruption.validation_rates),
        },
        "num_parameters": run.num_parameters,
        "code_version": run.code_version,
        "versions": to_dict(run.versions),
    }


def imported_lineage(
    features: Mapping[str, Any], model: ModelConfig, num_parameters: int, imported: ImportedFile
) -> dict[str, Any]:
    """Of a file that says nothing of its training. features: what its maker says that it was trained on."""
    return {
        **_fed_with(features),
        "corpus": features["corpus"],
        "feature_id": features["feature_id"],
        "manifest_digest": features["manifest_digest"],
        "run_id": None,
        "model": to_dict(model),
        "config": None,
        "config_fingerprint": None,
        "view_ids": {},
        "seed": None,
        "study": None,
        "imported": to_dict(imported),
        "selection": None,
        "num_parameters": num_parameters,
        "code_version": __version__,
        "versions": {},
    }


def mean_scores(validation: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Of each metric its mean over the validation views, where all have a finite value of it."""
    rows = list(validation.values())
    means = {
        metric: math.fsum(row[metric] for row in rows) / len(rows)
        for metric in TITLES
        if rows and all(metric in row for row in rows)
    }
    return {metric: value for metric, value in means.items() if math.isfinite(value)}


def _fed_with(features: Mapping[str, Any]) -> dict[str, Any]:
    """What a lineage repeats of the features."""
    tokenizer = features["tokenizer"]
    extraction, simulation = features.get("extraction"), features.get("simulation")
    return {
        "synthetic": bool(features["synthetic"]),
        "absent_modalities": list(features.get("absent_modalities", ())),
        "extractors": features["extractors"],
        **({"extraction": extraction} if extraction else {}),
        **({"simulation": simulation} if simulation else {}),
        "tokenizer": tokenizer,
        "language": "zh" if "chinese" in str(tokenizer["name"]).lower() else "en",
        "label_range": list(features["label_range"]),
    }
