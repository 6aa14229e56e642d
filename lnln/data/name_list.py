"""Lists of names that grow: what a store has, since no folder is ever listed. One JSON file, sorted, changed by CAS."""

from __future__ import annotations

import json

from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError


def add_name(store: Store, path: str, name: str) -> None:
    """Put `name` into the list at `path`, which others may be changing too; once is enough."""

    def add(before: bytes | None) -> bytes:
        names = [] if before is None else _decode(store, path, before)
        return encode_json(sorted({*names, name}))

    store.update(path, add)


def read_names(store: Store, path: str) -> list[str]:
    """The names in the list at `path`, sorted; none where there is no list."""
    try:
        return _decode(store, path, store.read(path))
    except FileNotFoundError:
        return []


def _decode(store: Store, path: str, data: bytes) -> list[str]:
    try:
        names = json.loads(data)
    except ValueError:
        names = None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    # As it is written: two names that a flipped bit has made one, or put in the wrong place, show so.
    if not is_list or names != sorted(set(names)):
        raise RefusedError(
            f"{store.url}/{path} must hold a list of names, sorted and each once; restore it, or remove it and commit "
            "what it is to name again"
        )
    return list(names)
