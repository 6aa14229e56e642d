"""Reports made up by hand, without a store: any numbers, any names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from lnln.config import Config
from lnln.data.schema import Split
from lnln.evaluate.calibration import Bin, Calibration
from lnln.evaluate.estimates import Estimate
from lnln.evaluate.examples import Example
from lnln.evaluate.paired import Difference, share_for
from lnln.evaluate.robustness import Robustness
from lnln.evaluate.suites import SUITES
from lnln.evaluate.words import MarkedText, Span
from lnln.evaluations import Selection, ViewScores
from lnln.metrics import higher_is_better, metric_names
from lnln.report.data import (
    ABSENT,
    TEN_RATES,
    Change,
    ConfusionCounts,
    CorpusReport,
    ReportData,
    SuiteReport,
    SystemReport,
    SystemScores,
    Training,
    constant_of,
)

RANGE = (-3.0, 3.0)
HIGHEST = (0.7, 0.8, 0.9)


def made_estimate(value: float, half: float = 0.05, sd: float | None = 0.01) -> Estimate:
    return Estimate(value, value - half, value + half, sd, 0.002)


def made_difference(metric: str, value: float, half: float, *, seeds: tuple[int, ...] = (1, 2, 3)) -> Difference:
    """value: system minus reference; its interval is `half` to both sides."""
    low, high = value - half, value + half
    is_better = None if low <= 0 <= high else (low > 0) == higher_is_better(metric)
    return Difference(value, low, high, seeds, is_better, len(seeds) > 1)


def made_system(
    title: str,
    level: float = 1.0,
    *,
    suites: Sequence[str] = (TEN_RATES, ABSENT),
    label_range: tuple[float, float] = RANGE,
    kind: Literal["model", "baseline"] = "model",
    selection: Selection = "validation",
    seeds: Sequence[int | None] = (1, 2),
    gain: float = -0.3,
    **fields: Any,
) -> SystemReport:
    """level: MAE at the first rate; it grows by 0.05 with each. gain: in MAE, less that of the train mean."""
    metrics = metric_names(label_range)
    scores = {suite: _scores(suite, level, metrics, gain) for suite in suites}
    classes = ("-1", "0", "1")
    rates = [rate for rate in SUITES[suites[0]].rates if not isinstance(rate, tuple)]
    is_model = kind == "model" and TEN_RATES in suites
    made = SystemReport(
        title=title,
        kind=kind,
        selection=selection,
        note="selected on test" if selection == "published" else "",
        trained_on="",
        carries_over=(),
        absent_modalities=(),
        config=Config().to_dict() if kind == "model" else None,
        changes=(),
        trainings=tuple(_training(title, seed, suites, metrics) for seed in seeds),
        scores=scores,
        robustness={
            suite: {metric: _robustness(suite, scores[suite], metric) for metric in metrics} for suite in suites
        },
        effective={},
        confusions=(ConfusionCounts(0.0, classes, ((5, 1, 0), (0, 0, 0), (1, 2, 9)), 6),) if is_model else (),
        calibration=_calibration(rates) if is_model else None,
    )
    return dataclasses.replace(made, **fields)


def made_corpus(
    *systems: SystemReport,
    differences: dict[str, tuple[float, float]] | None = None,
    corpus: str = "mosi",
    split: Split = "test",
    suites: Sequence[str] = (TEN_RATES, ABSENT),
    label_range: tuple[float, float] = RANGE,
    seeds: tuple[int, ...] = (1, 2, 3),
    **fields: Any,
) -> CorpusReport:
    """differences: by title of the systems but the first: value and half of the interval, for each metric alike."""
    metrics = metric_names(label_range)
    others = [system.title for system in systems[1:]]
    apart = {title: (differences or {}).get(title, (0.0, 0.1)) for title in others}
    made = CorpusReport(
        corpus=corpus,
        split=split,
        feature_id="f1",
        manifest_digest="ab" * 32,
        source_sha256="cd" * 32,
        synthetic=False,
        label_range=label_range,
        num_utterances=200,
        num_labelled=180,
        reference=systems[0].title,
        suites={suite: _suite(suite, apart, metrics, seeds) for suite in suites},
        systems=systems,
        printed=(),
        printed_means=(),
        extraction=None,
        examples=(),
        notes=(),
    )
    return dataclasses.replace(made, **fields)


def made_report(*corpora: CorpusReport) -> ReportData:
    names = tuple(training.name for corpus in corpora for system in corpus.models for training in system.trainings)
    return ReportData(names, tuple(corpora[0].suites), None, "0.1.0", corpora)


def made_example(titles: Sequence[str], words: Sequence[str] = ("what", "a", "film"), note: str = "") -> Example:
    spans = tuple(Span(f"{word} ", bool(place % 2)) for place, word in enumerate(words))
    texts = (MarkedText((Span(" ".join(words), False),), note), MarkedText(spans, note))
    return Example("v$_$1", "largest error", 1.5, 0, (0.0, 0.5), texts, dict.fromkeys(titles, (1.0, 0.25)))


def made_change(key: str = "model.correction", reference: str = "True", value: str = "False") -> Change:
    return Change(key, reference, value)


def _scores(suite: str, level: float, metrics: Sequence[str], gain: float) -> SystemScores:
    rates = SUITES[suite].rates
    by_rate = {
        metric: tuple(
            made_estimate(level + 0.05 * place if metric == "mae" else 0.8 - 0.05 * place)
            for place in range(len(rates))
        )
        for metric in metrics
    }
    mean = {metric: made_estimate(sum(each.value for each in found) / len(found)) for metric, found in by_rate.items()}
    gains = {
        metric: made_difference(metric, gain if metric == "mae" else -gain, 0.1)
        for metric in metrics
        if metric != "corr"
    }
    highest = {metric: found[-1] for metric, found in by_rate.items()} if suite == TEN_RATES else {}
    return SystemScores(
        by_rate=by_rate,
        mean=mean,
        highest=highest,
        collapse_share=(0.3,) * len(rates),
        gains=gains,
        highest_gains=gains if highest else {},
    )


def _suite(
    suite: str, apart: dict[str, tuple[float, float]], metrics: Sequence[str], seeds: tuple[int, ...]
) -> SuiteReport:
    what = SUITES[suite]
    differences = {
        title: {metric: made_difference(metric, *each, seeds=seeds) for metric in metrics}
        for title, each in apart.items()
    }
    # Whatever is judged of them, these hold together.
    share = share_for(10 * max(1, len(apart)))
    highest = {
        title: {metric: dataclasses.replace(each, share=share) for metric, each in by_metric.items()}
        for title, by_metric in differences.items()
    }
    return SuiteReport(
        title=what.title,
        question=what.question,
        protocol=what.protocol,
        rates=what.rates,
        names=tuple(what.name_rate(rate) for rate in what.rates),
        mask_seeds=(0, 1),
        view_ids=("v0", "v1"),
        baselines={
            name: {metric: 1.4 if metric == "mae" else 0.2 for metric in metrics if constant_of(metric) == name}
            for name in ("predict_mean", "one_class")
        },
        differences=differences,
        rate_differences={
            title: {metric: (found,) * len(what.rates) for metric, found in each.items()}
            for title, each in differences.items()
        },
        highest_rates=HIGHEST if suite == TEN_RATES else (),
        highest=highest if suite == TEN_RATES else {},
    )


def _robustness(suite: str, scores: SystemScores, metric: str) -> Robustness:
    rates, by_rate = SUITES[suite].rates, scores.by_rate[metric]
    kept = tuple(made_estimate(1 - place / 10) if suite == TEN_RATES else None for place in range(len(rates)))
    area = made_estimate(0.5) if suite == TEN_RATES else None
    return Robustness(area, kept, (rates[-1], by_rate[-1]), kept[-1])


def _calibration(rates: Sequence[float]) -> Calibration:
    bins = tuple(Bin(rate, 1 - rate / 2, 0.1, 0.8 - rate / 2, 1.0 - rate / 2, 36) for rate in rates)
    return Calibration(bins, made_estimate(0.2), made_estimate(0.9), None)


def _training(title: str, seed: int | None, suites: Sequence[str], metrics: Sequence[str]) -> Training:
    return Training(
        name=f"{title}-{seed}",
        seed=seed,
        run_id=f"{title}-{seed}",
        weights_sha256="ef" * 32,
        code_version="0.1.0",
        evaluations=dict.fromkeys(suites, "e1"),
        views={
            suite: tuple(
                ViewScores(f"v{place}", rate, 0, dict.fromkeys(metrics, 0.5), 0.3, None if place else 0.0)
                for place, rate in enumerate(SUITES[suite].rates)
            )
            for suite in suites
        },
    )
