"""The values of a report: JSON gives them back, what is no report is refused, what may be shared tells of nobody."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from lnln.report.data import Extraction, PrintedLine, PrintedMean, ReportData, decode
from tests.lnln.report.made_report import (
    made_change,
    made_corpus,
    made_difference,
    made_example,
    made_report,
    made_system,
)


def full_report() -> ReportData:
    """Every kind of value at least once."""
    systems = [
        made_system("LNLN"),
        made_system("without DMC", changes=(made_change(),), carries_over=("carries over: words",), trained_on="mosei"),
        made_system("as shipped", selection="published", seeds=(None,)),
        made_system("ridge on text", kind="baseline", seeds=(None,)),
    ]
    corpus = made_corpus(
        *systems,
        printed=(PrintedLine("MISA", "lnln_table_9", "printed", "test", {"mae": (0.8,) * 10}, {"mae": None}),),
        printed_means=(PrintedMean("MISA", "tcmr", "rerun", "validation", {"mae": 1.16}),),
        extraction=Extraction((("clips", "3"),), 1, (("v$_$9", "decode", "no media file"),), "store/q.parquet", ""),
        examples=(made_example(["LNLN"]),),
    )
    return made_report(corpus, made_corpus(made_system("LNLN"), label_range=(-1.0, 1.0), corpus="sims"))


def test_json_gives_back_what_went_in() -> None:
    data = full_report()
    stored = json.loads(data.to_json())
    assert ReportData.from_dict(stored) == data
    assert ReportData.from_dict(stored).to_json() == data.to_json()


def test_what_may_be_shared_names_no_utterance_and_no_view() -> None:
    data = full_report()
    assert "v$_$1" in json.dumps(data.to_dict()) and "v$_$9" in json.dumps(data.to_dict())
    shared = data.without_utterances()
    text = json.dumps(shared.to_dict())
    assert "v$_$" not in text and "q.parquet" not in text
    assert all(not each.views for corpus in shared.corpora for system in corpus.systems for each in system.trainings)
    assert ReportData.from_dict(json.loads(text)) == shared
    kept = [(system.title, system.scores) for corpus in shared.corpora for system in corpus.systems]
    assert kept == [(system.title, system.scores) for corpus in data.corpora for system in corpus.systems]


def damaged(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The values of a whole report with one place changed, or taken out where `value` is KeyError."""
    values = json.loads(full_report().to_json())
    place = values
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return dict(values)


SYSTEM = ("corpora", 0, "systems", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 0),
        (("format",), KeyError),
        (("corpora",), {}),
        (("corpora",), None),
        (("names",), KeyError),
        (("names",), "LNLN"),
        (("extra",), 1),
        ((*SYSTEM, "title"), 3),
        ((*SYSTEM, "kind"), "rival"),
        ((*SYSTEM, "scores", "ten_rates", "mean", "mae", "value"), "1.0"),
        ((*SYSTEM, "scores", "ten_rates", "mean", "mae", "value"), True),
        ((*SYSTEM, "scores", "ten_rates", "mean", "mae", "value"), None),
        ((*SYSTEM, "confusions", 0, "counts", 0, 0), 1.5),
        (("corpora", 0, "label_range"), [-3.0, 0.0, 3.0]),
    ],
)
def test_what_is_no_report_is_refused_in_one_sentence(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(RefusedError, match="write it again with `lnln report`") as refused:
        ReportData.from_dict(damaged(path, value))
    assert "\n" not in str(refused.value)


def test_a_list_is_no_report() -> None:
    with pytest.raises(RefusedError, match="write it again"):
        ReportData.from_dict([])  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.floats(0, 1) | st.tuples(*[st.floats(0, 1)] * 3), lambda each: st.lists(each), max_leaves=6))
def test_a_rate_of_any_shape_is_decoded_or_refused(value: Any) -> None:
    hint = float | tuple[float, float, float]
    stored = json.loads(json.dumps(value))
    if isinstance(value, list) and not (len(value) == 3 and all(isinstance(each, float) for each in value)):
        with pytest.raises((TypeError, ValueError)):
            decode(hint, stored)
    else:
        assert decode(hint, stored) == (tuple(value) if isinstance(value, list) else value)


def test_whole_numbers_are_numbers_and_truths_are_not() -> None:
    assert decode(float, 1) == 1.0 and isinstance(decode(float, 1), float)
    for hint in (float, int):
        with pytest.raises(TypeError):
            decode(hint, True)


@pytest.mark.parametrize("label_range", [(-3.0, 3.0), (-1.0, 1.0)])
def test_metrics_are_those_of_the_labels(label_range: tuple[float, float]) -> None:
    corpus = made_corpus(made_system("LNLN", label_range=label_range), label_range=label_range)
    assert corpus.main_metrics[:2] == ("mae", "corr") and set(corpus.main_metrics) <= set(corpus.metrics)
    assert corpus.main_metrics[2] == ("acc7" if label_range[1] == 3 else "acc5")
    assert corpus.main_metrics[3] == ("acc2_np" if label_range[1] == 3 else "acc2")


def test_the_reference_is_not_compared_with_itself() -> None:
    systems = [made_system("a"), made_system("b"), made_system("c", kind="baseline")]
    corpus = dataclasses.replace(made_corpus(*systems), reference="b")
    assert [system.title for system in corpus.others()] == ["a", "c"]
    assert [system.title for system in corpus.models] == ["a", "b"]
    assert made_difference("mae", -0.1, 0.05).word == "better"
