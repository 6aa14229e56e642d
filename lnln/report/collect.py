"""From models in a store to everything that a report shows of them (lnln/report/data.py).

    data = collect(store, ["mosi-lnln@best", "mosi-text_only-09fb7b0ce538"], ["ten_rates", "absent"])

What was not scored before is scored now. Systems on one split of the same features are compared with each other and
with what needs no deep model; those on other corpora stand in a part of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lnln import __version__
from lnln.config import Config
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.evaluate.calibration import calibration
from lnln.evaluate.comparison import HIGH_RATES, compare_by_rate, compare_scores, compare_with_baselines
from lnln.evaluate.confusion import confusions
from lnln.evaluate.estimates import SuiteScores, score_suite
from lnln.evaluate.examples import Example
from lnln.evaluate.examples import examples as choose_examples
from lnln.evaluate.paired import share_for
from lnln.evaluate.ridge import RIDGE, baseline_systems
from lnln.evaluate.robustness import effective_robustness, robustness
from lnln.evaluate.suites import SUITES, choose_suites
from lnln.evaluate.systems import System, score_systems, seedless_values
from lnln.model_store.opened import settled
from lnln.report.corpus import describe_extraction
from lnln.report.data import (
    DEFAULT_SUITES,
    TEN_RATES,
    Change,
    ConfusionCounts,
    CorpusReport,
    ReportData,
    SuiteReport,
    SystemReport,
    SystemScores,
    Training,
    constant_of,
    main_metrics,
)
from lnln.report.quoted import printed_lines, printed_means

__all__ = ["DEFAULT_SUITES", "collect"]


def collect(
    store: Store,
    names: Sequence[str],
    suites: Sequence[str] = DEFAULT_SUITES,
    *,
    corpus: str | None = None,
    split: str = "test",
    mask_seeds: Sequence[int] | None = None,
    reference: str | None = None,
    with_examples: bool = True,
) -> ReportData:
    """All of a report on the models `names` (runs, published models, folders, each perhaps `TITLE=NAME`).

    reference: the system that the others are compared with, by title or by the name of one of its models; default the
    first. Raises RefusedError for no name, for a reference that is none of them, and as `score_systems`.
    """
    if not names:
        raise RefusedError("a report needs a run or a published model or more, got none; see `lnln models`")
    chosen = tuple(choose_suites(suites))
    # Once, since an alias may move meanwhile.
    asked = {name: settled(store, name) for name in dict.fromkeys(given.rpartition("=")[2] for given in names)}
    names = [f"{title}{equals}{asked[name]}" for title, equals, name in (given.rpartition("=") for given in names)]
    reference = reference if reference is None else asked.get(reference, reference)
    systems = score_systems(store, names, chosen, corpus, split=split, mask_seeds=mask_seeds)
    groups: dict[tuple[str, str], list[System]] = {}
    for system in systems:
        groups.setdefault((system.first.corpus, system.first.feature_id), []).append(system)
    if reference is not None and not any(_is_called(system, reference) for system in systems):
        titles = ", ".join(repr(system.title) for system in systems)
        raise RefusedError(f"the reference is one of the systems {titles}, or a model of theirs, got {reference!r}")
    return ReportData(
        names=tuple(names),
        suites=chosen,
        reference=reference,
        code_version=__version__,
        corpora=tuple(
            _corpus_report(store, group, chosen, mask_seeds, reference, with_examples=with_examples)
            for group in groups.values()
        ),
    )


@dataclass(frozen=True)
class _Scored:
    """A system and its scores by suite."""

    system: System
    is_baseline: bool
    suites: Mapping[str, SuiteScores]


def _corpus_report(
    store: Store,
    systems: Sequence[System],
    suites: Sequence[str],
    mask_seeds: Sequence[int] | None,
    wanted: str | None,
    *,
    with_examples: bool,
) -> CorpusReport:
    first = systems[0].first
    manifest = read_features(store, first.corpus, first.feature_id)
    judged = [system for system in systems if system.first.selection == "validation"]
    named = [system for system in systems if wanted is not None and _is_called(system, wanted)]
    reference = [*named, *judged, *systems][0]
    baselines, notes = _baselines(store, manifest, systems, suites, mask_seeds)
    scored = [
        _Scored(system, is_baseline, {suite: score_suite(store, system, suite) for suite in suites})
        for is_baseline, each in ((False, systems), (True, baselines))
        for system in each
    ]
    against = next(each for each in scored if each.system is reference)
    shown: list[Example] = []
    if with_examples and TEN_RATES in suites:
        shown = choose_examples(store, _for_examples(reference, systems), manifest)
    return CorpusReport(
        corpus=first.corpus,
        split=first.split,
        feature_id=first.feature_id,
        manifest_digest=first.manifest_digest,
        source_sha256=str(manifest.source.get("sha256", "")),
        synthetic=first.synthetic,
        label_range=first.label_range,
        num_utterances=first.num_utterances,
        num_labelled=first.num_labelled,
        reference=reference.title,
        suites={suite: _suite_report(suite, scored, against) for suite in suites},
        systems=tuple(_system_report(store, each, scored, against) for each in scored),
        printed=printed_lines(first) if TEN_RATES in suites else (),
        printed_means=printed_means(first) if TEN_RATES in suites else (),
        extraction=describe_extraction(store, manifest),
        examples=tuple(shown),
        notes=notes,
    )


def _for_examples(reference: System, systems: Sequence[System]) -> list[System]:
    """The first that is compared, and what it is compared with."""
    first = next((system for system in systems if system is not reference), reference)
    return [first] if first is reference else [first, reference]


def _is_called(system: System, name: str) -> bool:
    return name in (system.title, *system.names)


def _baselines(
    store: Store,
    manifest: FeatureManifest,
    systems: Sequence[System],
    suites: Sequence[str],
    mask_seeds: Sequence[int] | None,
) -> tuple[list[System], tuple[str, ...]]:
    """Ridge regression beside the models, and what must be said of it: what it learned from where that is nothing that
    a model did, or why it is not there, where the corpus has not what it learns from."""
    try:
        made = baseline_systems(store, manifest, suites, systems[0].first.split, mask_seeds)
    except StoreFailedError:
        raise
    except RefusedError as error:
        return [], (f"{RIDGE} does not stand beside the models: {error}.",)
    taken = {system.title for system in systems}
    moved = list(dict.fromkeys(system.first.trained_on for system in systems if system.first.trained_on))
    notes = (
        f"{RIDGE} learned from the training split of {manifest.corpus} itself, which what was trained on "
        f"{' or '.join(moved)} did not see: it says what labels of {manifest.corpus} are worth, not what carries over.",
    )
    return [system for system in made if system.title not in taken], notes if moved else ()


def _suite_report(suite: str, scored: Sequence[_Scored], against: _Scored) -> SuiteReport:
    what, own = SUITES[suite], against.suites[suite]
    first = against.system.evaluations[suite][0]
    others = [each.suites[suite] for each in scored if each is not against]
    highest = tuple(rate for rate in HIGH_RATES if rate in own.rates)
    return SuiteReport(
        title=what.title,
        question=what.question,
        protocol=what.protocol,
        rates=own.rates,
        names=tuple(what.name_rate(rate) for rate in own.rates),
        mask_seeds=first.mask_seeds,
        view_ids=tuple(view.view_id for view in first.views),
        baselines=own.baselines,
        differences=compare_scores(others, own),
        rate_differences=compare_by_rate(others, own),
        highest_rates=highest,
        highest=compare_scores(others, own, highest, share=share_for(_num_judged(others, own))) if highest else {},
    )


def _num_judged(others: Iterable[SuiteScores], reference: SuiteScores) -> int:
    """How many differences to the reference, each of a system in a main metric, get a word; 1 where none does."""
    judged = [each for each in others if not each.is_selected_on_test]
    return max(1, len(judged) * len(main_metrics(reference.label_range)))


def _system_report(store: Store, each: _Scored, scored: Sequence[_Scored], against: _Scored) -> SystemReport:
    system, first, by_suite = each.system, each.system.first, each.suites
    has_answers = TEN_RATES in by_suite and not each.is_baseline
    return SystemReport(
        title=system.title,
        kind="baseline" if each.is_baseline else "model",
        selection=first.selection,
        note=first.note,
        trained_on=first.trained_on,
        carries_over=first.carries_over,
        absent_modalities=first.absent_modalities,
        config=None if system.config is None else system.config.to_dict(),
        changes=_changes(system.config, against.system.config),
        trainings=tuple(_training(system, place) for place in range(len(system.names))),
        scores={
            suite: _system_scores(scores, [other.suites[suite] for other in scored])
            for suite, scores in by_suite.items()
        },
        robustness={
            suite: {metric: robustness(scores, metric, by_suite.get(TEN_RATES)) for metric in scores.metrics}
            for suite, scores in by_suite.items()
        },
        effective={
            suite: {
                metric: found
                for metric in scores.metrics
                if each is not against
                for found in [
                    effective_robustness(
                        scores, against.suites[suite], metric, [other.suites[suite] for other in scored]
                    )
                ]
                if found is not None
            }
            for suite, scores in by_suite.items()
        },
        confusions=_confusions(store, system) if has_answers else (),
        calibration=calibration(store, system) if has_answers else None,
    )


def _system_scores(scores: SuiteScores, all_scores: Sequence[SuiteScores]) -> SystemScores:
    highest = tuple(rate for rate in HIGH_RATES if rate in scores.rates)
    return SystemScores(
        by_rate=dict(scores.by_rate),
        mean=dict(scores.mean),
        highest=scores.over(highest),
        collapse_share=scores.collapse_share,
        gains=_gains(compare_with_baselines(scores, all_scores)),
        highest_gains=_gains(compare_with_baselines(scores, all_scores, highest)) if highest else {},
    )


def _gains(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Against the constant that each metric is held against."""
    return {
        metric: difference
        for name, by_metric in found.items()
        for metric, difference in by_metric.items()
        if constant_of(metric) == name
    }


def _training(system: System, place: int) -> Training:
    evaluations = {suite: each[place] for suite, each in system.evaluations.items()}
    first = next(iter(evaluations.values()))
    return Training(
        name=system.names[place],
        seed=system.seeds[place],
        run_id=first.model.get("run_id"),
        weights_sha256=str(first.model["weights_sha256"]),
        code_version=first.code_version,
        evaluations={suite: each.evaluation_id for suite, each in evaluations.items()},
        views={suite: each.views for suite, each in evaluations.items()},
    )


def _changes(config: Config | None, reference: Config | None) -> tuple[Change, ...]:
    if config is None or reference is None:
        return ()
    own, expected = seedless_values(config), seedless_values(reference)
    # What a network does not look at is no difference to one that does.
    shared = [key for key in own if key in expected or key == "model.simulated_text"]
    changed = {key: (expected.get(key, "none"), own[key]) for key in shared}
    return tuple(Change(key, str(before), str(after)) for key, (before, after) in changed.items() if before != after)


def _confusions(store: Store, system: System) -> tuple[ConfusionCounts, ...]:
    return tuple(
        ConfusionCounts(each.rate, each.classes, tuple(map(tuple, each.counts.tolist())), each.num_answers)
        for each in confusions(store, system)
        if not isinstance(each.rate, tuple)
    )
