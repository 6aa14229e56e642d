"""What a report shows, as plain values: made once, kept as JSON, rendered as HTML, Markdown, CSV and LaTeX.

    data = collect(store, ["mosi-lnln@best", "mosi-text_only-09fb7b0ce538"])       # lnln/report/collect.py
    assert ReportData.from_dict(json.loads(data.to_json())) == data

Nothing here is computed, and no renderer computes: what two of them show is the same number.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lnln.config import Protocol, Rate, to_dict
from lnln.data.schema import Split
from lnln.errors import RefusedError
from lnln.evaluate.calibration import Calibration
from lnln.evaluate.estimates import Estimate
from lnln.evaluate.examples import Example
from lnln.evaluate.paired import Difference
from lnln.evaluate.robustness import EffectiveRobustness, Robustness
from lnln.evaluations import Selection, ViewScores
from lnln.metrics import accuracy_names, metric_names

# Raised when the same systems would be reported with other values.
FORMAT = 1
# The suite that most of a report is about, and the one with whole modalities absent.
TEN_RATES, ABSENT = "ten_rates", "absent"
DEFAULT_SUITES = (TEN_RATES, ABSENT)


@dataclass(frozen=True)
class Training:
    """One seed of a system. evaluations, views: by suite; views as evaluated, empty where they were left out."""

    name: str
    seed: int | None
    run_id: str | None
    weights_sha256: str
    code_version: str
    evaluations: dict[str, str]
    views: dict[str, tuple[ViewScores, ...]]


@dataclass(frozen=True)
class SystemScores:
    """A system under one suite, by metric: at each of its rates, and the mean over them.

    highest: over the suite's highest_rates alone, empty where it has none. collapse_share: at each rate, the share of
    the utterances that get the most frequent predicted class. gains, highest_gains: the score less that of the constant
    answer which its metric is held against (`constant_of`); without Corr, which a constant does not have.
    """

    by_rate: dict[str, tuple[Estimate, ...]]
    mean: dict[str, Estimate]
    highest: dict[str, Estimate]
    collapse_share: tuple[float, ...]
    gains: dict[str, Difference]
    highest_gains: dict[str, Difference]


@dataclass(frozen=True)
class ConfusionCounts:
    """At one missing rate, labels (rows) by predictions: each utterance once for each of `num_answers` answers to it,
    which differ in training and mask seed."""

    rate: float
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    num_answers: int

    @property
    def total(self) -> int:
        return sum(map(sum, self.counts))


@dataclass(frozen=True)
class Change:
    """A config key in which a system differs from the reference system, and both values as text."""

    key: str
    reference: str
    value: str


@dataclass(frozen=True)
class SystemReport:
    """A system on one split. kind: `baseline` for what this report brought along to compare with.

    config: of its trainings but for the seed; None where a model does not say, or there is none. trained_on: another
    corpus, else empty; carries_over: what then must be said. changes: to the reference system, where both have a
    config. robustness: by suite and metric; effective: the same against the reference, where it is defined.
    """

    title: str
    kind: Literal["model", "baseline"]
    selection: Selection
    note: str
    trained_on: str
    carries_over: tuple[str, ...]
    absent_modalities: tuple[str, ...]
    config: dict[str, Any] | None
    changes: tuple[Change, ...]
    trainings: tuple[Training, ...]
    scores: dict[str, SystemScores]
    robustness: dict[str, dict[str, Robustness]]
    effective: dict[str, dict[str, EffectiveRobustness]]
    confusions: tuple[ConfusionCounts, ...]
    calibration: Calibration | None

    @property
    def is_judged(self) -> bool:
        """Whether it may be called better or worse than others: not where test took part in its selection."""
        return self.selection == "validation"


@dataclass(frozen=True)
class SuiteReport:
    """One set of views, and how the systems differ on it.

    names: of the rates, as tables call them. baselines: scores of constant answers. differences: by title and metric,
    to the reference system over the mean of all rates; rate_differences: at each rate; highest: at the mean of
    highest_rates, empty where the suite has none, with intervals that hold together (`paired.share_for`) over all
    systems that are judged and all main metrics.
    """

    title: str
    question: str
    protocol: Protocol
    rates: tuple[Rate, ...]
    names: tuple[str, ...]
    mask_seeds: tuple[int, ...]
    view_ids: tuple[str, ...]
    baselines: dict[str, dict[str, float]]
    differences: dict[str, dict[str, Difference]]
    rate_differences: dict[str, dict[str, tuple[Difference, ...]]]
    highest_rates: tuple[float, ...]
    highest: dict[str, dict[str, Difference]]


@dataclass(frozen=True)
class PrintedLine:
    """A published method's printed scores at the ten rates, by metric; mean: its printed average or None."""

    method: str
    source: str
    status: str
    selection: str
    by_rate: dict[str, tuple[float, ...]]
    mean: dict[str, float | None]


@dataclass(frozen=True)
class PrintedMean:
    """A printed mean over the ten rates of one method, by metric, in one source."""

    method: str
    source: str
    status: str
    selection: str
    mean: dict[str, float]


@dataclass(frozen=True)
class Extraction:
    """What was met when a corpus was extracted from clips. left_out: clip or file, stage, reason, of the first ones."""

    counts: tuple[tuple[str, str], ...]
    num_left_out: int
    left_out: tuple[tuple[str, str, str], ...]
    table: str
    problem: str


@dataclass(frozen=True)
class CorpusReport:
    """Systems on one split of the same features.

    reference: title of the system that the others are compared with. notes: sentences on what could not be shown.
    """

    corpus: str
    split: Split
    feature_id: str
    manifest_digest: str
    source_sha256: str
    synthetic: bool
    label_range: tuple[float, float]
    num_utterances: int
    num_labelled: int
    reference: str
    suites: dict[str, SuiteReport]
    systems: tuple[SystemReport, ...]
    printed: tuple[PrintedLine, ...]
    printed_means: tuple[PrintedMean, ...]
    extraction: Extraction | None
    examples: tuple[Example, ...]
    notes: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        return metric_names(self.label_range)

    @property
    def main_metrics(self) -> tuple[str, ...]:
        return main_metrics(self.label_range)

    @property
    def models(self) -> tuple[SystemReport, ...]:
        return tuple(system for system in self.systems if system.kind == "model")

    def system(self, title: str) -> SystemReport:
        return next(system for system in self.systems if system.title == title)

    def others(self) -> Iterator[SystemReport]:
        """Those that are compared with the reference."""
        return (system for system in self.systems if system.title != self.reference)


@dataclass(frozen=True)
class ReportData:
    """A whole report. names, suites, reference: what was asked for, an alias as the version that it stood for;
    reference None where that was left open."""

    names: tuple[str, ...]
    suites: tuple[str, ...]
    reference: str | None
    code_version: str
    corpora: tuple[CorpusReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; `from_dict` is its inverse."""
        return {"format": FORMAT, **to_dict(self)}

    def to_json(self) -> bytes:
        """`to_dict` as JSON. Keys stay in their order, which is that of the page's rows."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReportData:
        """RefusedError for values of another version, and for what is no report."""
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise RefusedError(f"a report has format {FORMAT}; write it again with `lnln report`")
        try:
            made = decode(cls, {key: value for key, value in values.items() if key != "format"})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise RefusedError(f"these values are no report ({what}); write it again with `lnln report`") from error
        assert isinstance(made, cls)
        return made

    def without_utterances(self) -> ReportData:
        """Nothing of single utterances, and no single view: what may be shared where the corpus may not."""
        return dataclasses.replace(self, corpora=tuple(_shared(each) for each in self.corpora))


def main_metrics(label_range: tuple[float, float]) -> tuple[str, ...]:
    """MAE, Corr, the finest accuracy and the two-class one."""
    accuracies = accuracy_names(label_range)
    return ("mae", "corr", accuracies[0], next(name for name in accuracies if name.startswith("acc2")))


def constant_of(metric: str) -> str:
    """The baseline that a score in `metric` is held against, as `Evaluation.baselines` names it."""
    return "one_class" if metric.startswith(("acc", "f1")) else "predict_mean"


def decode(hint: Any, value: Any) -> Any:
    """`value` out of JSON as a `hint`: dataclasses, dicts, tuples, unions of these and plain values."""
    origin, parts = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        kinds = get_type_hints(hint)
        if set(value) != set(kinds):
            raise ValueError(f"{hint.__name__} has keys {', '.join(sorted(set(value) ^ set(kinds)))} too many or few")
        return hint(**{name: decode(kinds[name], entry) for name, entry in value.items()})
    if origin in (Union, types.UnionType):
        return _decode_union(parts, value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list, got {value!r}")
        kinds_of = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        return tuple(decode(kind, entry) for kind, entry in zip(kinds_of, value, strict=True))
    if origin is dict:
        return {decode(parts[0], key): decode(parts[1], entry) for key, entry in value.items()}
    if origin is Literal:
        if value not in parts:
            raise ValueError(f"expected one of {', '.join(map(str, parts))}, got {value!r}")
        return value
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        raise TypeError(f"expected {hint.__name__}, got {value!r}")
    return value


def _decode_union(parts: tuple[Any, ...], value: Any) -> Any:
    """None for None; of others, a list is for the tuple among them and anything else for the first that is none."""
    if value is None:
        if type(None) not in parts:
            raise TypeError("expected a value, got null")
        return None
    others = [part for part in parts if part is not type(None)]
    is_list = isinstance(value, (list, tuple))
    return decode(next((part for part in others if (get_origin(part) is tuple) == is_list), others[0]), value)


def _shared(corpus: CorpusReport) -> CorpusReport:
    systems = tuple(
        dataclasses.replace(
            system, trainings=tuple(dataclasses.replace(training, views={}) for training in system.trainings)
        )
        for system in corpus.systems
    )
    extraction = corpus.extraction and dataclasses.replace(corpus.extraction, left_out=(), table="", problem="")
    return dataclasses.replace(corpus, systems=systems, extraction=extraction, examples=())
