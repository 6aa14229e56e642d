"""A study over the loss weights: trials on Ray Tune, suggestions by Optuna, its record in the store.

    study = tune(store, "mosi", config, num_trials=20)      # again with 30: ten more
    config = best_config(config, study)

The first trial has the configured weights, so a study never ends worse than it began. What is done stays done: a driver
that was killed is continued by the same call, and one trial that fails stops no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import tempfile
from collections.abc import Iterator

import optuna
import ray
from optuna.trial import FrozenTrial, TrialState
from ray import tune as ray_tune

import lnln
from lnln import progress
from lnln.config import Config, fingerprint
from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.train.launch import check, chosen_threads
from lnln.train.session import ray_session
from tuning.search import RECORD, RecordingSearch, SeededSampler, is_interrupted, mark_interrupted
from tuning.select import State, Study, TrialRecord, save_study, study_folder
from tuning.space import DEFAULT_SPACE, Space
from tuning.storage import StudyStorage, open_storage
from tuning.trial import Task, run_trial

# A trial's own process only waits for the training that it started.
TRIAL_CPUS = 0.1

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
}


def tune(
    store: Store,
    corpus: str,
    config: Config,
    *,
    num_trials: int,
    num_workers: int = 1,
    use_gpu: bool | None = None,
    space: Space = DEFAULT_SPACE,
) -> Study:
    """Run trials until the study has `num_trials` complete ones, and return it.

    Each trains for `config.tune.epochs` epochs with `num_workers` workers; `config.tune.max_concurrent_trials` of them
    at a time. A line per finished trial goes to standard error. Raises RefusedError for an unknown corpus, a space that
    does not hold the configured weights, a study that another process runs, and where every trial of the study failed.
    """
    if num_trials < 1:
        raise RefusedError(f"a study needs 1 trial or more, got {num_trials}")
    space.require(config.loss)
    manifest = read_features(store, corpus)
    check(store, manifest, config, num_workers, use_gpu)
    feature_id = manifest.feature_id
    study_id = study_id_for(corpus, feature_id, config, space)
    sampler = SeededSampler(config.tune.sampler, config.tune.seed)
    empty = Study(
        study_id=study_id,
        corpus=corpus,
        feature_id=feature_id,
        config=config.to_dict(),
        space=space,
        configured_weights=space.weights(config.loss),
        sampler=sampler.describe(),
        versions={"lnln": lnln.__version__, "optuna": optuna.__version__, "ray": ray.__version__},
        trials=(),
    )
    with _quiet_optuna(), open_storage(store, study_id, config.tune.storage_url) as storage:
        optuna_study = optuna.create_study(
            storage=storage.optuna, study_name=study_id, direction="minimize", load_if_exists=True
        )
        mark_interrupted(optuna_study)
        num_missing = num_trials - _count(optuna_study, TrialState.COMPLETE)
        if num_missing > 0:
            _enqueue_configured(optuna_study, empty.configured_weights)
            recorder = _Recorder(store, storage, optuna_study, empty, num_trials)
            recorder.save()
            search = RecordingSearch(optuna_study, storage.optuna, sampler, space, recorder)
            folder = f"{study_folder(study_id)}/ray"
            task = Task(store.url, corpus, feature_id, config, folder, num_workers, use_gpu, chosen_threads())
            _run(task, search, num_missing)
        study = dataclasses.replace(empty, trials=records(optuna_study, empty.configured_weights))
        save_study(store, study)
    if not study.count("complete"):
        failed = [trial for trial in study.trials if trial.state == "failed"]
        raise RefusedError(f"study {study_id}: all {len(failed)} trials failed; the last because: {failed[-1].reason}")
    return study


def study_id_for(corpus: str, feature_id: str, config: Config, space: Space) -> str:
    """Name of the study: the same for all that makes its trials comparable.

    Neither the weights that it varies, nor the epochs of a final run, nor where and how many at a time it runs count.
    """
    identity = config.to_dict()
    for name in space.ranges:
        del identity["loss"][name]
    for name in ("max_concurrent_trials", "storage_url"):
        del identity["tune"][name]
    del identity["train"]["epochs"]
    identity = {"corpus": corpus, "feature_id": feature_id, "config": identity, "space": space.to_dict()}
    return f"{corpus}-{config.model.name}-{fingerprint(identity)}"


def records(study: optuna.Study, configured_weights: dict[str, float]) -> tuple[TrialRecord, ...]:
    """The trials of Optuna's study in its order, without those that only wait to be run."""
    trials = (trial for trial in study.get_trials(deepcopy=False) if trial.state in _STATES)
    return tuple(_trial_record(trial, configured_weights) for trial in trials)


def _trial_record(trial: FrozenTrial, configured_weights: dict[str, float]) -> TrialRecord:
    return TrialRecord(
        number=trial.number,
        state="interrupted" if is_interrupted(trial) else _STATES[trial.state],
        weights=dict(trial.params),
        is_configured=_are_equal(trial.params, configured_weights),
        valid_mae=trial.value if trial.state == TrialState.COMPLETE else None,
        **trial.user_attrs.get(RECORD, {}),
    )


class _Recorder:
    """After each trial: the journal and the study's files to the store, a line to standard error."""

    def __init__(
        self, store: Store, storage: StudyStorage, optuna_study: optuna.Study, empty: Study, num_trials: int
    ) -> None:
        self._store, self._storage, self._study = store, storage, optuna_study
        self._empty, self._num_trials = empty, num_trials

    def save(self) -> None:
        self._storage.save()
        trials = records(self._study, self._empty.configured_weights)
        save_study(self._store, dataclasses.replace(self._empty, trials=trials))

    def __call__(self, trial: FrozenTrial) -> None:
        self.save()
        record = _trial_record(trial, self._empty.configured_weights)
        weights = ", ".join(f"{name} {value:.3g}" for name, value in record.weights.items())
        shown = f"trial {record.number} with {weights}{' (as configured)' if record.is_configured else ''}"
        if record.valid_mae is None:
            text = f"{shown} failed: {record.reason}"
        else:
            num_complete = _count(self._study, TrialState.COMPLETE)
            text = f"{shown}: validation MAE {record.valid_mae:.4f}, {num_complete} of {self._num_trials} done"
        progress.line(text)


def _run(task: Task, search: RecordingSearch, num_trials: int) -> None:
    store = Store(task.store_url)
    max_concurrent_trials = min(task.config.tune.max_concurrent_trials, num_trials)
    trainable = ray_tune.with_resources(ray_tune.with_parameters(run_trial, task=task), {"cpu": TRIAL_CPUS})
    with (
        tempfile.TemporaryDirectory(prefix="lnln-tune-") as folder,
        _quiet_ray(),
        ray_session(num_cpus=max_concurrent_trials * (task.num_workers + 1)),
        _removed(store, task.storage),
    ):
        ray_tune.Tuner(
            trainable,
            tune_config=ray_tune.TuneConfig(
                search_alg=search,
                num_samples=num_trials,
                max_concurrent_trials=max_concurrent_trials,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(name="study", storage_path=folder, verbose=0),
        ).fit()
    if search.error is not None:
        raise search.error
    if search.num_ended < num_trials:
        raise RefusedError(
            f"the study was stopped after {search.num_ended} of {num_trials} trials; the same command continues it"
        )


def _enqueue_configured(study: optuna.Study, weights: dict[str, float]) -> None:
    """Queue the configured weights, unless a trial has shown what they do or is about to."""
    for trial in study.get_trials(deepcopy=False):
        if not is_interrupted(trial) and _are_equal(trial.system_attrs.get("fixed_params", trial.params), weights):
            return
    study.enqueue_trial(weights)


def _are_equal(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(math.isclose(one[name], other[name]) for name in one)


def _count(study: optuna.Study, state: TrialState) -> int:
    return len(study.get_trials(deepcopy=False, states=(state,)))


@contextlib.contextmanager
def _removed(store: Store, path: str) -> Iterator[None]:
    """`path` of the store is absent when the context begins and when it ends."""
    filesystem, folder = store.arrow(path)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(folder)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_dir(folder)


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    """Standard output stays empty, standard error nearly so; for Ray of our own too, so it begins before that."""
    wanted = {
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer reporter prints tables even at verbosity 0
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files for TensorBoard and the like
        # A trial is four processes and its workers, all of which are meant; Ray warns where they are four per core.
        "RAY_worker_maximum_startup_concurrency": "32",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
