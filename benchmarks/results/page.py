"""docs/results.md and its figure, from the plan and the stored scores alone: the same scores give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results.figure import draw_curves
from benchmarks.results.plan import Experiment, Group, Plan, QuotedRow
from benchmarks.results.report import MainReport, main_group, read_report
from benchmarks.results.report_section import report_section
from benchmarks.results.scores import NUM_RESAMPLES, Scores, SplitScores, read_all
from benchmarks.results.search import Search, read_search
from benchmarks.results.search_section import search_section
from benchmarks.results.statistics import Summary, compare, pooled_chance, summarise
from lnln.data.manifest import FeatureManifest
from lnln.evaluate.paired import Difference, TrainingChance, format_difference, format_signed
from lnln.evaluations import BASELINE_TITLES, PLAIN_NUMBERS, format_interval, format_score
from lnln.markdown import code, escape, table
from lnln.metrics import TITLES, accuracy_names

Found = Mapping[tuple[str, int], Scores]

NOT_RUN = "not yet run"
NOT_SCORED = "test not yet read"
BLANK = "–"


def write_page(plan: Plan, folder: Path, page: Path, manifest: FeatureManifest | None = None) -> None:
    """Write `page` and, where a system is scored on test, `results-<corpus>.svg` beside it.

    manifest: of the features that scores must be of, where these are at hand.
    """
    found = read_all(folder, plan, manifest)
    page.parent.mkdir(parents=True, exist_ok=True)
    for group in plan.groups:
        curves = _curves(group, found)
        if group.kind == "systems" and curves:
            figure = draw_curves(plan.corpus, group.experiments, curves)
            (page.parent / _figure_name(plan, group)).write_bytes(figure)
    sources = [each.source_sha256 for each in found.values()]
    source = sources[0] if sources else None
    search, report = read_search(folder, plan, manifest, source), read_report(folder, plan, manifest, source)
    page.write_text(render(plan, found, search, report), encoding="utf-8")


def render(plan: Plan, found: Found, search: Search | None = None, report: MainReport | None = None) -> str:
    """The page as Markdown; without the sections of the search and the report where there are none."""
    parts = [_head(plan, found)]
    for group in plan.groups:
        parts.append(f"## {escape(group.title)}")
        if group.note:
            parts.append(group.note.strip())
        parts += _systems(plan, group, found) if group.kind == "systems" else _changes(plan, group, found)
        if report is not None and group == main_group(plan):
            parts += report_section(plan, report)
    if search is not None:
        parts += search_section(plan, search)
    if plan.elsewhere is not None:
        parts += ["## Measured elsewhere", plan.elsewhere.source.strip()]
        parts.append(table([_quoted_row(row) for row in plan.elsewhere.rows]))
    return "\n\n".join(parts) + "\n"


def _head(plan: Plan, found: Found) -> str:
    seeds = sorted({seed for experiment in plan.experiments() for seed in experiment.seeds})
    lines = [
        f"# Results on {escape(plan.corpus)}",
        "Written by `make results`, from the scores in "
        f"{code(f'benchmarks/scores/{plan.corpus}')}; {code('make results-table')} writes it again from these, without "
        "the corpus. What is trained is listed in `benchmarks/results.yaml`. Do not edit this page.",
    ]
    trainings = plan.trainings()
    num_scored = sum(scored_for <= set(found) for scored_for in trainings)
    state = f"{num_scored} of {len(trainings)} trainings are scored."
    if found:
        state += " " + _measured_on(list(found.values()))
        made_by = ", ".join(code(each) for each in sorted({each.code for each in found.values()}))
        state += (
            f"\n\nFingerprints of the code that made them: {made_by}. Most changes of code change no score; "
            f"{code('make results STALE=code')} makes anew what other code than the present has made."
        )
    lines += [
        state,
        "How to read it:\n\n"
        f"- Scores are plain means over the missing rates {_numbers(plan.rates)} (validation: "
        f"{_numbers(plan.validation_rates)}), all modalities alike, each under the mask seeds "
        f"{_numbers(plan.mask_seeds)}. Accuracies are in percent; np leaves labels of exactly 0 out.\n"
        f"- Training seeds: {_numbers(seeds)}, where the tables do not say fewer. ± is the standard deviation over "
        "training seeds.\n"
        "- Brackets hold a 95% interval over utterances: the mean over seeds when the utterances are drawn again "
        f"(percentile bootstrap, {NUM_RESAMPLES} resamples).\n"
        "- Differences are paired: the same utterances, masks and training seeds on both sides. Their brackets hold a "
        "95% interval over utterances and training: the utterances are drawn again, and the chance of training is "
        "added by Student's t from the differences of the single seeds; for one seed it is taken from the systems here "
        "that have several (`benchmarks/results/statistics.py`). *Better* and *worse* are said where that interval "
        "does not hold 0; many comparisons make some of these by chance.\n"
        "- Models are chosen on validation unless a row says otherwise. What was selected on test is not called better "
        "or worse than anything.",
    ]
    return "\n\n".join(lines)


def _measured_on(scores: Sequence[Scores]) -> str:
    first = scores[0]
    what = "Made-up data, which shows nothing about people" if first.synthetic else "Data"
    tested = next((each.test for each in scores if each.test is not None), None)
    counts = f"{first.validation.num_labelled} labelled utterances of the validation split"
    counts += f", {tested.num_labelled} of the test split" if tested is not None else ""
    devices = sorted({each.device for each in scores})
    versions = sorted({f"{package} {version}" for each in scores for package, version in each.versions.items()})
    return (
        f"{what}: the file with SHA-256 {code(first.source_sha256[:12])}, {counts}. Trained on "
        f"{' or '.join(escape(device) for device in devices)} each, with {', '.join(escape(v) for v in versions)}."
    )


def _systems(plan: Plan, group: Group, found: Found) -> list[str]:
    """Scores, differences, curves, everything missing, cost."""
    metrics = _metrics(found)
    tests = {experiment.name: _tests(experiment, found) for experiment in group.experiments}
    rows = []
    for experiment in group.experiments:
        cells = _score_cells(list(tests[experiment.name].values()), metrics) or dict.fromkeys(
            (TITLES[metric] for metric in metrics), _absence(found, experiment)
        )
        rows.append({"system": escape(experiment.title), "seeds": str(len(tests[experiment.name]) or BLANK), **cells})
    baselines = next((each.baselines for trainings in tests.values() for each in trainings.values()), {})
    for baseline, scores in baselines.items():
        cells = {
            TITLES[metric]: format_score(metric, scores[metric]) if metric in scores else BLANK for metric in metrics
        }
        rows.append({"system": BASELINE_TITLES.get(baseline, escape(baseline)), "seeds": BLANK, **cells})
    reference = plan.experiment(group.against)
    parts = [table(rows)]
    differences = [_difference_row(each, reference, metrics, found) for each in group.experiments if each != reference]
    if differences:
        parts += [f"Paired difference to {escape(reference.title)}, on the same views:", table(differences)]
    curves = _curves(group, found)
    if curves:
        parts += ["### By missing rate", f"![MAE and Corr over the missing rate]({_figure_name(plan, group)})"]
        parts += [part for metric in ("mae", "corr") for part in _rate_table(plan, group, found, metric)]
        parts += ["### Everything missing", _all_missing_note(), _all_missing_table(group, found)]
    trained = [each for each in group.experiments if _of(each, found)]
    if trained:
        parts += ["### Cost", table([_cost_row(each, found) for each in trained])]
    return parts


def _changes(plan: Plan, group: Group, found: Found) -> list[str]:
    """The base, and what each change alone does to it on validation and on test.

    The base stands at the seeds that it has in common with the changes, which the differences are of.
    """
    base = plan.experiment(group.against)
    metrics = _metrics(found)
    shown = [metric for metric in ("mae", "corr", *metrics[:1]) if metric in metrics]
    seeds = {seed for experiment in group.others() for seed in experiment.seeds}
    rows = [_base_row(base, seeds, found, shown)]
    rows += [_change_row(experiment, base, found, shown) for experiment in group.others()]
    settings = [
        f"- {escape(experiment.title)}: {', '.join(code(item) for item in experiment.own) or 'another selection'}"
        for experiment in group.others()
    ]
    return [table(rows), "What was set:\n\n" + "\n".join(settings)]


def _base_row(base: Experiment, seeds: set[int], found: Found, metrics: Sequence[str]) -> dict[str, str]:
    scored = {seed: each for seed, each in _of(base, found).items() if seed in seeds}
    tests = {seed: each for seed, each in _tests(base, found).items() if seed in seeds}
    row = {"change": f"*{escape(base.title)}*", "seeds": _numbers(sorted(scored)) or BLANK}
    row["validation MAE"] = (
        _summary_cell("mae", summarise([each.validation for each in scored.values()], "mae")) if scored else NOT_RUN
    )
    for metric in metrics:
        row[f"test {TITLES[metric]}"] = (
            _summary_cell(metric, summarise(list(tests.values()), metric))
            if tests
            else (NOT_SCORED if scored else NOT_RUN)
        )
    return row


def _change_row(experiment: Experiment, base: Experiment, found: Found, metrics: Sequence[str]) -> dict[str, str]:
    mine, theirs = _of(experiment, found), _of(base, found)
    row = {"change": escape(experiment.title), "seeds": _numbers(sorted(set(mine) & set(theirs))) or BLANK}
    row["validation MAE"] = _difference_cell(
        "mae",
        compare(
            {seed: each.validation for seed, each in mine.items()},
            {seed: each.validation for seed, each in theirs.items()},
            "mae",
            _training_chance(found, "mae", "validation"),
        ),
        NOT_RUN,
        verdict=_judges(experiment, base),
    )
    for metric in metrics:
        row[f"test {TITLES[metric]}"] = _test_difference(experiment, base, metric, found)
    return row


def _difference_row(
    experiment: Experiment, reference: Experiment, metrics: Sequence[str], found: Found
) -> dict[str, str]:
    cells = {TITLES[metric]: _test_difference(experiment, reference, metric, found) for metric in metrics}
    return {"system": escape(experiment.title), **cells}


def _test_difference(experiment: Experiment, reference: Experiment, metric: str, found: Found) -> str:
    mine, theirs = _tests(experiment, found), _tests(reference, found)
    difference = compare(mine, theirs, metric, _training_chance(found, metric, "test"))
    return _difference_cell(
        metric, difference, _absence(found, experiment, reference), verdict=_judges(experiment, reference)
    )


def _judges(*experiments: Experiment) -> bool:
    """Whether a difference between them says which is better: not where test chose one of them."""
    return all(each.selection == "validation" for each in experiments)


def _rate_table(plan: Plan, group: Group, found: Found, metric: str) -> list[str]:
    """Means over seeds and mask seeds at each rate; the best constant below, which needs no input."""
    rates = sorted(plan.rates)
    rows = []
    for experiment in group.experiments:
        scored = [each for each in _of(experiment, found).values() if each.test is not None]
        if not scored:
            continue
        cells = {f"{rate:g}": _mean_at(scored, metric, rate) for rate in rates}
        rows.append({TITLES[metric]: escape(experiment.title), **cells, "1": _mean_at(scored, metric, 1.0)})
    test = next(each.test for each in found.values() if each.test is not None)
    constant = min(scores["mae"] for scores in test.baselines.values() if "mae" in scores)
    value = format_score(metric, constant if metric == "mae" else 0.0)
    rows.append({TITLES[metric]: "best constant of the train labels", **dict.fromkeys(list(rows[0])[1:], value)})
    return [table(rows)]


def _mean_at(scored: Sequence[Scores], metric: str, rate: float) -> str:
    values = []
    for each in scored:
        split = each.test if rate < 1 else each.all_missing
        assert split is not None, "scored on test"
        values.append(split.by_rate[split.rates.index(rate)][metric])
    return format_score(metric, sum(values) / len(values))


def _all_missing_note() -> str:
    return (
        "At missing rate 1 only the number of words is left, and the best a model can do is about the best constant. "
        "Margins are gains over that constant (positive: better); their interval is over utterances, of one training, "
        "its ends averaged over seeds."
    )


def _all_missing_table(group: Group, found: Found) -> str:
    rows = []
    for experiment in group.experiments:
        scored = [each.all_missing for each in _of(experiment, found).values() if each.all_missing is not None]
        if not scored:
            continue
        row = {"system": escape(experiment.title)}
        for baseline, metrics in scored[0].margins.items():
            shown = [metric for metric in ("mae", "acc2_np", "acc2") if metric in metrics]
            if baseline == "one_class":
                shown = [metric for metric in shown if metric != "mae"]
            else:
                shown = [metric for metric in shown if metric == "mae"]
            for metric in shown:
                parts = [each.margins[baseline][metric] for each in scored]
                value, low, high = (sum(part[i] for part in parts) / len(parts) for i in range(3))
                row[f"{TITLES[metric]} against {BASELINE_TITLES[baseline]}"] = (
                    f"{format_signed(metric, value)} ({format_signed(metric, low)} to {format_signed(metric, high)})"
                )
        rows.append(row)
    return table(rows)


def _cost_row(experiment: Experiment, found: Found) -> dict[str, str]:
    scored = list(_of(experiment, found).values())
    epochs = sum(each.num_epochs for each in scored)
    return {
        "system": escape(experiment.title),
        "parameters": f"{scored[0].num_parameters / 1e6:.1f} M",
        "seconds an epoch": f"{sum(each.seconds for each in scored) / epochs:.0f}",
        "epochs": _numbers(sorted({each.num_epochs for each in scored})),
        "best epoch": BLANK
        if experiment.selection == "published"  # one for each metric
        else _numbers([each.best_epoch for each in scored]),
        "validation MAE": format_score("mae", sum(each.validation.mean["mae"] for each in scored) / len(scored)),
    }


def _quoted_row(row: QuotedRow) -> dict[str, str]:
    cells = {"what": escape(row.title)}
    for metric in ("acc7", "acc2_np", "mae", "corr"):
        value = getattr(row, metric)
        cells[TITLES[metric]] = BLANK if value is None else format_score(metric, value)
    return cells


def _score_cells(trainings: Sequence[SplitScores], metrics: Sequence[str]) -> dict[str, str]:
    """A cell for each metric; nothing where nothing was trained."""
    if not trainings:
        return {}
    return {TITLES[metric]: _summary_cell(metric, summarise(trainings, metric)) for metric in metrics}


def _summary_cell(metric: str, summary: Summary) -> str:
    sd = f" ± {format_score(metric, summary.sd)}" if summary.sd is not None else ""
    return f"{format_score(metric, summary.value)}{sd} ({format_interval(metric, (summary.low, summary.high))})"


def _difference_cell(metric: str, difference: Difference | None, absence: str, *, verdict: bool) -> str:
    if difference is None:
        return absence
    words = [difference.word] if verdict else []
    if not difference.counts_training:
        words.append("chance of training not counted")
    return " ".join([format_difference(metric, difference), *([", ".join(words)] if words else [])])


def _metrics(found: Found) -> list[str]:
    """The columns: the finest accuracy, the two-class one, MAE, Corr."""
    label_range = next((each.label_range for each in found.values()), (-3.0, 3.0))
    names = accuracy_names(label_range)
    return [names[0], next(name for name in names if name.startswith("acc2")), *PLAIN_NUMBERS]


def _of(experiment: Experiment, found: Found) -> dict[int, Scores]:
    return {seed: found[experiment.name, seed] for seed in experiment.seeds if (experiment.name, seed) in found}


def _tests(experiment: Experiment, found: Found) -> dict[int, SplitScores]:
    return {seed: each.test for seed, each in _of(experiment, found).items() if each.test is not None}


def _curves(group: Group, found: Found) -> dict[str, list[Scores]]:
    """By experiment, the trainings that were scored on test."""
    curves = {
        experiment.name: [each for each in _of(experiment, found).values() if each.test is not None]
        for experiment in group.experiments
    }
    return {name: scored for name, scored in curves.items() if scored}


def _absence(found: Found, *experiments: Experiment) -> str:
    """Why a cell has no number that needs test scores of all of these, of the same seed."""
    common = set.intersection(*(set(_of(each, found)) for each in experiments))
    return NOT_SCORED if common else NOT_RUN


def _training_chance(found: Found, metric: str, split: str) -> TrainingChance | None:
    by_experiment: dict[str, list[SplitScores]] = {}
    for (name, _), each in sorted(found.items()):
        scores = each.test if split == "test" else each.validation
        # What is chosen on test is no system of its own.
        if scores is not None and each.selection == "validation":
            by_experiment.setdefault(name, []).append(scores)
    return pooled_chance(list(by_experiment.values()), metric)


def _figure_name(plan: Plan, group: Group) -> str:
    first = next(each for each in plan.groups if each.kind == "systems")
    return f"results-{plan.corpus}.svg" if group is first else f"results-{plan.corpus}-{group.name}.svg"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
