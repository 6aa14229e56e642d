"""Dataset cards: README.md for people and Hugging Face, croissant.json for programs, beside a feature manifest; and
columns.csv, the names of dimensions, where lnln extracted the features itself.

    write_card(store, commit_features(store, manifest))

No manifest names them, and no part of lnln reads them. They are written after the manifest, which alone counts: where
they are missing, nothing else is, and the same import or extraction writes them again. Equal features make equal
bytes.
"""

from __future__ import annotations

import logging

from lnln.data.card_extraction import COLUMNS, encode_columns
from lnln.data.card_facts import gather_facts
from lnln.data.card_page import describe, encode_card, license_url
from lnln.data.croissant import encode_croissant
from lnln.data.manifest import FeatureManifest
from lnln.data.quarantine import read_quarantine
from lnln.data.store import Store
from lnln.errors import RefusedError

log = logging.getLogger(__name__)

README = "README.md"
CROISSANT = "croissant.json"
# Files that lie beside every feature manifest without being listed by it.
CARD_FILES = (README, CROISSANT)


def write_card(store: Store, manifest: FeatureManifest) -> FeatureManifest:
    """Describe the features of `manifest`, which are committed, in their folder; returns `manifest`.

    Where that fails, a warning says so and the features are as good as before.
    """
    try:
        facts = gather_facts(store, manifest)
        licence = license_url(manifest)
        if manifest.extraction is not None:
            _put(store, f"{manifest.folder}/{COLUMNS}", encode_columns(manifest))
        _put(store, f"{manifest.folder}/{README}", encode_card(manifest, facts, read_quarantine(store, manifest)))
        _put(store, f"{manifest.folder}/{CROISSANT}", encode_croissant(manifest, facts, describe(manifest), licence))
    except (RefusedError, OSError) as error:
        log.warning("%s has no card (%s); the same command writes it", manifest.folder, error)
    return manifest


def _put(store: Store, path: str, data: bytes) -> None:
    try:
        if store.read(path) == data:
            return
    except FileNotFoundError:
        pass
    store.write(path, data)
