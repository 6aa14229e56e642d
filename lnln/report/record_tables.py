"""Tables of what was scored, on which views, from which records; and of what others printed."""

from __future__ import annotations

from lnln.metrics import TITLES
from lnln.report.data import CorpusReport
from lnln.report.score_tables import SYSTEM
from lnln.report.tables import Column, Table, number, text


def view_table(corpus: CorpusReport) -> Table:
    """A row for each suite: what its views are."""
    rows = [
        {
            "suite": text(name),
            "question": text(view.question),
            "protocol": text(view.protocol),
            "rates": text(", ".join(view.names)),
            "mask_seeds": text(", ".join(map(str, view.mask_seeds))),
            "views": text(f"{len(view.view_ids)}: {view.view_ids[0]} to {view.view_ids[-1]}"),
        }
        for name, view in corpus.suites.items()
    ]
    titles = {"mask_seeds": "mask seeds", "question": "what it asks"}
    heads = ("question", "protocol", "rates", "mask_seeds", "views")
    columns = tuple(Column(head, titles.get(head, head)) for head in heads)
    return Table("Views, the same for every system.", (Column("suite", "suite"), *columns), tuple(rows))


def setting_table(corpus: CorpusReport) -> Table | None:
    """In what the configs differ from that of the reference."""
    rows = tuple(
        {
            "system": text(system.title),
            "key": text(change.key),
            "reference": text(change.reference),
            "value": text(change.value),
        }
        for system in corpus.others()
        for change in system.changes
    )
    if not rows:
        return None
    columns = (
        Column("system", "system"),
        Column("key", "key"),
        Column("reference", corpus.reference),
        Column("value", "here"),
    )
    return Table(f"Settings that differ from those of {corpus.reference}.", columns, rows)


def training_table(corpus: CorpusReport) -> Table:
    """A row for each training: which weights, which records."""
    rows = [
        {
            "system": text(system.title),
            "name": text(training.name),
            "seed": text("" if training.seed is None else str(training.seed)),
            "selection": text("test" if system.selection == "published" else system.selection),
            "run": text(training.run_id or ""),
            "weights": text(training.weights_sha256[:12]),
            "evaluations": text(", ".join(f"{suite} {found}" for suite, found in training.evaluations.items())),
            "code": text(training.code_version),
        }
        for system in corpus.systems
        for training in system.trainings
    ]
    heads = ("name", "seed", "selection", "run", "weights", "evaluations", "code")
    titles = {"selection": "selected on", "weights": "weights SHA-256"}
    columns = tuple(Column(head, titles.get(head, head)) for head in heads)
    return Table("Trainings, and the records of their scores.", (SYSTEM, *columns), tuple(rows))


def printed_table(corpus: CorpusReport) -> Table:
    """What others printed, a row for each method and source: in no table with ours."""
    metrics = [metric for metric in corpus.metrics if any(metric in each.mean for each in corpus.printed_means)]
    columns = [Column(metric, TITLES[metric], "number", metric) for metric in metrics]
    rows = [
        {
            "method": text(each.method),
            "by": text(
                {"rerun": "trained again by others", "corrected": "printed, corrected"}.get(each.status, "printed")
            ),
            "selection": text("not known" if each.selection == "unknown" else each.selection),
            "source": text(each.source),
        }
        | {column.key: number(column, each.mean[column.key]) for column in columns if column.key in each.mean}
        for each in corpus.printed_means
    ]
    heads = (
        Column("method", "method"),
        Column("by", "numbers"),
        Column("selection", "selected on"),
        Column("source", "source"),
    )
    return Table(
        f"Means over the ten missing rates on {corpus.corpus} as others printed them.",
        (*heads, *columns),
        tuple(rows),
        "Not measured here: other features, text encoders, masks and seeds, and mostly selected on the test split. F1 "
        "stands only where its arguments are known to be in order. Sources by these names are listed in "
        "lnln/report/printed/sources.csv.",
    )
