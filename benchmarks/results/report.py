"""The report on the main systems: what single scores do not say of them, and what stays of that.

    benchmarks/scores/<corpus>/report.json

It is what `lnln report` makes its page of (lnln/report/data.py) for the runs of the plan's first group of systems, with
the group's `against` as the reference, and without examples and single views: nothing in it is of one utterance.
`make results ONLY=report` makes it from the runs that the store has; a run that is not there is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results.code import code_fingerprint
from benchmarks.results.plan import REPORT, Group, Plan
from benchmarks.results.scores import features_digest, read_all, write_record
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import line
from lnln.report import ReportData, collect
from lnln.report.data import CorpusReport
from lnln.runs import is_finished, run_id_for

# Raised when the same runs would be stored otherwise.
FORMAT = 1
SUITES = ("ten_rates", "absent")
DIGITS = 6


@dataclass(frozen=True)
class MainReport:
    """source_sha256, manifest_digest (`features_digest`): of the features. code: what collected it."""

    data: ReportData
    source_sha256: str
    manifest_digest: str
    code: str

    @property
    def corpus(self) -> CorpusReport:
        return self.data.corpora[0]

    def is_of(self, plan: Plan, manifest: FeatureManifest | None = None) -> bool:
        """Whether this is of systems that the plan has now. manifest: and on these features."""
        group = main_group(plan)
        if group is None or self.corpus.corpus != plan.corpus:
            return False
        known = {run_name(plan, group, experiment.name) for experiment in group.experiments}
        titles = {system.title.removesuffix(SELECTED) for system in self.corpus.models}
        return (
            titles <= known
            and self.corpus.reference == reference_title(plan)
            and (
                manifest is None
                or (self.corpus.feature_id, self.manifest_digest) == (manifest.feature_id, features_digest(manifest))
            )
        )


# How `score_systems` marks the weights of a system that were selected on test.
SELECTED = " (selected on test)"


def main_group(plan: Plan) -> Group | None:
    """The first group of systems."""
    return next((group for group in plan.groups if group.kind == "systems"), None)


def reference_title(plan: Plan) -> str:
    """Of the system that the others are compared with."""
    group = main_group(plan)
    assert group is not None, "asked of a plan that has one"
    return run_name(plan, group, group.against)


def run_name(plan: Plan, group: Group, name: str) -> str:
    """What the report calls the system of an experiment: the title of the first that trains the same."""
    seed = plan.experiment(name).seeds[0]
    wanted = plan.experiment(name).config(seed)
    return next(each.title for each in group.experiments if each.config(seed) == wanted)


def wants_report(plan: Plan, only: str | None) -> bool:
    """Whether the report is among those that `only` names, with commas between; None names everything."""
    return main_group(plan) is not None and (only is None or REPORT in _names(only))


def without_report(only: str | None) -> str | None:
    """`only` without the report; empty where it was all."""
    return None if only is None else ",".join(name for name in _names(only) if name != REPORT)


def report_path(folder: Path, plan: Plan) -> Path:
    return folder / plan.corpus / "report.json"


def make_report(plan: Plan, store: Store, folder: Path) -> None:
    """Score what is not scored yet, and write the file; RefusedError where the store has no run of the systems."""
    names, manifest = report_names(plan, store, folder), read_features(store, plan.corpus)
    if not names:
        raise RefusedError(
            f"{store.url} has no finished run of the system with which the report compares the others; `make results "
            "ONLY=main` trains it"
        )
    reference = reference_title(plan)
    data = collect(store, names, SUITES, mask_seeds=plan.mask_seeds, reference=reference, with_examples=False)
    made = MainReport(
        data.without_utterances(), str(manifest.source["sha256"]), features_digest(manifest), code_fingerprint()
    )
    write_report(report_path(folder, plan), made)
    line(f"report on {len(names)} trainings: {report_path(folder, plan)}")


def report_names(plan: Plan, store: Store, folder: Path) -> list[str]:
    """`TITLE=RUN` of every finished run of the group in the store; none without one of the reference.

    folder: of the scores, which know the runs of configs that have got further keys since.
    """
    group, manifest = main_group(plan), read_features(store, plan.corpus)
    scores = read_all(folder, plan, manifest)
    found: dict[str, str] = {}
    for experiment in group.experiments if group is not None else ():
        for seed in experiment.seeds:
            scored = scores.get((experiment.name, seed))
            now = run_id_for(experiment.config(seed), plan.corpus, manifest)
            run_id = now if scored is None else scored.run_id
            if run_id not in found and is_finished(store, run_id):
                found[run_id] = experiment.title
    if reference_title(plan) not in found.values():
        return []
    return [f"{title}={run_id}" for run_id, title in found.items()]


def is_report_missing(plan: Plan, store: Store, folder: Path, code: str | None = None) -> bool:
    """Whether the store has other runs than the stored report is of. code: or it was made by other code than this."""
    manifest = read_features(store, plan.corpus)
    found = read_report(folder, plan, manifest)
    if found is None or code not in (None, found.code):
        return bool(report_names(plan, store, folder))
    return sorted(found.data.names) != sorted(report_names(plan, store, folder))


def read_report(
    folder: Path, plan: Plan, manifest: FeatureManifest | None = None, source_sha256: str | None = None
) -> MainReport | None:
    """What is stored, None where nothing is or it is of other systems; RefusedError if damaged.

    manifest: of the features that it must be of. source_sha256: of the file that everything else is of; a report on
    another is refused.
    """
    path = report_path(folder, plan)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            return None
        found = MainReport(
            ReportData.from_dict(values["report"]), values["source_sha256"], values["manifest_digest"], values["code"]
        )
        num = len(found.data.corpora)
    except FileNotFoundError:
        return None
    except (RefusedError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{path} holds no report ({type(error).__name__}: {error}); `make results ONLY={REPORT}` makes it again"
        ) from error
    if num != 1:
        raise RefusedError(f"{path} is of {num} corpora, expected 1; `make results ONLY={REPORT}` makes it again")
    expected = source_sha256 if manifest is None else str(manifest.source["sha256"])
    if expected is not None and found.source_sha256 != expected:
        raise RefusedError(
            f"{path} is of data with SHA-256 {found.source_sha256[:12]}, this is {expected[:12]}: the two do not "
            "compare; give DATA that file, or another corpus name in the plan"
        )
    return found if found.is_of(plan, manifest) else None


def write_report(path: Path, made: MainReport) -> None:
    """Whole or not at all."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "source_sha256": made.source_sha256,
        "manifest_digest": made.manifest_digest,
        "code": made.code,
        "report": _rounded(made.data.to_dict()),
    }
    write_record(path, values)


def _names(only: str) -> list[str]:
    return [name.strip() for name in only.split(",")]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, (list, tuple)) else value
