"""What lies in a store and nothing names: `lnln gc`.

    garbage = find_garbage(store, grace_hours=24)     # says what it would remove
    remove_garbage(store, garbage)                    # removes it, each file after a second look

Taken are, when older than the grace time:

- shards under `<corpus>/features/`, `<corpus>/views/` and `<corpus>/simulated/`, tables of quarantined clips, and files
  of learned simulators, that no manifest names, in use or not: of a stage that was killed, or of features whose
  manifest was removed; and the record `unfinished.json` that such a stage left;
- files of `models/<name>/<digest>/` that are no version in the catalog: of a publication that was killed;
- `.part`, `.lock` and `.probe-` files that a killed writer left; parts of uploads that never ended.

Not taken: anything else. Runs and studies keep what they need to continue, and nothing says which checkpoint of Ray's
that is; reports are the user's. Where a manifest or a catalog cannot be read, nothing of its folder is taken.

A writer may work meanwhile. Before it commits it has written every file of its own anew, whether it was there or not;
or its record, before it looked whether the shards that this names are whole. So what it needs is younger than the grace
time, or beside a record that is. Manifests are read after the listing, and again before each removal; an old record
goes alone, and the shards it names in a later run, if there is none again; a file that was written since stays. What
remains is a file in a bucket that is older than the grace time and is written anew between the last look and the
removal: two requests, one after the other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lnln.data.manifest import check_corpus_name, read_features, read_view
from lnln.data.schema import STORED_SPLITS
from lnln.data.simulated_text import listed_simulation_files, read_simulation
from lnln.data.store import Store, StoredFile, UnfinishedUpload
from lnln.data.verify import listed_files
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store import read_model
from lnln.progress import bar

DEFAULT_GRACE_HOURS = 24.0

# Where lnln writes: a store may be a folder, or a bucket, with other things in it.
_OURS = re.compile(r"[^/]+|(?:[^/]+/(?:features|views|simulated)|runs|studies|models|reports|baselines)/.*")
# Of simulated text, what was taught lies in a folder of its own, which no manifest names once it was learned.
_FOLDER = r"([^/]+/(?:features/[^/]+|(?:views|simulated)/[^/]+/[^/]+(?:/targets)?))"
_SHARD = re.compile(
    rf"{_FOLDER}/(?:(?:{'|'.join(STORED_SPLITS)})/part-[0-9a-f]{{12}}|quarantine-[0-9a-f]{{12}})\.parquet"
    rf"|{_FOLDER}/simulator/[a-z]+-[0-9a-f]{{12}}\.[a-z]+"
)
_RECORD = re.compile(rf"{_FOLDER}/unfinished\.json")
_MANIFEST = re.compile(rf"{_FOLDER}/manifest\.json")
_MODEL_FILE = re.compile(r"(models/[^/]+)/[0-9a-f]{64}/[^/]+")
# At the top of the store others may lock files too.
_LEFTOVER = re.compile(
    r"(?:.*/\.[^/]+|\.corpora\.json)\.(?:[0-9a-f]{16}\.part|lock)|\.[^/]+\.[0-9a-f]{16}\.part|\.probe-[0-9a-f]{16}"
)


@dataclass(frozen=True)
class Garbage:
    """What nothing names. files: by the folder whose manifest or catalog could have named them, "" for leftovers, which
    none could. kept: folder -> why nothing of it is taken."""

    files: dict[str, tuple[StoredFile, ...]]
    uploads: tuple[UnfinishedUpload, ...]
    kept: dict[str, str]

    @property
    def paths(self) -> list[str]:
        return sorted(file.path for files in self.files.values() for file in files)

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for files in self.files.values() for file in files)


def find_garbage(store: Store, grace_hours: float = DEFAULT_GRACE_HOURS) -> Garbage:
    """What `remove_garbage` may remove; nothing is changed. RefusedError where the store does not exist."""
    if "://" not in store.url and not Path(store.url).exists():
        raise RefusedError(f"store {store.url} does not exist; `lnln import` makes one, --store names another")
    if not grace_hours >= 0:
        raise RefusedError(f"the grace time must be 0 hours or more, got {grace_hours:g}")
    oldest = store.clock() - grace_hours * 3600
    listed = store.list_files()
    uploads = [upload for upload in store.list_uploads() if upload.begun <= oldest and _OURS.fullmatch(upload.path)]
    candidates: dict[str, list[StoredFile]] = defaultdict(list)
    busy = set()
    for file in listed:
        owner = _owner(file.path)
        if owner is not None and file.modified <= oldest:
            candidates[owner].append(file)
        elif match := _RECORD.fullmatch(file.path):
            busy.add(match[1])
    # After the listing, so that what was committed meanwhile counts.
    owners = {match[1] for file in listed if (match := _MANIFEST.fullmatch(file.path))} | set(candidates)
    named, kept = _named(store, owners)
    # Beside a record, the record alone: a stage that goes on from it at this moment believes the shards that it names.
    for owner, found in candidates.items():
        candidates[owner] = [file for file in found if _RECORD.fullmatch(file.path)] or found
    files = {
        owner: tuple(file for file in sorted(found, key=lambda file: file.path) if _name(file.path) not in named)
        for owner, found in sorted(candidates.items())
        if owner not in kept and owner not in busy
    }
    return Garbage({owner: found for owner, found in files.items() if found}, tuple(uploads), kept)


def remove_garbage(store: Store, garbage: Garbage) -> list[str]:
    """Remove what `garbage` holds, but what was named or written since it was found. Returns the paths removed."""
    removed: list[str] = []
    with bar("gc", len(garbage.paths) + len(garbage.uploads)) as advance:
        for owner, files in garbage.files.items():
            for file in files:
                if _is_garbage_still(store, owner, file.path) and store.remove_unchanged(file):
                    removed.append(file.path)
                advance()
        for upload in garbage.uploads:
            store.abort_upload(upload)
            removed.append(upload.path)
            advance()
    return sorted(removed)


def _owner(path: str) -> str | None:
    """The folder whose manifest or catalog would name `path`; "" for what none would; None for what is never taken."""
    if _LEFTOVER.fullmatch(path) and _OURS.fullmatch(path):
        return ""
    match = _SHARD.fullmatch(path) or _RECORD.fullmatch(path) or _MODEL_FILE.fullmatch(path)
    return next(group for group in match.groups() if group) if match else None


def _is_garbage_still(store: Store, owner: str, path: str) -> bool:
    named, kept = _named(store, [owner])
    if kept or _name(path) in named:
        return False
    is_shard = _SHARD.fullmatch(path) is not None
    return not (is_shard and store.exists(f"{owner}/unfinished.json"))


def _name(path: str) -> str:
    """What a manifest or catalog would call `path`: a shard by its path, a model's file by its version's folder."""
    return path.rpartition("/")[0] if _MODEL_FILE.fullmatch(path) else path


def _named(store: Store, owners: Iterable[str]) -> tuple[set[str], dict[str, str]]:
    """All that the manifests and catalogs of `owners` name, as `_name` has it; and why some cannot be read."""
    named: set[str] = set()
    unread: dict[str, str] = {}
    for owner in sorted(owners):
        try:
            named |= _named_by(store, owner)
        except StoreFailedError:
            raise
        except RefusedError as error:
            unread[owner] = str(error)
    return named, unread


def _named_by(store: Store, owner: str) -> set[str]:
    if not owner:
        return set()
    top, area, *ids = owner.split("/")
    if top == "models":
        model = read_model(store, area)
        return {version.folder for version in model.versions} if model else set()
    check_corpus_name(top)
    if not store.exists(f"{owner}/manifest.json"):
        return set()
    if area == "simulated":
        simulation = read_simulation(store, top, ids[0], ids[1])
        return {entry.path for entry in listed_simulation_files(simulation)}
    manifest = read_view(store, top, ids[0], ids[1]) if area == "views" else read_features(store, top, ids[0])
    return set() if manifest is None else {entry.path for entry in listed_files(manifest)}
