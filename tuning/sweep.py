"""A study over the loss weights: trials on Ray Tune, suggestions by Optuna, its record in the store.

    study = tune(store, "mosi", config, num_trials=20)      # again with 30: ten more
    config = best_config(config, study)

The first trial has the configured parameters, so a study never ends worse than it began. What is done stays done: a
driver that was killed is continued by the same call, and one trial that fails stops no other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import ray
from optuna.trial import FrozenTrial, TrialState
from ray import tune as ray_tune
from ray.exceptions import RayError

import lnln
from lnln import progress
from lnln.config import SDUMC_TERMS, Config, fingerprint, looked_at
from lnln.data.lease import LostLeaseError
from lnln.data.manifest import read_features
from lnln.data.model_inputs import with_simulation_in_use
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.train.failures import reason_of
from lnln.train.launch import check, chosen_threads
from lnln.train.places import Places
from lnln.train.room import Demand, cores_here, cores_of_machines, share_of_cores
from lnln.train.session import cluster_address, ray_session
from tuning.gate import Gate, RoomQueue
from tuning.objectives import Objective, read_objectives
from tuning.pruning import Pruning
from tuning.record import SeedResult, State, Study, TrialRecord, load_study, save_study, study_folder
from tuning.samplers import SeededSampler, is_interrupted, require_sampler
from tuning.search import MAX_REPEATS, RECORD, RecordingSearch, are_equal, enqueue_configured, mark_interrupted
from tuning.space import PARAMETERS, Space, default_space
from tuning.storage import StudyStorage, open_storage
from tuning.trial import TIME, Task, run_trial

# A trial's own process only waits for the trainings that it starts: of cores it takes none, of memory so little that
# every machine of a cluster has it. Ray cannot place what takes nothing at all.
TRIAL_RESOURCES = {"cpu": 0.0, "memory": 2.0**20}

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
    gpus_per_worker: float = 1.0,
    use_gpu: bool | None = None,
    space: Space | None = None,
    max_minutes: float | None = None,
) -> Study:
    """Run trials until the study has `num_trials` that are complete or pruned, and return it.

    Each trains `config.tune.epochs` epochs with each seed, with `num_workers` workers that take `gpus_per_worker` of a
    GPU where there are any; `config.tune.max_concurrent_trials` of them at a time. A line per ended trial goes to
    standard error. A trial that failed is not replaced until the next call. space: default that of the network's loss
    weights. max_minutes: none starts after that, and
    those that run are waited for.
    Raises RefusedError for an unknown corpus, objective or sampler, a space that does not hold the configured
    parameters or varies what the model does not have, a study that another process continues, and where every trial of
    the study failed.
    """
    if num_trials < 1:
        raise RefusedError(f"a study needs 1 trial or more, got {num_trials}")
    if max_minutes is not None and not max_minutes > 0:
        raise RefusedError(f"a study may take a number of minutes above 0, got {max_minutes:g}")
    space = default_space(config) if space is None else space
    space.require(config)
    manifest = read_features(store, corpus)
    config = with_simulation_in_use(store, manifest, config)
    _require_effect(space, config, has_encoder=not manifest.spec().text_dim)
    objectives = read_objectives(config.tune.objectives, manifest.label_range, config.corruption.validation_rates)
    directions = [objective.direction for objective in objectives]
    sampler = SeededSampler(config.tune.sampler, config.tune.seed)
    with _quiet_optuna():
        require_sampler(sampler, space, directions)
    check(store, manifest, config, num_workers, use_gpu, gpus_per_worker)
    feature_id = manifest.feature_id
    study_id = study_id_for(corpus, feature_id, config, space)
    empty = Study(
        study_id=study_id,
        corpus=corpus,
        feature_id=feature_id,
        config=config.to_dict(),
        space=space,
        configured=space.configured(config),
        directions={objective.name: objective.direction for objective in objectives},
        seeds=seeds_of_trial(config),
        sampler=sampler.describe(),
        versions={"lnln": lnln.__version__, "optuna": optuna.__version__, "ray": ray.__version__},
        trials=(),
    )
    with _quiet_optuna(), open_storage(store, study_id, config.tune.storage_url) as storage:
        optuna_study = optuna.create_study(
            storage=storage.optuna,
            sampler=sampler,
            study_name=study_id,
            directions=directions,
            load_if_exists=True,
        )
        if optuna_study.metric_names is None:  # for others' tools; ours know them from the config
            optuna_study.set_metric_names([objective.name for objective in objectives])
        _require_recorded(store, study_id, optuna_study)
        mark_interrupted(optuna_study)
        recorder = _Recorder(store, storage, optuna_study, empty, objectives, num_trials)
        num_missing = num_trials - recorder.num_done()
        if num_missing > 0:
            enqueue_configured(optuna_study, space, empty.configured)
            recorder.save()
            task = Task(
                store_url=store.url,
                corpus=corpus,
                feature_id=feature_id,
                config=config,
                storage=f"{study_folder(study_id)}/ray/{storage.driver}",
                seeds=empty.seeds,
                objectives=objectives,
                num_workers=num_workers,
                gpus_per_worker=gpus_per_worker,
                use_gpu=use_gpu,
            )
            _run(task, recorder, sampler, num_missing, max_minutes)
        else:
            done = f"its {num_trials} trials" if not num_missing else f"{recorder.num_done()} trials"
            progress.line(f"study {study_id} has {done} already; a larger number of trials continues it")
        recorder.save()
        study = recorder.study()
    if not study.of_state("complete") and not study.of_state("pruned"):
        failed = study.of_state("failed")
        if failed:
            raise RefusedError(
                f"study {study_id}: all {len(failed)} trials failed; the last because: {failed[-1].reason}"
            )
        raise RefusedError(f"study {study_id} has no trial that ended; the same command continues it")
    return study


def study_id_for(corpus: str, feature_id: str, config: Config, space: Space) -> str:
    """Name of the study: the same for all that makes its trials comparable.

    Neither the parameters that it varies, nor the epochs of a final run, nor where and how many at a time it runs
    count.
    """
    identity = looked_at(config)
    for name in space.ranges:
        section, key = PARAMETERS[name].split(".")
        identity[section].pop(key, None)
    for name in ("max_concurrent_trials", "storage_url"):
        del identity["tune"][name]
    identity["tune"]["seeds"] = list(seeds_of_trial(config))
    del identity["train"]["seed"], identity["train"]["epochs"]
    identity = {"corpus": corpus, "feature_id": feature_id, "config": identity, "space": space.to_dict()}
    return f"{corpus}-{config.model.name}-{fingerprint(identity)}"


def seeds_of_trial(config: Config) -> tuple[int, ...]:
    """Those that every trial trains with."""
    return config.tune.seeds or (config.train.seed,)


def records(optuna_study: optuna.Study, study: Study) -> tuple[TrialRecord, ...]:
    """The trials of Optuna's study in its order, without those that only wait. study: their own, but for them."""
    trials = (trial for trial in optuna_study.get_trials(deepcopy=False) if trial.state in _STATES)
    return tuple(_trial_record(trial, study) for trial in trials)


def _trial_record(trial: FrozenTrial, study: Study) -> TrialRecord:
    parameters = study.space.values(trial.params)
    record = {"has_diverged": False, "seeds": (), **trial.user_attrs.get(RECORD, {})}
    state = _STATES[trial.state]
    if is_interrupted(trial):
        state = "interrupted"
    elif record["has_diverged"]:
        state = "failed"
    return TrialRecord(
        number=trial.number,
        state=state,
        parameters=parameters,
        is_configured=are_equal(parameters, study.configured),
        values=dict(zip(study.directions, trial.values, strict=True)) if state == "complete" else {},
        **{**record, "seeds": tuple(SeedResult(**seed) for seed in record["seeds"])},
    )


class _Recorder:
    """After each trial: the journal and the study's files to the store, a line to standard error."""

    def __init__(
        self,
        store: Store,
        storage: StudyStorage,
        optuna_study: optuna.Study,
        empty: Study,
        objectives: Sequence[Objective],
        num_trials: int,
    ) -> None:
        self._store, self.storage, self.optuna_study = store, storage, optuna_study
        self.empty, self._objectives, self._num_trials = empty, objectives, num_trials

    def study(self) -> Study:
        return dataclasses.replace(self.empty, trials=records(self.optuna_study, self.empty))

    def num_done(self) -> int:
        """Trials that count: those that failed or were interrupted do not."""
        study = self.study()
        return len(study.of_state("complete")) + len(study.of_state("pruned"))

    def save(self) -> None:
        self.storage.save()
        save_study(self._store, self.study())

    def ended(self, trial: FrozenTrial) -> None:
        self.save()
        record = _trial_record(trial, self.empty)
        parameters = ", ".join(f"{name} {value:.3g}" for name, value in record.parameters.items())
        shown = f"trial {record.number} with {parameters}{' (as configured)' if record.is_configured else ''}"
        if record.state == "failed":
            progress.line(f"{shown} failed: {record.reason}")
            return
        what = record.reason
        if record.state == "complete":
            scores = (f"{objective.title} {record.values[objective.name]:.4f}" for objective in self._objectives)
            what = f"validation {', '.join(scores)}"
        progress.line(f"{shown}: {what}, {self.num_done()} of {self._num_trials} done")

    def said(self, number: int, text: str) -> None:
        progress.line(f"trial {number}: {text}")


class _Attendant(ray_tune.Callback):
    """Says so when a trial is tried again, and gives back what trials leave that were ended."""

    def __init__(self, search: RecordingSearch, recorder: _Recorder, places: Places) -> None:
        self._search, self._recorder, self._places = search, recorder, places

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles all that it was given."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._places.look()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error()
        is_lost = error is None or isinstance(error, ray.exceptions.RayActorError)
        reason = "its process was lost" if is_lost else reason_of(error)
        self._search.failed_once(trial.trial_id, reason)
        self._recorder.said(self._search.number(trial.trial_id), f"{reason}; it is tried again")


class _StopWith(ray_tune.Stopper):
    """Ends all trials where the search cannot go on, since nothing of them could be recorded."""

    def __init__(self, search: RecordingSearch) -> None:
        self._search = search

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles all that it was given."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._search.error is not None


def _run(task: Task, recorder: _Recorder, sampler: SeededSampler, num_trials: int, max_minutes: float | None) -> None:
    """Start trials and wait until they have ended."""
    store, settings = Store(task.store_url), task.config.tune
    is_own = cluster_address() is None and not ray.is_initialized()
    demand = Demand(task.num_workers, task.num_workers, task.gpus_per_worker)
    wanted = settings.max_concurrent_trials or (demand.num_at_once(cores_here(), 0) if is_own else num_trials)
    wanted = min(wanted, num_trials)
    with (
        tempfile.TemporaryDirectory(prefix="lnln-tune-") as folder,
        _quiet_ray(),
        ray_session(num_cpus=wanted * task.num_workers),
        _removed(store, task.storage.rpartition("/")[0]),
    ):
        there = ray.cluster_resources()
        num_at_once = min(wanted, demand.num_at_once(there.get("CPU", 0.0), there.get("GPU", 0.0)))
        num_threads = chosen_threads()
        if num_threads is None and num_at_once > 1:
            machines = [cores_here()] if is_own else cores_of_machines()
            num_threads = share_of_cores(machines, num_at_once * task.num_workers)
        task = dataclasses.replace(task, num_threads=num_threads)
        gate = Gate(max_minutes, None if is_own else RoomQueue(demand, there))
        pruning, places = _pruning(task, recorder), Places()
        search = RecordingSearch(
            recorder.optuna_study,
            recorder.storage.optuna,
            sampler,
            recorder.empty.space,
            task.objectives,
            gate,
            recorder,
            (lambda _: None) if pruning is None else pruning.reason,
        )
        try:
            ray_tune.Tuner(
                ray_tune.with_resources(ray_tune.with_parameters(run_trial, task=task), TRIAL_RESOURCES),
                tune_config=ray_tune.TuneConfig(
                    search_alg=search,
                    scheduler=pruning,
                    num_samples=num_trials,
                    max_concurrent_trials=num_at_once,
                ),
                run_config=ray_tune.RunConfig(
                    name="study",
                    storage_path=folder,
                    verbose=0,
                    failure_config=ray_tune.FailureConfig(max_failures=MAX_REPEATS),
                    stop=_StopWith(search),
                    callbacks=[_Attendant(search, recorder, places)],
                ),
            ).fit()
        except (RayError, ray_tune.TuneError) as error:
            raise RefusedError(
                f"the study was stopped ({reason_of(error)}) after {search.num_ended} of {num_trials} trials; the same "
                "command continues it"
            ) from error
        finally:
            if not is_own:
                places.free_all()
        if search.error is not None:
            raise search.error
    if search.num_ended < num_trials:
        if not gate.is_over():
            raise RefusedError(
                f"the study was stopped after {search.num_ended} of {num_trials} trials; the same command continues it"
            )
        progress.line(
            f"{max_minutes:g} minutes are over, {search.num_ended} of {num_trials} trials have ended; the same command "
            "continues the study"
        )


def _pruning(task: Task, recorder: _Recorder) -> Pruning | None:
    """What stops trials early, filled with those of earlier drivers; None where none is stopped."""
    if task.config.tune.pruning == "none":
        return None
    if len(task.objectives) > 1:
        progress.line(f"{len(task.objectives)} objectives: no trial is stopped early (tune.pruning)")
        return None
    configured = recorder.empty.configured
    num_epochs = task.config.tune.epochs * len(task.seeds)
    pruning = Pruning(task.config.tune, task.objectives[0], num_epochs, TIME, lambda made: are_equal(made, configured))
    pruning.fill(recorder.optuna_study.get_trials(deepcopy=False))
    return pruning


def _require_recorded(store: Store, study_id: str, optuna_study: optuna.Study) -> None:
    """RefusedError where the store's record knows more trials than Optuna's storage, which is saved before it."""
    try:
        recorded = load_study(store, study_id).trials
    except StoreFailedError:
        raise
    except RefusedError:  # there is none, or it is damaged and is written anew
        return
    num_recorded = sum(trial.state in ("complete", "pruned", "failed") for trial in recorded)
    num_there = len(optuna_study.get_trials(deepcopy=False))
    if num_recorded > num_there:
        raise RefusedError(
            f"the record of study {study_id} in {store.url} has {num_recorded} trials that ended, and the storage that "
            f"tune.storage_url names has {num_there}; give the tune.storage_url that the study was run with"
        )


def _require_effect(space: Space, config: Config, *, has_encoder: bool) -> None:
    """RefusedError for parameters that nothing of this training depends on: trials would differ in nothing.

    has_encoder: the corpus has token ids, which an encoder reads.
    """
    model = config.model
    if "encoder_learning_rate" in space.ranges and (not has_encoder or config.train.frozen == "encoder"):
        why = "train.frozen=encoder trains none" if has_encoder else "the corpus has language features and needs none"
        raise RefusedError(f"the space varies encoder_learning_rate, but no encoder is trained ({why}); leave it out")
    if "reversal_strength" in space.ranges and "adversarial" not in space.ranges and not config.loss.adversarial:
        raise RefusedError(
            "the space varies reversal_strength, which has no effect with loss.adversarial=0; vary adversarial too"
        )
    terms = {"completeness", "adversarial", "reconstruction", "reversal_strength"}
    of_flows = {name for name in PARAMETERS if name in SDUMC_TERMS}
    if model.name == "sdumc":
        idle, lacking = {*terms, "dropout"}, "model.name=sdumc"
    elif model.name != "lnln":
        idle, lacking = {*terms, *of_flows, "dropout"}, f"model.name={model.name}"
    else:
        idle = set(of_flows)
        if not model.correction:
            idle |= terms - {"reconstruction"}
        if not model.reconstruction:
            idle.add("reconstruction")
        switched_off = [f"model.{key}=false" for key in ("correction", "reconstruction") if not getattr(model, key)]
        lacking = " and ".join(switched_off) or "model.name=lnln"
    found = [name for name in space.ranges if name in idle]
    if found:
        raise RefusedError(
            f"the space varies {', '.join(found)}, which a model with {lacking} does not have; give a space "
            f"(--space) of {', '.join(name for name in PARAMETERS if name not in idle)}"
        )


@contextlib.contextmanager
def _removed(store: Store, path: str) -> Iterator[None]:
    """`path` of the store is absent when the context begins and when it ends, unless it is another driver's by then."""
    filesystem, folder = store.arrow(path)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(folder)
    try:
        yield
    finally:
        if not isinstance(sys.exception(), LostLeaseError):
            with contextlib.suppress(FileNotFoundError):
                filesystem.delete_dir(folder)


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    """Standard output stays empty, standard error nearly so; for Ray of our own too, so it begins before that."""
    wanted = {
        "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer reporter prints tables even at verbosity 0
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # files for TensorBoard and the like
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # tracebacks; what they mean is said in a line
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
