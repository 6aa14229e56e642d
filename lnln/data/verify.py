"""Check what the store states of its files, without decoding any: what `lnln verify` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lnln.data.digest import read_digest
from lnln.data.manifest import FeatureManifest, ShardEntry, ViewManifest
from lnln.data.read_ahead import read_ahead
from lnln.data.store import Store


def damaged_shards(store: Store, manifest: FeatureManifest | ViewManifest) -> list[str]:
    """Paths of the files that are missing or not as the manifest states; empty where all is well."""
    entries = listed_files(manifest)
    return [entry.path for entry, is_whole in zip(entries, are_intact(store, entries), strict=True) if not is_whole]


def listed_files(manifest: FeatureManifest | ViewManifest) -> list[ShardEntry]:
    """All that `manifest` names: the shards in order, then the table of quarantined clips where there is one."""
    entries = [entry for split in manifest.splits.values() for entry in split.shards]
    if isinstance(manifest, FeatureManifest) and manifest.extraction and manifest.extraction.quarantine:
        entries.append(manifest.extraction.quarantine)
    return entries


def are_intact(store: Store, entries: Sequence[ShardEntry]) -> Iterator[bool]:
    """Of each shard in order, whether it is there and whole; a few are read at the same time."""
    return read_ahead(lambda entry: is_intact(store, entry.path, entry.num_bytes, entry.sha256), entries)


def is_intact(store: Store, path: str, num_bytes: int, sha256: str) -> bool:
    """Whether the file at `path` is there, with this size and SHA-256."""
    try:
        with store.open(path) as stream:
            return read_digest(stream) == (num_bytes, sha256)
    except FileNotFoundError:
        return False
