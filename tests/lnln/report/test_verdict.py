"""The verdict says what the intervals say: no more, nothing of what was selected on test, and the worst in warnings."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.report.data import ABSENT, CorpusReport
from lnln.report.verdict import cautions, highest_answer, join, judged_word, verdict
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
    many = made_corpus(*(made_system(title) for title in "ABCDEF"))
    assert any("one of twenty" in sentence for sentence in cautions(many))


def test_join() -> None:
    assert [join(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
