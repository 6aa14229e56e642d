"""One table, its forms: the same numbers in each, hostile text as text in each, the best of each column marked."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lnln.metrics import TITLES, higher_is_better
from lnln.report.markup import one_line
from lnln.report.tables import (
    Cell,
    Column,
    Table,
    from_dict,
    number,
    text,
    to_csv,
    to_dict,
    to_html,
    to_latex,
    to_markdown,
    with_best,
)

SYSTEM, MAE, ACC = (
    Column("system", "system"),
    Column("mae", "MAE", "number", "mae"),
    Column("acc7", "Acc-7", "number", "acc7"),
)
GAIN = Column("gain", "gain", "number", "acc7", is_signed=True)
COUNT = Column("count", "utterances", "number", digits=0)
COLUMNS = (SYSTEM, MAE, ACC, GAIN, COUNT)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a | b || c \\| d \\",
    "\\textbf{x} \\input{/etc/passwd} \\\\ \\write18{ls}",
    "[b] *c* [d](javascript:alert(1)) ![e](x) <f>",
    "50% & $x_1^2$ #1 ~ {}",
    "a\nb\r\nc\td\x0be\u2028f",
    "\u202egnp.exe\u200f\u2066 \u05d0",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1+1",
    'a,b\n"c"',
    "# x",
    "1. x",
    "---",
    "`x` ``y``",
    "http://example.org www.example.org a@example.org",
    "&amp; &#60; &lt;",
    "--><!--]]>",
    "",
    " ",
    "\ud800",
    "训练 ﷽ 👩\u200d🔬",
]

cells = st.floats(-1e4, 1e4, allow_nan=False)
signed = st.one_of(cells, st.sampled_from([0.0, -0.0, -1e-9, 1e-9, 0.0005, 0.99999, 5e-324, 1e300]))


class Grid(HTMLParser):
    """The rows of an HTML table: text and attributes of each cell. Intervals and deviations stand apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.values: list[list[str | None]] = []
        self.best: list[list[bool]] = []
        self.tags: set[str] = set()
        self._is_in_cell = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            for rows in (self.rows, self.values, self.best):
                rows.append([])
        elif tag in ("th", "td"):
            self._is_in_cell = True
            self.rows[-1].append("")
            self.values[-1].append(dict(attributes).get("data-value"))
            self.best[-1].append(False)
        elif tag == "strong":
            self.best[-1][-1] = True

    def handle_endtag(self, tag: str) -> None:
        self._is_in_cell = self._is_in_cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self._is_in_cell:
            self.rows[-1][-1] += data


def html_rows(table: Table) -> Grid:
    return Grid(re.search("<table.*</table>", to_html(table), re.S)[0])  # type: ignore[index]


def markdown_rows(table: Table) -> Grid:
    """As GitHub renders it."""
    return Grid(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(table)))


def latex_rows(table: Table) -> list[list[str]]:
    """The cells between the rules, with what LaTeX would print of each; fails at a sign that LaTeX would act on."""
    body = to_latex(table).split("\\midrule\n")[1].split("\\bottomrule")[0]
    rows = []
    for line in body.splitlines():
        assert line.endswith(" \\\\"), line
        # No row may start with what its predecessor's line break takes for an argument.
        assert not line.startswith(("[", "*"))
        rows.append([_printed(cell.strip()) for cell in re.split(r"(?<!\\)&", line.removesuffix("\\\\"))])
    return rows


NAMED = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
NAMED |= {"textbar": "|", "textminus": "−"}
MATHS = {"-": "-", "\\pm": "±", "\\times": "×", "\\cdot": "·", "\\leq": "≤", "\\geq": "≥", "\\rightarrow": "→"}
TOKEN = re.compile(
    r"\\(?P<named>text[a-z]+)\{\}|\\(?P<escaped>[&%$#_{}])|\{(?P<held>[\[\]*])\}|\$(?P<maths>[^$]*)\$"
    r"|(?P<style>\\textbf\{|\{\\scriptsize|\})|(?P<plain>[^\\&%$#_{}~^])"
)


def _printed(source: str) -> str:
    out, place, depth = "", 0, 0
    while place < len(source):
        found = TOKEN.match(source, place)
        assert found, f"LaTeX acts on {source[place:]!r}"
        if found["style"]:
            depth += -1 if found["style"] == "}" else 1
            assert depth >= 0
        out += (
            NAMED[found["named"]]
            if found["named"]
            else MATHS[found["maths"]]
            if found["maths"]
            else found["escaped"] or found["held"] or found["plain"] or ""
        )
        place = found.end()
    assert depth == 0
    return out


def csv_rows(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def one_row(words: str = "LNLN", **numbers: Cell) -> Table:
    return Table("Means.", COLUMNS, ({"system": text(words), **numbers},))


@given(
    st.lists(
        st.tuples(signed, signed, signed, st.one_of(st.none(), st.floats(0, 1e3)), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_the_forms_have_the_same_numbers(rows: list[tuple[float, float, float, float | None, bool]]) -> None:
    made = []
    for value, a, b, sd, is_best in rows:
        low, high = sorted((a, b))
        shown = {column.key: number(column, value, low, high, sd=sd, is_best=is_best) for column in COLUMNS[1:]}
        made.append({"system": text("x"), **shown})
    table = Table("Means.", COLUMNS, tuple(made))
    html, markdown, latex, values = html_rows(table), markdown_rows(table), latex_rows(table), csv_rows(table)
    assert len(html.rows) == len(markdown.rows) == len(rows) + 1 and len(latex) == len(values) == len(rows)
    for index, (value, a, b, sd, is_best) in enumerate(rows):
        for place, column in enumerate(COLUMNS[1:], start=1):
            said = column.format(value)
            spread = (
                f" ± {abs(float(column.format(sd))):.{len(column.format(sd).partition('.')[2])}f}"
                if sd is not None
                else ""
            )
            interval = " to ".join(column.format(bound) for bound in sorted((a, b)))
            seen = f"{said}{spread}"
            assert html.rows[index + 1][place] == f"{seen} {interval}"
            assert markdown.rows[index + 1][place] == latex[index][place] == f"{seen} ({interval})"
            assert html.best[index + 1][place] == markdown.best[index + 1][place] == is_best
            assert float(html.values[index + 1][place] or "") == float(values[index][column.key]) == value
            assert [float(values[index][f"{column.key}_{part}"]) for part in ("low", "high")] == sorted((a, b))
            assert values[index].get(f"{column.key}_sd", "") == ("" if sd is None else repr(sd))
            factor = 100 if column.metric == "acc7" else 1
            digits = len(said.partition(".")[2])
            assert float(said) == pytest.approx(factor * value, abs=0.5001 * 10.0**-digits, rel=1e-12)


@given(signed)
def test_zero_has_no_sign_and_a_difference_has_one(value: float) -> None:
    for column in COLUMNS[1:]:
        said = column.format(value)
        assert not re.fullmatch(r"[+-]0\.?0*", said), said
        assert said.startswith("+") == (column.is_signed and float(said) > 0)


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_text_is_text_in_each_form(words: str) -> None:
    columns = (Column("a", words), Column("b", "b" + words), Column("c", "c", "number"))
    row = {"a": text(words), "b": text(words, is_best=True), "c": Cell(words, 1.5, 1.0, 2.0)}
    table = Table(words, columns, (row, {}, row), words)
    line = one_line(words)
    page = to_html(table, is_filterable=True)
    assert Grid(page).tags <= {
        "div",
        "p",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "button",
        "strong",
        "small",
    }
    html, markdown = html_rows(table), markdown_rows(table)
    assert html.rows[1][:2] == [line, line] and html.rows[1][2] == f"{line} 1.000 to 2.000"
    assert html.rows[0][0] == line and html.rows[2] == ["", "", ""]
    assert markdown.tags <= {"p", "table", "thead", "tbody", "tr", "th", "td", "strong"}
    assert len(markdown.rows) == 4 and markdown.rows[0][:2] == [line, one_line("b" + words)]
    assert markdown.rows[1] == [line, line, f"{line} (1.000 to 2.000)".strip()]
    # A bold cell in LaTeX too, and dashes of a number's text are minus signs.
    assert latex_rows(table)[0] == [line, line, f"{line} (1.000 to 2.000)".strip()]
    source = to_latex(table)
    caption = source.split("\\caption{")[1].split("}\n\\begin{tabular}")[0]
    note = source.split("{\\footnotesize ")[1].split("}\n\\end{table}")[0] if words else ""
    assert _printed(caption) == _printed(note) == line
    (first, second, _) = list(csv.reader(io.StringIO(to_csv(table))))[1:]
    assert first[0] == first[1] == (f"'{line}" if line[:1] in ("=", "+", "-", "@") else line) and not any(second)
    assert json.loads(json.dumps(to_dict(table)))["rows"][0]["a"]["text"] == words


@given(st.text(), st.text(), st.text())
@example("\\", "|", "**")
@example("a\\|b", "[x]: y", "*")
def test_any_text_keeps_the_grid(words: str, title: str, other: str) -> None:
    table = Table(
        other, (Column("a", title), Column("b", other)), ({"a": text(words), "b": text(other, is_best=True)},) * 2
    )
    expected = [[one_line(title), one_line(other)], *[[one_line(words), one_line(other)]] * 2]
    assert html_rows(table).rows == expected
    assert markdown_rows(table).rows == expected
    assert latex_rows(table) == expected[1:]
    assert [len(row) for row in csv.reader(io.StringIO(to_csv(table)))] == [2, 2, 2]


@given(st.lists(st.tuples(st.text(max_size=5), signed, st.booleans()), max_size=4), st.text())
def test_values_come_back_from_json(rows: list[tuple[str, float, bool]], note: str) -> None:
    made = tuple({"system": text(words), "mae": number(MAE, value, is_best=is_best)} for words, value, is_best in rows)
    table = Table("Means.", COLUMNS, made, note)
    assert from_dict(json.loads(json.dumps(to_dict(table)))) == table


@pytest.mark.parametrize("metric", TITLES)
def test_the_best_is_marked_by_what_is_printed(metric: str) -> None:
    column = Column("x", metric, "number", metric)
    values = [0.50, 0.7, 0.7 + 1e-7, None, 0.6, 0.5 - 1e-7]
    table = with_best(Table("", (SYSTEM, column), tuple({"x": number(column, value)} for value in values)))
    best = {1, 2} if higher_is_better(metric) else {0, 5}
    assert {index for index, row in enumerate(table.rows) if row["x"].is_best} == best
    # Of some rows, as where baselines and printed numbers stand in the table too.
    table = with_best(table, among=(0, 3, 4))
    assert [row["x"].is_best for row in table.rows].count(True) >= 1
    again = with_best(
        Table("", table.columns, tuple({"x": number(column, value)} for value in values)), among=(0, 3, 4)
    )
    assert [index for index, row in enumerate(again.rows) if row["x"].is_best] == [4 if higher_is_better(metric) else 0]


def test_nothing_is_best_of_one_of_differences_or_of_counts() -> None:
    one = with_best(one_row(mae=number(MAE, 1.0)))
    assert not one.rows[0]["mae"].is_best
    two = {"gain": number(GAIN, 0.1), "count": number(COUNT, 3)}
    table = with_best(Table("", COLUMNS, (two, {"gain": number(GAIN, 0.2), "count": number(COUNT, 4)})))
    assert not any(cell.is_best for row in table.rows for cell in row.values())
    assert with_best(Table("", COLUMNS, ())).rows == ()


def test_what_is_not_there_is_empty_and_numbers_align() -> None:
    table = Table("Means.", COLUMNS, ({}, {"mae": number(MAE, None), "count": number(COUNT, 686)}))
    assert html_rows(table).rows[1:] == [[""] * 5, ["", "", "", "", "686"]]
    assert csv_rows(table)[1] == {"system": "", "mae": "", "acc7": "", "gain": "", "count": "686"}
    assert "\\begin{tabular}{lrrrr}" in to_latex(table)
    assert to_markdown(table).splitlines()[3] == "| --- | ---: | ---: | ---: | ---: |"
    empty = Table("Nobody.", (SYSTEM,), ())
    assert html_rows(empty).rows == [["system"]] and latex_rows(empty) == [] and to_csv(empty) == "system\n"
    assert len(markdown_rows(empty).rows) == 1


def test_a_first_cell_heads_its_row_and_a_filter_is_asked_for() -> None:
    page = to_html(one_row(mae=number(MAE, 0.9)))
    assert page.count('<th scope="row">LNLN</th>') == 1 and "data-filter" not in page and 'class="note"' not in page
    assert 'scope="row"' not in to_html(one_row("\u202e")), "an empty cell is no heading"
    assert "data-filter" in to_html(one_row(), is_filterable=True)
    assert to_html(Table("c", (SYSTEM,), (), "read me")).endswith('<p class="note">read me</p>')


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_own_mistakes_are_found_where_they_are_made(bad: float) -> None:
    for make in (lambda: Cell("", bad), lambda: Cell("", 1.0, bad, 2.0), lambda: Cell("", 1.0, 0.5, None)):
        with pytest.raises(AssertionError):
            make()
    for columns, rows in (((), ()), ((MAE, MAE), ()), ((MAE,), ({"acc7": text("x")},))):
        with pytest.raises(AssertionError):
            Table("", columns, rows)
