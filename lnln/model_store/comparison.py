"""Two published versions side by side: what made them, and their scores on the same views.

    compared = compare(store, "mosi-lnln@v1", "mosi-lnln@v2")
    compared.settings["loss.adversarial"]           # ("0.8", "0.5")

Whether a difference is more than chance is said by `lnln report`, which has all trainings of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnln.config import Config, CorruptionConfig, stored_model
from lnln.corruption import format_rate
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluations import Evaluation, Interval
from lnln.metrics import TITLES
from lnln.model_store.catalog import Version, resolve
from lnln.model_store.opened import LINEAGE
from lnln.model_store.scores import find_one, view_sets
from lnln.runs import run_folder


@dataclass(frozen=True)
class ComparedScores:
    """Scores of both versions on the same utterances under the same masks, by metric.

    split: `valid`, or `test`. what: which views. values: mean over the missing rates; intervals: 95% over utterances,
    None on validation.
    """

    split: str
    what: str
    values: Mapping[str, tuple[float, float]]
    intervals: Mapping[str, tuple[Interval | None, Interval | None]]


@dataclass(frozen=True)
class Comparison:
    """settings: what differs of their configs and of the rest of their lineage, as text; "" where one has none.

    scores: on the views that both were scored on. notes: what keeps more from being compared, and what mends it.
    """

    versions: tuple[Version, Version]
    settings: Mapping[str, tuple[str, str]]
    scores: tuple[ComparedScores, ...]
    notes: tuple[str, ...]


def compare(store: Store, first: str, second: str) -> Comparison:
    """Of two published versions, each `name`, `name@version` or `name@alias`. RefusedError for an unknown one, and for
    one with itself."""
    one, other = resolve(store, first), resolve(store, second)
    if one.reference == other.reference:
        raise RefusedError(f"{first} and {second} are both {one.reference}; name two versions")
    settings = [_settings(read_lineage(store, version)) for version in (one, other)]
    keys = dict.fromkeys([*settings[0], *settings[1]])
    pairs = {key: (settings[0].get(key, ""), settings[1].get(key, "")) for key in keys}
    scores, notes = [], []
    if one.is_comparable(other):
        scores.append(_on_validation(one, other))
    else:
        notes.append(_why_not(one, other))
    tests = _on_test(store, one, other)
    if not tests:
        notes.append(
            f"no evaluation on test has the same views for both: `lnln evaluate {one.reference} --suite ten_rates` and "
            f"the same of {other.reference} make it"
        )
    return Comparison(
        versions=(one, other),
        settings={key: pair for key, pair in pairs.items() if pair[0] != pair[1]},
        scores=tuple(scores + tests),
        notes=tuple(notes),
    )


def read_lineage(store: Store, version: Version) -> dict[str, Any]:
    """lineage.json of `version`. RefusedError where it is absent or damaged."""
    where = f"{version.folder}/{LINEAGE}"
    try:
        lineage = store.read_json(where)
    except FileNotFoundError as error:
        raise RefusedError(f"{store.url}/{where} is absent, but {version.reference} has it; publish again") from error
    if not isinstance(lineage, dict):
        raise RefusedError(f"{store.url}/{where} must hold a JSON object; publish again")
    return lineage


def _settings(lineage: Mapping[str, Any]) -> dict[str, str]:
    """What made a version, flat and as text; the keys of its config by their full names."""
    config = lineage.get("config") or {"model": lineage.get("model") or {}}
    config = {**config, "model": stored_model(config["model"])}
    study, imported = lineage.get("study") or {}, lineage.get("imported") or {}
    flat = {
        f"{section}.{key}": value
        for section, values in config.items()
        if section != "tune"
        for key, value in values.items()
    }
    flat |= {
        "corpus": lineage.get("corpus"),
        "features": lineage.get("feature_id"),
        "study": study.get("study_id"),
        "trial": study.get("trial"),
        "imported from": imported.get("name"),
        "selected at epoch": (lineage.get("selection") or {}).get("epoch"),
        "parameters": lineage.get("num_parameters"),
        "code version": lineage.get("code_version"),
    }
    return {key: _as_text(value) for key, value in flat.items() if value is not None}


def _as_text(value: Any) -> str:
    return ", ".join(map(_as_text, value)) if isinstance(value, list) else str(value)


def _on_validation(one: Version, other: Version) -> ComparedScores:
    values = {}
    for metric in TITLES:
        mine, theirs = one.score(metric), other.score(metric)
        if mine is not None and theirs is not None:
            values[metric] = mine, theirs
    what = f"the {len(one.validation_view_ids)} views that selected the checkpoints"
    return ComparedScores("valid", what, values, dict.fromkeys(values, (None, None)))


def _why_not(one: Version, other: Version) -> str:
    without = [version.reference for version in (one, other) if version.selection_score is None]
    if without:
        return f"{' and '.join(without)} came without a validation score, so there is none to compare"
    what = "features" if one.feature_id != other.feature_id else "validation views"
    return f"their validation scores are not comparable: they are of other {what}"


def _on_test(store: Store, one: Version, other: Version) -> list[ComparedScores]:
    lineages = [read_lineage(store, version) for version in (one, other)]
    digests = {str(lineage["manifest_digest"]) for lineage in lineages}
    if len(digests) > 1:
        return []
    (digest,) = digests
    compared = []
    for views in _views(lineages):
        pair = [find_one(store, _folders(version), version.weights_sha256, digest, views) for version in (one, other)]
        if pair[0] is not None and pair[1] is not None:
            compared.append(_compared(pair[0], pair[1]))
    return compared


def _views(lineages: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Ids of the sets of views that are looked for: `ten_rates`, and what the config of either says."""
    sets = []
    for lineage in lineages:
        stored = lineage.get("config")
        corruption = CorruptionConfig() if stored is None else Config.from_stored(stored).corruption
        sets += [views for views in view_sets(corruption) if views not in sets]
    return sets


def _folders(version: Version) -> list[str]:
    """Where evaluations of it may lie: made of the version, or of the run before it was published."""
    of_run = [f"{run_folder(version.run_id)}/evaluations"] if version.run_id else []
    return [f"models/{version.name}/evaluations", *of_run]


def _compared(one: Evaluation, other: Evaluation) -> ComparedScores:
    rates = ", ".join(format_rate(rate) for rate in one.rates)
    seeds = ", ".join(map(str, one.mask_seeds))
    return ComparedScores(
        split=one.split,
        what=f"protocol {one.protocol}, rates {rates}, mask seeds {seeds}, {one.num_labelled} utterances",
        values={metric: (one.mean[metric], other.mean[metric]) for metric in one.metrics()},
        intervals={metric: (one.intervals.get(metric), other.intervals.get(metric)) for metric in one.metrics()},
    )
