"""The rows of a study's report: as text for people, as values for `*.csv`.

importance_rows(learnt.importances), stability_rows(rows)      # as the page shows them
files(study, learnt)["trials.csv"]                             # as programs read them
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lnln.report.markup import percent
from tuning.objectives import objective as objective_called
from tuning.record import Study, TrialRecord
from tuning.report.importance import Importance, Learnt
from tuning.report.stability import Stability, stability
from tuning.select import ranked_trials


def trial_rows(study: Study) -> list[dict[str, str]]:
    """A row per trial, the best first, then those without a score."""
    rest = [trial for trial in study.trials if trial.state != "complete"]
    return [_trial_row(trial, study) for trial in [*ranked_trials(study), *rest]]


def importance_rows(importances: Sequence[Importance]) -> list[dict[str, str]]:
    """A row per parameter or pair, as they come."""
    return [
        {
            "parameter" if len(each.parameters) == 1 else "parameters": " × ".join(each.parameters),
            "measure": each.method,
            "share": percent(each.share),
            "spread": f"{percent(each.low)} to {percent(each.high)}",
            "by chance up to": percent(each.by_chance),
            "above chance": "yes" if each.is_above_chance else "no",
        }
        for each in importances
    ]


def stability_rows(rows: Sequence[Stability]) -> list[dict[str, str]]:
    """A row per bin and outcome."""
    return [
        {
            row.parameter: row.label,
            "outcome": row.outcome,
            "trials": f"{row.num_bad} of {row.num_trials}",
            "share": "" if row.share is None else percent(row.share),
            "95% interval": "" if row.share is None else f"{percent(row.low)} to {percent(row.high)}",
        }
        for row in rows
    ]


def files(study: Study, learnt: Sequence[Learnt]) -> dict[str, bytes]:
    """The CSV files by name; a file without rows has its columns."""
    shares = ["share", "low", "high", "by_chance", "num_complete", "num_pruned", "num_resamples"]
    parameters, objectives = list(study.space.ranges), list(study.directions)
    trials = [
        "number",
        "state",
        "is_configured",
        *parameters,
        *(f"validation_{name}" for name in objectives),
        "valid_mae",
        "collapse_share",
        "seconds",
        "has_diverged",
        "reason",
    ]
    bins = ["parameter", "bin", "outcome", "num_bad", "num_trials", "share", "low", "high"]
    return {
        "trials.csv": _csv(trials, [_trial_values(trial, study) for trial in study.trials]),
        "importances.csv": _csv(
            ["objective", "method", "parameter", *shares],
            [
                {**_shares(each, found), "method": each.method, "parameter": each.parameters[0]}
                for found in learnt
                for each in found.importances
            ],
        ),
        "interactions.csv": _csv(
            ["objective", "parameter_a", "parameter_b", *shares],
            [
                {**_shares(each, found), "parameter_a": each.parameters[0], "parameter_b": each.parameters[1]}
                for found in learnt
                for each in found.interactions
            ],
        ),
        "stability.csv": _csv(bins, [_bin_values(row) for row in stability(study)]),
        "curves.csv": _csv(
            ["number", "state", "seed", "epoch", "valid_mae"],
            [
                {"number": trial.number, "state": trial.state, "seed": result.seed, "epoch": epoch, "valid_mae": mae}
                for trial in study.trials
                for result in trial.seeds
                for epoch, mae in enumerate(result.valid_mae_by_epoch, start=1)
            ],
        ),
    }


def _trial_row(trial: TrialRecord, study: Study) -> dict[str, str]:
    return {
        "trial": f"{trial.number} (configured)" if trial.is_configured else str(trial.number),
        "state": "diverged" if trial.has_diverged else trial.state,
        **{
            f"validation {objective_called(name).title}": f"{trial.values[name]:.4f}" if name in trial.values else ""
            for name in study.directions
        },
        **{name: f"{trial.parameters[name]:.3g}" if name in trial.parameters else "" for name in study.space.ranges},
        "best epoch": ", ".join(str(result.best_epoch) for result in trial.seeds) if trial.state == "complete" else "",
        "one class": "" if trial.collapse_share is None else percent(trial.collapse_share),
        "seconds": "" if trial.seconds is None else f"{trial.seconds:.0f}",
        "reason": trial.reason or "",
    }


def _trial_values(trial: TrialRecord, study: Study) -> dict[str, Any]:
    same = ("number", "state", "is_configured", "valid_mae", "collapse_share", "seconds", "has_diverged", "reason")
    return {
        **{key: getattr(trial, key) for key in same},
        **{name: trial.parameters.get(name) for name in study.space.ranges},
        **{f"validation_{name}": trial.values.get(name) for name in study.directions},
    }


def _shares(each: Importance, found: Learnt) -> dict[str, Any]:
    same = {key: getattr(each, key) for key in ("objective", "share", "low", "high", "by_chance")}
    counts = {key: getattr(found, key) for key in ("num_complete", "num_pruned", "num_resamples")}
    return {**same, **counts}


def _bin_values(row: Stability) -> dict[str, Any]:
    same = ("parameter", "outcome", "num_bad", "num_trials", "share", "low", "high")
    return {"bin": row.label, **{key: getattr(row, key) for key in same}}


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
