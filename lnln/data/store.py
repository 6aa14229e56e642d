"""Where everything is kept: a folder, or `s3://bucket/prefix` on any S3-compatible server.

    store = Store("./store")                      # or Store("s3://bucket/lnln"), AWS_ENDPOINT_URL honoured
    store.create("mosi/features/1f3a/manifest.json", data)

Paths are relative to the store, with `/`. Every write is whole or absent. Nobody reads results by listing a folder:
readers take what a manifest names. `list_files` is for `lnln gc`, which removes what none names, and for folders of raw
clips, which are read through a store too. A store is pickled as its URL, so jobs may carry it to other processes.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

from lnln.errors import RefusedError, StoreFailedError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreAbilities:
    """What the server decides in one step: without these, two writers at the same moment may overwrite each other."""

    conditional_create: bool
    conditional_update: bool


@dataclass(frozen=True)
class StoredFile:
    """What a listing says of one file. modified: seconds since 1970, by the store's own clock."""

    path: str
    num_bytes: int
    modified: float


@dataclass(frozen=True)
class UnfinishedUpload:
    """Parts of a file that a server keeps for a writer who did not end. begun: as `StoredFile.modified`."""

    path: str
    upload_id: str
    begun: float


class Backend(Protocol):
    """What a kind of store must do. `FileNotFoundError` where a path is absent, any of `errors` where it fails."""

    errors: tuple[type[Exception], ...]

    def read(self, path: str) -> bytes: ...
    def exists(self, path: str) -> bool: ...
    def create(self, path: str, data: bytes) -> bool: ...
    def write(self, path: str, data: bytes) -> None: ...
    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes: ...
    def open(self, path: str) -> BinaryIO: ...
    def upload(self, source: Path, path: str) -> None: ...
    def download(self, path: str, target: Path) -> None: ...
    def remove(self, path: str) -> None: ...
    def arrow(self, path: str) -> tuple[Any, str]: ...
    def probe(self) -> StoreAbilities: ...
    def clock(self) -> float: ...
    def list_files(self, follow_links: bool) -> Iterator[StoredFile]: ...
    def remove_unchanged(self, file: StoredFile) -> bool: ...
    def list_uploads(self) -> Iterator[UnfinishedUpload]: ...
    def abort_upload(self, upload: UnfinishedUpload) -> None: ...


class Store:
    """A folder or an S3 prefix behind the same few verbs.

    Raises StoreFailedError, naming the store and the reason, where it cannot be reached, keeps failing or denies
    access; FileNotFoundError where a path to be read is absent.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.url, self._backend = _backend_for(os.fspath(url))

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.url,)

    def read(self, path: str) -> bytes:
        """All bytes of `path`."""
        with self._refusals("read", path):
            return self._backend.read(_checked(path))

    def exists(self, path: str) -> bool:
        with self._refusals("read", path):
            return self._backend.exists(_checked(path))

    def create(self, path: str, data: bytes) -> bool:
        """Write `path` unless it is there already: True if this call wrote it, False (and no change) if another did."""
        self._warn_if_unable()
        with self._refusals("write", path):
            return self._backend.create(_checked(path), data)

    def write(self, path: str, data: bytes) -> None:
        """Write `path`, replacing what may be there."""
        with self._refusals("write", path):
            self._backend.write(_checked(path), data)

    def update(self, path: str, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace the content by `change(content)` with no other writer in between; None stands for an absent path.

        `change` may be called several times, so it has no effects of its own; also on what it returned before, where
        a server's answer is lost and another writer comes between. Returns the new content.
        """
        self._warn_if_unable()
        with self._refusals("update", path):
            return self._backend.update(_checked(path), change)

    def open(self, path: str) -> BinaryIO:
        """A seekable reader, for files too large to hold."""
        with self._refusals("read", path):
            return self._backend.open(_checked(path))

    def upload(self, source: Path, path: str) -> None:
        """Copy a local file into the store, in pieces, replacing what may be there."""
        with self._refusals("write", path):
            self._backend.upload(source, _checked(path))

    def download(self, path: str, target: Path) -> None:
        """Copy `path` to the local file `target`, in pieces; `target` appears once it is whole."""
        with self._refusals("read", path):
            self._backend.download(_checked(path), target)

    def remove(self, path: str) -> None:
        """Remove `path` if it is there. For orphans and probes: what a manifest names is never removed."""
        with self._refusals("remove", path):
            self._backend.remove(_checked(path))

    def arrow(self, path: str) -> tuple[Any, str]:
        """(pyarrow filesystem, path for it without a scheme), as Ray's `storage_filesystem`, `storage_path` want it."""
        with self._refusals("open", path):
            return self._backend.arrow(_checked(path))

    def probe(self) -> StoreAbilities:
        """Ask the server, once per process, whether it honours conditional writes; warn where it does not.

        It writes and removes a small file of its own.
        """
        with _probing:
            abilities = _abilities.get(self.url)
            if abilities is None:
                with self._refusals("write", "a probe"):
                    abilities = _abilities[self.url] = self._backend.probe()
                if not (abilities.conditional_create and abilities.conditional_update):
                    log.warning(
                        "store %s does not honour conditional writes: let one process at a time publish, "
                        "commit or tune there",
                        self.url,
                    )
            return abilities

    def clock(self) -> float:
        """Now, in seconds since 1970, as the store would date a file."""
        with self._refusals("ask", "the time"):
            return self._backend.clock()

    def list_files(self, *, follow_links: bool = False) -> list[StoredFile]:
        """Every file below the store's URL, in no order; none where there is no such folder. Nothing is written.

        Of a store of ours for `lnln gc` alone: a listing shows what is not whole yet. Of a folder of somebody's clips,
        which no manifest lists, for the extraction. follow_links: symbolic links are what they lead to.
        """
        with self._refusals("list", "its files"):
            return list(self._backend.list_files(follow_links))

    def remove_unchanged(self, file: StoredFile) -> bool:
        """Remove `file` unless it was written, or its lock taken, since it was listed: True if it was removed."""
        with self._refusals("remove", file.path):
            return self._backend.remove_unchanged(file)

    def list_uploads(self) -> list[UnfinishedUpload]:
        """Uploads in parts that have not ended; none in a folder."""
        with self._refusals("list", "its unfinished uploads"):
            return list(self._backend.list_uploads())

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Drop the parts of `upload`; nothing where it has ended since."""
        with self._refusals("abort", f"the upload of {upload.path}"):
            self._backend.abort_upload(upload)

    def read_json(self, path: str) -> Any:
        """The value in `path`; RefusedError names the file where that is damaged."""
        data = self.read(path)
        try:
            return json.loads(data, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"{self.url}/{path} is no whole JSON file: {error}") from error

    def create_json(self, path: str, value: Any) -> bool:
        return self.create(path, encode_json(value))

    def write_json(self, path: str, value: Any) -> None:
        self.write(path, encode_json(value))

    def _warn_if_unable(self) -> None:
        if self.url not in _abilities:
            self.probe()

    @contextmanager
    def _refusals(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except self._backend.errors as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise StoreFailedError(f"store {self.url}: cannot {verb} {path}: {reason}") from error


# What each store was found to do, by URL: a probe costs a few requests, and its warning is wanted once.
_abilities: dict[str, StoreAbilities] = {}
_probing = threading.Lock()


def default_store() -> str:
    """URL of the store where none is named: LNLN_STORE, else the folder `./store`."""
    return os.environ.get("LNLN_STORE") or "./store"


def encode_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, two spaces, UTF-8, a newline at the end. Equal values, equal bytes."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no JSON")


def _backend_for(url: str) -> tuple[str, Backend]:
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        from lnln.data.store_s3 import S3

        bucket, _, prefix = rest.partition("/")
        prefix = prefix.strip("/")
        if not bucket:
            raise RefusedError(f"store URL must be a folder or s3://bucket/prefix, got {url!r}")
        return f"s3://{bucket}/{prefix}".rstrip("/"), S3(bucket, prefix)
    if separator and scheme == "file":
        url = rest
    elif separator:
        raise RefusedError(f"store URL must be a folder or s3://bucket/prefix, got {url!r}")
    if not url:
        raise RefusedError("store URL must be a folder or s3://bucket/prefix, got nothing; set LNLN_STORE or --store")
    from lnln.data.store_folder import Folder

    root = Path(url).expanduser().absolute()
    return str(root), Folder(root)


def _checked(path: str) -> str:
    """`path` itself, if it stays inside the store: a manifest that came from outside may say anything."""
    parts = path.split("/")
    if not all(parts) or any(part in (".", "..") for part in parts) or "\\" in path or "\0" in path:
        raise RefusedError(f"a path in a store is made of plain names joined by '/', got {path!r}")
    return path
