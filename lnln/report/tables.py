r"""One table in five forms: HTML, Markdown, CSV, LaTeX, plain values. The numbers of all are those of its cells.

    mae = Column("mae", "MAE", "number", "mae")
    rows = [{"system": text("LNLN"), "mae": number(mae, 0.9123, 0.881, 0.944, sd=0.012)}]
    table = with_best(Table("Means over ten rates.", (Column("system", "system"), mae), tuple(rows)))
    to_html(table, is_filterable=True), to_markdown(table), to_csv(table), to_latex(table), to_dict(table)

HTML, Markdown and LaTeX show rounded numbers, accuracies in percent; CSV and `to_dict` have values as they are, so
accuracies within [0, 1]. Text from outside stays text in each form, on one line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from lnln import markdown
from lnln.evaluations import PLAIN_NUMBERS
from lnln.metrics import higher_is_better
from lnln.report import markup

Kind = Literal["text", "number"]
PARTS = ("low", "high", "sd")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class Column:
    """key: what programs call it, in CSV and JSON. title: what people read.

    metric: whose score its numbers are, as in lnln.metrics.TITLES; it says how they are printed and which is best.
    digits: after the point, where there is no metric. is_signed: for differences, whose plus is printed; of these none
    is best.
    """

    key: str
    title: str
    kind: Kind = "text"
    metric: str | None = None
    digits: int = 3
    is_signed: bool = False

    def format(self, value: float) -> str:
        """`value` as people read it; a negative zero is a zero."""
        is_share = self.metric is not None and self.metric not in PLAIN_NUMBERS
        digits = 2 if is_share else 3 if self.metric is not None else self.digits
        rounded = round(100 * value if is_share else value, digits) + 0.0
        return f"{rounded:{'+' if self.is_signed and rounded else ''}.{digits}f}"


@dataclass(frozen=True)
class Cell:
    """text: what people read, without interval and sd, which the forms add.

    value: the number that it stands for, by which rows are sorted. low, high: its 95% interval. sd: over trainings.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    is_best: bool = False

    def __post_init__(self) -> None:
        numbers = (self.value, self.low, self.high, self.sd)
        assert all(number is None or math.isfinite(number) for number in numbers), numbers
        assert (self.low is None) == (self.high is None), (self.low, self.high)


Row = Mapping[str, Cell]
NOTHING = Cell("")


@dataclass(frozen=True)
class Table:
    """caption: a sentence or two, plain text. rows: cells by the key of their column; one that is not there is empty.

    note: what a reader must know of these numbers; it stands below the table.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def __post_init__(self) -> None:
        keys = [column.key for column in self.columns]
        assert keys and len(set(keys)) == len(keys), keys
        assert all(set(row) <= set(keys) for row in self.rows), (keys, [sorted(row) for row in self.rows])


def text(words: str, *, is_best: bool = False) -> Cell:
    """A cell of plain text."""
    return Cell(words, is_best=is_best)


def number(
    column: Column,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    sd: float | None = None,
    is_best: bool = False,
) -> Cell:
    """A cell of `column` whose text is `value` as that column prints it; an empty one where `value` is None."""
    return NOTHING if value is None else Cell(column.format(value), value, low, high, sd, is_best)


def with_best(table: Table, *, among: Collection[int] | None = None) -> Table:
    """`table` whose best cell is marked in each column of a metric; several where the printed numbers are the same.

    among: indices of the rows that take part, all of them if None. Nothing is best of fewer than two.
    """
    rows = [dict(row) for row in table.rows]
    taking_part = [row for index, row in enumerate(rows) if among is None or index in among]
    for column in table.columns:
        if column.metric is None or column.is_signed:
            continue
        scored = [
            (value, row)
            for row in taking_part
            for value in [row.get(column.key, NOTHING).value]
            if value is not None
        ]  # fmt: skip
        if len(scored) < 2:
            continue
        best = (max if higher_is_better(column.metric) else min)(value for value, _ in scored)
        for value, row in scored:
            is_best = column.format(value) == column.format(best)
            row[column.key] = replace(row[column.key], is_best=is_best)
    return replace(table, rows=tuple(rows))


def to_html(table: Table, *, is_filterable: bool = False) -> str:
    """The table as part of a page: headings sort it, and a field above it keeps rows by what they say."""
    heads = [column.title for column in table.columns]
    body = "".join(f"<tr>{''.join(_html(table, row, index) for index in range(len(heads)))}</tr>" for row in table.rows)
    note = f'<p class="note">{markup.escape(table.note)}</p>' if table.note else ""
    return markup.sortable(heads, body, table.caption, is_filterable=is_filterable) + note


def to_markdown(table: Table) -> str:
    """The caption, a table of GitHub's Markdown, and the note; paragraphs with an empty line between."""
    lines = [
        [markdown.escape(column.title) for column in table.columns],
        ["---:" if column.kind == "number" else "---" for column in table.columns],
        *([_markdown(column, _cell(row, column)) for column in table.columns] for row in table.rows),
    ]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    parts = [markdown.escape(table.caption), body, markdown.escape(table.note)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(table: Table) -> str:
    """A line per row, headed by the columns' keys; numbers with all their digits.

    `<key>_low`, `<key>_high` and `<key>_sd` follow a column any of whose cells has them. Text that a spreadsheet would
    take for a formula starts with an apostrophe.
    """
    parts = {
        column.key: [part for part in PARTS if any(getattr(_cell(row, column), part) is not None for row in table.rows)]
        for column in table.columns
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        name
        for column in table.columns
        for name in (column.key, *(f"{column.key}_{part}" for part in parts[column.key]))
    )
    for row in table.rows:
        writer.writerow(
            field
            for column in table.columns
            for cell in [_cell(row, column)]
            for field in (
                _csv_text(cell.text) if cell.value is None else repr(cell.value),
                *("" if part is None else repr(part) for part in (getattr(cell, name) for name in parts[column.key])),
            )
        )
    return out.getvalue()


def to_latex(table: Table) -> str:
    """A table of LaTeX with the package booktabs; the best in bold, intervals small behind their number.

    Text beyond Latin letters (CJK, say) needs XeLaTeX or LuaLaTeX and a font that has it.
    """
    kinds = "".join("r" if column.kind == "number" else "l" for column in table.columns)
    heads = " & ".join(_latex(column.title) for column in table.columns)
    lines = [
        "% \\usepackage{booktabs}",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{_latex(table.caption)}}}",
        f"\\begin{{tabular}}{{{kinds}}}",
        "\\toprule",
        f"{heads} \\\\",
        "\\midrule",
        *(
            " & ".join(_latex_cell(column, _cell(row, column)) for column in table.columns) + " \\\\"
            for row in table.rows
        ),
        "\\bottomrule",
        "\\end{tabular}",
        *([f"\\par\\smallskip{{\\footnotesize {_latex(table.note)}}}"] if table.note else []),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_dict(table: Table) -> dict[str, Any]:
    """Values that JSON holds: the columns as they are, and rows of cells without what they do not have."""
    return {
        "caption": table.caption,
        "columns": [asdict(column) for column in table.columns],
        "rows": [
            {
                key: {
                    "text": cell.text,
                    **{part: found for part in ("value", *PARTS) if (found := getattr(cell, part)) is not None},
                    **({"is_best": True} if cell.is_best else {}),
                }
                for key, cell in row.items()
            }
            for row in table.rows
        ],
        "note": table.note,
    }


def from_dict(values: Mapping[str, Any]) -> Table:
    """The table that `to_dict` made `values` of."""
    columns = tuple(Column(**column) for column in values["columns"])
    rows = tuple({key: Cell(**cell) for key, cell in row.items()} for row in values["rows"])
    return Table(values["caption"], columns, rows, values["note"])


def _cell(row: Row, column: Column) -> Cell:
    return row.get(column.key, NOTHING)


def _spread(column: Column, cell: Cell) -> tuple[str, str]:
    """The standard deviation and the interval as people read them, without signs and brackets; empty where none is."""
    sd = "" if cell.sd is None else replace(column, is_signed=False).format(cell.sd)
    if cell.low is None or cell.high is None:
        return sd, ""
    return sd, f"{column.format(cell.low)} to {column.format(cell.high)}"


def _html(table: Table, row: Row, index: int) -> str:
    column = table.columns[index]
    cell = _cell(row, column)
    sd, interval = _spread(column, cell)
    said = markup.escape(cell.text)
    parts = [f"<strong>{said}</strong>" if cell.is_best else said]
    parts += [f" <small>± {sd}</small>"] if sd else []
    parts += [f' <small class="interval">{interval}</small>'] if interval else []
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    if index == 0 and said:  # an empty cell is no heading
        return f'<th scope="row"{value}>{"".join(parts)}</th>'
    kinds = " ".join(
        name for name, is_so in {"words": column.kind == "text", "long": len(cell.text) > markup.LONG}.items() if is_so
    )
    kind = f' class="{kinds}"' if kinds else ""
    return f"<td{kind}{value}>{''.join(parts)}</td>"


def _markdown(column: Column, cell: Cell) -> str:
    sd, interval = _spread(column, cell)
    # A lone number is no markup in a table, and the start of a list that `escape` would see in it.
    said = cell.text if NUMBER.fullmatch(cell.text) else markdown.escape(cell.text)
    if cell.is_best and said:
        said = f"**{said}**"
    return f"{said}{f' ± {sd}' if sd else ''}{f' ({interval})' if interval else ''}"


def _csv_text(words: str) -> str:
    line = markup.one_line(words)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


LATEX = {
    "\\": "\\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    # A row that starts with one of these would be read as an argument of the line break before it.
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "−": "\\textminus{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "·": "$\\cdot$",
    "≤": "$\\leq$",
    "≥": "$\\geq$",
    "→": "$\\rightarrow$",
}


def _latex(words: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in markup.one_line(words))


def _latex_number(words: str) -> str:
    return _latex(words).replace("-", "$-$")


def _latex_cell(column: Column, cell: Cell) -> str:
    sd, interval = _spread(column, cell)
    said = _latex(cell.text) if cell.value is None else _latex_number(cell.text)
    parts = [f"\\textbf{{{said}}}" if cell.is_best and said else said]
    parts += [f" $\\pm$ {sd}"] if sd else []
    parts += [f" {{\\scriptsize({_latex_number(interval)})}}"] if interval else []
    return "".join(parts)
