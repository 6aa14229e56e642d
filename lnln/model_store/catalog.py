"""Which versions of a model there are and what its aliases stand for: `models/<name>/catalog.json`.

Every change is one compare-and-swap of that file, so of any number of publishers each gets a number of its own and none
undoes another's. `models/catalog.json` lists the names; readers need no directory listing.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lnln.data.name_list import add_name, read_names
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError

BEST = "best"
NAMES_PATH = "models/catalog.json"


@dataclass(frozen=True)
class Version:
    """One published version. folder: where its files lie in the store; manifest_sha256: what vouches for them.

    selection_score: mean validation MAE of the run; comparable among versions with the same features and views.
    """

    name: str
    version: str
    folder: str
    manifest_sha256: str
    weights_sha256: str
    run_id: str
    corpus: str
    feature_id: str
    synthetic: bool
    validation_view_ids: tuple[str, ...]
    selection_score: float

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    def is_same_model(self, other: Version) -> bool:
        return (self.run_id, self.weights_sha256) == (other.run_id, other.weights_sha256)

    def is_comparable(self, other: Version) -> bool:
        """True if both selection scores come from the same features under the same masks."""
        return (self.feature_id, sorted(self.validation_view_ids)) == (
            other.feature_id,
            sorted(other.validation_view_ids),
        )


@dataclass(frozen=True)
class AliasMove:
    """An alias that was set: from which version (None: it was new) to which, when (UTC) and why."""

    alias: str
    before: str | None
    after: str
    moved_at: str
    reason: str


@dataclass(frozen=True)
class PublishedModel:
    """A name in the model store: versions in order of publication, aliases, and every move an alias made."""

    name: str
    versions: tuple[Version, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    history: tuple[AliasMove, ...] = ()

    def find(self, selector: str) -> Version | None:
        """The version called `selector` (v3, 3) or that the alias `selector` stands for."""
        wanted = self.aliases.get(selector, f"v{selector}" if selector.isdigit() else selector)
        return next((version for version in self.versions if version.version == wanted), None)

    def with_version(self, candidate: Version) -> PublishedModel:
        """With `candidate` under the next number; `best` moves to it if it is the first or scores lower."""
        version = dataclasses.replace(candidate, version=f"v{len(self.versions) + 1}")
        added = dataclasses.replace(self, versions=(*self.versions, version))
        best = self.find(BEST)
        if best is None:
            return added.with_alias(BEST, version.version, "first version")
        if version.is_comparable(best) and version.selection_score < best.selection_score:
            reason = f"mean validation MAE {version.selection_score:.4f} below {best.selection_score:.4f}"
            return added.with_alias(BEST, version.version, reason)
        return added

    def with_alias(self, alias: str, version: str, reason: str) -> PublishedModel:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        move = AliasMove(alias, self.aliases.get(alias), version, now, reason)
        return dataclasses.replace(self, aliases={**self.aliases, alias: version}, history=(*self.history, move))

    def to_bytes(self) -> bytes:
        return encode_json(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> PublishedModel:
        try:
            values = json.loads(data)
            versions = []
            for entry in values["versions"]:
                views = tuple(entry["validation_view_ids"])
                versions.append(Version(**{**entry, "validation_view_ids": views}))
            return cls(
                values["name"],
                tuple(versions),
                dict(values["aliases"]),
                tuple(AliasMove(**move) for move in values["history"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(
                f"{where} is not a model catalog ({type(error).__name__}); restore it from a backup of the store"
            ) from error


def is_model_name(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name) is not None


def check_name(name: str, what: str = "model name") -> str:
    """`name` if it can be part of a path and of a reference anywhere, else RefusedError."""
    if not is_model_name(name):
        raise RefusedError(f"a {what} is 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit; got {name!r}")
    return name


def parse_reference(reference: str) -> tuple[str, str]:
    """`name@best`, `name@v2` or `name` (best) as (name, selector)."""
    name, at, selector = reference.partition("@")
    if at and not selector:
        raise RefusedError(f"expected a model as name, name@version or name@alias, got {reference!r}")
    return check_name(name), check_name(selector, "version or alias") if at else BEST


def read_model(store: Store, name: str) -> PublishedModel | None:
    """What the store has under `name`; None if nothing was published so."""
    path = _path(check_name(name))
    try:
        return PublishedModel.from_bytes(store.read(path), f"{store.url}/{path}")
    except FileNotFoundError:
        return None


def resolve(store: Store, reference: str) -> Version:
    """The version that `reference` stands for. RefusedError for an unknown name, version or alias."""
    name, selector = parse_reference(reference)
    model = read_model(store, name)
    if model is None:
        raise RefusedError(f"no model called {name!r} in {store.url}; `lnln models` lists what there is")
    version = model.find(selector)
    if version is None:
        known = ", ".join([*model.aliases, *(version.version for version in model.versions)])
        raise RefusedError(f"model {name!r} has no version or alias {selector!r}; there are {known}")
    return version


def list_models(store: Store) -> list[PublishedModel]:
    """Every published model, by name."""
    models = [read_model(store, name) for name in read_names(store, NAMES_PATH)]
    return [model for model in models if model is not None]


def set_alias(store: Store, name: str, alias: str, version: str) -> None:
    """Let `alias` stand for `version` (v2, or another alias). `best` is refused: it moves by score alone."""
    check_name(alias, "alias")
    if alias == BEST or re.fullmatch(r"v?\d+", alias):
        raise RefusedError(
            f"alias {alias!r} cannot be set by hand: {BEST!r} goes by score, and v1, v2, ... are versions"
        )
    target = resolve(store, f"{name}@{version}").version
    _update(store, name, lambda model: model.with_alias(alias, target, "set by hand"))


def add_version(store: Store, candidate: Version) -> Version:
    """Enter `candidate`, whose files lie in the store, under the next number; the same model keeps the one it has."""

    def enter(model: PublishedModel) -> PublishedModel:
        known = any(candidate.is_same_model(version) for version in model.versions)
        return model if known else model.with_version(candidate)

    model = _update(store, candidate.name, enter)
    add_name(store, NAMES_PATH, candidate.name)
    return next(version for version in model.versions if candidate.is_same_model(version))


def _update(store: Store, name: str, change: Callable[[PublishedModel], PublishedModel]) -> PublishedModel:
    path = _path(check_name(name))
    where = f"{store.url}/{path}"

    def change_bytes(data: bytes | None) -> bytes:
        return change(PublishedModel(name) if data is None else PublishedModel.from_bytes(data, where)).to_bytes()

    return PublishedModel.from_bytes(store.update(path, change_bytes), where)


def _path(name: str) -> str:
    return f"models/{name}/catalog.json"
