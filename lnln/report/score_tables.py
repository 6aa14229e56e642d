"""The tables of a model report, from `ReportData` alone; a row for each system unless a table says otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lnln.evaluate.estimates import Estimate
from lnln.evaluate.paired import Difference
from lnln.evaluations import BASELINE_TITLES
from lnln.metrics import TITLES
from lnln.report.data import Change, CorpusReport, SystemReport
from lnln.report.tables import Cell, Column, Table, number, text, with_best
from lnln.report.verdict import highest_intervals, highest_word, judged_word, shown_metrics

SYSTEM = Column("system", "system")
INTERVAL = "Intervals are of 95%, over utterances"
SPREAD = "± is the standard deviation over training seeds"


def mean_table(corpus: CorpusReport, suite: str) -> Table:
    """Every metric, as the mean over the rates; constant answers last."""
    columns = [Column(metric, TITLES[metric], "number", metric) for metric in corpus.metrics]
    rows = [
        {"system": text(system.title), "trainings": _count(system)}
        | {column.key: estimate_cell(column, system.scores[suite].mean[column.key]) for column in columns}
        for system in corpus.systems
    ]
    view = corpus.suites[suite]
    rows += [
        {"system": text(BASELINE_TITLES.get(name, name))}
        | {column.key: number(column, scores[column.key]) for column in columns if column.key in scores}
        for name, scores in view.baselines.items()
    ]
    caption = f"{view.title}: means over {len(view.rates)} views of each mask seed, {_where(corpus)}."
    table = Table(
        caption, (SYSTEM, Column("trainings", "trainings", "number", digits=0), *columns), tuple(rows), _note(corpus)
    )
    return with_best(table, among=_judged_rows(corpus))


def rate_table(corpus: CorpusReport, suite: str, metric: str) -> Table:
    """One metric at every rate of a suite, and its mean."""
    view = corpus.suites[suite]
    columns = [
        Column(f"at_{name}", name, "number", metric) for name in view.names
    ] + [Column("mean", "mean", "number", metric)]  # fmt: skip
    rows = [
        {"system": text(system.title)}
        | {
            column.key: estimate_cell(column, each)
            for column, each in zip(
                columns, [*system.scores[suite].by_rate[metric], system.scores[suite].mean[metric]], strict=True
            )
        }
        for system in corpus.systems
    ]
    constants = {name: scores[metric] for name, scores in view.baselines.items() if metric in scores}
    rows += [
        {"system": text(BASELINE_TITLES.get(name, name))} | {column.key: number(column, value) for column in columns}
        for name, value in constants.items()
    ]
    return with_best(
        Table(f"{TITLES[metric]}, {view.title.lower()}.", (SYSTEM, *columns), tuple(rows)), among=_judged_rows(corpus)
    )


def combination_table(corpus: CorpusReport, suite: str, metric: str) -> Table:
    """A row for each view and a column for each system, for suites with many combinations of rates."""
    view = corpus.suites[suite]
    columns = [Column(f"system_{i}", system.title, "number", metric) for i, system in enumerate(corpus.systems)]
    rows = [
        {"view": text(name)}
        | {
            column.key: estimate_cell(column, system.scores[suite].by_rate[metric][place])
            for column, system in zip(columns, corpus.systems, strict=True)
        }
        for place, name in enumerate(view.names)
    ]
    note = "Missing rates of text, audio, vision; one number where they are the same."
    return Table(
        f"{TITLES[metric]}, {view.title.lower()}.", (Column("view", "missing rates"), *columns), tuple(rows), note
    )


def difference_table(corpus: CorpusReport, suite: str) -> Table | None:
    """The mean over all rates, less that of the reference; None where there is nothing to compare."""
    view = corpus.suites[suite]
    if not view.differences:
        return None
    columns = [Column(metric, TITLES[metric], "number", metric, is_signed=True) for metric in corpus.metrics]
    rows = [
        {"system": text(title), "seeds": text(", ".join(map(str, each["mae"].seeds)) or "–")}
        | {column.key: difference_cell(column, each[column.key]) for column in columns}
        | {"verdict": text(_say(corpus, title, each))}
        for title, each in view.differences.items()
    ]
    return Table(
        f"{view.title}: differences to {corpus.reference}, paired on the same utterances and masks.",
        (SYSTEM, Column("seeds", "paired seeds"), *columns, Column("verdict", "shown")),
        tuple(rows),
        f"Intervals are of 95%, {_over(view.differences)}. Better and worse are said where they do not hold 0; "
        "nothing is said of what was selected on test.",
    )


def _over(differences: Mapping[str, Mapping[str, Difference]]) -> str:
    """Which chance the intervals allow for. differences: by system and metric."""
    counted = {difference.counts_training for by_metric in differences.values() for difference in by_metric.values()}
    if counted <= {True}:
        return "over utterances and trainings"
    if counted == {False}:
        return "over utterances alone, since no system has several trainings"
    return "over utterances and trainings, and over utterances alone where no trainings tell how far they differ"


def rate_difference_table(corpus: CorpusReport, suite: str, metric: str) -> Table:
    """One metric at every rate, less that of the reference there."""
    view = corpus.suites[suite]
    columns = [Column(f"at_{name}", name, "number", metric, is_signed=True) for name in view.names]
    rows = [
        {"system": text(title)}
        | {column.key: difference_cell(column, each) for column, each in zip(columns, by_metric[metric], strict=True)}
        for title, by_metric in view.rate_differences.items()
    ]
    caption = f"{TITLES[metric]}, {view.title.lower()}: differences to {corpus.reference} at each rate."
    note = f"Intervals are of 95%, {_over(view.differences)}, of each rate by itself."
    return Table(caption, (SYSTEM, *columns), tuple(rows), note)


def highest_table(corpus: CorpusReport, suite: str) -> Table:
    """Scores and differences to the reference over the highest rates alone, and what is left there."""
    view = corpus.suites[suite]
    columns = [Column(metric, TITLES[metric], "number", metric) for metric in corpus.main_metrics]
    more = [
        Column(f"{metric}_difference", f"{TITLES[metric]}, difference", "number", metric, is_signed=True)
        for metric in corpus.main_metrics
    ]
    verdicts = Column("verdict", "in MAE")
    collapse = Column("collapse_share", "one class", "number", digits=2)
    rows = []
    for system in corpus.systems:
        scores, differences = system.scores[suite], view.highest.get(system.title, {})
        row = {"system": text(system.title)}
        row |= {column.key: estimate_cell(column, scores.highest[column.key]) for column in columns}
        row |= {
            column.key: difference_cell(column, differences[metric])
            for column, metric in zip(more, corpus.main_metrics, strict=True)
            if metric in differences
        }
        if "mae" in differences:
            row["verdict"] = text(highest_word(corpus, system.title, "mae", suite))
        shares = [scores.collapse_share[view.rates.index(rate)] for rate in view.highest_rates]
        row["collapse_share"] = number(collapse, sum(shares) / len(shares))
        rows.append(row)
    rates = ", ".join(f"{rate:g}" for rate in view.highest_rates)
    caption = f"Means over the missing rates {rates}, and differences to {corpus.reference}, {_where(corpus)}."
    has_differences = bool(view.highest)
    one_class = "One class: share of the utterances that get the most frequent predicted class."
    note = " ".join(filter(None, [_note(corpus), highest_intervals(corpus, suite), one_class]))
    shown = (SYSTEM, *columns, *((*more, verdicts) if has_differences else ()), collapse)
    return with_best(Table(caption, shown, tuple(rows), note), among=_judged_rows(corpus))


def gain_table(corpus: CorpusReport, suite: str) -> Table:
    """What systems are better than constant answers, over all rates and over the highest."""
    view = corpus.suites[suite]
    metrics = [metric for metric in corpus.main_metrics if metric != "corr"]
    columns = [
        Column(f"{part}_{metric}", f"{TITLES[metric]}, {title}", "number", metric, is_signed=True)
        for part, title in (("gains", "all rates"), *([("highest_gains", "highest")] if view.highest_rates else []))
        for metric in metrics
    ]
    rows = [
        {"system": text(system.title)}
        | {
            f"{part}_{metric}": difference_cell(column, found[metric])
            for part, found in (
                ("gains", system.scores[suite].gains),
                ("highest_gains", system.scores[suite].highest_gains),
            )
            for metric in metrics
            for column in columns
            if metric in found and column.key == f"{part}_{metric}"
        }
        for system in corpus.systems
    ]
    rates = ", ".join(f"{rate:g}" for rate in view.highest_rates)
    highest = f" Highest: {rates}." if rates else ""
    return Table(
        "Against constant answers: the train mean for MAE, the most frequent class of this split for accuracies.",
        (SYSTEM, *columns),
        tuple(rows),
        f"Lower is better in MAE, so a negative difference is a gain.{highest}",
    )


def ablation_table(corpus: CorpusReport, suite: str, changed: Sequence[tuple[SystemReport, Change]]) -> Table:
    """Systems that differ from the reference in one key: what that key alone does."""
    view = corpus.suites[suite]
    columns = [Column(metric, TITLES[metric], "number", metric, is_signed=True) for metric in corpus.main_metrics]
    more = [Column("highest_mae", "MAE, highest rates", "number", "mae", is_signed=True)] if view.highest else []
    rows = []
    for system, change in changed:
        row = {
            "system": text(system.title),
            "key": text(change.key),
            "reference": text(change.reference),
            "value": text(change.value),
        }
        row |= {column.key: difference_cell(column, view.differences[system.title][column.key]) for column in columns}
        if more:
            row["highest_mae"] = difference_cell(more[0], view.highest[system.title]["mae"])
        row["verdict"] = text(judged_word(corpus, system.title, view.differences[system.title]["mae"]))
        rows.append(row)
    heads = (Column("key", "changed"), Column("reference", f"in {corpus.reference}"), Column("value", "here"))
    return Table(
        f"Ablations: differences to {corpus.reference} that a single change makes, {view.title.lower()}.",
        (SYSTEM, *heads, *columns, *more, Column("verdict", "in MAE")),
        tuple(rows),
        highest_intervals(corpus, suite).replace("these differences", "differences at the highest rates")
        if more
        else "",
    )


def robustness_table(corpus: CorpusReport, suite: str, metric: str) -> Table:
    """Area, worst case, retention, relative and effective robustness in one metric."""
    view = corpus.suites[suite]
    score = [
        Column("area", "area under the curve", "number", metric),
        Column("worst", "worst", "number", metric),
        Column("worst_at", "at"),
    ]
    shares = [Column("relative", "relative", "number")]
    kept = [(place, name) for place, name in enumerate(view.names) if view.rates[place] != 0]
    shares += [Column(f"retention_at_{name}", f"kept at {name}", "number") for _, name in kept]
    effective = Column("effective", f"effective, against {corpus.reference}", "number", metric, is_signed=True)
    rows = []
    for system in corpus.systems:
        made = system.robustness[suite][metric]
        rate, worst = made.worst
        row = {"system": text(system.title)}
        row |= {"area": estimate_cell(score[0], made.area)} if made.area is not None else {}
        row |= {"worst": estimate_cell(score[1], worst), "worst_at": text(view.names[view.rates.index(rate)])}
        row |= {"relative": estimate_cell(shares[0], made.relative)} if made.relative is not None else {}
        for column, (place, _) in zip(shares[1:], kept, strict=True):
            found = made.retention[place]
            row |= {column.key: estimate_cell(column, found)} if found is not None else {}
        if metric in system.effective.get(suite, {}):
            row["effective"] = difference_cell(effective, system.effective[suite][metric].mean)
        rows.append(row)
    what = (
        "the gain over predicting the train mean that there is at rate 0"
        if metric == "mae"
        else "the score that there is at rate 0"
    )
    note = (
        f"Kept: which part of {what} is left; relative: the same of the mean over all other rates. Effective: how much "
        "more is left than the difference at rate 0 explains. Empty where it is not defined."
    )
    return Table(
        f"Robustness in {TITLES[metric]}, {view.title.lower()}.",
        (SYSTEM, *score, *shares, effective),
        tuple(rows),
        note,
    )


def _say(corpus: CorpusReport, title: str, differences: dict[str, Difference]) -> str:
    """`better in MAE and Corr; worse in Acc-7`, or that nothing is shown; nothing where it may not be judged."""
    by_word: dict[str, list[str]] = {}
    for metric, difference in differences.items():
        by_word.setdefault(judged_word(corpus, title, difference), []).append(metric)
    if "" in by_word:
        return ""
    said = [f"{word} in {shown_metrics(by_word[word])}" for word in ("better", "worse") if word in by_word]
    return "; ".join(said) or "no difference"


def estimate_cell(column: Column, estimate: Estimate) -> Cell:
    return number(column, estimate.value, estimate.low, estimate.high, sd=estimate.sd_seeds)


def difference_cell(column: Column, difference: Difference) -> Cell:
    return number(column, difference.value, difference.low, difference.high)


def _count(system: SystemReport) -> Cell:
    return number(Column("trainings", "trainings", "number", digits=0), float(len(system.trainings)))


def _judged_rows(corpus: CorpusReport) -> list[int]:
    """Of tables whose first rows are the systems: those among which the best may be marked."""
    return [index for index, system in enumerate(corpus.systems) if system.is_judged]


def _where(corpus: CorpusReport) -> str:
    return f"{corpus.corpus}, {corpus.split} split, {corpus.num_labelled} utterances"


def _note(corpus: CorpusReport) -> str:
    has_seeds = any(len(system.trainings) > 1 for system in corpus.systems)
    marked = " Bold: the best mean, whether or not the difference is shown."
    return f"{INTERVAL}{f'; {SPREAD}' if has_seeds else ''}.{marked}"
