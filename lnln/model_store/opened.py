"""Any model that a name can mean, as verified files in a local folder: a run, a published version, a pulled folder.

    opened = open_model(store, "mosi-lnln@best")       # or a run id, or a folder
    model = opened.load()                               # in eval mode

Copies from the store are kept in the cache folder (`LNLN_CACHE`) under the digest of their content, and checked again
every time they are opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnln.config import Config, CorruptionConfig, ModelConfig, from_dict, stored_model
from lnln.data.cache import cache_folder
from lnln.data.schema import MODALITIES, Modality
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.model_store.catalog import Version, is_model_name, read_model, resolve
from lnln.model_store.fetch import fetch_folder, is_unfinished, require_finished
from lnln.model_store.files import MANIFEST, ModelFile, ModelManifest, describe, is_whole, read_manifest_of
from lnln.runs import Run, load_run, run_folder

if TYPE_CHECKING:
    from lnln.models import SentimentModel

WEIGHTS = "model.safetensors"
LINEAGE = "lineage.json"


@dataclass(frozen=True)
class OpenedModel:
    """A model's files, checked. reference: run id, name@version or folder.

    features: what the model was trained on and must be fed with (features.json). evaluations: folder in the store where
    its evaluations lie. run_id, config: of the run; None for a folder that does not say, and for a model that was
    imported.
    """

    reference: str
    folder: Path
    weights_sha256: str
    features: Mapping[str, Any]
    evaluations: str
    run_id: str | None
    config: Config | None

    @property
    def corruption(self) -> CorruptionConfig:
        """How the model wants to be evaluated."""
        return CorruptionConfig() if self.config is None else self.config.corruption

    @cached_property
    def model(self) -> ModelConfig:
        """The network's config, from beside its weights where no run says it."""
        if self.config is not None:
            return self.config.model
        where = self.folder / "config.json"
        try:
            return from_dict(ModelConfig, stored_model(read_json(where)["model"]), where="model.")
        except (KeyError, TypeError, AttributeError) as error:
            raise RefusedError(f"{where} is no config of a saved model; pull the model again") from error

    def load(self) -> SentimentModel:
        """The network in eval mode."""
        from lnln.models import load_model

        return load_model(self.folder)


def modalities_read(opened: OpenedModel) -> tuple[Modality, ...]:
    """Those whose features the network takes; one that `model.modalities` leaves out it takes, and does not use."""
    return ("text",) if opened.model.name == "text_only" else MODALITIES


def open_model(store: Store, reference: str) -> OpenedModel:
    """The model that `reference` means: a folder with model.safetensors, name@version, a run id, or a name (best).

    Raises RefusedError for an unknown reference, an unfinished run, and a damaged file, by name.
    """
    if _is_model_folder(reference):
        return _open_folder(Path(reference))
    if not reference:
        raise RefusedError("expected a run, a published model or a folder with model.safetensors, got nothing")
    if _is_run(store, reference):
        return _open_run(store, load_run(store, reference))
    if "@" in reference:
        return _open_version(store, resolve(store, reference))
    if is_model_name(reference) and read_model(store, reference) is not None:
        return _open_version(store, resolve(store, reference))
    raise RefusedError(
        f"{reference!r} is no run and no model of {store.url}, and no folder with {WEIGHTS}; "
        f"`lnln models` lists what is published"
    )


def settled(store: Store, reference: str) -> str:
    """What `reference` means now, by a name that means the same later: an alias as the version that it stands for."""
    if _is_model_folder(reference) or _is_run(store, reference) or not is_model_name(reference.partition("@")[0]):
        return reference
    if "@" not in reference and read_model(store, reference) is None:
        return reference
    return resolve(store, reference).reference


def fetch_version(store: Store, version: Version, folder: Path) -> list[str]:
    """Copy the files of `version` to `folder`, verified; returns the names that it lacked.

    Where `folder` is a whole copy already, nothing is read from the store.
    """
    manifest = read_manifest_of(folder)
    if manifest is None or manifest.digest() != version.manifest_sha256:
        manifest = read_manifest(store, version)
    return fetch_folder(store, version.folder, manifest, folder)


def read_manifest(store: Store, version: Version) -> ModelManifest:
    """The manifest of `version`, checked against the catalog. RefusedError where it is absent or damaged."""
    where = f"{version.folder}/{MANIFEST}"
    try:
        manifest = ModelManifest.from_bytes(store.read(where), f"{store.url}/{where}")
    except FileNotFoundError as error:
        raise RefusedError(f"{store.url}/{where} is absent, but {version.reference} names it; publish again") from error
    if manifest.digest() != version.manifest_sha256:
        raise RefusedError(
            f"{store.url}/{where} is damaged: {version.reference} has manifest SHA-256 {version.manifest_sha256}, "
            f"got {manifest.digest()}; restore it from a backup of the store"
        )
    return manifest


def run_manifest(run: Run) -> ModelManifest:
    """The files of the model that `run` ended with, as its result lists them."""
    files = (ModelFile(name, int(entry["num_bytes"]), str(entry["sha256"])) for name, entry in run.files.items())
    return ModelManifest.from_bytes(ModelManifest(tuple(files)).to_bytes(), f"{run.folder}/result.json")


def _is_model_folder(reference: str) -> bool:
    try:
        return (Path(reference) / WEIGHTS).is_file() or (bool(reference) and is_unfinished(Path(reference)))
    except OSError:  # too long for a path, or not to be looked into
        return False


def _is_run(store: Store, reference: str) -> bool:
    is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", reference)
    return bool(is_name) and store.exists(f"{run_folder(reference)}/run.json")


def _open_run(store: Store, run: Run) -> OpenedModel:
    manifest = run_manifest(run)
    folder = cache_folder() / "models" / manifest.digest()
    fetch_folder(store, f"{run.folder}/model", manifest, folder)
    return _opened(run.run_id, folder, f"{run.folder}/evaluations", run.run_id, run.config)


def _open_version(store: Store, version: Version) -> OpenedModel:
    folder = cache_folder() / "models" / version.manifest_sha256
    fetch_version(store, version, folder)
    return _opened(version.reference, folder, f"models/{version.name}/evaluations", *_lineage(folder))


def _open_folder(folder: Path) -> OpenedModel:
    require_finished(folder)
    if (folder / MANIFEST).exists():
        manifest = ModelManifest.from_bytes((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
        damaged = [file.name for file in manifest.files if not is_whole(folder, file)]
        if damaged:
            raise RefusedError(f"{folder}: damaged or missing {', '.join(damaged)}; `lnln pull` it there again")
    return _opened(str(folder), folder, "reports/evaluations", *_lineage(folder))


def _opened(reference: str, folder: Path, evaluations: str, run_id: str | None, config: Config | None) -> OpenedModel:
    features = read_json(folder / "features.json")
    missing = [key for key in ("spec", "tokenizer", "label_range") if key not in features]
    if missing:
        raise RefusedError(f"{folder / 'features.json'} lacks {', '.join(missing)}; train or pull the model again")
    return OpenedModel(
        reference=reference,
        folder=folder,
        weights_sha256=describe(folder / WEIGHTS).sha256,
        features=features,
        evaluations=evaluations,
        run_id=run_id,
        config=config,
    )


def _lineage(folder: Path) -> tuple[str | None, Config | None]:
    """The run of the model in `folder`, and its config, if its lineage lies beside it and knows them."""
    if not (folder / LINEAGE).is_file():
        return None, None
    lineage = read_json(folder / LINEAGE)
    try:
        if lineage["run_id"] is None:  # imported, not trained by lnln
            return None, None
        return str(lineage["run_id"]), Config.from_stored(lineage["config"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{folder / LINEAGE} lacks its config; pull the model again") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; RefusedError naming the file where it is absent or none."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RefusedError(f"no {path.name} in {path.parent}; give a folder that `lnln pull` made, or a run") from error
    except ValueError as error:
        raise RefusedError(f"{path} is not JSON; pull the model again") from error
    if not isinstance(value, dict):
        raise RefusedError(f"{path} must hold a JSON object, got {type(value).__name__}; pull the model again")
    return value
