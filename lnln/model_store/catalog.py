"""Which versions of a model there are and what its aliases stand for: `models/<name>/catalog.json`.

Every change is one compare-and-swap of that file, so of any number of publishers each gets a number of its own and none
undoes another's. `models/catalog.json` lists the names; readers need no directory listing.

`best` is the version with the lowest mean validation MAE, `best-acc7`, `best-corr` and so on those that are best in
another metric over the same views. They move by themselves, in the step that enters a version, and only to one that is
better on the same features under the same masks. All other aliases are moved by hand.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lnln.data.name_list import add_name, read_names
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.metrics import TITLES, higher_is_better

BEST = "best"
# By metric, the alias of the version that is best in it.
BEST_ALIASES = {metric: BEST if metric == "mae" else f"{BEST}-{metric}" for metric in TITLES}
NAMES_PATH = "models/catalog.json"


@dataclass(frozen=True)
class Version:
    """One published version. folder: where its files lie in the store; manifest_sha256: what vouches for them.

    run_id: "" for a model that no run of lnln made. selection_score: mean validation MAE of the run, None where it is
    not known; validation_scores: the same of every metric. Both are comparable among versions with the same features
    and views. study_id, trial: of the study whose parameters the run was trained with. imported_sha256: of the file
    that the version was made from instead of a run. published_at: UTC, "" for versions of before this was noted.
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
    selection_score: float | None
    validation_scores: Mapping[str, float] = field(default_factory=dict)
    study_id: str | None = None
    trial: int | None = None
    imported_sha256: str | None = None
    published_at: str = ""

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"

    def is_same_model(self, other: Version) -> bool:
        """True for the same weights of the same run, or imported for the same features."""
        mine, theirs = ((each.run_id, each.weights_sha256) for each in (self, other))
        return mine == theirs and (self.run_id != "" or self.feature_id == other.feature_id)

    def is_comparable(self, other: Version) -> bool:
        """True if the scores of both come from the same features under the same masks."""
        mine, theirs = ((each.feature_id, sorted(each.validation_view_ids)) for each in (self, other))
        return mine == theirs and len(self.validation_view_ids) > 0

    def score(self, metric: str) -> float | None:
        """Mean of `metric` over the validation views, None where it is not known."""
        return self.selection_score if metric == "mae" else self.validation_scores.get(metric)


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
        """The version called `selector` (v3, 3) or that the alias `selector` stands for; `best-mae` is `best`."""
        selector = BEST if selector == f"{BEST}-mae" else selector
        wanted = self.aliases.get(selector, f"v{selector}" if selector.isdigit() else selector)
        return next((version for version in self.versions if version.version == wanted), None)

    def with_version(self, candidate: Version) -> PublishedModel:
        """With `candidate` under the next number, and the aliases of the best on it where it is the first or better."""
        version = dataclasses.replace(candidate, version=f"v{len(self.versions) + 1}", published_at=_now())
        made = dataclasses.replace(self, versions=(*self.versions, version))
        for metric, alias in BEST_ALIASES.items():
            if (reason := _reason_to_move(metric, version, self.find(alias))) is not None:
                made = made.with_alias(alias, version.version, reason)
        return made

    def with_alias(self, alias: str, version: str, reason: str) -> PublishedModel:
        move = AliasMove(alias, self.aliases.get(alias), version, _now(), reason)
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _reason_to_move(metric: str, version: Version, best: Version | None) -> str | None:
    """Why the alias of the best in `metric` moves to `version` from `best` (None: it is new); None if it stays.

    A version without scores, which was imported, is `best` for as long as it is among its like.
    """
    said = f"mean validation {TITLES[metric]}"
    mine, theirs = version.score(metric), None if best is None else best.score(metric)
    if mine is None:
        return "first version, without a validation score" if best is None and metric == "mae" else None
    if best is None:
        return "first version" if version.version == "v1" else f"first version with a {said}"
    if theirs is None:
        return f"first version with a {said}, {mine:.4f}"
    is_better = mine > theirs if higher_is_better(metric) else mine < theirs
    if not (is_better and version.is_comparable(best)):
        return None
    return f"{said} {mine:.4f} {'above' if mine > theirs else 'below'} {theirs:.4f}"


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


def set_alias(store: Store, name: str, alias: str, version: str) -> str:
    """Let `alias` stand for `version` (v2, or another alias); returns that version's number.

    RefusedError for `best` and its like, which move by score alone, for what looks like a version, and for an unknown
    model or version.
    """
    check_name(alias, "alias")
    if alias in (*BEST_ALIASES.values(), f"{BEST}-mae") or re.fullmatch(r"v?\d+", alias):
        raise RefusedError(
            f"alias {alias!r} cannot be set by hand: {BEST!r} and {BEST}-METRIC go by score, and v1, v2, ... are "
            "versions"
        )
    target = resolve(store, f"{name}@{version}").version

    def move(model: PublishedModel) -> PublishedModel:
        return model if model.aliases.get(alias) == target else model.with_alias(alias, target, "set by hand")

    _update(store, name, move)
    return target


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
