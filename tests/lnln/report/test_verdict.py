"""The verdict says what the intervals say: no more, nothing of what was selected on test, and the worst in warnings."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.evaluate.paired import share_for
from lnln.report.data import ABSENT, CorpusReport
from lnln.report.score_tables import highest_table
from lnln.report.verdict import (
    cautions,
    highest_answer,
    highest_intervals,
    highest_word,
    join,
    judged_word,
    verdict,
)
from tests.lnln.report.made_report import made_corpus, made_difference, made_system


def said(corpus: CorpusReport) -> str:
    return " ".join(f"{each.lead} {each.text}" for each in verdict(corpus))


def first(corpus: CorpusReport) -> str:
    return verdict(corpus)[0].lead


@settings(max_examples=60, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.5))
def test_better_and_worse_are_said_of_intervals_without_zero_alone(value: float, half: float) -> None:
    corpus = made_corpus(made_system("A"), made_system("B"), differences={"B": (value, half)})
    news = first(corpus)
    if value + half < 0:
        assert news == "B is better than A in MAE."
    elif value - half > 0:
        assert news == "B is worse than A in MAE."
    else:
        assert news == "No difference in MAE to A is shown for B."


def test_systems_are_grouped_by_what_is_shown() -> None:
    apart = {"B": (-0.2, 0.1), "C": (0.3, 0.1), "D": (0.01, 0.1), "E": (-0.3, 0.1)}
    corpus = made_corpus(made_system("A"), *(made_system(title) for title in apart), differences=apart)
    assert first(corpus) == (
        "B and E are better than A in MAE. C is worse than A in MAE. No difference in MAE to A is shown for D."
    )
    assert "B -0.200 (" in said(corpus).replace("−", "-") and "10 missing rates of mosi, test split" in said(corpus)


def test_one_system_is_no_comparison() -> None:
    corpus = made_corpus(made_system("LNLN", 1.0))
    assert first(corpus) == "LNLN has MAE 1.225 (1.175 to 1.275)."
    assert "better than" not in said(corpus) and "mean of 2 trainings" in said(corpus)
    assert "At the highest" not in said(corpus), "nothing to compare there either"


def test_baselines_do_not_make_the_news_but_stand_in_the_numbers() -> None:
    ridge = made_system("ridge on text", kind="baseline", seeds=(None,))
    corpus = made_corpus(
        made_system("A"), made_system("B"), ridge, differences={"B": (0.0, 0.1), "ridge on text": (0.4, 0.1)}
    )
    assert first(corpus) == "No difference in MAE to A is shown for B."
    assert "ridge on text +0.400" in said(corpus)
    alone = made_corpus(made_system("A"), ridge, differences={"ridge on text": (0.4, 0.1)})
    assert first(alone) == "ridge on text is worse than A in MAE."


@pytest.mark.parametrize(
    ("gain", "word"), [(-0.3, "Better: A"), (0.3, "Worse: A"), (0.05, "No difference shown: A"), (0.0, "No difference")]
)
def test_constant_answers_are_a_yardstick(gain: float, word: str) -> None:
    text = said(made_corpus(made_system("A", gain=gain)))
    assert "Against the train mean for everyone: It has MAE 1.400." in text and word in text


def test_what_was_selected_on_test_is_judged_nowhere() -> None:
    shipped = made_system("as shipped", selection="published", gain=-0.9)
    apart = {"as shipped": (-0.8, 0.01), "B": (0.0, 0.1)}
    corpus = made_corpus(made_system("A"), shipped, made_system("B"), differences=apart)
    text = said(corpus)
    assert "Selected on test. as shipped:" in text and text.count("as shipped") == 1
    assert judged_word(corpus, "as shipped", made_difference("mae", -0.8, 0.01)) == ""
    assert judged_word(corpus, "B", made_difference("mae", -0.8, 0.01)) == "better"
    assert "as shipped" not in " ".join(each.lead + each.text for each in highest_answer(corpus)[:-1])
    # And nothing is, where the reference itself was.
    corpus = made_corpus(shipped, made_system("B"), differences={"B": (0.9, 0.01)})
    assert "is worse" not in said(corpus) and "is better" not in said(corpus)
    assert judged_word(corpus, "B", made_difference("mae", 0.9, 0.01)) == ""


def test_the_highest_rates_have_a_sentence_of_their_own() -> None:
    corpus = made_corpus(made_system("A"), made_system("B"), differences={"B": (-0.2, 0.1)})
    at = next(each for each in verdict(corpus) if each.lead.startswith("At the highest"))
    assert at.lead == "At the highest rates, 0.7, 0.8 and 0.9:" and at.text.startswith("B is better than A in MAE.")
    answers = highest_answer(corpus)
    # Of differences of -0.2 each, MAE is better so and all else worse.
    assert answers[1].lead == "B: better in MAE, worse in Corr, worse in Acc-7 and worse in Acc-2 np."
    assert answers[-1].lead.startswith("Left at 0.9") and answers[-1].text == "A 10% (5 to 15); B 10% (5 to 15)."


def test_without_ten_rates_the_first_suite_is_judged() -> None:
    systems = [made_system(title, suites=[ABSENT]) for title in ("A", "B")]
    corpus = made_corpus(*systems, suites=[ABSENT], differences={"B": (-0.2, 0.1)})
    assert first(corpus) == "B is better than A in MAE." and "6 views of absent" in said(corpus)


def test_cautions() -> None:
    corpus = made_corpus(made_system("A"))
    assert cautions(corpus) == []
    assert "synthetic" in cautions(dataclasses.replace(corpus, synthetic=True))[0]
    scores = made_system("A").scores["ten_rates"]
    collapsed = dataclasses.replace(scores, collapse_share=(0.3,) * 8 + (0.9, 0.95))
    warned = cautions(made_corpus(made_system("A", scores={"ten_rates": collapsed}), suites=["ten_rates"]))
    assert warned == [
        "A: nearly all utterances get the same class, in ten_rates at 0.9 (95%): it has collapsed there."
    ]  # fmt: skip
    moved = made_system("A", trained_on="mosei", carries_over=("labels: other",), absent_modalities=("vision",))
    assert cautions(made_corpus(moved)) == [
        "A: trained on mosei.",
        "A: labels: other",
        "A: trained without vision: no utterance of the training split has it.",
    ]
    pair = made_corpus(moved, replace(moved, title="B"), made_system("C"))
    assert cautions(pair)[2] == "A and B: trained without vision: no utterance of the training split has it."
    single = made_corpus(made_system("A"), made_system("B"), seeds=(1,))
    assert any("single training" in sentence for sentence in cautions(single))
    assert not any(
        "single training" in sentence for sentence in cautions(made_corpus(made_system("A"), made_system("B")))
    )


def test_comparisons_are_counted_by_metric_and_what_is_not_judged_is_none() -> None:
    three = made_corpus(*(made_system(title) for title in "ABC"))
    assert not any("one of twenty" in sentence for sentence in cautions(three)), "2 systems in 8 metrics"
    shipped = made_system("as shipped", selection="published")
    assert not any("one of twenty" in each for each in cautions(made_corpus(*three.systems, shipped)))
    assert not any("one of twenty" in each for each in cautions(made_corpus(shipped, *three.systems)))
    (said,) = cautions(made_corpus(*(made_system(title) for title in "ABCD")))
    assert said.startswith("24 differences to A are judged over all rates, of 3 systems in 8 metrics; one of twenty")


@pytest.mark.parametrize(
    ("num", "words"), [(1, "1 labelled utterance is"), (29, "29 labelled utterances are"), (30, "")]
)
def test_few_utterances_are_said(num: int, words: str) -> None:
    warned = " ".join(cautions(made_corpus(made_system("A"), num_labelled=num)))
    assert (f"{words} too few" in warned) if words else not warned


def test_at_the_highest_rates_intervals_allow_for_how_many_are_looked_at() -> None:
    """What was stored before they did is undecided where they do not hold 0, and shown where they do."""
    corpus = made_corpus(*(made_system(title) for title in "ABC"), differences={"B": (-0.2, 0.1), "C": (0.05, 0.1)})
    assert highest_word(corpus, "B", "mae") == "better" and highest_word(corpus, "C", "mae") == "no difference shown"
    assert "so that all 8, of each system in MAE, Corr, Acc-7 and Acc-2 np, hold together" in highest_intervals(corpus)
    view = corpus.suites["ten_rates"]
    for share, word in ((0.95, "undecided"), (share_for(8) - 1e-3, "undecided"), (round(share_for(8), 6), "better")):
        highest = {
            title: {metric: replace(each, share=share) for metric, each in by_metric.items()}
            for title, by_metric in view.highest.items()
        }
        other = replace(corpus, suites={**corpus.suites, "ten_rates": replace(view, highest=highest)})
        assert highest_word(other, "B", "mae") == word and highest_word(other, "C", "mae") == "no difference shown"
        said = " ".join(each.lead + each.text for each in highest_answer(other))
        assert (word == "better") == ("B: better in MAE" in said) == ("hold together" in said)
        at = next(each for each in verdict(other) if each.lead.startswith("At the highest"))
        assert ("B is better than A in MAE" in at.text) == (word == "better")
        assert ("Whether MAE of B differs from that of A is undecided" in at.text) == (word == "undecided")
        assert "No difference in MAE to A is shown for C." in at.text
        (row,) = [row for row in highest_table(other, "ten_rates").rows if row["system"].text == "B"]
        assert row["verdict"].text == word
    assert highest_intervals(made_corpus(made_system("A"))) == ""


def test_join() -> None:
    assert [join(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
