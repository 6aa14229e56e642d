"""The plan's study over the loss weights, and the choice from it: searched, trained again, and what stays of both.

    benchmarks/scores/<corpus>/search.json

It holds the study without its reasons, which may name utterances; the choice; and the importances, so that a page does
not depend on the version of what computed them. It is written when all of it is done; until then the store has what
there is, and the same call continues.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results.code import code_fingerprint, is_made_by, record_code
from benchmarks.results.plan import Plan, SearchPlan
from benchmarks.results.run import device_class, remove_checkpoints, remove_run
from benchmarks.results.scores import features_digest, write_record
from lnln.config import Config
from lnln.data.lease import held
from lnln.data.lock import remove_held
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import line
from lnln.runs import run_folder, trained_values
from tuning.choice import Choice, candidates_of
from tuning.record import STUDY_FILE, SeedResult, Study, TrialRecord, load_study, study_folder
from tuning.report.importance import Importance
from tuning.space import Space

# Raised when the same search would be stored otherwise.
FORMAT = 1


@dataclass(frozen=True)
class Search:
    """A study and the choice from it. importances: of the first objective, single parameters and pairs; too_little: why
    there are none, or empty. manifest_digest: see `features_digest`. device: its hardware class. code: what trained and
    scored it, several with + between (`benchmarks.results.code`)."""

    study: Study
    choice: Choice
    importances: tuple[Importance, ...]
    too_little: str
    synthetic: bool
    source_sha256: str
    manifest_digest: str
    device: str
    code: str

    @classmethod
    def of(cls, study: Study, choice: Choice, manifest: FeatureManifest, device: str, code: str) -> Search:
        """What may be shared of both, and what the study says of its parameters."""
        from tuning.report.importance import learn

        learnt = learn(study, study.first_objective)
        candidates = tuple(dataclasses.replace(each, reason=each.reason and "diverged") for each in choice.candidates)
        trials = tuple(dataclasses.replace(trial, reason=None) for trial in study.trials)
        return cls(
            study=dataclasses.replace(study, trials=trials),
            choice=dataclasses.replace(choice, candidates=candidates),
            importances=(*learnt.importances, *learnt.interactions),
            too_little=learnt.too_little,
            synthetic=bool(manifest.source.get("synthetic", False)),
            source_sha256=str(manifest.source["sha256"]),
            manifest_digest=features_digest(manifest),
            device=device,
            code=code,
        )

    def is_of(self, plan: Plan, manifest: FeatureManifest | None = None) -> bool:
        """Whether this is the search that the plan has now. manifest: and on these features."""
        wanted = plan.search
        try:
            config = self.study.trained_config()
        except RefusedError:  # of a version with other keys
            return False
        return (
            wanted is not None
            and self.study.corpus == plan.corpus
            and _comparable(config) == _comparable(wanted.config())
            and self.study.space == wanted.space
            and num_done(self.study) >= wanted.num_trials
            and self.choice.seeds == tuple(sorted(wanted.seeds))
            and len(self.choice.candidates) == len(candidates_of(self.study, wanted.num_candidates))
            and (
                manifest is None
                or (self.study.feature_id, self.manifest_digest) == (manifest.feature_id, features_digest(manifest))
            )
        )


def search_path(folder: Path, plan: Plan) -> Path:
    return folder / plan.corpus / "search.json"


def is_search_missing(plan: Plan, folder: Path, manifest: FeatureManifest, code: str | None = None) -> bool:
    """Whether the plan has a search that is not stored. code: or was made by other code than this."""
    found = read_search(folder, plan, manifest)
    return plan.search is not None and (found is None or code not in (None, found.code))


def read_search(
    folder: Path, plan: Plan, manifest: FeatureManifest | None = None, source_sha256: str | None = None
) -> Search | None:
    """What is stored of the plan's search, None where nothing is; RefusedError if damaged.

    manifest: of the features that it must be of. source_sha256: of the file that everything else is of; a search on
    another is refused.
    """
    path = search_path(folder, plan)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            return None
        search = _decode(values)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{path} holds no search ({type(error).__name__}: {error}); remove it and run `make results` again"
        ) from error
    expected = source_sha256 if manifest is None else str(manifest.source["sha256"])
    if expected is not None and search.source_sha256 != expected:
        raise RefusedError(
            f"{path} is of data with SHA-256 {search.source_sha256[:12]}, this is {expected[:12]}: the two do not "
            "compare; give DATA that file, or another corpus name in the plan"
        )
    return search if search.is_of(plan, manifest) else None


def search_and_choose(plan: Plan, store: Store, folder: Path, *, retrain_older_code: bool = False) -> None:
    """The study, the choice from it, and the file of both, in this process; one training at a time."""
    from tuning.choose import choose
    from tuning.sweep import study_id_for, tune

    wanted = plan.search
    assert wanted is not None
    manifest, config = read_features(store, plan.corpus), wanted.config()
    study_id = study_id_for(plan.corpus, manifest.feature_id, config, wanted.space)
    place, code = study_folder(study_id), code_fingerprint()
    # What this code has begun is continued.
    if retrain_older_code and not is_made_by(store, place, code, STUDY_FILE):
        remove_search(store, wanted, study_id, manifest)
    record_code(store, place, code, STUDY_FILE)
    study = tune(store, plan.corpus, config, num_trials=wanted.num_trials, space=wanted.space)
    if num_done(study) < wanted.num_trials:
        raise RefusedError(
            f"study {study_id} has {num_done(study)} of {wanted.num_trials} trials, since some failed; the same "
            "command continues it"
        )
    choice = choose(store, study_id, seeds=wanted.seeds, num_candidates=wanted.num_candidates, num_parallel=1)
    # Hours later the files may be others.
    made_by = record_code(store, place, code_fingerprint(), STUDY_FILE)
    write_search(search_path(folder, plan), Search.of(study, choice, manifest, device_class(), made_by))
    line(f"search: {choice.verdict}; {search_path(folder, plan)}")
    for setting in (choice.configured, *choice.candidates):
        for run in setting.runs:
            remove_checkpoints(store, run.run_id)


def num_done(study: Study) -> int:
    """Trials that count as tried."""
    return len(study.of_state("complete")) + len(study.of_state("pruned"))


def remove_search(store: Store, wanted: SearchPlan, study_id: str, manifest: FeatureManifest) -> None:
    """The study and the runs of the choice, so that all of it is made from the beginning."""
    from tuning.choose import planned_runs

    try:
        study = load_study(store, study_id)
        runs = planned_runs(study, manifest, candidates_of(study, wanted.num_candidates), wanted.seeds).values()
    except RefusedError:  # there is no study yet, or none to choose from
        runs = {}.values()
    for run_id in runs:
        if store.exists(f"{run_folder(run_id)}/run.json"):
            remove_run(store, run_id)
    with held(store, study_folder(study_id), f"study {study_id}"):
        remove_held(store, study_folder(study_id))


def write_search(path: Path, search: Search) -> None:
    """Whole or not at all."""
    values = {field.name: getattr(search, field.name) for field in dataclasses.fields(search)}
    values["study"] = {**search.study.to_dict(), "trials": [trial.to_dict() for trial in search.study.trials]}
    values["choice"] = search.choice.to_dict()
    values["importances"] = [dataclasses.asdict(each) for each in search.importances]
    write_record(path, {"format": FORMAT, **values})


def _decode(values: dict[str, Any]) -> Search:
    importances = (Importance(**{**each, "parameters": tuple(each["parameters"])}) for each in values["importances"])
    parts = {"study": _study(values["study"]), "choice": Choice.from_dict(values["choice"])}
    return Search(**{**values, **parts, "importances": tuple(importances)})


def _study(values: dict[str, Any]) -> Study:
    fields = {field.name: values[field.name] for field in dataclasses.fields(Study)}
    fields |= {"space": Space.from_dict(values["space"]), "seeds": tuple(values["seeds"])}
    return Study(**{**fields, "trials": tuple(_trial(trial) for trial in values["trials"])})


def _trial(values: Mapping[str, Any]) -> TrialRecord:
    fields = {field.name: values[field.name] for field in dataclasses.fields(TrialRecord)}
    return TrialRecord(**{**fields, "seeds": tuple(SeedResult(**seed) for seed in values["seeds"])})


def _comparable(config: Config) -> dict[str, Any]:
    """What decides about the study and the choice."""
    tune = config.to_dict()["tune"]
    return {**trained_values(config), "tune": {**tune, "storage_url": "", "max_concurrent_trials": 0}}
