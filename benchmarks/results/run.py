"""Train and score what the plan wants and the scores folder does not have; stop it at any time, call it again.

Every training is a process of its own, with its own Ray and its share of the cores. What may be lost by a kill is the
epoch in progress: a run continues from its last checkpoint, and a scored one is known by its file. A run in the store
is used again whatever code trained it; what other code than the present has made is trained anew only where that is
asked for, since most changes of code change no score.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results.code import code_fingerprint, is_made_by, record_code
from benchmarks.results.plan import REPORT, SEARCH, VIEWS, Experiment, Plan
from benchmarks.results.scores import (
    Scores,
    SplitScores,
    clear_unfinished,
    features_digest,
    read_all,
    read_scores,
    scores_path,
    write_scores,
)
from lnln.data.lock import only_one, remove_held
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import line
from lnln.runs import Run, run_folder, run_id_for, trained_values

# How long a training may take to put down its work when it is told to stop: Ray's processes each take a while on a
# machine that is busy.
STOP_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """One training, and the experiments that it is scored for: those that differ in how the model is chosen."""

    experiments: tuple[Experiment, ...]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.experiments[0].name} {self.seed}"

    @property
    def command(self) -> list[str]:
        """That of `python -m benchmarks.results` which does it."""
        return ["one", f"--names={','.join(each.name for each in self.experiments)}", f"--seed={self.seed}"]


@dataclass(frozen=True)
class ReportJob:
    """The report on the main systems (report.py), from the runs that there are."""

    name: str = REPORT

    @property
    def command(self) -> list[str]:
        return ["section", REPORT]


@dataclass(frozen=True)
class SearchJob:
    """The plan's study and the choice from it (search.py), whose trainings run one after the other."""

    name: str = SEARCH

    @property
    def command(self) -> list[str]:
        return ["section", SEARCH]


AnyJob = Job | SearchJob | ReportJob


def run_plan(
    plan: Plan,
    plan_path: Path,
    data: Path | None,
    store_folder: Path,
    scores: Path,
    *,
    num_jobs: int,
    only: str | None,
    retrain_older_code: bool = False,
) -> None:
    """Import `data`, then train and score what is missing, `num_jobs` trainings side by side, and report on them.

    data: None only where nothing but the report is wanted. only: names of groups or experiments, `search` or `report`,
    with commas between. retrain_older_code: what other code than the present has made is missing too, and its runs are
    trained from their beginning. Raises RefusedError for unusable arguments at once, and at the end, after everything
    else was tried, where a training failed.
    """
    if num_jobs < 1:
        raise RefusedError(f"JOBS must be 1 or more, got {num_jobs}")
    from benchmarks.results.report import is_report_missing, wants_report, without_report
    from benchmarks.results.search import is_search_missing
    from pipelines.ingest import import_corpus

    is_report_wanted, only = wants_report(plan, only), without_report(only)
    is_report_alone = only == ""
    chosen = [] if is_report_alone else plan.select(only)
    if data is None and not is_report_alone:
        raise RefusedError("training needs the MMSA pickle of the corpus: make results DATA=mosi.pkl")
    clear_unfinished(scores)
    store = Store(store_folder)
    manifest = read_features(store, plan.corpus) if data is None else import_corpus(store, data, plan.corpus)
    found = read_all(scores, plan, manifest)
    code = code_fingerprint() if retrain_older_code else None
    jobs: list[AnyJob] = [*pending(plan, chosen, found, manifest, code)]
    num_wanted = sum(len(experiment.seeds) for experiment in chosen)
    num_missing = sum(len(job.experiments) for job in jobs if isinstance(job, Job))
    line(f"{num_wanted} scores wanted, {num_wanted - num_missing} there; {len(jobs)} trainings to go")
    if not is_report_alone and plan.wants_search(only) and is_search_missing(plan, scores, manifest, code):
        line("the search is to go too: a study, and its choice trained with fresh seeds")
        # First, since it is the longest: its trainings run one after the other.
        jobs.insert(0, SearchJob())
    num_older = sum(scores.code != code_fingerprint() for scores in found.values())
    if num_older and not retrain_older_code:
        line(f"{num_older} scores were made by other code than the present; `make results STALE=code` makes them anew")
    options = ["--retrain-older-code"] if retrain_older_code else []
    failed = _run_jobs(jobs, plan_path, store_folder, scores, num_jobs, options)
    # Last, since it is of what was trained.
    is_report_due = is_report_wanted and (is_report_alone or is_report_missing(plan, store, scores, code))
    without = _run_jobs([ReportJob()], plan_path, store_folder, scores, 1, options) if is_report_due else []
    if failed:
        raise RefusedError(f"{len(failed)} of {len(jobs)} trainings failed: {', '.join(failed)}; the rest is scored")
    if without:
        raise RefusedError(f"the report failed, all else is scored; `make results ONLY={REPORT}` tries it again")


def pending(
    plan: Plan,
    chosen: Sequence[Experiment],
    found: dict[tuple[str, int], Scores],
    manifest: FeatureManifest,
    code: str | None = None,
) -> list[Job]:
    """The trainings that are missing or not wholly scored, in the order of the plan; equal configs share one.

    code: those that other code made are among them.
    """
    by_run: dict[str, tuple[int, list[Experiment]]] = {}
    for experiment in chosen:
        for seed in experiment.seeds:
            scores = found.get((experiment.name, seed))
            if scores is not None and scores.is_current(plan, experiment, manifest, code):
                continue
            run_id = run_id_for(experiment.config(seed), plan.corpus, manifest)
            by_run.setdefault(run_id, (seed, []))[1].append(experiment)
    return [Job(tuple(experiments), seed) for seed, experiments in by_run.values()]


def train_and_score(plan: Plan, job: Job, store: Store, scores: Path, *, retrain_older_code: bool = False) -> None:
    """One training, in this process, and the files of its scores."""
    from lnln.train.launch import train

    first = job.experiments[0]
    config = first.config(job.seed)
    run_id = run_id_for(config, plan.corpus, read_features(store, plan.corpus))
    code = code_fingerprint()
    # What this code has begun is continued.
    if retrain_older_code and not is_made_by(store, run_folder(run_id), code):
        remove_run(store, run_id)
    record_code(store, run_folder(run_id), code)
    run = train(
        store,
        plan.corpus,
        config,
        config_name=first.config_name,
        progress=lambda text: line(f"{job.name}: {text}"),
    )
    manifest = read_features(store, plan.corpus, run.feature_id)
    # Hours later the files may be others, and what scores has not been imported yet.
    made_by = record_code(store, run_folder(run_id), code_fingerprint())
    for experiment in job.experiments:
        path = scores_path(scores, plan, experiment, job.seed)
        there = read_scores(path)
        if there is not None and there.is_current(plan, experiment, manifest, code if retrain_older_code else None):
            continue
        write_scores(path, score(plan, experiment, job.seed, store, run, manifest, made_by))
        line(f"{experiment.name} {job.seed}: scored, {path}")
    # Checkpoints are four times the model; what is scored does not continue.
    remove_checkpoints(store, run_id)


def remove_run(store: Store, run_id: str) -> None:
    """The run and its evaluations, so that it is trained from the beginning."""
    folder = run_folder(run_id)
    with only_one(store, folder, f"run {run_id}"):
        # First what a training would take up, while the rest still says which code made it.
        store.remove(f"{folder}/result.json")
        remove_checkpoints(store, run_id)
        store.remove(f"{folder}/history.json")
        remove_held(store, folder)


def remove_checkpoints(store: Store, run_id: str) -> None:
    """Of a run that will not be continued."""
    shutil.rmtree(Path(store.url) / run_folder(run_id) / "ray", ignore_errors=True)


def score(
    plan: Plan, experiment: Experiment, seed: int, store: Store, run: Run, manifest: FeatureManifest, code: str
) -> Scores:
    """The scores of a finished run: on validation, and on test where that is to be read."""
    all_missing = test = None
    validation = _evaluate(store, run, experiment, "valid", plan.validation_rates, plan.mask_seeds)
    if experiment.read_test:
        test = _evaluate(store, run, experiment, "test", plan.rates, plan.mask_seeds)
        # Everything is erased, whatever the seed.
        all_missing = _evaluate(store, run, experiment, "test", (1.0,), plan.mask_seeds[:1], with_samples=False)
    return Scores(
        experiment=experiment.name,
        seed=seed,
        selection=experiment.selection,
        corpus=plan.corpus,
        synthetic=bool(manifest.source.get("synthetic", False)),
        source_sha256=str(manifest.source["sha256"]),
        feature_id=run.feature_id,
        manifest_digest=features_digest(manifest),
        label_range=manifest.label_range,
        config_name=experiment.config_name,
        config=trained_values(run.config),
        run_id=run.run_id,
        best_epoch=run.best_epoch,
        num_epochs=len(run.history),
        selection_score=round(run.score, 6),
        num_parameters=run.num_parameters,
        seconds=round(run.seconds, 1),
        device=device_class(),
        versions=dict(run.versions),
        code=code,
        validation=validation,
        test=test,
        all_missing=all_missing,
    )


def device_class() -> str:
    """What this process computes on, without naming the machine."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    num = len(_cores())
    return f"{num} CPU core{'s' if num > 1 else ''}"


def share_cores(cores: Sequence[int]) -> None:
    """Keep this process, and all that it starts, on these cores: Ray's workers count those they may use."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def end_with_parent(parent: int) -> None:
    """Stop as by Ctrl-C once the process `parent` that started this one is gone, so that it does not hold the run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(STOP_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _evaluate(
    store: Store,
    run: Run,
    experiment: Experiment,
    split: str,
    rates: Sequence[float],
    mask_seeds: Sequence[int],
    *,
    with_samples: bool = True,
) -> SplitScores:
    from lnln.evaluate import evaluate

    evaluation = evaluate(
        store,
        run.run_id,
        split=split,
        rates=rates,
        mask_seeds=mask_seeds,
        selection=experiment.selection,
        corruption=VIEWS,
    )
    return SplitScores.of(store, evaluation, with_samples=with_samples)


def _run_jobs(
    jobs: Sequence[AnyJob], plan_path: Path, store: Path, scores: Path, num_jobs: int, options: Sequence[str]
) -> list[str]:
    """Run them, `num_jobs` at a time; the names of those that failed. On the way out none is left running.

    options: further ones of the command that runs one.
    """
    waiting, failed = list(jobs), list[str]()
    running: dict[int, tuple[AnyJob, subprocess.Popen[bytes]]] = {}
    handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while waiting or running:
            for slot in range(num_jobs):
                if slot in running and running[slot][1].poll() is not None:
                    job, process = running.pop(slot)
                    if process.returncode:
                        failed.append(job.name)
                    shutil.rmtree(_cache(store, slot), ignore_errors=True)
                if slot not in running and waiting:
                    job = waiting.pop(0)
                    running[slot] = job, _start(job, plan_path, store, scores, slot, num_jobs, options)
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, handler)
        _stop([process for _, process in running.values()])
    return failed


def _start(
    job: AnyJob, plan_path: Path, store: Path, scores: Path, slot: int, num_jobs: int, options: Sequence[str]
) -> subprocess.Popen[bytes]:
    cores = _share(slot, num_jobs)
    command = [sys.executable, "-m", "benchmarks.results", *job.command, f"--plan={plan_path}", f"--store={store}"]
    command += [f"--scores={scores}", f"--cores={','.join(map(str, cores))}", f"--parent={os.getpid()}"]
    command += options
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(len(cores)),
        "RAY_ADDRESS": "local",
        "LNLN_CACHE": str(_cache(store, slot)),
    }
    # A session of its own: Ctrl-C comes to us, and we tell them.
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _cache(store: Path, slot: int) -> Path:
    """Where copies of a model lie while it is scored."""
    return store.resolve() / "cache" / str(slot)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # Its session, so that what Ray started in it does not live on and hold our output open.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _share(slot: int, num_jobs: int) -> list[int]:
    """The cores of one of `num_jobs` that run side by side; two share one where there are more jobs than cores."""
    cores = _cores()
    return cores[slot::num_jobs] or [cores[slot % len(cores)]]


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
