"""Drawings: every system and number is told to who does not see them, and any number of systems and rates is drawn."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.report.charts import (
    MOST_BANDS,
    calibration_legend,
    describe_printed,
    draw_calibration,
    draw_confusion,
    draw_curves,
    legend_of,
    printed_of,
)
from lnln.report.data import ABSENT, TEN_RATES, ConfusionCounts, CorpusReport, PrintedLine
from tests.lnln.report.made_report import made_corpus, made_estimate, made_system
from tests.tuning.report.test_page import Page

LINES = (
    PrintedLine("MISA", "lnln_table_9", "printed", "test", {"mae": tuple(0.8 + r / 20 for r in range(10))}, {}),
    PrintedLine("TF-Mamba", "semmsa", "printed", "unknown", {"mae": (0.9,) * 10}, {}),
    PrintedLine("Self-MM", "tcmr", "rerun", "validation", {"corr": (0.5,) * 10}, {}),
)


def titles(drawing: str) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", drawing)


def systems(num: int) -> CorpusReport:
    return made_corpus(*(made_system(f"system {index}", 0.8 + index / 10) for index in range(num)))


@pytest.mark.parametrize("metric", ["mae", "corr", "acc7", "acc2_np"])
@pytest.mark.parametrize("num", [1, MOST_BANDS, MOST_BANDS + 1, 20])
def test_curves_of_any_number_of_systems(num: int, metric: str) -> None:
    corpus = systems(num)
    drawing = draw_curves(corpus, TEN_RATES, metric)
    page = Page(drawing)
    label = page.of("svg")[0]["aria-label"]
    assert label is not None and all(f"system {index}" in label for index in range(num))
    points = [title for title in titles(drawing) if title.startswith("system ")]
    assert len(points) == 10 * num
    assert drawing.count('class="spread') == (num if num <= MOST_BANDS else 0)
    assert "nan" not in drawing and "inf" not in re.findall(r'd="([^"]*)"', drawing)


def test_points_say_what_was_measured() -> None:
    corpus = systems(1)
    found = titles(draw_curves(corpus, TEN_RATES, "mae"))
    assert "system 0 at 0.2: 0.900 (0.850 to 0.950)" in found
    assert "system 0 at 0: 80.00 (75.00 to 85.00)" in titles(draw_curves(corpus, TEN_RATES, "acc7"))


def test_the_constant_is_drawn_where_there_is_one() -> None:
    assert "predict the train mean: 1.400" in titles(draw_curves(systems(1), TEN_RATES, "mae"))
    assert "one class: 20.00" in titles(draw_curves(systems(1), TEN_RATES, "acc7"))
    assert not [title for title in titles(draw_curves(systems(1), TEN_RATES, "corr")) if "class" in title]


def test_printed_curves_are_thin_named_and_of_the_ten_rates_alone() -> None:
    corpus = dataclasses.replace(systems(2), printed=LINES)
    drawing = draw_curves(corpus, TEN_RATES, "mae")
    assert drawing.count('class="printed"') == 2
    assert "MISA: printed, selected on test" in titles(drawing)
    assert draw_curves(corpus, TEN_RATES, "acc7").count('class="printed"') == 0
    assert printed_of(corpus, ABSENT, "mae") == [] and len(printed_of(corpus, TEN_RATES, "corr")) == 1
    legend = legend_of(corpus, TEN_RATES, ("mae", "corr"))
    for words in ("printed, selected on test: MISA", "printed, not known on what selected: TF-Mamba", "system 1"):
        assert words in legend
    assert "trained again by others, selected on validation: Self-MM" in legend
    assert describe_printed(LINES[2]) == "trained again by others, selected on validation"


def test_a_legend_of_the_completeness_names_those_that_estimate_it() -> None:
    corpus = made_corpus(made_system("A"), dataclasses.replace(made_system("B"), calibration=None))
    legend = calibration_legend(corpus)
    assert "A</span>" in legend and "B</span>" not in legend


def test_what_was_not_scored_is_not_drawn() -> None:
    corpus = made_corpus(made_system("A"), made_system("B", suites=[ABSENT]))
    assert "B" not in "".join(titles(draw_curves(corpus, TEN_RATES, "mae")))


def test_one_rate_alone_has_a_point_and_a_whisker() -> None:
    corpus = systems(1)
    view = dataclasses.replace(corpus.suites[TEN_RATES], rates=(0.5,), names=("0.5",))
    system = corpus.systems[0]
    scores = dataclasses.replace(system.scores[TEN_RATES], by_rate={"mae": (made_estimate(1.0, 0.0),)})
    only = dataclasses.replace(system, scores={TEN_RATES: scores})
    drawing = draw_curves(dataclasses.replace(corpus, suites={TEN_RATES: view}, systems=(only,)), TEN_RATES, "mae")
    assert "system 0 at 0.5: 1.000 (1.000 to 1.000)" in titles(drawing) and 'class="whisker"' in drawing


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.data())
def test_confusions_of_any_counts(num: int, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.lists(st.integers(0, 9), min_size=num, max_size=num), min_size=num, max_size=num))
    made = ConfusionCounts(0.5, tuple(f"c{i}" for i in range(num)), tuple(map(tuple, counts)), 3)
    drawing = draw_confusion(made)
    Page(drawing)
    drawn = re.findall(r"label (c\d), prediction (c\d): ([\d.]+)% of the label", drawing)
    expected = {(f"c{i}", f"c{j}") for i, row in enumerate(counts) for j, count in enumerate(row) if count}
    assert {(label, said) for label, said, _ in drawn} == expected
    for label in {label for label, _ in expected}:
        assert abs(sum(float(share) for row, _, share in drawn if row == label) - 100) < 0.5


def test_a_label_that_nobody_has_is_empty() -> None:
    made = ConfusionCounts(0.0, ("-1", "0"), ((0, 0), (0, 0)), 1)
    assert "there are none" in draw_confusion(made) and "label -1, prediction" not in draw_confusion(made)


def test_completeness_is_drawn_beside_what_it_should_be() -> None:
    text_only = made_system("text only", calibration=None)
    corpus = made_corpus(made_system("A"), text_only)
    drawing = draw_calibration(corpus)
    found = titles(drawing)
    assert "A at 0.5: 0.75 ± 0.10" in found and not [title for title in found if "text only" in title]
    assert "A is off by 0.20" in drawing and len([title for title in found if title.startswith("A at")]) == 10
