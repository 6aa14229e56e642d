"""HTML from values: closed to the network and to text from outside; long tables can be filtered."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.report.look import SCRIPT, STYLE
from lnln.report.markup import LONG, MANY, chooser, document, escape, figure, one_line, table

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onclick='x",
    "&lt;b&gt; &#60;",
    "a\nb\r\nc\td",
    "\u202egnp.exe\u200f\u2066",
    "\x00\x1b[31m\ud800",
    "--><!--]]>",
]


class Elements(HTMLParser):
    """Tags with their attributes, and the text between them; fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._open += [tag] if tag != "meta" else []

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    rows = [{text: text, "other": text}]
    for made in (table(rows, text), figure("<svg></svg>", text, is_wide=True), chooser(text, text, {text: "<p></p>"})):
        found = Elements(made)
        plain = Elements(made.replace(escape(text), "x"))
        assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
        assert [set(attributes) for _, attributes in found.tags] == [set(attributes) for _, attributes in plain.tags]
    assert one_line(text) in Elements(table(rows, text)).said


@given(st.text())
def test_a_line_holds_what_can_be_printed_and_nothing_that_turns_it(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() and "  " not in line and line == line.strip()
    assert [sign for sign in line if sign != " "] == [sign for sign in text if sign.isprintable() and sign != " "]
    assert Elements(f"<p>{escape(text)}</p>").said == line


def test_long_tables_can_be_filtered_and_long_cells_break() -> None:
    rows = [{"a": "x" * LONG, "b": str(number)} for number in range(MANY)]
    assert "data-filter" in table(rows, "t") and "data-filter" not in table(rows[1:], "t")
    assert "data-filter" in table(rows[:1], "t", is_filterable=True)
    assert "data-filter" not in table(rows, "t", is_filterable=False)
    assert "class=long" not in table(rows, "t") and table([{"a": "x" * (LONG + 1)}], "t").count("class=long") == 1


def test_a_page_allows_its_own_style_and_script_alone() -> None:
    text = document("a <title>", "<h1>b</h1>")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == rules["base-uri"] == "'none'"
    for name, source in (("script", SCRIPT), ("style", STYLE)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
        assert text.count(f"<{name}>{source}</{name}>") == 1
    tags = [tag for tag, _ in Elements(text).tags]
    assert tags.count("main") == 1 and tags.index("main") < tags.index("h1") and "a &lt;title&gt;" in text


def test_a_chooser_shows_all_its_parts_without_a_script() -> None:
    made = chooser("Metric", "ten rates", {"MAE": "<p>1</p>", "Acc-7": "<p>2</p>"})
    found = Elements(made)
    assert [attributes for tag, attributes in found.tags if tag == "div"] == [
        {"data-choose": "Metric", "data-about": "ten rates"},
        {"data-choice": "MAE"},
        {"data-choice": "Acc-7"},
    ]
    assert found.said == "12" and "hidden" not in made
