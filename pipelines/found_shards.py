"""Feature shards that no manifest lists: files, folders and patterns, on this machine or in a bucket.

for shard in find_shards(["shards/*.parquet", "s3://bucket/more"]):
    print(shard.url, shard.num_bytes)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lnln.data.store import Store
from lnln.errors import RefusedError

# A shard is read whole: those of lnln have some tens of MB.
MAX_SHARD_BYTES = 1 << 30
_WILD = re.compile(r"[*?\[]")
_ENDING = ".parquet"


@dataclass(frozen=True)
class FoundShard:
    """A file `path` of `store`, which is the folder or prefix it was found in."""

    store: Store
    path: str
    num_bytes: int

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.path}"


def find_shards(inputs: Sequence[str], *, but_below: str | None = None) -> list[FoundShard]:
    """The shards that `inputs` mean, each once, by URL.

    An input is a file, a folder or `s3://bucket/prefix` with all below it, or a pattern with `*`, `?` and `[...]`, and
    `**` for any folders. Files whose names begin with `_` or `.` are taken where they are named only. but_below: URL of
    a folder of which nothing is taken. RefusedError where an input means no file, or a file is too large.
    """
    found: dict[str, FoundShard] = {}
    for given in inputs:
        here = [
            shard
            for shard in (_in_bucket(given) if given.startswith("s3://") else _on_this_machine(given))
            if but_below is None or not _is_below(shard.url, but_below)
        ]
        if not here:
            raise RefusedError(
                f"there is no feature shard (.parquet) at {given}; give a file, a folder, a pattern such as "
                "'shards/*.parquet', or s3://bucket/prefix"
            )
        found.update((shard.url, shard) for shard in here)
    if too_large := [shard for shard in found.values() if shard.num_bytes > MAX_SHARD_BYTES]:
        raise RefusedError(
            f"{too_large[0].url} has {too_large[0].num_bytes:,} bytes, and a shard is read whole; write it as several "
            f"of {MAX_SHARD_BYTES:,} at most"
        )
    return [found[url] for url in sorted(found)]


def _on_this_machine(given: str) -> Iterator[FoundShard]:
    try:
        path = Path(given).expanduser()
        if path.is_file():
            paths = [path] if given.endswith(_ENDING) else []
        elif path.is_dir():
            store = Store(path)
            yield from (
                FoundShard(store, file.path, file.num_bytes)
                for file in store.list_files(follow_links=True)
                if _is_shown(file.path)
            )
            return
        else:
            matches = Path(path.anchor).glob(str(path.relative_to(path.anchor))) if _WILD.search(given) else []
            paths = [match for match in matches if _is_shown(match.name) and match.is_file()]
        yield from (FoundShard(Store(file.parent), file.name, file.stat().st_size) for file in paths)
    except (OSError, ValueError) as error:  # too long for a path, or with a character that none has
        raise RefusedError(f"cannot look for feature shards at {given!r}: {error}") from error


def _in_bucket(given: str) -> Iterator[FoundShard]:
    wild = _WILD.search(given)
    if wild is None and given.endswith(_ENDING):
        folder, _, name = given.rpartition("/")
        store = Store(folder)
        try:
            with store.open(name) as stream:
                yield FoundShard(store, name, stream.seek(0, 2))
        except FileNotFoundError:
            return
        return
    folder, pattern = (given, None) if wild is None else given[: wild.start()].rsplit("/", 1)
    if pattern is not None and wild is not None:
        pattern += given[wild.start() :]
    store = Store(folder)
    for file in store.list_files():
        if _is_shown(file.path) and (pattern is None or _fits(file.path.split("/"), pattern.split("/"))):
            yield FoundShard(store, file.path, file.num_bytes)


def _is_below(url: str, folder: str) -> bool:
    if "://" in url or "://" in folder:
        return url.startswith(f"{folder}/")
    return Path(url).resolve().is_relative_to(Path(folder).resolve())


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path is like a pattern, both folder by folder: `*` stays within one, `**` stands for any."""
    if not parts or not patterns:
        return not parts and not patterns
    if patterns[0] == "**":
        return _fits(parts, patterns[1:]) or _fits(parts[1:], patterns)
    return fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


def _is_shown(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(_ENDING) and not name.startswith(("_", "."))
