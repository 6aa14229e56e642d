"""What a report says of a corpus that lnln extracted itself: what was met, and which clips are not in it."""

from __future__ import annotations

from collections.abc import Sequence

from lnln.data.card_extraction import counts_table, quarantine_summary
from lnln.data.manifest import read_features
from lnln.data.quarantine import read_quarantine
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluations import Evaluation
from lnln.markdown import code, escape


def describe_corpora(store: Store, evaluations: Sequence[Evaluation]) -> list[str]:
    """Markdown, a part for each extracted corpus that models were scored on; none for those that were imported."""
    corpora = dict.fromkeys((evaluation.corpus, evaluation.feature_id) for evaluation in evaluations)
    parts = [_describe(store, corpus, feature_id) for corpus, feature_id in corpora]
    return [part for part in parts if part]


def _describe(store: Store, corpus: str, feature_id: str) -> str:
    manifest = read_features(store, corpus, feature_id)
    if manifest.extraction is None:
        return ""
    entry = manifest.extraction.quarantine
    where = "" if entry is None else f"{store.url}/{entry.path}"
    try:
        left_out = quarantine_summary(read_quarantine(store, manifest), where)
    except RefusedError as error:  # the scores do not hang on it
        left_out = f"The quarantine table cannot be read: {escape(str(error))}."
    again = f"{code('README.md')} beside the features says how to extract the same from other clips"
    intro = f"{code(corpus)}, features {code(feature_id)}, extracted from raw clips; {again}. What was met:"
    return "\n\n".join([intro, counts_table(manifest.extraction.counts), left_out])
