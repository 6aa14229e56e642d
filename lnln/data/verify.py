"""Check every checksum of a manifest without decoding anything: what `lnln verify` does."""

from __future__ import annotations

import hashlib

from lnln.data.manifest import FeatureManifest, ShardEntry, ViewManifest
from lnln.data.store import Store

_PIECE = 1 << 20


def verify_features(store: Store, manifest: FeatureManifest) -> list[str]:
    """Paths of the feature shards that are missing or not as the manifest states; empty where all is well."""
    return _damaged(store, manifest)


def verify_view(store: Store, manifest: ViewManifest) -> list[str]:
    """Paths of the view shards that are missing or not as the manifest states; empty where all is well."""
    return _damaged(store, manifest)


def _damaged(store: Store, manifest: FeatureManifest | ViewManifest) -> list[str]:
    entries = [entry for split in manifest.splits.values() for entry in split.shards]
    return [entry.path for entry in entries if not _is_whole(store, entry)]


def _is_whole(store: Store, entry: ShardEntry) -> bool:
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with store.open(entry.path) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                num_bytes += len(piece)
    except FileNotFoundError:
        return False
    return num_bytes == entry.num_bytes and digest.hexdigest() == entry.sha256
