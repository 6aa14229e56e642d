"""Every checksum that the store states, against what lies there: `lnln verify`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from lnln.data.manifest import list_corpora, list_views, read_features, read_view
from lnln.data.simulated_text import damaged_simulation_files, list_simulations, read_simulation
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store import PublishedModel, damaged_files, list_models, resolve
from lnln.runs import damaged_run_files, damaged_selection_weights, load_run, run_folder, selection_weights


def verify(store: Store, name: str | None = None) -> dict[str, int]:
    """Check a corpus with its views and simulated text, a model (name, name@version), a run, or with None all corpora
    and models.

    Returns how many of each were checked, without those of which there are none. Raises RefusedError for a store that
    does not exist and a name that it does not hold, and naming every file that is missing or damaged.
    """
    if "://" not in store.url and not Path(store.url).exists():
        raise RefusedError(f"store {store.url} does not exist; `lnln import` makes one, --store names another")
    counts: Counter[str] = Counter()
    damaged: list[str] = []
    corpora, models = list_corpora(store), list_models(store)
    for corpus in corpora:
        if name in (None, corpus):
            damaged += _corpus(store, corpus, counts)
    for model in models:
        if name is None or name.partition("@")[0] == model.name:
            damaged += _model(store, model, name, counts)
    if name is not None and not counts:
        if not _is_run(store, name):
            held = ", ".join([*corpora, *(model.name for model in models)]) or "none"
            raise RefusedError(f"store {store.url} holds no corpus, model or run {name!r}; corpora and models: {held}")
        damaged += _run(store, name, counts)
    if damaged:
        raise RefusedError(f"damaged or missing in {store.url}: {', '.join(damaged)}; make them again or restore them")
    return dict(counts)


def _corpus(store: Store, corpus: str, counts: Counter[str]) -> list[str]:
    counts["corpora"] += 1
    try:
        manifest = read_features(store, corpus)
    except StoreFailedError:
        raise
    except RefusedError as error:
        return [str(error)]
    damaged = damaged_shards(store, manifest)
    counts["feature shards"] += sum(len(split.shards) for split in manifest.splits.values())
    for view_id in list_views(store, corpus, manifest.feature_id):
        try:
            view = read_view(store, corpus, manifest.feature_id, view_id)
        except StoreFailedError:
            raise
        except RefusedError as error:
            damaged.append(str(error))
            continue
        if view is None:
            views = f"{corpus}/views/{manifest.feature_id}"
            damaged.append(f"{views}/{view_id}/manifest.json, which {views}/index.json names")
            continue
        damaged += damaged_shards(store, view)
        counts["views"] += 1
    for simulation_id in list_simulations(store, corpus, manifest.feature_id):
        try:
            simulation = read_simulation(store, corpus, manifest.feature_id, simulation_id)
        except StoreFailedError:
            raise
        except RefusedError as error:
            damaged.append(str(error))
            continue
        damaged += damaged_simulation_files(store, simulation)
        counts["simulations"] += 1
    return damaged


def _model(store: Store, model: PublishedModel, name: str | None, counts: Counter[str]) -> list[str]:
    """All versions of `model`, or the one that `name` selects."""
    versions = [resolve(store, name)] if name and "@" in name else model.versions
    counts["model versions"] += len(versions)
    return [path for version in versions for path in damaged_files(store, version)]


def _is_run(store: Store, name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name) is not None and store.exists(
        f"{run_folder(name)}/run.json"
    )


def _run(store: Store, run_id: str, counts: Counter[str]) -> list[str]:
    run = load_run(store, run_id)
    counts["runs"] += 1
    counts["model files"] += len(run.files)
    if kept := selection_weights(run):
        counts["weights selected on test"] += len(kept)
    return [*damaged_run_files(store, run), *damaged_selection_weights(store, run)]
