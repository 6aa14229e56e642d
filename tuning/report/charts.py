"""The charts of a study's page, each as SVG text from the record or from what was learnt of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lnln.report.markup import percent
from lnln.report.svg import Mark, Plot, Point, Scale
from tuning.objectives import objective as objective_called
from tuning.record import Study, TrialRecord
from tuning.report.axis import Axis
from tuning.report.importance import CELLS, PLACES, Importance, Learnt, axes, scored
from tuning.report.stability import OUTCOMES, Stability
from tuning.select import pareto_front, ranked_trials

NUM_LEVELS = 7


def draw_history(study: Study, objective: str) -> str:
    """Score over trial number, and the best so far; trials without a score along the upper edge."""
    trials = scored(study, objective)
    scale = Scale.of(trial.values[objective] for trial in trials)
    last = max((trial.number for trial in study.trials), default=0)
    across = Scale(-0.5 - 0.02 * last, last + 0.5 + 0.02 * last)
    plot = Plot(540, 280, left=62, top=30)
    label = objective_called(objective).title
    plot.axes(_whole(across), scale.ticks(), "trial", f"validation {label}")
    is_better = objective_called(objective).better
    steps: list[Point] = []
    best = math.nan
    for trial in sorted(trials, key=lambda trial: trial.number):
        x = across.position(trial.number)
        if steps:
            steps.append((x, scale.position(best)))
        best = trial.values[objective] if math.isnan(best) or is_better(trial.values[objective], best) else best
        steps.append((x, scale.position(best)))
    if len(steps) > 1:
        plot.line([*steps, (1, steps[-1][1])], "bestline")
    marks = _marks(study)
    for trial, mark in _best_last(trials, marks):
        y = scale.position(trial.values[objective])
        if trial.is_configured:
            plot.line([(0, y), (1, y)], "configuredline")
        plot.mark(across.position(trial.number), y, mark, _told(trial, objective))
    for trial in _unscored(study):
        plot.mark(across.position(trial.number), 1.06, marks[trial.number], _told(trial, objective))
    ends = f", best {best:.4f}" if steps else ""
    return plot.svg(f"{label} of {len(trials)} complete trials over the trial's number{ends}.")


def draw_curves(study: Study) -> str:
    """Validation MAE by epoch, a line for each training."""
    drawn = [
        (trial, mark, result.valid_mae_by_epoch)
        for trial, mark in _best_last(study.trials, _marks(study))
        for result in trial.seeds
        if result.valid_mae_by_epoch and all(map(math.isfinite, result.valid_mae_by_epoch))
    ]
    scale = Scale.of(mae for _, _, curve in drawn for mae in curve)
    across = Scale(0.8, max((len(curve) for _, _, curve in drawn), default=1) + 0.2)
    plot = Plot(540, 280, left=62, top=30)
    plot.axes(_whole(across), scale.ticks(), "epoch", "validation MAE")
    styles: dict[Mark, str] = {"best": "bestline", "configured": "configuredline", "pruned": "cut"}
    for trial, mark, curve in drawn:
        points = [(across.position(epoch), scale.position(mae)) for epoch, mae in enumerate(curve, start=1)]
        if len(points) > 1:
            plot.line(points, styles.get(mark, "thin"), _told(trial, study.first_objective))
        else:
            plot.mark(*points[0], mark, _told(trial, study.first_objective))
    return plot.svg(f"Validation MAE by epoch of {len(drawn)} trainings; pruned ones end early.")


def draw_importances(importances: Sequence[Importance]) -> str:
    """A bar for each, its spread as a whisker, what chance would give as a dashed line across."""
    longest = max(max(each.share, each.high, each.by_chance) for each in importances)
    end = next(end for end in (0.1, 0.2, 0.4, 1.0) if longest <= end or end == 1)
    names = [" × ".join(each.parameters) for each in importances]
    left = max(60, 18 + int(6.2 * max(map(len, names))))
    plot = Plot(430, 56 + 28 * len(importances), left=left, right=22)
    plot.axes([(part / 4, f"{100 * end * part / 4:g}%") for part in range(5)], [], "share", "")
    height = 1 / len(importances)
    for index, (each, name) in enumerate(zip(importances, names, strict=True)):
        middle = 1 - (index + 0.5) * height
        told = f"{name}: {percent(each.share)}, spread {percent(each.low)} to {percent(each.high)}, by chance up to "
        share, low, high, chance = (value / end for value in (each.share, each.low, each.high, each.by_chance))
        plot.box((0, middle - 0.3 * height), (share, middle + 0.3 * height), "bar", told + percent(each.by_chance))
        plot.line([(low, middle), (high, middle)], "whisker")
        for x in (low, high):
            plot.line([(x, middle - 0.12 * height), (x, middle + 0.12 * height)], "whisker")
        plot.line([(chance, middle - 0.42 * height), (chance, middle + 0.42 * height)], "chance")
        plot.text(0, middle, name, "label end", dx=-8, dy=4)
    shown = "; ".join(f"{name} {percent(each.share)}" for name, each in zip(names, importances, strict=True))
    return plot.svg(f"{importances[0].method} shares: {shown}.")


def draw_slice(study: Study, learnt: Learnt, axis: Axis) -> str:
    """Score over one parameter; the forest's mean over the others and its spread, where trials are enough for it."""
    objective = learnt.objective
    trials = scored(study, objective)
    found = learnt.slices.get(axis.name)
    scale = Scale.of(trial.values[objective] for trial in trials)
    plot = Plot(360, 260, left=58, top=26)
    plot.axes(axis.ticks(), scale.ticks(), axis.name, f"validation {objective_called(objective).title}")
    _shade_zeros(plot, axis)
    if found is not None:
        lower, upper, mean = (
            [(float(x), scale.position(y)) for x, y in zip(PLACES, ys, strict=True)]
            for ys in (found.low, found.high, found.mean)
        )
        plot.area(lower, upper, "band")
        plot.line(mean, "main")
    marks = _marks(study)
    for trial, mark in _best_last(trials, marks):
        x = axis.position(trial.parameters[axis.name])
        plot.mark(x, scale.position(trial.values[objective]), mark, _told(trial, objective))
    for trial in _unscored(study):
        if axis.name in trial.parameters:
            x = axis.position(trial.parameters[axis.name])
            plot.mark(x, 1.06, marks[trial.number], _told(trial, objective))
    return plot.svg(f"{objective_called(objective).title} of {len(trials)} complete trials over {axis.name}.")


def draw_contour(study: Study, learnt: Learnt, across: Axis, up: Axis) -> str:
    """The forest's mean over two parameters, in levels that are those of all contours of its objective; the trials."""
    means = learnt.contours[across.name, up.name]
    objective = learnt.objective
    plot = Plot(360, 320, left=66)
    best, worst = contour_ends(learnt)
    # Level 0 is the best.
    levels = ((means - best) / ((worst - best) or 1) * NUM_LEVELS).clip(0, NUM_LEVELS - 1).astype(int)
    half = (CELLS[1] - CELLS[0]) / 2
    for row, y in enumerate(CELLS):
        start = 0
        for column in range(1, len(CELLS) + 1):
            if column == len(CELLS) or levels[column, row] != levels[start, row]:
                box = (CELLS[start] - half, y - half), (CELLS[column - 1] + half, y + half)
                plot.box(*box, f"level l{levels[start, row]}")
                start = column
    plot.axes(across.ticks(), up.ticks(), across.name, up.name)
    for trial, mark in _best_last([*scored(study, objective), *_unscored(study)], _marks(study)):
        if {across.name, up.name} <= set(trial.parameters):
            x, y = (axis.position(trial.parameters[axis.name]) for axis in (across, up))
            plot.mark(x, y, mark, _told(trial, objective))
    label = objective_called(objective).title
    return plot.svg(
        f"Mean {label} over {across.name} and {up.name}, strongest {best:.4f}, faintest {worst:.4f} or worse."
    )


def contour_ends(learnt: Learnt) -> tuple[float, float]:
    """The mean score whose colour is strongest in all contours of an objective, and that from which on it is faintest.

    The worst quarter of all cells is faint, whatever its scores, so that a bad corner leaves levels to the rest.
    """
    cells = np.concatenate([means.ravel() for means in learnt.contours.values()])
    if objective_called(learnt.objective).direction == "maximize":
        return float(cells.max()), float(np.quantile(cells, 0.25))
    return float(cells.min()), float(np.quantile(cells, 0.75))


def draw_parallel(study: Study, objective: str) -> str:
    """A line for each complete trial through its parameters to its score; the best quarter stands out."""
    along = axes(study)
    trials = scored(study, objective)
    scale = Scale.of(trial.values[objective] for trial in trials)
    plot = Plot(max(520, 130 * (len(along) + 1)), 320, left=46, right=60, top=26, bottom=24)
    columns = [(axis.name, axis.ticks()) for axis in along] + [(objective_called(objective).title, scale.ticks())]
    is_lower_better = study.directions[objective] == "minimize"
    ranked = sorted(trials, key=lambda trial: trial.values[objective], reverse=is_lower_better)
    marks = _marks(study)
    styles: dict[Mark, str] = {"best": "bestline", "configured": "configuredline"}
    for index, trial in enumerate(ranked):
        places = [axis.position(trial.parameters[axis.name]) for axis in along]
        places.append(scale.position(trial.values[objective]))
        points = [(column / len(along), place) for column, place in enumerate(places)]
        quarter = 3 - 4 * index // len(ranked)
        plot.line(points, styles.get(marks[trial.number], f"s{quarter}"), _told(trial, objective))
    for column, (name, ticks) in enumerate(columns):
        x = column / len(along)
        plot.line([(x, 0), (x, 1)], "axis")
        plot.text(x, 1, name, "label middle", dy=-10)
        for place, label in ticks:
            plot.text(x, place, label, "tick", dx=5, dy=3.5)
    names = ", ".join(axis.name for axis in along)
    return plot.svg(
        f"Parallel coordinates of {len(trials)} complete trials: {names}, {objective_called(objective).title}."
    )


def draw_front(study: Study, across: str, up: str) -> str:
    """Two objectives against each other; the trials that nothing beats in all objectives are joined."""
    trials = [trial for trial in scored(study, across) if math.isfinite(trial.values.get(up, math.nan))]
    scales = [Scale.of(trial.values[name] for trial in trials) for name in (across, up)]
    plot = Plot(400, 320, left=62)
    plot.axes(
        scales[0].ticks(4),
        scales[1].ticks(),
        f"validation {objective_called(across).title}",
        f"validation {objective_called(up).title}",
    )

    def place(trial: TrialRecord) -> Point:
        return scales[0].position(trial.values[across]), scales[1].position(trial.values[up])

    front = [trial for trial in pareto_front(study) if trial in trials]
    points = sorted(place(trial) for trial in front)
    if len(points) > 1:
        plot.line(points, "main")
    for trial, mark in _best_last(trials, _marks(study)):
        plot.mark(*place(trial), mark, f"{_told(trial, across)}, {objective_called(up).title} {trial.values[up]:.4f}")
    numbers = ", ".join(str(trial.number) for trial in front) or "none"
    return plot.svg(
        f"{objective_called(up).title} over {objective_called(across).title}; the front is of trials {numbers}."
    )


def draw_stability(rows: Sequence[Stability], axis: Axis) -> str:
    """Share of each outcome by bin of one parameter, with its 95% interval; three marks side by side."""
    signs: dict[str, Mark] = {"diverged": "failed", "collapsed": "pruned", "failed": "complete"}
    plot = Plot(480, 260, left=58)
    plot.axes(axis.ticks(), [(part / 4, f"{25 * part}%") for part in range(5)], axis.name, "share of trials")
    _shade_zeros(plot, axis)
    for row in rows:
        for edge in (row.start, row.end):
            plot.line([(edge, 0), (edge, 1)], "grid")
    for row in rows:
        if row.share is None:
            continue
        x = row.start + (row.end - row.start) * (OUTCOMES.index(row.outcome) + 1) / (len(OUTCOMES) + 1)
        told = f"{row.outcome} at {row.label}: {row.num_bad} of {row.num_trials}"
        plot.line([(x, row.low), (x, row.high)], "whisker", told)
        plot.mark(x, row.share, signs[row.outcome], told)
    shown = "; ".join(f"{row.outcome} at {row.label} {row.num_bad} of {row.num_trials}" for row in rows if row.num_bad)
    return plot.svg(f"Share of diverged, collapsed and failed trials over {axis.name}: {shown or 'none in any bin'}.")


def _unscored(study: Study) -> list[TrialRecord]:
    """Those that ended without a score; their marks lie along the upper edge."""
    return [*study.of_state("pruned"), *study.of_state("failed")]


def _shade_zeros(plot: Plot, axis: Axis) -> None:
    if axis.span.zero:
        plot.box((0, 0), (axis.span.zero, 1), "zero")


def _whole(scale: Scale) -> list[tuple[float, str]]:
    return [tick for tick in scale.ticks(8) if "." not in tick[1] and "-" not in tick[1]]


def _marks(study: Study) -> dict[int, Mark]:
    """By trial number; those that ended without a score have marks of their own, others are as complete ones."""
    ranked = ranked_trials(study)
    marks: dict[int, Mark] = {trial.number: "complete" for trial in study.trials}
    marks |= {trial.number: "configured" for trial in study.trials if trial.is_configured}
    marks |= {trial.number: "pruned" for trial in study.of_state("pruned")}
    marks |= {trial.number: "failed" for trial in study.of_state("failed")}
    return marks | ({ranked[0].number: "best"} if ranked else {})


def _best_last(trials: Sequence[TrialRecord], marks: Mapping[int, Mark]) -> list[tuple[TrialRecord, Mark]]:
    """With their marks, so ordered that no other mark hides the configured trial or the best."""
    order = ("failed", "pruned", "complete", "configured", "best")
    return sorted(
        ((trial, marks[trial.number]) for trial in trials), key=lambda each: (order.index(each[1]), each[0].number)
    )


def _told(trial: TrialRecord, objective: str) -> str:
    name = f"trial {trial.number}{' (configured)' if trial.is_configured else ''}"
    if objective not in trial.values:
        return f"{name}: {trial.state}"
    settings = ", ".join(f"{key} {value:.3g}" for key, value in trial.parameters.items())
    return f"{name}: {objective_called(objective).title} {trial.values[objective]:.4f}; {settings}"
