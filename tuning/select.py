"""What a study found: its trials as the store holds them, the best of them, and a config that uses its weights.

study = load_study(store, study_id)
config = best_config(config, study)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from lnln.config import Config, LossConfig, from_dict, to_dict
from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.space import Space

# `interrupted`: its driver ended first; it says nothing of its weights, and continuing the study tries them again.
State = Literal["complete", "failed", "pruned", "interrupted", "running"]


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial. Everything measured is None or empty unless it is complete.

    valid_mae: mean MAE on the validation split over the validation rates, at the trial's best epoch, `best_epoch`.
    valid_mae_by_rate: its parts, keyed by missing rate. valid_mae_by_epoch: how it got there.
    is_configured: its weights are those of the config that the study was started with. reason: why it failed.
    """

    number: int
    state: State
    weights: dict[str, float]
    is_configured: bool
    valid_mae: float | None = None
    best_epoch: int | None = None
    valid_mae_by_rate: dict[str, float] = dataclasses.field(default_factory=dict)
    valid_mae_by_epoch: list[float] = dataclasses.field(default_factory=list)
    seconds: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as `studies/<study_id>/` records it: `study.json` and `trials.json`.

    config: that of its trials but for the weights in `space`. configured_weights: what the config had for those.
    sampler, versions: what proposed the weights, since Optuna's versions differ for the same seed.
    """

    study_id: str
    corpus: str
    feature_id: str
    config: dict[str, Any]
    space: Space
    configured_weights: dict[str, float]
    sampler: dict[str, Any]
    versions: dict[str, str]
    trials: tuple[TrialRecord, ...]

    def count(self, state: State) -> int:
        return sum(trial.state == state for trial in self.trials)

    def to_dict(self) -> dict[str, Any]:
        """The content of `study.json`: everything but the trials, which it counts."""
        best = best_trial(self) if self.count("complete") else None
        return {
            "study_id": self.study_id,
            "corpus": self.corpus,
            "feature_id": self.feature_id,
            "config": self.config,
            "space": self.space.to_dict(),
            "configured_weights": self.configured_weights,
            "sampler": self.sampler,
            "versions": self.versions,
            "num_trials": {state: self.count(state) for state in get_args(State)},
            "best": best and {"number": best.number, "weights": best.weights, "valid_mae": best.valid_mae},
        }


def study_folder(study_id: str) -> str:
    """Where a study lies in the store."""
    return f"studies/{study_id}"


def save_study(store: Store, study: Study) -> None:
    """Write both files, each whole or absent; the trials first, so that `study.json` never tells of a missing one."""
    folder = study_folder(study.study_id)
    store.write_json(f"{folder}/trials.json", [trial.to_dict() for trial in study.trials])
    store.write_json(f"{folder}/study.json", study.to_dict())


def load_study(store: Store, study_id: str) -> Study:
    """The study called `study_id`; RefusedError where the store has none, or its record is damaged."""
    folder = study_folder(study_id)
    try:
        content, trials = store.read_json(f"{folder}/study.json"), store.read_json(f"{folder}/trials.json")
    except FileNotFoundError as error:
        raise RefusedError(
            f"no study {study_id!r} in {store.url}; `lnln tune CORPUS --trials N` makes one and says its name"
        ) from error
    try:
        return Study(
            study_id=content["study_id"],
            corpus=content["corpus"],
            feature_id=content["feature_id"],
            config=content["config"],
            space=Space.from_dict(content["space"]),
            configured_weights=content["configured_weights"],
            sampler=content["sampler"],
            versions=content["versions"],
            trials=tuple(TrialRecord(**trial) for trial in trials),
        )
    except (KeyError, TypeError, RefusedError) as error:
        raise RefusedError(
            f"{store.url}/{folder} does not hold the record of a study ({' '.join(str(error).split())}); "
            "`lnln tune` with the study's arguments writes it anew"
        ) from error


def best_trial(study: Study) -> TrialRecord:
    """The complete trial with the smallest validation MAE, the earlier one of equals; RefusedError if there is none."""
    complete = [trial for trial in study.trials if trial.state == "complete" and trial.valid_mae is not None]
    if not complete:
        raise RefusedError(f"study {study.study_id} has no complete trial; `lnln tune {study.corpus}` continues it")
    return min(complete, key=lambda trial: (trial.valid_mae, trial.number))


def best_config(config: Config, study: Study) -> Config:
    """`config` with the best trial's loss weights; weights that the study did not vary stay as they are."""
    return with_weights(config, best_trial(study).weights)


def with_weights(config: Config, weights: Mapping[str, float]) -> Config:
    """`config` with the given loss weights in place of its own."""
    loss = from_dict(LossConfig, {**to_dict(config.loss), **weights}, where="loss.")
    return dataclasses.replace(config, loss=loss)


def table(study: Study) -> list[dict[str, str]]:
    """A row of text per trial, the best first, then those without a score; keys are the columns."""
    ranked = sorted(study.trials, key=lambda trial: (trial.valid_mae is None, trial.valid_mae, trial.number))
    return [_row(trial, list(study.space.ranges)) for trial in ranked]


def _row(trial: TrialRecord, names: Sequence[str]) -> dict[str, str]:
    return {
        "trial": f"{trial.number} (configured)" if trial.is_configured else str(trial.number),
        "validation MAE": trial.state if trial.valid_mae is None else f"{trial.valid_mae:.4f}",
        **{name: f"{trial.weights[name]:.3g}" if name in trial.weights else "" for name in names},
        "best epoch": "" if trial.best_epoch is None else str(trial.best_epoch),
        "seconds": "" if trial.seconds is None else f"{trial.seconds:.0f}",
    }
