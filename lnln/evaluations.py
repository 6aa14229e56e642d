"""The record of one evaluation: what was scored on what, every number, and where it lies in the store.

`evaluate.py` makes it; publish, report and the command line read it. Two files below `runs/<run_id>/evaluations/` or
`models/<name>/evaluations/`: predictions as Parquet under the name of their content, then `<evaluation_id>.json`, which
names them. Without the JSON there is no evaluation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lnln.config import CorruptionConfig, Rate, fingerprint
from lnln.corruption import ViewSpec, evaluation_views, format_rate
from lnln.data.schema import Split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.metrics import TITLES, metric_names

Selection = Literal["validation", "published"]
SELECTIONS: tuple[Selection, ...] = ("validation", "published")
# The note of every evaluation by `published` selection (reference.md D1).
PUBLISHED_SELECTION = (
    "selected on test at rate 0.5, each metric from its own epoch, as published; not comparable with the rest"
)

# Printed as they are; all others are shares, printed in percent.
PLAIN_NUMBERS = ("mae", "corr")

BASELINE_TITLES = {
    "predict_mean": "predict the train mean",
    "predict_median": "predict the train median",
    "one_class": "one class",
}


def format_score(metric: str, value: float) -> str:
    """`value` as tables print it: MAE and Corr with three digits, shares in percent with two."""
    return f"{value:.3f}" if metric in PLAIN_NUMBERS else f"{100 * value:.2f}"


def format_interval(metric: str, interval: Sequence[float]) -> str:
    low, high = (format_score(metric, value) for value in interval)
    return f"{low} to {high}"


@dataclass(frozen=True)
class Interval:
    """A value over the utterances of a split, and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ViewScores:
    """One view: all modalities at `missing_rate`, or text, audio and vision at the three; masks drawn from `mask_seed`.

    collapse_share: share of the utterances that got the most frequent predicted class (1: the model says one thing).
    mean_completeness: None for a model that does not estimate it, and where several epochs' weights made the scores.
    """

    view_id: str
    missing_rate: Rate
    mask_seed: int
    scores: dict[str, float]
    collapse_share: float
    mean_completeness: float | None


@dataclass(frozen=True)
class Evaluation:
    """A model on one split of one corpus at several missing rates.

    mean: plain mean over the rates (the paper's overall figure), intervals: of that mean, by resampling utterances.
    rate_intervals: the same for each rate, in the order of `rates`. baselines: what needs no model, on the same labels;
    margins: how much better the model's mean is than a baseline (positive: better), resampled together.
    selection: on what the weights were selected; with `published` on test, and `epochs` says for each metric which
    epoch's weights made its scores. note: what must be said wherever the scores are shown, else empty.
    absent_modalities: those that no utterance had that the model was trained on. protocol, noise_scale: of all views.
    trained_on: the corpus that the model was trained on, where these are not the features it was trained on, else
    empty; carries_over: sentences on what of the model holds here all the same, and what does not.
    """

    evaluation_id: str
    name: str
    model: dict[str, Any]
    corpus: str
    feature_id: str
    manifest_digest: str
    synthetic: bool
    split: Split
    label_range: tuple[float, float]
    num_utterances: int
    num_labelled: int
    rates: tuple[Rate, ...]
    mask_seeds: tuple[int, ...]
    views: tuple[ViewScores, ...]
    mean: dict[str, float]
    intervals: dict[str, Interval]
    rate_intervals: dict[str, tuple[Interval, ...]]
    baselines: dict[str, dict[str, float]]
    margins: dict[str, dict[str, Interval]]
    predictions: dict[str, Any]
    bootstrap: dict[str, int]
    code_version: str
    selection: Selection = "validation"
    epochs: dict[str, int] = field(default_factory=dict)
    note: str = ""
    absent_modalities: tuple[str, ...] = ()
    protocol: str = "frame"
    noise_scale: float = 1.0
    trained_on: str = ""
    carries_over: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name, marked where test took part in the selection, and where corpus or views are not as in training."""
        marks = ["selected on test"] if self.selection == "published" else []
        if self.trained_on:
            marks.append(f"trained on {self.trained_on}")
        if self.protocol != "frame":
            marks.append(self.protocol if self.noise_scale == 1 else f"{self.protocol} {self.noise_scale:g}")
        return f"{self.name} ({', '.join(marks)})" if marks else self.name

    def metrics(self) -> list[str]:
        """The metrics of this label range, in the order of the field's tables."""
        return list(metric_names(self.label_range))

    def by_rate(self) -> list[dict[str, float]]:
        """For each of `rates`: its scores and `collapse_share`, as means over the mask seeds."""
        rows = []
        for rate in self.rates:
            views = [view for view in self.views if view.missing_rate == rate]
            row = {metric: sum(view.scores[metric] for view in views) / len(views) for metric in self.metrics()}
            row["collapse_share"] = sum(view.collapse_share for view in views) / len(views)
            rows.append(row)
        return rows

    def rows(self, name_rate: Callable[[Rate], str] = format_rate) -> list[dict[str, str]]:
        """The table as text, by column: a row per missing rate, the mean, its interval, the baselines, `epochs`.

        name_rate: how a rate is called.
        """
        table = []
        for rate, scores in zip(self.rates, self.by_rate(), strict=True):
            table.append({"missing rate": name_rate(rate), **self._cells(scores)})
        table.append({"missing rate": "mean", **self._cells(self.mean)})
        intervals = {metric: format_interval(metric, (i.low, i.high)) for metric, i in self.intervals.items()}
        blank = dict.fromkeys(self.metrics(), "")
        table.append({"missing rate": "95% interval", **self._named({**blank, **intervals})})
        for baseline, title in BASELINE_TITLES.items():
            if baseline in self.baselines:
                table.append({"missing rate": title, **self._cells(self.baselines[baseline])})
        if self.selection == "published":
            epochs = {metric: str(self.epochs[metric]) for metric in self.metrics()}
            table.append({"missing rate": "epoch, selected on test", **self._named(epochs)})
        return table

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        values = dict(values)
        values["label_range"] = tuple(values["label_range"])
        values["rates"] = tuple(_rate(rate) for rate in values["rates"])
        values["mask_seeds"] = tuple(values["mask_seeds"])
        for key in ("absent_modalities", "carries_over"):
            values[key] = tuple(values.get(key, ()))
        values["views"] = tuple(
            ViewScores(**{**view, "missing_rate": _rate(view["missing_rate"])}) for view in values["views"]
        )
        values["intervals"] = {metric: Interval(**entry) for metric, entry in values["intervals"].items()}
        values["rate_intervals"] = {
            metric: tuple(Interval(**entry) for entry in entries)
            for metric, entries in values["rate_intervals"].items()
        }
        values["margins"] = {
            baseline: {metric: Interval(**entry) for metric, entry in entries.items()}
            for baseline, entries in values["margins"].items()
        }
        return cls(**values)

    def _cells(self, scores: dict[str, float]) -> dict[str, str]:
        return self._named({m: format_score(m, scores[m]) if m in scores else "" for m in self.metrics()})

    def _named(self, cells: dict[str, str]) -> dict[str, str]:
        return {TITLES[metric]: cells[metric] for metric in self.metrics()}


def _rate(value: Any) -> Rate:
    """Out of JSON."""
    return tuple(value) if isinstance(value, (list, tuple)) else value


def evaluation_id(
    weights_sha256: str, manifest_digest: str, split: str, view_ids: Sequence[str], simulated: str = ""
) -> str:
    """Identity of an evaluation: these weights, on this split of these features, under these views.

    simulated: which simulated text is read, where it is not what the weights were trained with.
    """
    identity = [weights_sha256, manifest_digest, split, sorted(view_ids)]
    return fingerprint([*identity, simulated] if simulated else identity)


def read_evaluation(store: Store, folder: str, identity: str) -> Evaluation | None:
    """The stored evaluation, or None. RefusedError naming the file if it is damaged."""
    path = f"{folder}/{identity}.json"
    try:
        return Evaluation.from_dict(store.read_json(path))
    except FileNotFoundError:
        return None
    except RefusedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{store.url}/{path} is not an evaluation ({type(error).__name__}); remove it and evaluate again"
        ) from error


def evaluation_specs(
    corruption: CorruptionConfig, rates: Sequence[Rate] | None = None, mask_seeds: Sequence[int] | None = None
) -> list[ViewSpec]:
    """The views of an evaluation: every rate under every mask seed; defaults as the config says."""
    seeds = [corruption.mask_seed] if mask_seeds is None else list(mask_seeds)
    return [spec for seed in seeds for spec in evaluation_views(dataclasses.replace(corruption, mask_seed=seed), rates)]


def find_evaluation(
    store: Store, folder: str, weights_sha256: str, manifest_digest: str, corruption: CorruptionConfig
) -> Evaluation | None:
    """The test evaluation in `folder` over the rates and masks of the config, if it was made.

    Of weights selected on validation: others are known by the weights of several epochs and never found here.
    """
    view_ids = [spec.view_id for spec in evaluation_specs(corruption)]
    found = read_evaluation(store, folder, evaluation_id(weights_sha256, manifest_digest, "test", view_ids))
    return found if found is not None and found.selection == "validation" else None
