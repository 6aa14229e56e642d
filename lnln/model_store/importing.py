"""Models that no run of this store made, as versions: a published checkpoint, or a model folder from elsewhere.

    import_model(store, Path("mosi.pth"), "published-mosi", "mosi")     # the released LNLN's own file, or SDUMC's
    import_model(store, Path("pulled"), "mosi-lnln")                    # as `lnln pull` wrote it elsewhere
    import_model(store, Path("snapshot"), "mosi-lnln", "mosi")          # config.json and model.safetensors alone

A checkpoint says nothing of its features, so the corpus says it. Only a whole copy of a published version, vouched for
by its manifest, keeps what its lineage says of its training; its validation scores count for `best` where features and
views are the same. Of anything else nothing is known but what it is, so it has no such scores.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lnln.config import Config, to_dict
from lnln.data.digest import digest_file
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.model_inputs import model_inputs
from lnln.data.schema import FeatureSpec
from lnln.data.simulated_text import Simulation
from lnln.data.store import Store, encode_json
from lnln.data.wordpiece import UNCASED, tokenizer_bytes
from lnln.errors import RefusedError
from lnln.evaluations import Evaluation
from lnln.model_store.catalog import Version, check_name
from lnln.model_store.fetch import require_finished
from lnln.model_store.files import MANIFEST, describe, read_manifest_of
from lnln.model_store.lineage import ImportedFile, imported_lineage, mean_scores
from lnln.model_store.opened import LINEAGE, WEIGHTS, open_model, read_json
from lnln.model_store.publishing import model_folder, publish_folder
from lnln.model_store.simulator import SIMULATOR_FILES, add_simulator

if TYPE_CHECKING:
    from torch import Tensor

    from lnln.models import SentimentModel

CHECKPOINT, FOLDER = "published checkpoint", "model folder"
FEATURES, TOKENIZER = "features.json", "tokenizer.json"
# What lineage, evaluation and prediction need to know of them.
_OF_FEATURES = (
    "corpus",
    "feature_id",
    "manifest_digest",
    "synthetic",
    "extractors",
    "tokenizer",
    "label_range",
    "spec",
)
# What the manifest of a published version vouches for.
_OF_COPY = {"config.json", WEIGHTS, FEATURES, LINEAGE, "metrics.json"}
# Rows that a table of embeddings may have beyond the vocabulary.
_MAX_PADDING = 127


def import_model(store: Store, path: Path, name: str, corpus: str | None = None, args: Path | None = None) -> str:
    """Make a version of `name` out of `path`, a published `.pth` or a model folder; returns its number.

    corpus: whose features the model takes; needed for a `.pth` and for a folder without features.json. A model that
    reads simulated text takes that in use. args: the published YAML of a `.pth`, for numbers of heads that are not the
    published ones; of SDUMC's a YAML with `imagination`, where its weights do not tell. The same model again is the
    same version. Raises RefusedError for what is no such file, is damaged, or does not fit the corpus.
    """
    check_name(name)
    if path.is_dir():
        if args is not None:
            raise RefusedError(f"{path} is a folder, and its config.json says what --args would; leave that out")
        return _import_folder(store, path, name, corpus)
    if not path.is_file():
        raise RefusedError(f"there is nothing at {path}; give a published .pth, or a folder with {WEIGHTS}")
    if corpus is None:
        raise RefusedError(f"{path} does not say which features it takes; name its corpus with --corpus")
    return _import_checkpoint(store, path, name, read_features(store, corpus), args)


def _import_checkpoint(store: Store, path: Path, name: str, manifest: FeatureManifest, args: Path | None) -> str:
    from lnln.checkpoint import save_model

    model = _read_checkpoint(path, manifest, args)
    simulation = _simulation(str(path), store, model, manifest)
    _require_fit(str(path), model.spec, manifest)
    _require_finite(path, model)
    with model_folder() as folder:
        folder.rmdir()  # `save_model` makes it
        save_model(folder, model, manifest, simulation)
        add_simulator(store, simulation, folder)
        imported = ImportedFile(path.name, CHECKPOINT, *digest_file(path))
        return _publish_unknown(store, folder, name, model, imported)


def _import_folder(store: Store, path: Path, name: str, corpus: str | None) -> str:
    require_finished(path)
    if not (path / WEIGHTS).is_file():
        raise RefusedError(f"{path} has no {WEIGHTS}; give a folder that `lnln pull` made, or a published .pth")
    if (path / MANIFEST).exists():
        open_model(store, str(path))  # refuses what the manifest does not vouch for
    with model_folder() as folder:
        for file in ("config.json", WEIGHTS, FEATURES, TOKENIZER, *SIMULATOR_FILES):
            if (path / file).is_file():
                shutil.copyfile(path / file, folder / file)
        if not (folder / FEATURES).is_file():
            _state_features(store, path, folder, corpus)
        features = read_json(folder / FEATURES)
        if absent := [key for key in _OF_FEATURES if key not in features]:
            raise RefusedError(f"{path / FEATURES} lacks {', '.join(absent)}; give a folder that `lnln pull` made")
        if corpus not in (None, features["corpus"]):
            raise RefusedError(
                f"{path} takes the features of corpus {features['corpus']}, not of {corpus}; leave --corpus out"
            )
        model = _load(path, folder)
        manifest = read_manifest_of(path)
        if manifest is None or _OF_COPY - {file.name for file in manifest.files}:
            weights = describe(folder / WEIGHTS)
            imported = ImportedFile(path.resolve().name, FOLDER, weights.num_bytes, weights.sha256)
            return _publish_unknown(store, folder, name, model, imported)
        num_bytes = sum(file.num_bytes for file in manifest.files)
        imported = ImportedFile(path.resolve().name, FOLDER, num_bytes, manifest.digest())
        return _publish_copy(store, path, folder, name, features, imported)


def _publish_unknown(store: Store, folder: Path, name: str, model: SentimentModel, imported: ImportedFile) -> str:
    """Publish the model in `folder`, of whose training nothing is known."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    lineage = imported_lineage(read_json(folder / FEATURES), model.config, num_parameters, imported)
    candidate = Version(
        name=name,
        version="",
        folder="",
        manifest_sha256="",
        weights_sha256=describe(folder / WEIGHTS).sha256,
        run_id="",
        corpus=lineage["corpus"],
        feature_id=lineage["feature_id"],
        synthetic=lineage["synthetic"],
        validation_view_ids=(),
        selection_score=None,
        imported_sha256=imported.sha256,
    )
    return publish_folder(store, candidate, folder, lineage, {}, {})


def _publish_copy(
    store: Store, path: Path, folder: Path, name: str, features: Mapping[str, Any], imported: ImportedFile
) -> str:
    """Publish the model in `folder` with what `path`, a whole copy of a published version, says of it."""
    lineage, metrics = read_json(path / LINEAGE), read_json(path / "metrics.json")
    try:
        origin = lineage.get("imported") or to_dict(imported)
        lineage = {"study": None, "model": lineage.get("model") or lineage["config"]["model"], **lineage}
        lineage["imported"] = origin
        if lineage["config"] is not None:
            Config.from_stored(lineage["config"])
        selection, study = lineage["selection"], lineage["study"] or {}
        score = None if selection is None else float(selection["value"])
        if score is not None and not math.isfinite(score):
            raise ValueError(f"a score of {score}")
        validation = {
            str(rate): {str(metric): float(value) for metric, value in row.items()}
            for rate, row in metrics["validation"].items()
        }
        tests = [metrics["test"], *metrics.get("other_corpora", {}).values()]
        scores = [Evaluation.from_dict(values) for values in tests if values is not None]
        candidate = Version(
            name=name,
            version="",
            folder="",
            manifest_sha256="",
            weights_sha256=describe(folder / WEIGHTS).sha256,
            run_id=lineage["run_id"] or "",
            corpus=features["corpus"],
            feature_id=features["feature_id"],
            synthetic=bool(features["synthetic"]),
            validation_view_ids=tuple(map(str, lineage["view_ids"].get("validation", ()))),
            selection_score=score,
            validation_scores=mean_scores(validation),
            study_id=study.get("study_id"),
            trial=study.get("trial"),
            imported_sha256=origin["sha256"],
        )
        return publish_folder(store, candidate, folder, lineage, validation, {each.corpus: each for each in scores})
    except RefusedError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(
            f"{path} does not say of its model what `lnln publish` does ({type(error).__name__} {error}); pull it "
            f"again, or remove its {MANIFEST} to import the weights alone"
        ) from error


def _state_features(store: Store, path: Path, folder: Path, corpus: str | None) -> None:
    """Write to `folder`, which has none, the features.json of `corpus`, once it is known that the model takes them."""
    from lnln.checkpoint import feature_contract

    if corpus is None:
        raise RefusedError(
            f"{path} has no {FEATURES}, so it does not say which features it takes; name its corpus with --corpus"
        )
    manifest, model = read_features(store, corpus), _load(path, folder)
    _require_fit(str(path), model.spec, manifest)
    simulation = _simulation(str(path), store, model, manifest)
    (folder / FEATURES).write_bytes(encode_json(feature_contract(manifest, simulation)))
    add_simulator(store, simulation, folder)
    if manifest.tokenizer == UNCASED and not (folder / TOKENIZER).is_file():
        (folder / TOKENIZER).write_bytes(tokenizer_bytes())


def _load(path: Path, folder: Path) -> SentimentModel:
    """The network that was copied from `path` to `folder`, with finite weights."""
    from lnln.models import load_model

    try:
        model = load_model(folder)
    except RefusedError as error:
        raise RefusedError(str(error).replace(str(folder), str(path))) from error
    _require_finite(path, model)
    return model


def _simulation(where: str, store: Store, model: SentimentModel, manifest: FeatureManifest) -> Simulation | None:
    """The simulated text of the corpus that `model` is to read, None where it reads none. RefusedError where it could
    not read it."""
    simulation = model_inputs(store, manifest, model.config).simulation
    if simulation is not None and simulation.dim != model.spec.simulated_text_dim:
        raise RefusedError(
            f"{where} reads simulated text of width {model.spec.simulated_text_dim}, and that in use of corpus "
            f"{manifest.corpus} has {simulation.dim}; run `lnln simulate {manifest.corpus}` for that width"
        )
    return simulation


def _read_checkpoint(path: Path, manifest: FeatureManifest, args: Path | None) -> SentimentModel:
    from lnln.models import published_sdumc
    from lnln.models.published import from_published

    state, stated = _read_state(path), _read_args(args)
    is_sdumc = published_sdumc.is_published_sdumc(state)
    if bool(manifest.text_dim) != is_sdumc:
        takes, has = ("language features", "token ids") if is_sdumc else ("token ids", "language features")
        width = f" of width {manifest.text_dim}" if manifest.text_dim else ""
        raise RefusedError(
            f"{path} reads {takes}, and corpus {manifest.corpus} has {has}{width}; name a corpus with {takes}"
        )
    try:
        if is_sdumc:
            return published_sdumc.from_published(state, stated, label_range=manifest.label_range)
        return from_published(state, stated, label_range=manifest.label_range, unknown_id=manifest.tokenizer.unknown_id)
    except RefusedError as error:
        raise RefusedError(f"{path}: {error}") from error
    except (ValueError, IndexError, TypeError, AttributeError, ArithmeticError) as error:
        where = path if args is None else f"{path} with {args}"
        kind = "SDUMC" if is_sdumc else "LNLN"
        raise RefusedError(f"{where} is no published {kind} checkpoint ({type(error).__name__}: {error})") from error


def _read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a `.pth`, without running what it may hold beside them."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of what it makes of pickles that are not torch's
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle leads to
        raise RefusedError(
            f"{path} is no checkpoint of tensors alone, damaged, or not of torch ({type(error).__name__}); give the "
            "published .pth"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise RefusedError(f"{path} must hold a state_dict, got {type(content).__name__}; give the published .pth")
    if strange := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise RefusedError(f"{path} must hold a state_dict of tensors, got another thing as {strange[0]!r}")
    return state


def _read_args(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RefusedError(f"{path} is no YAML file that can be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RefusedError(f"{path} must hold the sections of the published config, got {type(values).__name__}")
    return values


def _require_fit(where: str, spec: FeatureSpec, manifest: FeatureManifest) -> None:
    """RefusedError unless a model for `spec` takes the features of `manifest`."""
    theirs = manifest.spec()
    pairs: dict[str, tuple[object, object]] = {
        "audio dim": (spec.audio_dim, theirs.audio_dim),
        "vision dim": (spec.vision_dim, theirs.vision_dim),
        "text dim": (spec.text_dim, theirs.text_dim),
        "label range": (tuple(spec.label_range), tuple(theirs.label_range)),
    }
    if not spec.text_dim:
        pairs["[UNK]"] = (spec.unknown_id, theirs.unknown_id)
        # A table of embeddings may be padded.
        if not 0 <= spec.vocabulary_size - theirs.vocabulary_size <= _MAX_PADDING:
            pairs["token ids"] = (spec.vocabulary_size, theirs.vocabulary_size)
    differing = [f"{what} {mine}, not {other}" for what, (mine, other) in pairs.items() if mine != other]
    if differing:
        raise RefusedError(
            f"{where} does not fit corpus {manifest.corpus}: it takes {'; '.join(differing)}; name the corpus that it "
            "was trained on"
        )


def _require_finite(path: Path, model: SentimentModel) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise RefusedError(f"{path}: the weight {name} is not finite; give a checkpoint that did not diverge")
