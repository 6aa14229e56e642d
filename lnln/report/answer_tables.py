"""Tables of what systems answer: which class for which, how complete they take an input to be, single utterances."""

from __future__ import annotations

from lnln.evaluate.examples import Example
from lnln.report.data import CorpusReport, SystemReport
from lnln.report.score_tables import SYSTEM, estimate_cell
from lnln.report.tables import Column, Table, number, text

NUM = Column("num", "answers", "number", digits=0)


def confusion_table(system: SystemReport) -> Table:
    """A row for each missing rate and label: how often each class was predicted, as a share of the label."""
    classes, num = system.confusions[0].classes, system.confusions[0].num_answers
    columns = [Column(f"as_{name}", name, "number", digits=2) for name in classes]
    rows = [
        {"rate": text(f"{each.rate:g}"), "label": text(name), "num": number(NUM, sum(counts))}
        | {
            column.key: number(column, count / sum(counts) if sum(counts) else None)
            for column, count in zip(columns, counts, strict=True)
        }
        for each in system.confusions
        for name, counts in zip(classes, each.counts, strict=True)
    ]
    return Table(
        f"{system.title}: predicted classes by label and missing rate, as shares of the label.",
        (Column("rate", "missing rate"), Column("label", "label"), NUM, *columns),
        tuple(rows),
        f"{num} answer{'' if num == 1 else 's'} to each utterance, of all trainings and mask seeds together.",
    )


NUM = Column("num", "answers", "number", digits=0)


def calibration_table(corpus: CorpusReport) -> Table:
    """The estimated completeness at each missing rate of text, and how far it is off."""
    found = [(system, system.calibration) for system in corpus.systems if system.calibration is not None]
    rates = sorted({each.rate for _, calibration in found for each in calibration.bins})
    columns = [Column(f"at_{rate:g}", f"{rate:g}", "number", digits=2) for rate in rates]
    more = [
        Column("gap", "mean gap", "number"),
        Column("correlation", "correlation", "number"),
        Column("within", "within rates", "number"),
    ]
    rows = []
    for system, calibration in found:
        at = {each.rate: each for each in calibration.bins}
        row = {"system": text(system.title)}
        for column, rate in zip(columns, rates, strict=True):
            if rate in at:
                row[column.key] = number(column, at[rate].mean, at[rate].low, at[rate].high)
        row["gap"], row["correlation"] = (
            estimate_cell(more[0], calibration.gap),
            estimate_cell(more[1], calibration.correlation),
        )
        row |= {"within": estimate_cell(more[2], calibration.within)} if calibration.within is not None else {}
        rows.append(row)
    ideal = {"system": text("as it should be"), "gap": number(more[0], 0.0)}
    ideal |= {column.key: number(column, 1 - rate) for column, rate in zip(columns, rates, strict=True)}
    return Table(
        "Estimated completeness w of the text by its missing rate r, whose completeness is 1 - r.",
        (SYSTEM, *columns, *more),
        (*rows, ideal),
        "Mean gap: of |w - (1 - r)|. Within rates: correlation of w with the share of the words that was really kept, "
        "among utterances at one rate.",
    )


def example_table(example: Example) -> Table:
    """What each system says of one utterance at each rate."""
    columns = [Column(f"at_{rate:g}", f"{rate:g}", "number", "mae") for rate in example.rates]
    rows = [
        {"system": text(title)} | {column.key: number(column, x) for column, x in zip(columns, said, strict=True)}
        for title, said in example.predictions.items()
    ]
    caption = f"Utterance {example.utterance_id}, label {example.label:g}: predictions by missing rate."
    return Table(caption, (SYSTEM, *columns), tuple(rows))
