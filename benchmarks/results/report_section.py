"""The sections of docs/results.md on the main systems beyond their scores, from the stored report alone."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.results.plan import REPORT, Plan
from benchmarks.results.report import MainReport
from lnln.data.schema import MODALITIES
from lnln.markdown import code, escape
from lnln.report.blocks import Block, Heading, Prose, to_markdown
from lnln.report.data import ABSENT, TEN_RATES, CorpusReport
from lnln.report.sections import Part
from lnln.report.verdict import UNDECIDED, cautions, highest_word, say_words, shown_metrics


def report_section(plan: Plan, report: MainReport) -> list[str]:
    """Its parts: the highest rates, absent modalities, robustness, classes, completeness, printed numbers."""
    corpus = report.corpus
    num = sum(len(system.trainings) for system in corpus.models)
    intro = (
        f"What follows is of {num} trainings of these systems and of ridge regression on the words that are left, "
        f"collected by the code {code(report.code)}; {code(f'make results DATA=FILE ONLY={REPORT}')} makes it again, "
        f"and {code('lnln report')} shows the same of any models, with curves. Differences are to "
        f"{escape(corpus.reference)}."
    )
    return ["## The highest missing rates", intro, to_markdown(_blocks(corpus)).rstrip("\n")]


def _blocks(corpus: CorpusReport) -> Iterator[Block]:
    part = Part(corpus, is_short=True)
    yield _answer(corpus)
    yield from part.highest()
    if ABSENT in corpus.suites:
        yield Heading("Absent modalities")
        yield Prose(
            f"L, A and V are what is there of {', '.join(MODALITIES)}; the rest is absent. A modality that the corpus "
            "does not have is absent in every column."
        )
        yield from part.suite(ABSENT)
    yield from part.robustness()
    yield from part.confusions()
    yield from part.completeness()
    yield from part.printed()
    if warned := cautions(corpus):
        yield Heading("Be careful with these numbers")
        yield from (Prose(sentence) for sentence in warned)


def _answer(corpus: CorpusReport) -> Prose:
    """Whether any system is shown to be better than the reference where most is missing: the paper's open question."""
    view = corpus.suites[TEN_RATES]
    rates = ", ".join(f"{rate:g}" for rate in view.highest_rates)
    said = {
        title: say_words({metric: highest_word(corpus, title, metric) for metric in corpus.main_metrics})
        for title in view.highest
    }
    shown = "; ".join(
        f"{title} is {words if UNDECIDED in words else f'shown to be {words}'}"
        for title, words in said.items()
        if words
    )
    nothing = f"no system is shown to be better or worse than {corpus.reference} in any of them"
    return Prose(
        f"Over the rates {rates}, in {shown_metrics(corpus.main_metrics)}: {shown or nothing}.",
        lead="The paper leaves open how LNLN compares with other methods at the highest missing rates.",
    )
