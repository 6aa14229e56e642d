"""Published models: immutable versions, aliases that move, and verified copies of them.

    publish(store, run_id, "mosi-lnln")                    # "v1"; the same run again: "v1" again
    pull(store, "mosi-lnln@best", Path("mosi-lnln"))        # every SHA-256 checked, whole or absent
    load("mosi-lnln@best", store="s3://bucket/prefix")      # the network in eval mode

Layout: the files of a version lie below `models/<name>/<digest of its manifest>/`, manifest last, and only then one
compare-and-swap of `models/<name>/catalog.json` allots the number. So a crash leaves files that nobody sees instead of
half a version, and publishers who race can neither share a number nor touch each other's files. (Folders called `v1`
would need the number before the files are there: a reservation, which a crash would leave behind.)
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnln.config import to_dict
from lnln.data.store import Store, encode_json
from lnln.data.verify import is_intact
from lnln.errors import RefusedError
from lnln.evaluations import find_evaluation
from lnln.model_store.card import model_card
from lnln.model_store.catalog import (
    Version,
    add_version,
    check_name,
    read_model,
    resolve,
)
from lnln.model_store.files import MANIFEST, ModelManifest, fetch, is_whole
from lnln.model_store.opened import WEIGHTS, fetch_version, open_model, read_json, read_manifest, run_manifest
from lnln.runs import Run, load_run

if TYPE_CHECKING:
    from lnln.models import SentimentModel


def publish(store: Store, run_id: str, name: str) -> str:
    """Make a version of `name` out of a finished run; returns its number, `v1`, `v2`, ...

    Copies the weights (no optimizer), config, tokenizer and feature contract; adds scores, lineage and a card. A run
    published before keeps its version; files of it that were lost or damaged in the store are put back. `best` moves
    to the new version if its mean validation MAE is below that of the best so far, on the same features and views.
    Raises RefusedError for a name that cannot be one, and for an unknown, unfinished or damaged run.
    """
    check_name(name)
    run = load_run(store, run_id)
    files = run_manifest(run)
    weights = next((file.sha256 for file in files.files if file.name == WEIGHTS), None)
    if weights is None:
        raise RefusedError(f"run {run_id} lists no {WEIGHTS} among its model files; train it again")
    evaluation = find_evaluation(
        store, f"{run.folder}/evaluations", weights, run.manifest_digest, run.config.corruption
    )
    with tempfile.TemporaryDirectory(prefix="lnln-publish-") as temporary:
        folder = Path(temporary)
        fetch(store, f"{run.folder}/model", files.files, folder)
        lineage = _lineage(run, read_json(folder / "features.json"))
        test = None if evaluation is None else evaluation.to_dict()
        (folder / "lineage.json").write_bytes(encode_json(lineage))
        (folder / "metrics.json").write_bytes(
            encode_json({"selection": lineage["selection"], "validation": run.validation, "test": test})
        )
        (folder / "README.md").write_text(model_card(name, lineage, evaluation), encoding="utf-8")
        manifest = ModelManifest.of_folder(folder, [entry.name for entry in folder.iterdir()])
        prefix = f"models/{name}/{manifest.digest()}"
        candidate = Version(
            name=name,
            version="",
            folder=prefix,
            manifest_sha256=manifest.digest(),
            weights_sha256=weights,
            run_id=run.run_id,
            corpus=run.corpus,
            feature_id=run.feature_id,
            synthetic=bool(lineage["synthetic"]),
            validation_view_ids=tuple(run.view_ids["validation"]),
            selection_score=run.score,
        )
        model = read_model(store, name)
        known = next((v for v in model.versions if v.is_same_model(candidate)), None) if model is not None else None
        if known is None:
            _upload(store, prefix, manifest, folder)
        else:
            _mend(store, known, folder)
    return add_version(store, candidate).version


def pull(store: Store, reference: str, folder: Path | str) -> Path:
    """Copy the published model `reference` (name, name@version, name@alias) to `folder`; returns the folder.

    Every file is checked against its SHA-256. A new folder appears whole or not at all; in an earlier copy only what is
    missing or damaged is downloaded, and an untouched copy of another version is replaced. Raises RefusedError for an
    unknown reference, a file that is damaged in the store (by name), and a folder with other content.
    """
    fetch_version(store, resolve(store, reference), Path(folder))
    return Path(folder)


def load(reference: str, store: Store | str | os.PathLike[str]) -> SentimentModel:
    """The network that `reference` means (a published model, a run, a pulled folder), in eval mode, verified."""
    return open_model(store if isinstance(store, Store) else Store(store), reference).load()


def damaged_files(store: Store, version: Version) -> list[str]:
    """Paths in the store of the files of `version` that are absent or not what its manifest says."""
    listed = {f"{version.folder}/{file.name}": file for file in read_manifest(store, version).files}
    return [path for path, file in listed.items() if not is_intact(store, path, file.num_bytes, file.sha256)]


def _upload(store: Store, prefix: str, manifest: ModelManifest, folder: Path) -> None:
    """Files first, manifest last. The path is the digest of all content, so another writer can only write the same."""
    for file in manifest.files:
        store.upload(folder / file.name, f"{prefix}/{file.name}")
    # Written even if it is there: `lnln gc` tells by its age what a publication that goes on still needs.
    store.write(f"{prefix}/{MANIFEST}", manifest.to_bytes())


def _mend(store: Store, known: Version, folder: Path) -> None:
    """Put back files of `known` that are lost or damaged and that the run still has as they were."""
    listed = {file.name: file for file in read_manifest(store, known).files}
    for path in damaged_files(store, known):
        file = listed[path.rpartition("/")[2]]
        if is_whole(folder, file):
            store.upload(folder / file.name, path)


def _lineage(run: Run, features: dict[str, Any]) -> dict[str, Any]:
    """Where a model comes from: enough to make it again, and to know what may be fed to it."""
    tokenizer = features["tokenizer"]
    return {
        "run_id": run.run_id,
        "corpus": run.corpus,
        "feature_id": run.feature_id,
        "manifest_digest": run.manifest_digest,
        "synthetic": bool(features["synthetic"]),
        "absent_modalities": list(features.get("absent_modalities", ())),
        "extractors": features["extractors"],
        **({"extraction": features["extraction"]} if features.get("extraction") else {}),
        "tokenizer": tokenizer,
        "language": "zh" if "chinese" in str(tokenizer["name"]).lower() else "en",
        "label_range": list(features["label_range"]),
        "config": run.config.to_dict(),
        "config_fingerprint": run.config.fingerprint(),
        "view_ids": to_dict(run.view_ids),
        "seed": run.config.train.seed,
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
