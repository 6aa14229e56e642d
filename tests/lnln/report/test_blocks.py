"""Two forms of one text: what comes from outside stays text in both, whatever it holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.report.blocks import (
    Block,
    Bullets,
    Charts,
    Chosen,
    Commands,
    Drawing,
    Heading,
    Links,
    Prose,
    Shown,
    Verdict,
    Words,
    fenced,
    shown_tables,
    to_html,
    to_markdown,
)
from lnln.report.tables import Column, Table, text
from tests.tuning.report.test_page import Page

HOSTILE = [
    "<img src=x>",
    "a|b",
    "`x`",
    "# head",
    "[x](http://y)",
    "*b*",
    "a\n\n# b",
    "\\",
    "```",
    "~~",
    "\u202e",
    "&amp;",
]


def table(caption: str = "One.", words: str = "x") -> Table:
    return Table(caption, (Column("system", "system"),), ({"system": text(words)},))


def every_block(words: str) -> list[Block]:
    return [
        Heading(words),
        Prose(words, words),
        Verdict((Prose(words, words),), words),
        Bullets((words, words)),
        Commands((words,)),
        Links(words, ("scores.csv",)),
        Shown("one", table(words, words)),
        Charts((Drawing("<svg role='img' aria-label='x'></svg>", words),)),
        Words(words, ((words, False), (words, True), (f" {words} ", True))),
        Chosen(words, words, ((words, (Prose(words),)), ("two", (Shown("two", table()),)))),
    ]


@pytest.mark.parametrize("words", HOSTILE)
def test_text_from_outside_is_no_markup(words: str) -> None:
    page = Page(to_html(every_block(words)))
    assert not {"img", "script", "a"} & ({tag for tag, _ in page.tags} - {"a"})
    assert [link["href"] for link in page.of("a")] == ["scores.csv"]
    prose = re.sub(r"(`{3,})\n.*?\n\1", "", to_markdown(every_block(words)), flags=re.S)
    assert "<img" not in prose and "](http" not in prose.replace("\\](http", "")
    assert len(re.findall(r"^#", prose, re.M)) == 1, "the one heading"
    for line in prose.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 2


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_makes_a_page_whose_tags_close(words: str) -> None:
    page = Page(to_html(every_block(words)))
    assert len(page.of("h2")) == 1 and len(page.of("li")) == 2 and len(page.of("svg")) == 1
    markdown = to_markdown(every_block(words))
    assert markdown.endswith("\n") and "svg" not in markdown.replace(words, "")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="`~ab\n\r\u2028", max_size=12), max_size=4))
def test_commands_cannot_end_their_block(lines: list[str]) -> None:
    first, *inside, last = fenced(lines).split("\n")
    assert first == last and set(first) == {"`"} and len(inside) == len(lines)
    assert not any(len(run) >= len(first) for line in inside for run in re.findall("`+", line))


def test_erased_words_are_struck_out_and_blanks_stay() -> None:
    words = Words(
        "At 0.5:", (("Un", False), ("bel", True), ("ievably ", False), ("good ", True), (" ", True), ("x", False))
    )
    assert to_html([words]) == "<p>At 0.5: Un<del>bel</del>ievably <del>good</del>  x</p>"
    assert to_markdown([words]) == "At 0.5: Un~~bel~~ievably ~~good~~  x\n"


def test_a_stretch_of_nothing_that_shows_is_not_struck_out() -> None:
    assert "~" not in to_markdown([Words("At 0:", (("\u200b\u202e", True), ("", True)))])
    assert "<del>" not in to_html([Words("At 0:", (("\u200b\u202e", True), ("", True)))])


def test_numbers_in_a_sentence_start_no_list() -> None:
    assert to_markdown([Words("At 0:", (("1. one", False),))]) == "At 0: 1. one\n"


def test_one_part_needs_no_choice_and_markdown_has_all() -> None:
    one = Chosen("Metric", "scores", (("MAE", (Prose("first"),)),))
    assert to_html([one]) == "<p>first</p>"
    two = Chosen("Metric", "scores", (*one.parts, ("Corr", (Prose("second"),))))
    assert "data-choose" in to_html([two]) and to_markdown([two]) == "first\n\nsecond\n"


def test_tables_are_found_wherever_they_stand_and_have_names_of_their_own() -> None:
    inner = Chosen("Metric", "scores", (("MAE", (Shown("inner", table()),)),))
    assert list(shown_tables([Shown("outer", table()), inner])) == ["outer", "inner"]
    with pytest.raises(AssertionError):
        shown_tables([Shown("inner", table()), inner])
