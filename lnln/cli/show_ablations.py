"""What `lnln ablate` shows: each part left out, what that costs over ten missing rates, and at the highest ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich.console
import rich.table

from lnln.cli.console import Console, table
from lnln.config import to_dict

if TYPE_CHECKING:
    from lnln.evaluate.paired import Difference
    from lnln.train.ablations import Ablations, Setting


def ablations(console: Console, made: Ablations, *, command: str) -> None:
    """command: `lnln` as the user has to write it."""
    from lnln.evaluate.comparison import HIGH_RATES

    high = ", ".join(f"{rate:g}" for rate in HIGH_RATES)
    settings = [setting for setting in made.settings.values() if setting.scores is not None]
    titles = {
        f"{made.corpus} {made.split}: means over ten missing rates, differences to the base": None,
        f"the same over the missing rates {high} alone": HIGH_RATES,
    }
    tables = [_table(settings, rates, title) for title, rates in titles.items() if settings]
    report = report_command(made, command)
    lines = [f"left out: {name} ({reason})" for name, reason in made.left_out.items()]
    lines += [f"{setting.title}: {_say_failures(setting)}" for setting in made.settings.values() if setting.failed]
    lines += _cautions(settings)
    if report:
        lines.append(f"see all of it: {report}")
    value = {
        "corpus": made.corpus,
        "split": made.split,
        "high_rates": list(HIGH_RATES),
        "settings": {name: _setting(setting) for name, setting in made.settings.items()},
        "left_out": dict(made.left_out),
        "report": report,
    }
    console.result(value, table=rich.console.Group(*tables) if tables else None, lines=lines)


def report_command(made: Ablations, command: str) -> str:
    """What writes the report of all runs, each setting under its title; "" where there is no run."""
    names = [f"{setting.title}={run.run_id}" for setting in made.settings.values() for run in setting.runs.values()]
    split = [] if made.split == "test" else ["--split", made.split]
    return f"{command} {shlex.join(['report', *names, *split])}" if names else ""


def _table(settings: Sequence[Setting], rates: Sequence[float] | None, title: str) -> rich.table.Table:
    from lnln.evaluate.paired import format_difference
    from lnln.evaluations import format_score
    from lnln.metrics import TITLES, accuracy_names

    assert settings and settings[0].scores is not None
    metrics = ("mae", "corr", accuracy_names(settings[0].scores.label_range)[0])
    columns = ["setting", "seeds", *(word for metric in metrics for word in (TITLES[metric], "difference (95%)"))]
    rows = []
    for setting in settings:
        assert setting.scores is not None
        found = setting.scores.mean if rates is None else setting.scores.over(rates)
        differences = (setting.differences if rates is None else setting.high) or {}
        cells = []
        for metric in metrics:
            difference = differences.get(metric)
            said = "" if difference is None else format_difference(metric, difference)
            cells += [format_score(metric, found[metric].value), f"{said}{_mark(difference)}"]
        rows.append([setting.title, len(setting.runs), *cells])
    return table(columns, rows, title)


def _mark(difference: Difference | None) -> str:
    """A star where the difference is shown, so that a row can be read at a glance."""
    return "" if difference is None or difference.is_better is None else " *"


def _cautions(settings: Sequence[Setting]) -> list[str]:
    compared = [setting for setting in settings if setting.differences]
    differences = [each for setting in compared for each in (setting.differences or {}).values()]
    lines = []
    if compared:
        lines.append(
            f"* the interval does not hold 0; of {len(compared)} ablation{'' if len(compared) == 1 else 's'} in three "
            "metrics some are by chance alone"
        )
    if any(not each.counts_training for each in differences):
        lines.append(
            "Intervals of a single seed do not say what another seed would change; train several (--seeds 1,2,3)."
        )
    return lines


def _say_failures(setting: Setting) -> str:
    return "; ".join(f"seed {seed} failed: {reason}" for seed, reason in setting.failed.items())


def _setting(setting: Setting) -> dict[str, Any]:
    scores = setting.scores
    return {
        "title": setting.title,
        "source": setting.source,
        "runs": {str(seed): run.run_id for seed, run in setting.runs.items()},
        "failed": {str(seed): reason for seed, reason in setting.failed.items()},
        "mean": None if scores is None else to_dict(scores.mean),
        "differences": _differences(setting.differences),
        "high": _differences(setting.high),
    }


def _differences(differences: Mapping[str, Difference] | None) -> dict[str, Any] | None:
    if differences is None:
        return None
    return {metric: {**to_dict(each), "word": each.word} for metric, each in differences.items()}
