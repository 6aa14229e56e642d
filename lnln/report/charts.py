"""The drawings of a model report, each as SVG text from `ReportData` alone.

    draw_curves(corpus, "ten_rates", "mae")      # systems with their intervals, constant answers, printed curves
    legend_of(corpus, "ten_rates", ["mae"])      # what its lines are

A system keeps its look, a colour and a sign, in every drawing of its corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lnln.evaluate.estimates import Estimate
from lnln.evaluations import BASELINE_TITLES, PLAIN_NUMBERS, format_interval, format_score
from lnln.metrics import TITLES
from lnln.report.data import TEN_RATES, ConfusionCounts, CorpusReport, PrintedLine, SystemReport, constant_of
from lnln.report.svg import Plot, Scale, Tick, curve_legend

# More intervals than this hide each other.
MOST_BANDS = 4
# On a short axis more ticks than this run into each other.
MOST_TICKS = 11


def draw_curves(corpus: CorpusReport, suite: str, metric: str) -> str:
    """`metric` over the missing rate: a curve for each system, its 95% interval as a band while there are few of them.

    Rates that modalities do not share have no place on the axis. Printed curves are of the ten rates alone.
    """
    view, factor = corpus.suites[suite], 1 if metric in PLAIN_NUMBERS else 100
    shared = {place: rate for place, rate in enumerate(view.rates) if not isinstance(rate, tuple)}
    drawn = {index: _at(system, suite, metric, shared) for index, system in enumerate(corpus.systems)}
    drawn = {index: line for index, line in drawn.items() if line}
    constants = _constants(view.baselines, metric)
    printed = printed_of(corpus, suite, metric)
    values = [end for line in drawn.values() for _, each in line for end in (each.value, each.low, each.high)]
    values += [value for _, value in constants] + [value for line in printed for value in line.by_rate[metric]]
    across, up = _rate_scale(shared.values()), _whole_scale(factor * value for value in values)
    plot = Plot(480, 310, left=58, right=16, top=16)
    unit = "" if metric in PLAIN_NUMBERS else ", %"
    plot.axes(_rate_ticks(across, shared.values()), up.ticks(), "missing rate of all modalities", TITLES[metric] + unit)
    for each in printed:
        spots = zip(sorted(shared.values()), each.by_rate[metric], strict=True)
        told = f"{each.method}: {describe_printed(each)}"
        plot.printed([(across.position(rate), up.position(factor * value)) for rate, value in spots], told)
    for name, value in constants:
        y = up.position(factor * value)
        plot.line([(0, y), (1, y)], "axis", f"{name}: {format_score(metric, value)}")
    for index, line in drawn.items() if len(drawn) <= MOST_BANDS else ():
        lower = [(across.position(rate), up.position(factor * each.low)) for rate, each in line]
        upper = [(across.position(rate), up.position(factor * each.high)) for rate, each in line]
        if len(line) > 1:
            plot.spread(lower, upper, index)
        else:
            plot.line([lower[0], upper[0]], "whisker")
    for index, line in drawn.items():
        points = [(across.position(rate), up.position(factor * each.value)) for rate, each in line]
        title = corpus.systems[index].title
        plot.curve(points, [f"{title} at {rate:g}: {_said(metric, each)}" for rate, each in line], index)
    for name, value in constants:  # above the curves that cross it
        plot.text(1, up.position(factor * value), name, "tick end halo", dx=-5, dy=-4)
    ends = [(corpus.systems[index].title, line[0], line[-1]) for index, line in drawn.items()]
    told = "; ".join(
        f"{title} {format_score(metric, first.value)} at {low:g}, {format_score(metric, last.value)} at {high:g}"
        for title, (low, first), (high, last) in ends
    )
    return plot.svg(f"{TITLES[metric]} over the missing rate on {corpus.corpus}: {told}.")


def legend_of(corpus: CorpusReport, suite: str, metrics: Sequence[str]) -> str:
    """What the curves of `metrics` are, as HTML; of printed ones on which split they were selected."""
    lines = {line.method: line for metric in metrics for line in printed_of(corpus, suite, metric)}
    by_kind: dict[str, list[str]] = {}
    for line in lines.values():
        by_kind.setdefault(describe_printed(line), []).append(line.method)
    printed = [f"{kind}: {', '.join(methods)}" for kind, methods in by_kind.items()]
    return curve_legend({index: system.title for index, system in enumerate(corpus.systems)}, printed)


def calibration_legend(corpus: CorpusReport) -> str:
    """What the curves of `draw_calibration` are, as HTML."""
    return curve_legend(
        {index: each.title for index, each in enumerate(corpus.systems) if each.calibration is not None}
    )


def printed_of(corpus: CorpusReport, suite: str, metric: str) -> list[PrintedLine]:
    """The published curves that may be drawn beside ours: of the ten rates and this metric."""
    return [line for line in corpus.printed if suite == TEN_RATES and metric in line.by_rate]


def describe_printed(line: PrintedLine) -> str:
    """Whose number it is and on what the model was selected."""
    selected = "not known on what selected" if line.selection == "unknown" else f"selected on {line.selection}"
    return f"{'trained again by others' if line.status == 'rerun' else 'printed'}, {selected}"


def draw_confusion(confusion: ConfusionCounts) -> str:
    """Labels from top to bottom, predictions from left to right, in percent of each label; the more, the stronger."""
    num = len(confusion.classes)
    plot = Plot(300, 290, left=52, right=10, top=10, bottom=48)
    size = 1 / num
    for row, counts in enumerate(confusion.counts):
        total = sum(counts)
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            if share < 0.005:
                continue
            left, low = column * size, 1 - (row + 1) * size
            label, said = confusion.classes[row], confusion.classes[column]
            told = f"label {label}, prediction {said}: {share:.1%} of the label"
            plot.box((left, low), (left + size, low + size), f"level l{_level(share)}", told)
            plot.text(left + size / 2, low + size / 2, f"{100 * share:.0f}", "label middle", dy=4)
    places = [((index + 0.5) * size, name) for index, name in enumerate(confusion.classes)]
    plot.axes(places, [(1 - place, name) for place, name in places], "prediction", "label", has_grid=False)
    right, total = sum(counts[index] for index, counts in enumerate(confusion.counts)), confusion.total
    told = f"{right / total:.0%} of all are on the diagonal" if total else "there are none"
    return plot.svg(f"Predicted classes by label at missing rate {confusion.rate:g}: {told}.")


def draw_calibration(corpus: CorpusReport) -> str:
    """The estimated completeness over the missing rate of text, and the line on which it should lie: 1 - rate."""
    drawn = [
        (index, system.title, system.calibration)
        for index, system in enumerate(corpus.systems)
        if system.calibration is not None
    ]
    rates = sorted({each.rate for _, _, calibration in drawn for each in calibration.bins})
    across, up = _rate_scale(rates), Scale(-0.03, 1.03)
    plot = Plot(480, 310, left=58, right=16, top=16)
    ticks = [(up.position(part / 4), f"{part / 4:g}") for part in range(5)]
    plot.axes(_rate_ticks(across, rates), ticks, "missing rate of text", "estimated completeness w")
    plot.line([(across.position(rate), up.position(1 - rate)) for rate in (rates[0], rates[-1])], "axis")
    for index, title, calibration in drawn:
        for each in calibration.bins:
            x = across.position(each.rate)
            plot.line([(x, up.position(each.mean - each.sd)), (x, up.position(each.mean + each.sd))], "whisker")
        told = [f"{title} at {each.rate:g}: {each.mean:.2f} ± {each.sd:.2f}" for each in calibration.bins]
        points = [(across.position(each.rate), up.position(each.mean)) for each in calibration.bins]
        plot.curve(points, told, index)
    off = "; ".join(f"{title} is off by {calibration.gap.value:.2f}" for _, title, calibration in drawn)
    return plot.svg(f"Estimated completeness over the missing rate of text: {off}.")


def _at(system: SystemReport, suite: str, metric: str, shared: dict[int, float]) -> list[tuple[float, Estimate]]:
    """(rate, score) in the order of the rates; empty where the system was not scored so."""
    scores = system.scores.get(suite)
    if scores is None or metric not in scores.by_rate:
        return []
    return sorted(((rate, scores.by_rate[metric][place]) for place, rate in shared.items()), key=lambda each: each[0])


def _said(metric: str, estimate: Estimate) -> str:
    return f"{format_score(metric, estimate.value)} ({format_interval(metric, (estimate.low, estimate.high))})"


def _constants(baselines: dict[str, dict[str, float]], metric: str) -> list[tuple[str, float]]:
    """The constant answer that this metric is held against; none for a correlation, which it does not have."""
    name = constant_of(metric)
    if metric == "corr" or metric not in baselines.get(name, {}):
        return []
    return [(BASELINE_TITLES[name], baselines[name][metric])]


def _whole_scale(values: Iterable[float]) -> Scale:
    """Room for all of them."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    room = 0.05 * (high - low) or max(abs(low) * 0.05, 1e-6)
    return Scale(low - room, high + room)


def _rate_scale(rates: Iterable[float]) -> Scale:
    found = list(rates)
    return Scale(min(found, default=0.0) - 0.02, max(found, default=1.0) + 0.02)


def _rate_ticks(across: Scale, rates: Iterable[float]) -> list[Tick]:
    ordered = sorted(set(rates))
    return [(across.position(rate), f"{rate:g}") for rate in ordered[:: -(-len(ordered) // MOST_TICKS) or 1]]


def _level(share: float) -> int:
    """Of the page's styles, but for the strongest, on which numbers could not be read."""
    return next(level for level, least in enumerate((0.6, 0.4, 0.25, 0.12, 0.05, 0.0), start=1) if share >= least)
