"""What a report says of a corpus that lnln extracted itself: what was met, and which clips are not in it."""

from __future__ import annotations

from lnln.data.counts import say_counts
from lnln.data.manifest import FeatureManifest
from lnln.data.quarantine import read_quarantine
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.report.data import Extraction

# As many of the clips that were left out as a reader looks through.
NUM_LEFT_OUT = 20


def describe_extraction(store: Store, manifest: FeatureManifest) -> Extraction | None:
    """None for a corpus that was imported."""
    if manifest.extraction is None:
        return None
    entry = manifest.extraction.quarantine
    try:
        rows, problem = read_quarantine(store, manifest), ""
    except StoreFailedError:
        raise
    except RefusedError as error:  # the scores do not hang on it
        rows, problem = [], f"The quarantine table cannot be read: {error}."
    return Extraction(
        counts=tuple(say_counts(manifest.extraction.counts)),
        num_left_out=len(rows),
        left_out=tuple((row.utterance_id, row.stage, row.reason) for row in rows[:NUM_LEFT_OUT]),
        table="" if entry is None else f"{store.url}/{entry.path}",
        problem=problem,
    )
