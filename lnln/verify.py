"""Every checksum that the store states, against what lies there: `lnln verify`."""

from __future__ import annotations

from collections import Counter

from lnln.data.manifest import list_corpora, list_views, read_features, read_view
from lnln.data.store import Store
from lnln.data.verify import verify_features, verify_view
from lnln.errors import RefusedError
from lnln.model_store import damaged_files, list_models, resolve


def verify(store: Store, name: str | None = None) -> dict[str, int]:
    """Check a corpus with its views, a model (name, name@version), or with None all of the store.

    Returns how many of each were checked. Raises RefusedError naming every file that is missing or damaged.
    """
    counts: Counter[str] = Counter()
    damaged: list[str] = []
    corpora = list_corpora(store)
    models = [model.name for model in list_models(store)]
    if name is not None and name not in corpora and name.partition("@")[0] not in models:
        raise RefusedError(
            f"store {store.url} holds no corpus and no model {name!r}; it has {corpora + models or 'none'}"
        )
    for corpus in corpora:
        if name in (None, corpus):
            damaged += _corpus(store, corpus, counts)
    for model in list_models(store):
        versions = [resolve(store, name)] if name and "@" in name else list(model.versions)
        for version in versions if name is None or name.partition("@")[0] == model.name else []:
            counts["model versions"] += 1
            damaged += damaged_files(store, version)
    if damaged:
        raise RefusedError(f"damaged or missing in {store.url}: {', '.join(damaged)}; make them again or restore them")
    return dict(counts)


def _corpus(store: Store, corpus: str, counts: Counter[str]) -> list[str]:
    manifest = read_features(store, corpus)
    damaged = verify_features(store, manifest)
    counts["corpora"] += 1
    counts["feature shards"] += sum(len(split.shards) for split in manifest.splits.values())
    for view_id in list_views(store, corpus, manifest.feature_id):
        view = read_view(store, corpus, manifest.feature_id, view_id)
        if view is None:
            damaged.append(f"{corpus}/views/{manifest.feature_id}/{view_id}/manifest.json")
            continue
        damaged += verify_view(store, view)
        counts["views"] += 1
    return damaged
