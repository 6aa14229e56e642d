"""Runs in a store: where they lie, and what a finished one says. Without torch and Ray, so anything may read them.

runs/<run_id>/run.json        what the run is: config, corpus, features, views; written first
runs/<run_id>/ray/            Ray's checkpoints
runs/<run_id>/history.json    one entry per finished epoch, while it trains
runs/<run_id>/model/          the model selected on validation
runs/<run_id>/selected-on-test/   with `train.selection: published`: weights by epoch, see `selected_on_test`
runs/<run_id>/result.json     last; a run without it is unfinished
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnln import __version__
from lnln.config import Config, fingerprint, looked_at
from lnln.corruption import evaluation_views, training_views
from lnln.data.manifest import FeatureManifest
from lnln.data.store import Store
from lnln.data.verify import is_intact
from lnln.errors import RefusedError
from lnln.metrics import higher_is_better

# Where the published code selects: at this missing rate of the test split (reference.md D1).
SELECTION_RATE = 0.5


@dataclass(frozen=True)
class Run:
    """A finished run.

    folder: under the store. view_ids: of `validation` and `training`. score: mean validation MAE over
    `config.corruption.validation_rates` at best_epoch (from 1). validation: metrics by missing rate at that epoch.
    history: per epoch its loss terms, learning rate, seconds, validation scores. files: of `<folder>/model/`, each with
    `sha256` and `num_bytes`. absent_modalities: those that no utterance of the training split has.
    """

    run_id: str
    folder: str
    corpus: str
    feature_id: str
    manifest_digest: str
    config: Config
    view_ids: dict[str, list[str]]
    code_version: str
    best_epoch: int
    score: float
    validation: dict[str, dict[str, float]]
    history: list[dict[str, Any]]
    files: dict[str, dict[str, Any]]
    num_parameters: int
    num_workers: int
    seconds: float
    versions: dict[str, str]
    absent_modalities: tuple[str, ...] = ()


def run_folder(run_id: str) -> str:
    return f"runs/{run_id}"


def run_identity(config: Config, manifest: FeatureManifest) -> dict[str, Any]:
    """What makes a run this run and no other: not the hardware, the number of workers, the version of the code, or the
    name of the file that the features came from."""
    return {
        "config": trained_values(config),
        "corpus": manifest.corpus,
        "feature_id": manifest.feature_id,
        "view_ids": view_ids(config),
    }


def trained_values(config: Config) -> dict[str, Any]:
    """What of `config` a trained model hangs on: not what is stored on the way, nor what fits a step to a device."""
    values = looked_at(config)
    del values["tune"], values["corruption"]["num_stored_draws"], values["train"]["num_checkpoints"]
    del values["train"]["accumulation_steps"], values["train"]["compile"]
    return values


def run_record(config: Config, manifest: FeatureManifest, config_name: str | None = None) -> dict[str, Any]:
    """The content of `run.json`: the identity, all of the config, and where both came from."""
    return {
        **run_identity(config, manifest),
        "run_id": run_id_for(config, manifest.corpus, manifest),
        "config": {key: value for key, value in config.to_dict().items() if key != "tune"},
        "manifest_digest": manifest.digest(),
        "config_name": config_name,
        "code_version": __version__,
    }


def view_ids(config: Config) -> dict[str, list[str]]:
    """The views a run validates and trains on."""
    corruption, train = config.corruption, config.train
    return {
        "validation": [view.view_id for view in evaluation_views(corruption, corruption.validation_rates)],
        "training": [view.view_id for view in training_views(corruption, train.seed, train.epochs)],
    }


def run_id_for(config: Config, corpus: str, manifest: FeatureManifest) -> str:
    """The same for the same config on the same features, on any machine."""
    assert corpus == manifest.corpus
    return f"{corpus}-{config.model.name}-{fingerprint(run_identity(config, manifest))}"


def is_finished(store: Store, run_id: str) -> bool:
    return store.exists(f"{run_folder(run_id)}/result.json")


def load_run(store: Store, run_id: str) -> Run:
    """The finished run `run_id`; RefusedError where it is unknown, unfinished or damaged."""
    folder = run_folder(run_id)
    try:
        made = store.read_json(f"{folder}/run.json")
    except FileNotFoundError:
        raise RefusedError(f"store {store.url} holds no run {run_id!r}; `lnln train CORPUS` makes one") from None
    try:
        result = store.read_json(f"{folder}/result.json")
    except FileNotFoundError:
        raise RefusedError(
            f"run {run_id} in {store.url} is not finished; start `lnln train` with the same arguments to continue it"
        ) from None
    return _decode(run_id, made, result, f"{store.url}/{folder}")


def damaged_run_files(store: Store, run: Run) -> list[str]:
    """Paths in the store of the run's model files that are missing or not as its result states."""
    paths = {f"{run.folder}/model/{name}": entry for name, entry in run.files.items()}
    return [
        path
        for path, entry in paths.items()
        if not is_intact(store, path, int(entry["num_bytes"]), str(entry["sha256"]))
    ]


def selected_on_test(history: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """For each metric the epoch (from 1) that is best on test at SELECTION_RATE, the first of equals.

    Empty but for a run with `train.selection: published`: only that looks at test, for comparison with tables that
    were selected so (reference.md D1). The published code never keeps epoch 1 (D7), which trains at rate 0 there.
    """
    best: dict[str, Mapping[str, Any]] = {}
    for record in history:
        for metric, value in record.get("test", {}).items():
            gain = value - best[metric]["test"][metric] if metric in best else None
            if gain is None or (gain > 0 if higher_is_better(metric) else gain < 0):
                best[metric] = record
    return {metric: int(record["epoch"]) for metric, record in best.items()}


def selection_folder(folder: str) -> str:
    """Where the run in `folder` keeps the weights of the epochs of `selected_on_test`."""
    return f"{folder}/selected-on-test"


def selection_file(epoch: int) -> str:
    """Named by the epoch, so that a run that was killed overwrites what it wrote before when it continues."""
    return f"epoch-{epoch:04d}.safetensors"


def selection_weights(run: Run) -> dict[int, dict[str, Any]]:
    """Of each epoch that a metric was selected at: `sha256` and `num_bytes` of its file of weights."""
    entries = {record["epoch"]: record["selection_weights"] for record in run.history if "selection_weights" in record}
    return {epoch: entries[epoch] for epoch in sorted(set(selected_on_test(run.history).values()))}


def damaged_selection_weights(store: Store, run: Run) -> list[str]:
    """Paths in the store of those of `selection_weights` that are missing or not as they were written."""
    paths = {
        f"{selection_folder(run.folder)}/{selection_file(epoch)}": entry
        for epoch, entry in selection_weights(run).items()
    }
    return [
        path
        for path, entry in paths.items()
        if not is_intact(store, path, int(entry["num_bytes"]), str(entry["sha256"]))
    ]


def absence(corpus: str, absent: Sequence[str]) -> str:
    """What is said of modalities that no training utterance has."""
    is_one = len(absent) == 1
    return (
        f"{' and '.join(absent)} {'is' if is_one else 'are'} absent from every utterance of the training split of "
        f"{corpus}; trained without {'it' if is_one else 'them'}"
    )


def _decode(run_id: str, made: Mapping[str, Any], result: Mapping[str, Any], where: str) -> Run:
    made_by = ("corpus", "feature_id", "manifest_digest", "view_ids", "code_version")
    ended_as = ("best_epoch", "score", "validation", "history", "files", "num_parameters", "num_workers", "seconds")
    try:
        values: dict[str, Any] = {key: made[key] for key in made_by}
        values |= {key: result[key] for key in (*ended_as, "versions")}
        values["absent_modalities"] = tuple(result.get("absent_modalities", ()))
        config = Config.from_stored(made["config"])
        return Run(run_id, run_folder(run_id), config=config, **values)
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"{where} is damaged: {type(error).__name__} {error}; remove it and train again") from error
