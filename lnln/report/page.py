"""A report on one or more models: one page, and the same as Markdown, CSV, JSON and LaTeX.

    path = report(store, ["mosi-lnln@best", "mosi-text_only-1f3a0c9d2b44"], Path("reports/mosi"))

Writes `index.html`, which needs no other file and no network; `index.md`; `scores.json`, from which all else is made;
`scores.csv`, a row for each training and view; `tables/`, every table as CSV, Markdown and LaTeX; and the config of
each system as YAML, which `lnln train --config` takes. The same models give the same bytes. Tables and configs of an
earlier report in the folder go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import yaml

from lnln.corruption import format_rate
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.metrics import TITLES
from lnln.report import tables
from lnln.report.blocks import Block, Heading, Links, shown_tables, to_html, to_markdown
from lnln.report.collect import DEFAULT_SUITES, collect
from lnln.report.data import ReportData
from lnln.report.markup import document, escape
from lnln.report.sections import config_of, report_blocks, report_title
from lnln.report.tables import Cell, Column, Table, number, text

PAGE, MARKDOWN, DATA = "index.html", "index.md", "scores.json"
_OURS = re.compile(r"tables/[^/]+\.(csv|md|tex)|config-[0-9a-f]+\.yaml")


def report(
    store: Store,
    names: Sequence[str],
    folder: Path | str,
    *,
    suites: Sequence[str] = DEFAULT_SUITES,
    corpus: str | None = None,
    split: str = "test",
    mask_seeds: Sequence[int] | None = None,
    reference: str | None = None,
) -> Path:
    """Write the report on the models `names` (runs, published models, folders) to `folder`; returns its index.html.

    Arguments and errors as those of `collect`; RefusedError too for a folder that cannot be written. What was not
    scored before is scored now; a run with `train.selection: published` a second time, with the weights that were
    selected on test, as a system of its own that says so.
    """
    data = collect(
        store, names, suites, corpus=corpus, split=split, mask_seeds=mask_seeds, reference=reference
    )  # fmt: skip
    written = files(data)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"cannot write a report to {folder}: {error.strerror}; give another folder") from error
    _remove_earlier(folder, keep=written)
    target = Store(folder)
    for name, content in written.items():  # the page last: where it is, what it names is
        target.write(name, content)
    return folder / PAGE


def _remove_earlier(folder: Path, keep: Collection[str]) -> None:
    """Take away the tables and configs of the report that lies in `folder`, but for those of the names `keep`.

    Where no report of this kind lies, nothing is: then what is called so is not ours.
    """
    try:
        values = json.loads((folder / DATA).read_bytes())
    except (OSError, ValueError):
        return
    if not isinstance(values, dict) or not {"format", "corpora", "suites"} <= set(values):
        return
    for path in [*folder.glob("config-*.yaml"), *folder.glob("tables/*")]:
        name = path.relative_to(folder).as_posix()
        if name not in keep and _OURS.fullmatch(name) and path.is_file():
            path.unlink()


def files(data: ReportData) -> dict[str, bytes]:
    """Every file of the report by its name, the page last."""
    configs = {
        system.title: config for corpus in data.corpora for system in corpus.systems if (config := config_of(system))
    }
    names = {title: f"config-{config.fingerprint()}.yaml" for title, config in configs.items()}
    blocks = report_blocks(data, names)
    written = {
        names[title]: yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True).encode()
        for title, config in configs.items()
    }
    written |= {DATA: data.to_json(), "scores.csv": scores_csv(data).encode()}
    for name, table in shown_tables(blocks).items():
        for ending, form in _FORMS.items():
            written[f"tables/{name}.{ending}"] = form(table).encode()
    beside = [name for name in written if "/" not in name]
    written[MARKDOWN] = render_markdown(data, blocks, beside).encode()
    return {**written, PAGE: render_html(data, blocks, [*beside, MARKDOWN]).encode()}


def render_html(data: ReportData, blocks: Sequence[Block], beside: Sequence[str] = ()) -> str:
    """index.html. beside: names of other files."""
    title = report_title(data)
    return document(title, f"<header><h1>{escape(title)}</h1></header>\n{to_html([*blocks, *_links(beside)])}")


def render_markdown(data: ReportData, blocks: Sequence[Block], beside: Sequence[str] = ()) -> str:
    """index.md: the same without drawings."""
    return to_markdown([Heading(report_title(data), 1), *blocks, *_links(beside)])


def scores_csv(data: ReportData) -> str:
    """A row for each training and view; metrics that a corpus does not have stay empty."""
    heads = ("system", "name", "seed", "selection", "corpus", "split", "suite", "protocol", "missing_rate", "mask_seed")
    metrics = [metric for metric in TITLES if any(metric in corpus.metrics for corpus in data.corpora)]
    numbers = [Column(key, key, "number") for key in (*metrics, "collapse_share", "mean_completeness")]
    rows: list[dict[str, Cell]] = []
    for corpus in data.corpora:
        for system in corpus.systems:
            for training in system.trainings:
                seed = "" if training.seed is None else str(training.seed)
                same = (system.title, training.name, seed, system.selection, corpus.corpus, corpus.split)
                for suite, views in training.views.items():
                    for view in views:
                        own = (
                            suite,
                            corpus.suites[suite].protocol,
                            format_rate(view.missing_rate),
                            str(view.mask_seed),
                        )
                        row = {key: text(value) for key, value in zip(heads, (*same, *own), strict=True)}
                        values = {**view.scores, "collapse_share": view.collapse_share}
                        if view.mean_completeness is not None:
                            values["mean_completeness"] = view.mean_completeness
                        row |= {"view_id": text(view.view_id)}
                        rows.append(row | {c.key: number(c, values[c.key]) for c in numbers if c.key in values})
    columns = (*(Column(head, head) for head in heads), Column("view_id", "view_id"), *numbers)
    return tables.to_csv(Table("Scores by view.", columns, tuple(rows)))


_FORMS = {"csv": tables.to_csv, "md": tables.to_markdown, "tex": tables.to_latex}


def _links(beside: Sequence[str]) -> list[Block]:
    return (
        [Links("Beside this page, with tables/ (each table as CSV, Markdown and LaTeX):", tuple(beside))]
        if beside
        else []
    )
