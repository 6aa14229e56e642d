"""Which test scores the store has of a model, found by what they are of: no folder is listed.

find_scores(store, ["runs/mosi-lnln-1f3a/evaluations"], weights_sha256, trained_on, corruption)["mosi"].mean["mae"]
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lnln.config import CorruptionConfig
from lnln.data.manifest import list_corpora, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.evaluations import Evaluation, evaluation_id, evaluation_specs, read_evaluation

log = logging.getLogger(__name__)

# Of the suite `ten_rates` (lnln/evaluate/suites.py, a layer above): what different models are compared on.
TEN_RATES_MASK_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Scored:
    """A corpus by the manifest of its features."""

    corpus: str
    manifest_digest: str


def find_scores(
    store: Store,
    folders: Sequence[str],
    weights_sha256: str,
    trained_on: Scored,
    label_range: Sequence[float],
    corruption: CorruptionConfig,
) -> dict[str, Evaluation]:
    """The evaluations on test that lie in one of `folders`, by corpus, the model's own first.

    One for each corpus of the store with the same label range: of the suite `ten_rates` if that was made, else over the
    rates and masks of `corruption`. Only of weights that were selected on validation.
    """
    found = {}
    for scored in (trained_on, *_others(store, trained_on, label_range)):
        for views in view_sets(corruption):
            if evaluation := find_one(store, folders, weights_sha256, scored.manifest_digest, views):
                found[scored.corpus] = evaluation
                break
    return found


def find_one(
    store: Store, folders: Sequence[str], weights_sha256: str, manifest_digest: str, view_ids: Sequence[str]
) -> Evaluation | None:
    """The evaluation of these weights on the test split of these features under these views, where there is one."""
    identity = evaluation_id(weights_sha256, manifest_digest, "test", view_ids)
    for folder in folders:
        evaluation = read_evaluation(store, folder, identity)
        if evaluation is not None and evaluation.selection == "validation":
            return evaluation
    return None


def view_sets(corruption: CorruptionConfig) -> list[list[str]]:
    """Ids of the views of the suite `ten_rates`, and of those of a model's own config."""
    sets = (evaluation_specs(CorruptionConfig(), mask_seeds=TEN_RATES_MASK_SEEDS), evaluation_specs(corruption))
    return [[spec.view_id for spec in specs] for specs in sets]


def _others(store: Store, own: Scored, label_range: Sequence[float]) -> Iterator[Scored]:
    """All other corpora with this label range; one that cannot be read is passed over, and said."""
    for corpus in list_corpora(store):
        if corpus == own.corpus:
            continue
        try:
            manifest = read_features(store, corpus)
        except StoreFailedError:
            raise
        except RefusedError as error:
            log.warning("scores on %s are not looked for: %s", corpus, error)
            continue
        if tuple(manifest.label_range) == tuple(label_range):
            yield Scored(corpus, manifest.digest())
