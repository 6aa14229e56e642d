"""Printed results of LNLN, its corrections, its rivals and re-runs, to be drawn beside one's own and never mixed in.

    for curve in printed_curves("mosi", "mae").values():           # ten missing rates, by method
        print(curve.method, curve.values, curve.average and curve.average.value)
    printed_averages("mosi", "mae", selection="validation")        # the re-runs that did not look at the test split
    printed_scores("sims", protocol="absent_modalities")           # every number, faulty ones too, each with its fault

The numbers lie beside this module, a row for each method and condition, in the order of the printed tables:

    lnln_means, lnln_rates, lnln_absent      LNLN's Tables 2, 3, 11, 12; 9, 10; 13, 14
    lnln_ablations, lnln_spread              its Tables 4 to 7; 8
    peer_means, peer_rates                   later methods under the same protocol, mostly as others quote them
    reruns                                   published methods, trained again by others than their authors
    corrections                              cells that are misprinted, invalid or doubtful, by whom it was found, and
                                             what must stand there where that is known; `*` is every condition or metric
    sources                                  where each table was printed, and where it was seen

All tables hold what is printed, faults included, in the units of `lnln.metrics`: shares within [0, 1], MAE in the unit
of the labels, Corr plain. Protocol `ten_rates` is frame dropout at one rate for all modalities, `absent_modalities`
names those that are there; condition `mean` is the plain mean over the ten rates or the six cases. The first release of
LNLN's code gave F1 its arguments in the wrong order (D2), hence column f1_arguments: `right`; `exchanged`, as in all F1
of LNLN and ALMT in LNLN's paper; `suspect`, where F1 stands well above Acc-2; `unknown`.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Literal, cast

from lnln.data.schema import MODALITIES
from lnln.metrics import TITLES

Protocol = Literal["ten_rates", "absent_modalities", "rates_unclear"]
Status = Literal["printed", "corrected", "rerun"]
Selection = Literal["test", "validation", "unknown"]
Fault = Literal["", "misprint", "invalid", "doubtful"]
F1Arguments = Literal["right", "exchanged", "suspect", "unknown"]

TABLES = (
    "lnln_means",
    "lnln_rates",
    "lnln_absent",
    "lnln_ablations",
    "lnln_spread",
    "peer_means",
    "peer_rates",
    "reruns",
)
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Source:
    """One printed table.

    about: whether it compares `methods`, parts of LNLN (`ablation`) or its `spread`. seen_in: where its numbers were
    read, its own paper or one that quotes it. averages_in: the tables with the averages of its rates or cases.
    """

    name: str
    about: Literal["methods", "ablation", "spread"]
    work: str
    reference: str
    place: str
    seen_in: str
    averages_in: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class PrintedScore:
    """One number.

    missing_rate: of all three modalities; present: the modalities that are there; both None for a mean, and one of them
    otherwise. variant: what was changed in an ablation. value, deviation: in the units of `lnln.metrics`. status:
    `rerun` for a method trained again by others; `corrected` for a value that stands in for a misprint. selection: the
    split that chose the checkpoint. fault: `misprint` where a corrected value is known, `invalid` where none is,
    `doubtful` where the paper contradicts itself; reason: why.
    """

    source: Source
    corpus: str
    protocol: Protocol
    missing_rate: float | None
    present: tuple[str, ...] | None
    method: str
    variant: str
    metric: str
    value: float
    deviation: float | None
    status: Status
    selection: Selection
    f1_arguments: F1Arguments
    fault: Fault = ""
    reason: str = ""

    @property
    def is_mean(self) -> bool:
        return self.missing_rate is None and self.present is None

    @property
    def is_valid(self) -> bool:
        """Whether the value may be shown at all; a doubtful one may."""
        return self.fault not in ("misprint", "invalid")

    @property
    def is_comparable(self) -> bool:
        """Whether the value may be held against one of `lnln.metrics`: an F1 only with its arguments in order."""
        return self.is_valid and (not self.metric.startswith("f1") or self.f1_arguments == "right")


@dataclass(frozen=True)
class PrintedCurve:
    """A method's valid scores at `RATES`, all of one source, corpus and metric, and their printed average.

    The average is None where none is valid, or an F1 whose arguments are in another order than those of the scores.
    """

    method: str
    scores: tuple[PrintedScore, ...]
    average: PrintedScore | None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(score.value for score in self.scores)

    @property
    def is_comparable(self) -> bool:
        return all(score.is_comparable for score in self.scores)


def printed_scores(
    corpus: str, metric: str | None = None, protocol: Protocol | None = None
) -> tuple[PrintedScore, ...]:
    """Every number of a corpus (`mosi`, `mosei`, `sims`; none of any other), in the order of the tables.

    A corrected score follows the misprinted one.
    """
    return tuple(
        score
        for score in _scores()
        if score.corpus == corpus and metric in (None, score.metric) and protocol in (None, score.protocol)
    )


def printed_curves(corpus: str, metric: str) -> dict[str, PrintedCurve]:
    """The curves over the ten rates, by method, corrected where that is known.

    A method of which a rate is invalid or not printed has none. Empty for metrics that are not printed per rate.
    """
    found: dict[tuple[str, str], dict[float, PrintedScore]] = defaultdict(dict)
    averages = printed_averages(corpus, metric)
    for score in printed_scores(corpus, metric, "ten_rates"):
        if score.missing_rate is not None and score.is_valid and score.source.averages_in:
            found[score.source.name, score.method][score.missing_rate] = score
    curves = {}
    for (_, method), by_rate in found.items():
        if set(by_rate) != set(RATES):
            continue
        assert method not in curves, f"{method} has two curves on {corpus}"
        scores = tuple(by_rate[rate] for rate in RATES)
        sources, order = scores[0].source.averages_in, scores[0].f1_arguments
        fitting = (mean for mean in averages if mean.method == method and mean.source.name in sources)
        average = next((mean for mean in fitting if mean.f1_arguments == order or not metric.startswith("f1")), None)
        curves[method] = PrintedCurve(method, scores, average)
    return curves


def printed_averages(
    corpus: str, metric: str, protocol: Protocol = "ten_rates", selection: Selection | None = None
) -> tuple[PrintedScore, ...]:
    """The means over the ten rates, or over the six cases of absent modalities, of every whole method and source.

    Corrected where that is known, without what is invalid. A method has one for each source that lists it.
    """
    return tuple(
        score
        for score in printed_scores(corpus, metric, protocol)
        if score.is_mean and score.is_valid and score.source.about == "methods" and selection in (None, score.selection)
    )


@cache
def printed_sources() -> dict[str, Source]:
    """Where the numbers come from, by the name that the tables use."""
    return {
        row["source"]: Source(
            name=row["source"],
            about=cast(Literal["methods", "ablation", "spread"], row["about"]),
            work=row["work"],
            reference=row["reference"],
            place=row["place"],
            seen_in=row["seen_in"],
            averages_in=tuple(row["averages_in"].split()),
            note=row["note"],
        )
        for row in read_rows("sources")
    }


def read_rows(table: str) -> list[dict[str, str]]:
    """The rows of one of the files beside this module, as text."""
    text = resources.files(__name__).joinpath(f"{table}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _scores() -> tuple[PrintedScore, ...]:
    corrections = _corrections()
    return tuple(score for table in TABLES for row in read_rows(table) for score in _read_row(row, corrections))


def _read_row(row: dict[str, str], corrections: dict[tuple[str, ...], dict[str, str]]) -> Iterator[PrintedScore]:
    condition = row["condition"]
    is_rate = row["protocol"] == "ten_rates" and condition != "mean"
    is_case = row["protocol"] == "absent_modalities" and condition != "mean"
    present = tuple(condition.split("+")) if is_case else None
    assert present is None or set(present) <= set(MODALITIES), f"{row['source']}: present modalities {condition!r}"
    for metric in TITLES:
        cell = row.get(metric)
        if not cell:
            continue
        value, _, deviation = cell.partition(" ± ")
        score = PrintedScore(
            source=printed_sources()[row["source"]],
            corpus=row["corpus"],
            protocol=cast(Protocol, row["protocol"]),
            missing_rate=float(condition) if is_rate else None,
            present=present,
            method=row["method"],
            variant=row.get("variant", ""),
            metric=metric,
            value=float(value),
            deviation=float(deviation) if deviation else None,
            status=cast(Status, row["status"]),
            selection=cast(Selection, row["selection"]),
            f1_arguments=cast(F1Arguments, row["f1_arguments"]),
        )
        correction = _correction(score, condition, corrections)
        if correction is None:
            yield score
            continue
        assert correction["printed"] in ("", value), f"a correction of {value} in {row['source']} says {correction}"
        fault, reason = cast(Fault, correction["fault"]), correction["reason"]
        yield replace(score, fault=fault, reason=reason)
        if correction["corrected"]:
            corrected = float(correction["corrected"])
            # Exchanged arguments of F1 are what it is corrected for, or they were right before.
            yield replace(
                score, value=corrected, deviation=None, status="corrected", f1_arguments="right", reason=reason
            )


def _corrections() -> dict[tuple[str, ...], dict[str, str]]:
    keys = ("source", "corpus", "method", "variant", "condition", "metric")
    return {tuple(row[key] for key in keys): row for row in read_rows("corrections")}


def _correction(
    score: PrintedScore, condition: str, corrections: dict[tuple[str, ...], dict[str, str]]
) -> dict[str, str] | None:
    where = (score.source.name, score.corpus, score.method, score.variant)
    for conditions in (condition, "*"):
        for metrics in (score.metric, "*"):
            if (*where, conditions, metrics) in corrections:
                return corrections[*where, conditions, metrics]
    return None
