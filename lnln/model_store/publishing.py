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

import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnln.data.store import Store, encode_json
from lnln.data.verify import is_intact
from lnln.errors import RefusedError
from lnln.evaluations import Evaluation
from lnln.model_store.card import model_card
from lnln.model_store.catalog import (
    Version,
    add_version,
    check_name,
    read_model,
    resolve,
)
from lnln.model_store.files import MANIFEST, ModelManifest, fetch, is_whole
from lnln.model_store.lineage import Origin, mean_scores, run_lineage
from lnln.model_store.opened import LINEAGE, WEIGHTS, fetch_version, open_model, read_json, read_manifest, run_manifest
from lnln.model_store.scores import Scored, find_scores
from lnln.runs import load_run

if TYPE_CHECKING:
    from lnln.models import SentimentModel


def publish(store: Store, run_id: str, name: str, *, origin: Origin | None = None) -> str:
    """Make a version of `name` out of a finished run; returns its number, `v1`, `v2`, ...

    Copies the weights (no optimizer), config, tokenizer and feature contract; adds scores, lineage and a card. A run
    published before keeps its version; files of it that were lost or damaged in the store are put back. `best` moves
    to the new version if its mean validation MAE is below that of the best so far, on the same features and views;
    `best-acc7` and the like by their metrics. origin: the study that the run's parameters are from.
    Raises RefusedError for a name that cannot be one, and for an unknown, unfinished or damaged run.
    """
    check_name(name)
    run = load_run(store, run_id)
    files = run_manifest(run)
    weights = next((file.sha256 for file in files.files if file.name == WEIGHTS), None)
    if weights is None:
        raise RefusedError(f"run {run_id} lists no {WEIGHTS} among its model files; train it again")
    with model_folder() as folder:
        fetch(store, f"{run.folder}/model", files.files, folder)
        features = read_json(folder / "features.json")
        scores = find_scores(
            store,
            [f"{run.folder}/evaluations"],
            weights,
            Scored(run.corpus, run.manifest_digest),
            features["label_range"],
            run.config.corruption,
        )
        lineage = run_lineage(run, features, origin)
        candidate = Version(
            name=name,
            version="",
            folder="",
            manifest_sha256="",
            weights_sha256=weights,
            run_id=run.run_id,
            corpus=run.corpus,
            feature_id=run.feature_id,
            synthetic=bool(lineage["synthetic"]),
            validation_view_ids=tuple(run.view_ids["validation"]),
            selection_score=run.score,
            validation_scores=mean_scores(run.validation),
            study_id=None if origin is None else origin.study_id,
            trial=None if origin is None else origin.trial,
        )
        return publish_folder(store, candidate, folder, lineage, run.validation, scores)


@contextmanager
def model_folder() -> Iterator[Path]:
    """An empty folder in a temporary one, to put a model's files into before they are published."""
    with tempfile.TemporaryDirectory(prefix="lnln-publish-") as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        yield folder


def publish_folder(
    store: Store,
    candidate: Version,
    folder: Path,
    lineage: Mapping[str, Any],
    validation: Mapping[str, Any],
    scores: Mapping[str, Evaluation],
) -> str:
    """Complete the model in `folder` by lineage, scores and card, and enter it; returns the number of its version.

    candidate: the version but for its number, its place and its manifest. validation: metrics by missing rate at the
    chosen epoch. scores: on test, by corpus.
    """
    own = scores.get(candidate.corpus)
    others = {corpus: each.to_dict() for corpus, each in scores.items() if corpus != candidate.corpus}
    metrics = {
        "selection": lineage["selection"],
        "validation": validation,
        "test": None if own is None else own.to_dict(),
        "other_corpora": others,
    }
    (folder / LINEAGE).write_bytes(encode_json(lineage))
    (folder / "metrics.json").write_bytes(encode_json(metrics))
    (folder / "README.md").write_text(model_card(candidate.name, lineage, scores), encoding="utf-8")
    manifest = ModelManifest.of_folder(folder, [entry.name for entry in folder.iterdir()])
    digest = manifest.digest()
    candidate = dataclasses.replace(candidate, folder=f"models/{candidate.name}/{digest}", manifest_sha256=digest)
    model = read_model(store, candidate.name)
    known = next((v for v in model.versions if v.is_same_model(candidate)), None) if model is not None else None
    if known is None:
        _upload(store, candidate.folder, manifest, folder)
    else:
        _mend(store, known, folder)
    return add_version(store, candidate).version


def pull(store: Store, reference: str, folder: Path | str) -> Path:
    """Copy the published model `reference` (name, name@version, name@alias) to `folder`; returns the folder.

    Every file is checked against its SHA-256. A new folder appears whole or not at all; a pull that was cut off is
    continued by the next one. In an earlier copy only what is missing or damaged is downloaded, of a whole one nothing,
    and an untouched copy of another version is replaced. Raises RefusedError for an unknown reference, a file that is
    damaged in the store (by name), and a folder with other content.
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
