"""What the store keeps of a study: `study.json` and `trials.parquet` in `studies/<study_id>/`.

study = load_study(store, study_id)

Written anew after every trial, so what a study learnt can be read while it runs and without its Optuna storage.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.database_url import without_password
from tuning.space import Space

# `pruned`: stopped early, since others were better at the same time. `interrupted`: its driver ended first; it says
# nothing of its parameters, and continuing the study tries them again.
State = Literal["complete", "pruned", "failed", "interrupted", "running"]

STUDY_FILE, TRIALS_FILE = "study.json", "trials.parquet"


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """One training of a trial, as far as it came.

    valid_mae: mean MAE on the validation split over the validation rates at its best epoch, `best_epoch`.
    valid_mae_by_rate: its parts, keyed by missing rate. valid_mae_by_epoch: how it got there.
    collapse_share: mean over the rates of the share of utterances that get the most frequent class, at that epoch.
    """

    seed: int
    valid_mae: float
    best_epoch: int
    valid_mae_by_rate: dict[str, float]
    valid_mae_by_epoch: list[float]
    collapse_share: float


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial.

    parameters: what was tried, by name; 0 for a term that is switched off. is_configured: they are those of the config
    that the study was started with. values: by objective, the mean over the seeds, each at its best epoch; empty unless
    it is complete. seeds: its trainings that ended or were stopped by pruning. reason: why it failed or was pruned.
    has_diverged: it failed because a loss, a gradient or a prediction was no finite number.
    """

    number: int
    state: State
    parameters: dict[str, float]
    is_configured: bool
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    seeds: tuple[SeedResult, ...] = ()
    seconds: float | None = None
    reason: str | None = None
    has_diverged: bool = False

    @property
    def valid_mae(self) -> float | None:
        """Mean over its seeds; None unless it is complete."""
        if self.state != "complete":
            return None
        return sum(result.valid_mae for result in self.seeds) / len(self.seeds)

    @property
    def collapse_share(self) -> float | None:
        """Mean over its seeds; None where none got that far."""
        return sum(result.collapse_share for result in self.seeds) / len(self.seeds) if self.seeds else None

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "valid_mae": self.valid_mae}


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as its folder records it.

    config: that of its trials but for the parameters in `space`. configured: what the config had for those.
    directions: `minimize` or `maximize` by objective, in the order of `tune.objectives`. seeds: of every trial.
    sampler, versions: what proposed the parameters, since Optuna's versions differ for the same seed.
    """

    study_id: str
    corpus: str
    feature_id: str
    config: dict[str, Any]
    space: Space
    configured: dict[str, float]
    directions: dict[str, str]
    seeds: tuple[int, ...]
    sampler: dict[str, Any]
    versions: dict[str, str]
    trials: tuple[TrialRecord, ...] = ()

    @property
    def first_objective(self) -> str:
        return next(iter(self.directions))

    def trained_config(self) -> Config:
        """`config`, which an earlier version may have stored."""
        return Config.from_stored(self.config)

    def of_state(self, state: State) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.state == state]

    def to_dict(self) -> dict[str, Any]:
        """The content of `study.json`: everything but the trials, which it counts, and the database's password."""
        tune = self.config.get("tune", {})
        url = without_password(tune.get("storage_url", ""))
        return {
            "study_id": self.study_id,
            "corpus": self.corpus,
            "feature_id": self.feature_id,
            "config": {**self.config, "tune": {**tune, "storage_url": url}},
            "space": self.space.to_dict(),
            "configured": self.configured,
            "directions": self.directions,
            "seeds": list(self.seeds),
            "sampler": self.sampler,
            "versions": self.versions,
            "num_trials": {state: len(self.of_state(state)) for state in get_args(State)},
        }


def study_folder(study_id: str) -> str:
    """Where a study lies in the store."""
    return f"studies/{study_id}"


def is_study(store: Store, name: str) -> bool:
    """Whether the store has a study called `name`, which may be the name of anything, or a path."""
    return re.fullmatch(r"[\w.-]*\w", name) is not None and store.exists(f"{study_folder(name)}/{STUDY_FILE}")


def save_study(store: Store, study: Study) -> None:
    """Write both files, each whole or absent; the trials first, so that `study.json` never tells of a missing one."""
    folder = study_folder(study.study_id)
    store.write(f"{folder}/{TRIALS_FILE}", trials_parquet(study))
    store.write_json(f"{folder}/{STUDY_FILE}", study.to_dict())


def load_study(store: Store, study_id: str) -> Study:
    """The study called `study_id`; RefusedError where the store has none, or its record is damaged."""
    folder = study_folder(study_id)
    try:
        content = store.read_json(f"{folder}/{STUDY_FILE}")
        trials = store.read(f"{folder}/{TRIALS_FILE}")
    except FileNotFoundError as error:
        raise RefusedError(
            f"no study {study_id!r} in {store.url}; `lnln tune CORPUS --trials N` makes one and says its name"
        ) from error
    try:
        values = {field.name: content[field.name] for field in dataclasses.fields(Study) if field.name != "trials"}
        values |= {"space": Space.from_dict(content["space"]), "seeds": tuple(content["seeds"])}
        # JSON is written with sorted keys, and the first objective is the one that chooses.
        ordered = sorted(content["directions"], key=_objectives(trials).index)
        values["directions"] = {name: content["directions"][name] for name in ordered}
        return _checked(Study(**values, trials=_read_trials(trials)))
    except (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException) as error:
        raise RefusedError(
            f"{store.url}/{folder} does not hold the record of a study ({' '.join(str(error).split())}); "
            "`lnln tune` with the study's arguments writes it anew"
        ) from error


def trials_parquet(study: Study) -> bytes:
    """`trials.parquet`: a row per trial; a column `parameter.<name>` for each parameter, `value.<name>` for each
    objective, null where there is none; `valid_mae` and its spread; the trainings of a trial as a list of structs."""
    rows = [_row(trial, study) for trial in study.trials]
    schema = _schema(list(study.space.ranges), list(study.directions))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, write_page_checksum=True)
    return sink.getvalue()


_SEED = pa.struct(
    [
        ("seed", pa.int64()),
        ("valid_mae", pa.float64()),
        ("best_epoch", pa.int32()),
        ("valid_mae_by_rate", pa.list_(pa.struct([("missing_rate", pa.string()), ("mae", pa.float64())]))),
        ("valid_mae_by_epoch", pa.list_(pa.float64())),
        ("collapse_share", pa.float64()),
    ]
)


def _schema(parameters: Sequence[str], objectives: Sequence[str]) -> pa.Schema:
    return pa.schema(
        [
            ("number", pa.int32()),
            ("state", pa.string()),
            *((f"parameter.{name}", pa.float64()) for name in parameters),
            ("is_configured", pa.bool_()),
            *((f"value.{name}", pa.float64()) for name in objectives),
            ("valid_mae", pa.float64()),
            ("collapse_share", pa.float64()),
            ("seconds", pa.float64()),
            ("reason", pa.string()),
            ("has_diverged", pa.bool_()),
            ("seeds", pa.list_(_SEED)),
        ]
    )


def _row(trial: TrialRecord, study: Study) -> dict[str, Any]:
    seeds = []
    for result in trial.seeds:
        by_rate = [{"missing_rate": rate, "mae": mae} for rate, mae in result.valid_mae_by_rate.items()]
        seeds.append({**dataclasses.asdict(result), "valid_mae_by_rate": by_rate})
    return {
        "number": trial.number,
        "state": trial.state,
        **{f"parameter.{name}": trial.parameters.get(name) for name in study.space.ranges},
        "is_configured": trial.is_configured,
        **{f"value.{name}": trial.values.get(name) for name in study.directions},
        "valid_mae": trial.valid_mae,
        "collapse_share": trial.collapse_share,
        "seconds": trial.seconds,
        "reason": trial.reason,
        "has_diverged": trial.has_diverged,
        "seeds": seeds,
    }


def _objectives(data: bytes) -> list[str]:
    """In the order of the study's, which the columns are in."""
    names = pq.read_schema(io.BytesIO(data)).names
    return [name.removeprefix("value.") for name in names if name.startswith("value.")]


def _read_trials(data: bytes) -> tuple[TrialRecord, ...]:
    table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    return tuple(_trial(row) for row in table.to_pylist())


def _checked(study: Study) -> Study:
    """`study`; ValueError where it says what no study says, as one that was not written by us may."""
    if not study.directions or not set(study.directions.values()) <= {"minimize", "maximize"}:
        raise ValueError(f"directions are {study.directions}")
    for trial in study.trials:
        if trial.state not in get_args(State):
            raise ValueError(f"trial {trial.number} has state {trial.state!r}")
        if trial.state == "complete" and not (trial.seeds and trial.values.keys() == study.directions.keys()):
            raise ValueError(
                f"trial {trial.number} is complete, with values {trial.values} of {len(trial.seeds)} seeds"
            )
    return study


def _trial(row: Mapping[str, Any]) -> TrialRecord:
    def named(prefix: str) -> dict[str, float]:
        return {
            key.removeprefix(prefix): value
            for key, value in row.items()
            if key.startswith(prefix) and value is not None
        }

    seeds = []
    for result in row["seeds"]:
        by_rate = {entry["missing_rate"]: entry["mae"] for entry in result["valid_mae_by_rate"]}
        seeds.append(SeedResult(**{**result, "valid_mae_by_rate": by_rate}))
    same = {key: row[key] for key in ("number", "state", "is_configured", "seconds", "reason", "has_diverged")}
    return TrialRecord(**same, parameters=named("parameter."), values=named("value."), seeds=tuple(seeds))
