"""The same training with several seeds, as many at once as there is room for, on one Ray.

    runs = train_seeds(store, "mosi", load_config("mosi"), [1111, 1112, 1113])

Each is the run that `train` makes with that seed, under the same id, and continues by itself: seeds share nothing but
Ray and the machines. Since they have nothing to tell each other, several devices are spent on seeds before they are
spent on the workers of one run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue

from lnln.config import Config
from lnln.data.manifest import read_features
from lnln.data.model_inputs import with_simulation_in_use
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.progress import line
from lnln.runs import Run, is_finished, load_run, run_id_for
from lnln.train.failures import reason_of
from lnln.train.launch import check, is_whole, train, worker_range
from lnln.train.places import Places
from lnln.train.room import Demand, Queue, cores_here, cores_of_machines, share_of_cores
from lnln.train.session import cluster_address, ray_session

Progress = Callable[[str], None]

# How long after an interrupt the runs may take to let go of what they hold.
END_SECONDS = 30.0


class SeedsFailedError(RefusedError):
    """Some seeds failed. runs: of the others, by seed. reasons: why, by seed that failed."""

    def __init__(self, runs: Mapping[int, Run], reasons: Mapping[int, str]) -> None:
        self.runs, self.reasons = dict(runs), dict(reasons)
        if len(reasons) == 1:
            said = "; ".join(f"seed {seed} failed: {reason}" for seed, reason in reasons.items())
        else:
            seeds = " and ".join(", ".join(map(str, reasons)).rsplit(", ", 1))
            said = f"seeds {seeds} failed: " + "; ".join(f"{seed}: {reason}" for seed, reason in reasons.items())
        super().__init__(said)


def train_seeds(
    store: Store,
    corpus: str,
    config: Config,
    seeds: Sequence[int],
    *,
    num_workers: int | tuple[int, int] = 1,
    gpus_per_worker: float = 1.0,
    num_parallel: int | None = None,
    config_name: str | None = None,
    progress: Progress | None = line,
) -> list[Run]:
    """The runs of `config` with each of `seeds` for `train.seed`, in that order; those that are finished at once.

    num_workers, gpus_per_worker: of each run. num_parallel: runs at a time; None for as many as there is room for, by
    the cores of this machine, or by what a Ray has that is not ours alone, and in either case by the GPUs if they are
    used. progress: as of `train`, its lines with the seed. Each worker computes with its share of the cores, among the
    workers of all runs, or with OMP_NUM_THREADS threads.
    One that fails stops no other: SeedsFailedError comes at the end, with the runs that did not. RefusedError at once
    for what no seed could be trained with. An interrupt ends all runs, and the same call continues each.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise RefusedError(f"expected different seeds, one or more, got {', '.join(map(str, seeds)) or 'none'}")
    if num_parallel is not None and num_parallel < 1:
        raise RefusedError(f"the number of runs at a time must be 1 or more, got {num_parallel}")
    manifest = read_features(store, corpus)
    config = with_simulation_in_use(store, manifest, config)
    configs = {seed: with_seed(config, seed) for seed in seeds}
    runs: dict[int, Run] = {}
    reasons: dict[int, str] = {}
    for seed, chosen in configs.items():
        run_id = run_id_for(chosen, corpus, manifest)
        try:
            if is_whole(store, run_id):
                runs[seed] = load_run(store, run_id)
        except RefusedError as error:
            reasons[seed] = reason_of(error)
    missing = [seed for seed in seeds if seed not in runs and seed not in reasons]
    if missing:
        check(store, manifest, configs[missing[0]], num_workers, None, gpus_per_worker)

        def train_one(seed: int, num_threads: int | None, say: Progress) -> Run:
            return train(
                store,
                corpus,
                configs[seed],
                num_workers=num_workers,
                gpus_per_worker=gpus_per_worker,
                config_name=config_name,
                num_threads=num_threads,
                progress=say,
            )

        demand = Demand(*worker_range(num_workers), gpus_per_worker)
        made = _train_all(missing, len(seeds), demand, num_parallel, train_one, progress)
        runs |= {seed: run for seed, run in made.items() if isinstance(run, Run)}
        reasons |= {seed: reason for seed, reason in made.items() if isinstance(reason, str)}
    if reasons:
        raise SeedsFailedError(
            {seed: runs[seed] for seed in seeds if seed in runs},
            {seed: reasons[seed] for seed in seeds if seed in reasons},
        )
    return [runs[seed] for seed in seeds]


def finished_seeds(store: Store, corpus: str, config: Config, seeds: Sequence[int]) -> list[int]:
    """Those of `seeds` whose run ended before."""
    manifest = read_features(store, corpus)
    config = with_simulation_in_use(store, manifest, config)
    return [seed for seed in seeds if is_finished(store, run_id_for(with_seed(config, seed), corpus, manifest))]


def with_seed(config: Config, seed: int) -> Config:
    return replace(config, train=replace(config.train, seed=seed))


def _train_all(
    seeds: Sequence[int],
    num_in_all: int,
    demand: Demand,
    num_parallel: int | None,
    train_one: Callable[[int, int | None, Progress], Run],
    progress: Progress | None,
) -> dict[int, Run | str]:
    """By seed its run, or why there is none. num_in_all: with those that ended before. They have their share of threads
    too: one that is interrupted and continues alone has to round as it did beside the others."""
    import ray

    # Now, since their packages do not bear being imported by several threads at once.
    import lnln.train.controller
    import lnln.train.worker  # noqa: F401

    is_own = cluster_address() is None and not ray.is_initialized()
    wanted = num_parallel or (demand.num_at_once(cores_here(), 0) if is_own else num_in_all)
    wanted = min(wanted, num_in_all)
    with ray_session(wanted * demand.most_workers):
        there = ray.cluster_resources()
        num_gpus = there.get("GPU", 0.0)
        num_sharing = min(wanted, demand.num_at_once(there.get("CPU", 0.0), num_gpus))
        num_at_once = min(num_sharing, len(seeds))
        if progress is not None and len(seeds) > num_at_once:
            progress(f"{len(seeds)} seeds, {num_at_once} at a time")
        machines = [cores_here()] if is_own else cores_of_machines()
        num_threads = share_of_cores(machines, num_sharing * demand.most_workers) if num_sharing > 1 else None
        team = _Team(seeds, num_threads, train_one, progress, Places())
        queue = None if is_own else Queue(demand.to_start(num_gpus), there, team.is_over)
        return team.results(num_at_once, queue)


class _Team:
    """Threads that train one seed after the other, until none is left or it is over."""

    def __init__(
        self,
        seeds: Sequence[int],
        num_threads: int | None,
        train_one: Callable[[int, int | None, Progress], Run],
        progress: Progress | None,
        places: Places,
    ) -> None:
        self._seeds, self._num_threads, self._train_one, self._progress = seeds, num_threads, train_one, progress
        self._places = places
        self._waiting = deque(seeds)
        self._ended: SimpleQueue[tuple[int, Run | str]] = SimpleQueue()
        self.is_over = threading.Event()

    def results(self, num_threads: int, queue: Queue | None) -> dict[int, Run | str]:
        """Of every seed, when all have ended. queue: None on a Ray of our own, which has room for all threads."""
        others = _controllers()
        threads = [
            threading.Thread(target=self._work, args=(queue,), name="runs of seeds", daemon=True)
            for _ in range(num_threads)
        ]
        try:
            for thread in threads:
                thread.start()
            return dict(self._ended.get() for _ in self._seeds)
        finally:
            self.is_over.set()
            self._end(threads, others)

    def _end(self, threads: Sequence[threading.Thread], others: set[str]) -> None:
        """Wait for `threads`, and end what they still wait for; were Ray to end under them, the process would too."""
        begin = time.monotonic()
        for thread in threads:
            thread.join(1)
            while thread.is_alive() and (past := time.monotonic() - begin) < END_SECONDS:
                for actor_id in _controllers() - others:
                    _end_training(actor_id, is_late=past > END_SECONDS / 2)
                thread.join(1)

    def _work(self, queue: Queue | None) -> None:
        while not self.is_over.is_set():
            try:
                seed = self._waiting.popleft()
            except IndexError:
                return
            say = self._sayer(seed)
            result: Run | str
            try:
                if queue is not None:
                    queue.wait(say)
                result = self._train_one(seed, self._num_threads, say)
                say(f"finished, validation MAE {result.score:.4f} at epoch {result.best_epoch}")
            except BaseException as error:  # whatever ends a run ends this one only
                if self.is_over.is_set():
                    return
                result = "interrupted" if isinstance(error, KeyboardInterrupt) else reason_of(error)
                with suppress(Exception):  # whoever waits for the seed has to hear of it
                    self._places.free()
                    say(f"failed: {result}")
            self._ended.put((seed, result))

    def _sayer(self, seed: int) -> Progress:
        """Passes lines on with their seed. A run that gets so far after the end starts nothing more."""
        own = threading.current_thread()

        def say(text: str) -> None:
            if self.is_over.is_set() and threading.current_thread() is own:
                raise KeyboardInterrupt
            if self._progress is not None and not self.is_over.is_set():
                self._progress(f"seed {seed}: {text}")

        return say


def _controllers() -> set[str]:
    """Ids of the trainings of this process that live; fit() keeps its actor to itself, and Ray shows no list."""
    import ray
    from ray._private.state import actors

    job = ray.get_runtime_context().get_job_id()
    return {
        actor_id
        for actor_id, actor in actors().items()
        if actor["JobID"] == job and actor["ActorClassName"] == "TrainController" and actor["State"] != "DEAD"
    }


def _end_training(actor_id: str, *, is_late: bool) -> None:
    """As Ray does on Ctrl-C in the main thread, so that what its workers took is free. is_late: by force."""
    import ray
    from ray.exceptions import RayError

    worker = ray._private.worker.global_worker.core_worker  # type: ignore[attr-defined]
    with suppress(RayError, ValueError):  # it has just ended
        if is_late:
            worker.kill_actor(ray.ActorID.from_hex(actor_id), True)
        else:
            worker.get_actor_handle(ray.ActorID.from_hex(actor_id)).abort.remote()
