"""The sections of a model report, in order, as blocks (lnln/report/blocks.py): one list for every form of it.

blocks = report_blocks(data, configs={"LNLN": "config-1f3a0c9d2b44.yaml"})
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from lnln.config import Config
from lnln.evaluate.suites import MASK_SEEDS, SUITES
from lnln.metrics import TITLES
from lnln.report.answer_tables import calibration_table, confusion_table, example_table
from lnln.report.blocks import Block, Bullets, Charts, Chosen, Commands, Drawing, Heading, Prose, Shown, Verdict, Words
from lnln.report.charts import calibration_legend, draw_calibration, draw_confusion, draw_curves, legend_of, printed_of
from lnln.report.data import ABSENT, DEFAULT_SUITES, TEN_RATES, CorpusReport, ReportData, SystemReport
from lnln.report.record_tables import printed_table, setting_table, training_table, view_table
from lnln.report.score_tables import (
    ablation_table,
    combination_table,
    difference_table,
    gain_table,
    highest_table,
    mean_table,
    rate_difference_table,
    rate_table,
    robustness_table,
)
from lnln.report.tables import Column, Table, text
from lnln.report.verdict import cautions, highest_answer, main_suite, verdict

# From so many views on a table has a row for each instead of a column.
MANY_VIEWS = 12


def report_blocks(data: ReportData, configs: Mapping[str, str]) -> list[Block]:
    """All of it below the title. configs: file of each system's config, by its title, where it is known.

    With several corpora each has a part of its own.
    """
    several = len(data.corpora) > 1
    blocks: list[Block] = []
    for place, corpus in enumerate(data.corpora):
        if several:
            about = f"{corpus.corpus}, {corpus.split} split, features {corpus.feature_id}"
            blocks += [Heading(about), *Part(corpus, f"{_slug(corpus.corpus)}-{place + 1}-", about, 3).blocks()]
        else:
            blocks += Part(corpus).blocks()
    blocks += [Heading("How to get the same"), *_how_to_get_the_same(data, configs)]
    blocks += [Heading("How to read this"), Bullets(_READING)]
    return blocks


def report_title(data: ReportData) -> str:
    return f"Robustness to missing data on {' and '.join(dict.fromkeys(corpus.corpus for corpus in data.corpora))}"


class Part:
    """The sections on one corpus. level: of its headings.

    prefix, about: where there are several, of the names of its tables and of what a reader is told that they are.
    is_short: the main metrics alone.
    """

    def __init__(
        self, corpus: CorpusReport, prefix: str = "", about: str = "", level: int = 2, *, is_short: bool = False
    ) -> None:
        self.corpus, self.prefix, self.about, self.level = corpus, prefix, about, level
        self.metrics = corpus.main_metrics if is_short else corpus.metrics

    def blocks(self) -> Iterator[Block]:
        corpus = self.corpus
        yield Verdict(verdict(corpus), self.about)
        if warned := cautions(corpus):
            yield self.heading("Be careful")
            yield Bullets(tuple(warned))
        for suite, view in corpus.suites.items():
            yield self.heading(view.title)
            yield Prose(f"{view.question[0].upper()}{view.question[1:]}.")
            yield from self.suite(suite)
        yield from self.ablations()
        yield from self.confusions()
        yield from self.completeness()
        yield from self.examples()
        yield from self.robustness()
        yield from self.printed()
        yield self.heading("What was scored")
        yield from self.scored()

    def heading(self, words: str, below: int = 0) -> Heading:
        return Heading(words, self.level + below)

    def table(self, name: str, table: Table) -> Shown:
        caption = f"{table.caption} {self.about[:1].upper()}{self.about[1:]}." if self.about else table.caption
        return Shown(f"{self.prefix}{name}", replace(table, caption=caption))

    def chosen(self, about: str, parts: Sequence[tuple[str, tuple[Block, ...]]], label: str = "Metric") -> Chosen:
        return Chosen(label, ", ".join(filter(None, [about, self.about])), tuple(parts))

    def suite(self, suite: str) -> Iterator[Block]:
        """Curves where there is an axis for them, the metrics, the differences; of the ten rates the highest too."""
        corpus, view = self.corpus, self.corpus.suites[suite]
        has_curve = sum(not isinstance(rate, tuple) for rate in view.rates) > 1 and suite != ABSENT
        if has_curve:
            drawn = [
                Drawing(draw_curves(corpus, suite, metric), f"{TITLES[metric]} over the missing rate. {_drawn(corpus)}")
                for metric in corpus.main_metrics
            ]
            yield Charts(tuple(drawn), legend_of(corpus, suite, corpus.main_metrics), is_large=True)
            if any(printed_of(corpus, suite, metric) for metric in corpus.main_metrics):
                yield Prose(
                    "Thin grey lines are printed by others, of other features, encoders and masks: a frame, no rivals. "
                    "Their numbers stand in a table of their own below."
                )
        yield self.table(f"{suite}-means", mean_table(corpus, suite))
        by_view = combination_table if len(view.rates) > MANY_VIEWS else rate_table
        shown = [
            (TITLES[metric], (self.table(f"{suite}-{metric}", by_view(corpus, suite, metric)),))
            for metric in self.metrics
        ]
        yield self.chosen(view.title, shown)
        differences = difference_table(corpus, suite)
        if differences is not None:
            yield self.table(f"{suite}-differences", differences)
        if suite == main_suite(corpus):
            yield self.table(f"{suite}-gains", gain_table(corpus, suite))
        if suite == TEN_RATES and view.highest_rates:
            yield self.heading("The highest rates", 1)
            yield from self.highest()

    def highest(self) -> Iterator[Block]:
        """What is left where most is missing, and whether one system is better than the reference there."""
        corpus, view = self.corpus, self.corpus.suites[TEN_RATES]
        yield from highest_answer(corpus)
        yield self.table("highest", highest_table(corpus, TEN_RATES))
        if view.rate_differences:
            shown = [
                (
                    TITLES[metric],
                    (self.table(f"differences-{metric}", rate_difference_table(corpus, TEN_RATES, metric)),),
                )
                for metric in corpus.main_metrics
            ]
            yield self.chosen("Differences at each rate", shown)

    def ablations(self) -> Iterator[Block]:
        """Of what was trained on the same features as the reference: else the change is not the only difference."""
        suite, reference = main_suite(self.corpus), self.corpus.system(self.corpus.reference)
        changed = [
            (system, system.changes[0])
            for system in self.corpus.others()
            if system.kind == "model" and len(system.changes) == 1 and system.is_judged
            if system.trained_on == reference.trained_on
        ]
        if changed and reference.is_judged:
            yield self.heading("Ablations")
            yield self.table("ablations", ablation_table(self.corpus, suite, changed))

    def confusions(self) -> Iterator[Block]:
        shown = [system for system in self.corpus.systems if system.confusions]
        if not shown:
            return
        yield self.heading("Which class for which")
        yield Prose("In percent of the utterances of each label: each row of a drawing adds up to 100.")
        parts = []
        for place, system in enumerate(shown):
            drawn = tuple(
                Drawing(draw_confusion(each), f"{system.title} at missing rate {each.rate:g}.")
                for each in system.confusions
            )
            parts.append((system.title, (Charts(drawn), self.table(f"confusion-{place + 1}", confusion_table(system)))))
        yield self.chosen("Predicted classes by label", parts, "System")

    def completeness(self) -> Iterator[Block]:
        if not any(system.calibration for system in self.corpus.systems):
            return
        yield self.heading("What the completeness score knows")
        yield Charts(
            (
                Drawing(
                    draw_calibration(self.corpus),
                    "Mean of w at each missing rate of text; whiskers are one standard deviation over utterances, the "
                    "straight line is 1 - r.",
                ),
            ),
            calibration_legend(self.corpus),
            is_large=True,
        )
        yield self.table("completeness", calibration_table(self.corpus))

    def examples(self) -> Iterator[Block]:
        if not self.corpus.examples:
            return
        yield self.heading("Examples")
        yield Prose(
            "Chosen by the rule that stands above each, not by hand. Words that a view erases are struck out and in "
            "brackets; a word may lose some of its pieces only. Predictions are means over trainings, under mask seed "
            f"{self.corpus.examples[0].mask_seed}."
        )
        for place, example in enumerate(self.corpus.examples):
            yield self.heading(f"{example.rule[0].upper()}{example.rule[1:]}", 1)
            for rate, marked in zip(example.rates, example.texts, strict=True):
                stretches = tuple((span.text, span.is_erased) for span in marked.spans)
                if stretches:
                    yield Words(f"At {rate:g}:", stretches)
            if notes := "; ".join(dict.fromkeys(marked.note for marked in example.texts if marked.note)):
                yield Prose(f"{notes[0].upper()}{notes[1:]}.")
            yield self.table(f"example-{place + 1}", example_table(example))

    def robustness(self) -> Iterator[Block]:
        corpus = self.corpus
        suites = [suite for suite, view in corpus.suites.items() if len(view.rates) <= MANY_VIEWS]
        if not suites:
            return
        yield self.heading("Robustness")
        for suite in suites:
            shown = [
                (
                    TITLES[metric],
                    (self.table(f"robustness-{suite}-{metric}", robustness_table(corpus, suite, metric)),),
                )
                for metric in corpus.main_metrics
            ]
            yield self.chosen(f"Robustness, {corpus.suites[suite].title}", shown)

    def printed(self) -> Iterator[Block]:
        if self.corpus.printed_means:
            yield self.heading("Printed by others")
            yield self.table("printed", printed_table(self.corpus))

    def scored(self) -> Iterator[Block]:
        corpus = self.corpus
        made = ", a synthetic corpus" if corpus.synthetic else ""
        source = f", imported from the file with SHA-256 {corpus.source_sha256[:12]}" if corpus.source_sha256 else ""
        yield Prose(
            f"Corpus {corpus.corpus}{made}, {corpus.split} split: {corpus.num_labelled} labelled of "
            f"{corpus.num_utterances} utterances, labels within {corpus.label_range[0]:g} to "
            f"{corpus.label_range[1]:g}. Features {corpus.feature_id}, manifest SHA-256 "
            f"{corpus.manifest_digest[:12]}{source}."
        )
        yield self.table("views", view_table(corpus))
        if (differing := setting_table(corpus)) is not None:
            yield self.table("settings", differing)
        yield self.table("trainings", training_table(corpus))
        yield from self.extraction()

    def extraction(self) -> Iterator[Block]:
        met = self.corpus.extraction
        if met is None:
            return
        yield self.heading("What the extraction met", 1)
        yield Prose(
            "lnln extracted this corpus from clips; README.md beside the features says how to extract the same from "
            "other clips."
        )
        if met.counts:
            rows = tuple({"what": text(what), "num": text(num)} for what, num in met.counts)
            columns = Column("what", "what"), Column("num", "how many", "number")
            yield self.table("extraction", Table("Counted during extraction.", columns, rows))
        if met.problem:
            yield Prose(met.problem)
        elif met.num_left_out:
            columns_of = Column("clip", "clip or file"), Column("stage", "stage"), Column("reason", "reason")
            rows = tuple({"clip": text(a), "stage": text(b), "reason": text(c)} for a, b, c in met.left_out)
            num, shown = met.num_left_out, len(met.left_out)
            caption = f"{num} clip{'s or files are' if num > 1 else ' or file is'} not among the utterances."
            first = f"The first {shown} of them; " if shown < num else ""
            yield self.table("left-out", Table(caption, columns_of, rows, f"{first}all are in {met.table}."))


def _drawn(corpus: CorpusReport) -> str:
    return "Bands: 95% intervals over utterances." if len(corpus.systems) <= 4 else "Intervals stand in the table."


def _how_to_get_the_same(data: ReportData, configs: Mapping[str, str]) -> Iterator[Block]:
    yield Prose("With the same store (--store or LNLN_STORE), in this folder:")
    commands: list[str] = []
    for corpus in data.corpora:
        for system in corpus.models:
            commands += _training_commands(corpus, system, configs)
            commands += _scoring_commands(data, corpus, system)
    commands.append(_report_command(data))
    yield Commands(tuple(dict.fromkeys(commands)))
    yield Prose("scores.json holds all of this report as values, scores.csv a row for each training and view.")


def _training_commands(corpus: CorpusReport, system: SystemReport, configs: Mapping[str, str]) -> list[str]:
    if system.title not in configs or system.trained_on:
        return []
    seeds = [str(training.seed) for training in system.trainings if training.seed is not None]
    chosen = f" --seeds {','.join(seeds)}" if seeds else ""
    return [f"lnln train {shlex.quote(corpus.corpus)} --config {shlex.quote(configs[system.title])}{chosen}"]


def _scoring_commands(data: ReportData, corpus: CorpusReport, system: SystemReport) -> list[str]:
    options = [f"--suite {','.join(data.suites)}", *_view_options(corpus)]
    options += ["--selection published"] if system.selection == "published" else []
    return [f"lnln evaluate {shlex.quote(training.name)} {' '.join(options)}" for training in system.trainings]


def _report_command(data: ReportData) -> str:
    options = [f"--suite {','.join(data.suites)}"] if data.suites != DEFAULT_SUITES else []
    options += [f"--reference {shlex.quote(data.reference)}"] if data.reference is not None else []
    return " ".join(["lnln report", *map(shlex.quote, data.names), *options, *_view_options(data.corpora[0])])


def _view_options(corpus: CorpusReport) -> list[str]:
    """What of the views is not as it is where nothing is asked for."""
    random = [view for name, view in corpus.suites.items() if SUITES[name].is_random]
    seeds = random[0].mask_seeds if random else MASK_SEEDS
    is_elsewhere = any(system.trained_on for system in corpus.models)
    options = [f"--corpus {shlex.quote(corpus.corpus)}"] if is_elsewhere else []
    options += [f"--split {corpus.split}"] if corpus.split != "test" else []
    return [*options, *([f"--mask-seeds {','.join(map(str, seeds))}"] if seeds != MASK_SEEDS else [])]


def config_of(system: SystemReport) -> Config | None:
    """The config of its first training, where it is known."""
    return None if system.config is None else Config.from_dict(system.config)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "corpus"


_READING = (
    "Every modality has the missing rate that a column names; in tables of absent modalities the letters L, A, V say "
    "what is there. Masks are the same for every system and nested over rates.",
    "A system is one configuration; its trainings differ in their seed alone. Scores are means over trainings and mask "
    "seeds.",
    "One checkpoint gives all numbers of a training. It was selected on validation; test took no part, unless it is "
    "said.",
    "Accuracies and F1 are in percent, in CSV and JSON within 0 and 1. np: negative against positive, zeros left out; "
    "nn: negative against non-negative. F1 has its arguments in the right order, which the tables of the LNLN paper do "
    "not.",
    "Intervals of scores come from drawing the utterances again, with replacement, 1000 times; they say nothing of "
    "other training seeds, of which ± is the standard deviation.",
    "Intervals of differences allow for both: the same utterances are drawn for both sides, and the chance of training "
    "is added by Student's t. With two or three trainings they are wide, since so few say little of how far trainings "
    "differ.",
    "That no difference is shown does not say that there is none.",
    "docs/evaluation.md has the formula and the source of each measure.",
)
