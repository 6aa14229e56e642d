from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from lnln.data.schema import MODALITIES
from lnln.metrics import TITLES, metric_names
from lnln.report.printed import (
    RATES,
    TABLES,
    PrintedScore,
    printed_averages,
    printed_curves,
    printed_scores,
    printed_sources,
    read_rows,
)

LABEL_RANGES = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0)}
CASES = {("text",), ("audio",), ("vision",), ("text", "audio"), ("text", "vision"), ("audio", "vision")}
BASELINES = ("MISA", "Self-MM", "MMIM", "CENET", "TETFN", "TFR-Net", "ALMT", "LNLN")

# Rows of each table; a printed row of Tables 2, 4, 5, 9, 11 and 13 is one row here for each of its two corpora.
ROWS = {
    "lnln_table_2": 2 * 8,
    "lnln_table_3": 8,
    "lnln_table_4": 2 * 6,
    "lnln_table_5": 2 * 4,
    "lnln_table_6": 4,
    "lnln_table_7": 9 + 9,
    "lnln_table_8": 5,
    "lnln_table_9": 2 * 8 * 10,
    "lnln_table_10": 8 * 10,
    "lnln_table_11": 2 * 8,
    "lnln_table_12": 8,
    "lnln_table_13": 2 * 8 * 6,
    "lnln_table_14": 8 * 6,
    "lnln_readme": 1,
    "semmsa_means": 3 + 2 + 4,
    "semmsa_rates": 2 * 3 * 10,
    "hitnet_review": 3,
    "ipc": 3,
    "recap": 1 + 2 + 1,
    "recap_reruns": 4,
    "midas_note": 3,
    "tcmr": 3 * 11,
    "cmrp_msa": 1,
}

# Printed averages that are further from the mean of what is printed for the rates or cases than rounding explains:
# corpus, method, metric, printed, and the mean of the printed rates or cases.
AVERAGES_THAT_DO_NOT_FOLLOW = {
    # Table 2 against Table 9, MOSEI; withdrawn by the author.
    ("mosei", "TETFN", "corr", 0.508, 0.5066),
    # Table 11 against Table 13, MOSEI.
    ("mosei", "TETFN", "mae", 0.691, 0.6898),
    ("mosei", "TETFN", "corr", 0.426, 0.4283),
    # SemMSA's table of averages against its appendix: np and nn are exchanged.
    ("mosi", "TF-Mamba", "acc2_np", 0.7254, 0.7346),
    ("mosi", "TF-Mamba", "acc2_nn", 0.7346, 0.7254),
}


def every_score() -> list[PrintedScore]:
    return [score for corpus in LABEL_RANGES for score in printed_scores(corpus)]


def as_printed() -> list[PrintedScore]:
    return [score for score in every_score() if score.status != "corrected"]


def unit(metric: str) -> float:
    """The last digit that tables print."""
    return 1e-3 if metric in ("mae", "corr") else 1e-4


def test_every_row_says_where_it_is_from_and_what_it_is() -> None:
    assert Counter(row["source"] for table in TABLES for row in read_rows(table)) == ROWS
    for table in TABLES:
        for row in read_rows(table):
            assert None not in row
            assert None not in row.values()
            assert row["source"] in printed_sources()
            assert row["status"] == ("rerun" if table == "reruns" else "printed")
            assert row["selection"] in ("test", "validation", "unknown")
            assert row["f1_arguments"] in ("right", "exchanged", "suspect", "unknown")
            assert set(filter(row.get, TITLES)) <= set(metric_names(LABEL_RANGES[row["corpus"]]))
    for score in every_score():
        assert score.method == score.method.strip() != ""
        assert score.missing_rate in (None, *RATES)
        assert score.present is None or score.present in CASES
        assert score.is_mean or score.protocol == ("ten_rates" if score.present is None else "absent_modalities")
    assert {score.source.name for score in every_score()} == set(printed_sources()) == set(ROWS)


def test_tables_have_all_their_metrics() -> None:
    partial = ("hitnet_review", "midas_note", "cmrp_msa", "semmsa_rates")
    found: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for score in as_printed():
        where = (score.source.name, score.corpus, score.method, score.variant, score.missing_rate, score.present)
        found[where].add(score.metric)
    for (source, corpus, *_), metrics in found.items():
        if source not in partial:
            assert metrics == set(metric_names(LABEL_RANGES[str(corpus)])), source


def test_no_number_stands_twice() -> None:
    keys = Counter(
        (
            score.source.name,
            score.corpus,
            score.protocol,
            score.missing_rate,
            score.present,
            score.method,
            score.variant,
            score.metric,
            score.status,
        )
        for score in every_score()
    )
    assert keys.most_common(1)[0][1] == 1
    wheres = Counter(tuple(row.values())[:6] for row in read_rows("corrections"))
    assert wheres.most_common(1)[0][1] == 1


def test_values_are_in_the_units_of_the_metrics() -> None:
    for score in every_score():
        low, high = {"mae": (0.3, 1.6), "corr": (-0.1, 0.85)}.get(score.metric, (0.15, 0.9))
        assert low <= score.value <= high, score
        assert score.deviation is None or 0 < score.deviation < 0.3
    assert {score.source.name for score in every_score() if score.deviation} == {"lnln_table_8", "cmrp_msa"}


def test_printed_averages_are_the_means_of_what_is_printed() -> None:
    """Each number is rounded by half a unit at most, so a mean and its average lie within one unit of each other."""
    parts: dict[tuple[str, str, str, str], list[PrintedScore]] = defaultdict(list)
    for score in as_printed():
        if not score.is_mean and score.source.averages_in:
            parts[score.source.name, score.corpus, score.method, score.metric].append(score)
    exceptions, num_compared = set(), Counter[str]()
    for (source, corpus, method, metric), scores in parts.items():
        averages = [
            score
            for score in as_printed()
            if score.is_mean
            and (score.corpus, score.method, score.metric) == (corpus, method, metric)
            and score.source.name in scores[0].source.averages_in
        ]
        if metric.startswith("f1") and source == "semmsa_rates":
            assert [score.missing_rate for score in scores] == [0.9]  # of MOSEI, all that was seen
            continue
        assert len(scores) == (6 if scores[0].protocol == "absent_modalities" else 10)
        assert len(averages) == 1
        mean = sum(score.value for score in scores) / len(scores)
        num_compared[source] += 1
        if abs(averages[0].value - mean) > unit(metric) * (1 + 1e-6):
            exceptions.add((corpus, method, metric, averages[0].value, round(mean, 4)))
    assert exceptions == AVERAGES_THAT_DO_NOT_FOLLOW
    assert num_compared == {
        "lnln_table_9": 2 * 8 * 8,
        "lnln_table_10": 8 * 6,
        "lnln_table_13": 2 * 8 * 8,
        "lnln_table_14": 8 * 6,
        "semmsa_rates": 2 * 3 * 5,
    }


def test_corrected_averages_are_the_means_of_corrected_rates() -> None:
    curve = printed_curves("mosi", "acc5")["CENET"]
    assert curve.values[7] == 0.2357
    assert curve.scores[7].status == "corrected"
    assert curve.average is not None
    assert curve.average.value == 0.3362 == round(sum(curve.values) / 10, 4)
    mamba = printed_curves("mosi", "acc2_np")["TF-Mamba"]
    assert mamba.average is not None
    assert mamba.average.value == 0.7346 == round(sum(mamba.values) / 10, 4)


def test_each_correction_meets_what_it_corrects() -> None:
    corrections = read_rows("corrections")
    for row in corrections:
        assert row["source"] in ROWS
        assert row["fault"] in ("misprint", "invalid", "doubtful")
        assert row["found_by"] in ("author", "recomputed")
        assert bool(row["corrected"]) == (row["fault"] == "misprint")
        met = [
            score
            for score in as_printed()
            if score.reason == row["reason"]
            and (score.source.name, score.corpus, score.method, score.variant, score.fault)
            == tuple(row[key] for key in ("source", "corpus", "method", "variant", "fault"))
            and row["metric"] in ("*", score.metric)
        ]
        num_metrics = 1 if row["metric"] != "*" else 6 if row["corpus"] == "sims" else 8
        num_conditions = 1 if row["condition"] != "*" else 6 if row["source"] == "lnln_table_14" else 10
        assert len(met) == num_metrics * num_conditions, row
    misprints = [score for score in as_printed() if score.fault == "misprint"]
    corrected = [score for score in every_score() if score.status == "corrected"]
    assert len(misprints) == len(corrected) == sum(row["fault"] == "misprint" for row in corrections) == 8
    assert not any(score.fault for score in corrected)


def test_copied_cells_are_known_as_such() -> None:
    """Where a method has the same score on MOSI and MOSEI, one of the two was copied from the other."""
    mosi = {
        (score.source.name, score.missing_rate, score.present, score.method, score.metric): score.value
        for score in as_printed()
        if score.corpus == "mosi"
    }
    copied = [
        score
        for score in printed_scores("mosei")
        if mosi.get((score.source.name, score.missing_rate, score.present, score.method, score.metric)) == score.value
    ]
    assert Counter((score.source.name, score.method) for score in copied) == {
        ("lnln_table_2", "TETFN"): 6,
        ("lnln_table_9", "TETFN"): 7 * 10,
        ("lnln_table_2", "TFR-Net"): 1,
        ("lnln_table_9", "TFR-Net"): 10,
        ("lnln_table_13", "Self-MM"): 1,
    }
    assert {score.method for score in copied if score.fault != "invalid"} == {"Self-MM"}
    (doubtful,) = [score for score in printed_scores("mosi", "acc5", "absent_modalities") if score.value == 0.5547]
    assert doubtful.fault == "doubtful"

    per_rate = [score for score in printed_scores("sims", "acc2", "ten_rates") if score.source.name == "lnln_table_10"]
    per_case = [score for score in printed_scores("sims", "acc2") if score.source.name == "lnln_table_14"]
    rates = [score.value for score in per_rate if score.method == "Self-MM"][:6]
    cases = [score for score in per_case if score.method == "Self-MM"]
    assert [score.value for score in cases] == rates
    assert all(score.fault == "invalid" for score in cases)


def test_rows_that_repeat_another_table_repeat_it() -> None:
    whole = {
        (score.corpus, score.method, score.metric): score.value
        for score in as_printed()
        if score.source.name in ("lnln_table_2", "lnln_table_3")
    }
    repeated = [score for score in as_printed() if score.source.about != "methods" and not score.variant]
    assert len(repeated) == 5 * 8 + (8 + 6) + (8 + 6) + 8 + (8 + 6)
    assert all(score.value == whole[score.corpus, score.method, score.metric] for score in repeated)


@pytest.mark.parametrize(
    ("corpus", "accuracy", "f1", "share"),
    [("mosei", "acc2_nn", "f1_nn", 0.7102), ("mosei", "acc2_np", "f1_np", 0.6285), ("sims", "acc2", "f1", 0.6937)],
)
def test_one_class_answers_tell_the_order_of_f1s_arguments(corpus: str, accuracy: str, f1: str, share: float) -> None:
    """Answers of one class, right for a share of utterances: F1 is 2s²/(1+s) in the right order, else 2s/(1+s)."""
    expected = {"right": 2 * share**2 / (1 + share), "exchanged": 2 * share / (1 + share)}
    scores = [
        score for score in printed_scores(corpus, protocol="absent_modalities") if score.present and not score.fault
    ]
    answered = {(score.method, score.present) for score in scores if score.metric == accuracy and score.value == share}
    f1s = [score for score in scores if score.metric == f1 and (score.method, score.present) in answered]
    told = [score for score in f1s if abs(score.value - expected[score.f1_arguments]) < 1.5e-4]
    assert {score.f1_arguments for score in told} == {"right", "exchanged"}
    # One method has this share by errors that cancel out, its answers are not of one class.
    assert len(told) >= len(f1s) - 1


def test_f1_of_the_paper_is_comparable_only_where_its_arguments_are_in_order() -> None:
    of_the_paper = [score for score in every_score() if score.source.work == "LNLN" and score.metric.startswith("f1")]
    for score in of_the_paper:
        is_own_code = score.method in ("LNLN", "ALMT") and score.status == "printed"
        assert (score.f1_arguments == "exchanged") == is_own_code
        assert score.is_comparable == (not is_own_code and score.is_valid)
    almt = [score for score in printed_averages("sims", "f1") if score.method == "ALMT"]
    assert [(score.source.name, score.value, score.is_comparable) for score in almt] == [
        ("lnln_table_3", 0.6749, True),
        ("semmsa_means", 0.7621, False),
        ("tcmr", 0.6734, True),
    ]


def test_curves_cover_the_ten_rates_and_leave_out_what_is_invalid() -> None:
    assert tuple(printed_curves("mosi", "mae")) == (*BASELINES, "P-RMF", "TF-Mamba", "SemMSA")
    assert tuple(printed_curves("sims", "mae")) == BASELINES
    assert "TETFN" not in printed_curves("mosei", "corr")
    assert set(BASELINES) - set(printed_curves("mosei", "acc5")) == {"TETFN", "TFR-Net"}
    assert printed_curves("mosei", "f1_np").keys() == set(BASELINES) - {"TETFN"}
    assert printed_curves("mosi", "acc3") == printed_curves("elsewhere", "mae") == {}
    lnln = printed_curves("mosi", "mae")["LNLN"]
    assert lnln.values == (0.751, 0.820, 0.891, 0.953, 0.987, 1.059, 1.147, 1.219, 1.283, 1.349)
    assert all(before < after for before, after in pairwise(lnln.values))
    assert lnln.average is not None
    assert (lnln.average.value, lnln.average.source.place, lnln.average.selection) == (1.046, "Table 2", "test")
    assert lnln.is_comparable
    assert not printed_curves("mosi", "f1_np")["LNLN"].is_comparable
    almt = printed_curves("sims", "f1")["ALMT"]  # printed with exchanged arguments, its average corrected
    assert almt.average is None
    mamba = printed_curves("mosei", "acc2_np")["TF-Mamba"].average
    assert mamba is not None
    assert mamba.source.name == "recap"


def test_averages_are_of_whole_methods_by_source() -> None:
    averages = printed_averages("mosi", "mae")
    assert not any(score.variant or score.deviation for score in averages)
    assert [(score.source.name, score.value) for score in averages if score.method == "LNLN"] == [
        ("lnln_table_2", 1.046),
        ("recap_reruns", 1.059),
        ("tcmr", 1.145),
    ]
    by_validation = printed_averages("mosi", "corr", selection="validation")
    assert len(by_validation) == 11
    assert all(score.status == "rerun" and score.is_comparable for score in by_validation)
    assert {score.method: score.value for score in by_validation}["LNLN"] == 0.4808
    assert "MIDAS" not in {score.method for score in averages}
    absent = printed_averages("sims", "acc2", "absent_modalities")
    assert {score.method for score in absent} == set(BASELINES) - {"Self-MM"}


def test_absent_modalities_are_named_by_what_is_there() -> None:
    scores = [score for score in printed_scores("mosei", "corr", "absent_modalities") if score.method == "LNLN"]
    by_case = {score.present: score.value for score in scores if score.present}
    assert set(by_case) == CASES
    assert all(set(present) < set(MODALITIES) for present in by_case)
    assert by_case["text",] == 0.730
    assert by_case["audio", "vision"] == 0.156
