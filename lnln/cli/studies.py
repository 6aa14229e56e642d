"""Verbs of studies: searching, and choosing from what was found."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnln.cli import show
from lnln.cli.arguments import (
    ConfigName,
    Corpus,
    GpusPerWorker,
    Overrides,
    Parallel,
    ParallelTrials,
    Seed,
    TrialSeeds,
    WorkerRange,
    Workers,
    read_gpus,
    read_minutes,
    read_seeds,
    read_workers,
)
from lnln.cli.session import Session, chosen_config

if TYPE_CHECKING:
    from lnln.config import Config
    from tuning.record import Study
    from tuning.space import Space


def tune(
    context: typer.Context,
    corpus: Corpus,
    trials: Annotated[int, typer.Option(help="Trials that the study is to have, those included that it has.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    space: Annotated[
        Path | None, typer.Option(help="A YAML file of ranges, such as `adversarial: {low: 0.1, high: 3}`.")
    ] = None,
    seed: Seed = None,
    seeds: TrialSeeds = None,
    parallel: ParallelTrials = None,
    workers: Workers = 1,
    gpus_per_worker: GpusPerWorker = 1.0,
    minutes: Annotated[
        float | None, typer.Option(help="After so many minutes no trial is started; those that run end.")
    ] = None,
    submit: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Run it on the Ray cluster with this dashboard, such as http://HOST:8265, and follow it.",
        ),
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop what the same command with --submit started.")] = False,
) -> None:
    """A study over the loss weights; running it again continues it."""
    sets_seed = any(item.partition("=")[0].strip() == "train.seed" for item in overrides or [])
    if seeds is not None and (seed is not None or sets_seed):
        raise typer.BadParameter(
            "a trial trains with one seed or several: give --seed (train.seed) or --seeds", param_hint="--seeds"
        )
    if stop and submit is None:
        raise typer.BadParameter("it stops what --submit started; give that too", param_hint="--stop")
    of_trial, num_gpus = read_seeds("--seeds", seeds), read_gpus("--gpus-per-worker", gpus_per_worker)
    max_minutes = read_minutes("--minutes", minutes)
    from tuning.space import default_space, load_space

    session: Session = context.obj
    options = [] if of_trial is None else [f"tune.seeds={of_trial}"]
    options += [] if parallel is None else [f"tune.max_concurrent_trials={parallel}"]
    chosen = chosen_config(corpus, config, [*(overrides or []), *options], seed)
    ranges = load_space(space, default_space(chosen))
    if submit is not None and stop:
        study_id = _stop(session, submit, corpus, chosen, ranges, trials)
        session.console.result({"study_id": study_id, "is_stopped": True}, lines=[f"study {study_id} is stopped"])
        return
    with session.console.as_progress():
        if submit is None:
            from tuning.sweep import tune as run_study

            study = run_study(
                session.store,
                corpus,
                chosen,
                num_trials=trials,
                num_workers=workers,
                gpus_per_worker=num_gpus,
                space=ranges,
                max_minutes=max_minutes,
            )
        else:
            from tuning.jobs import submit_study
            from tuning.record import load_study

            study_id = _study_id(session, corpus, chosen, ranges)
            submit_study(
                submit,
                store_url=session.store.url,
                corpus=corpus,
                config=chosen,
                num_trials=trials,
                space=ranges,
                num_workers=workers,
                gpus_per_worker=num_gpus,
                max_minutes=max_minutes,
            )
            study = load_study(session.store, study_id)
    arguments = train_arguments(corpus, config, overrides, seed)
    show.study(session.console, study, next_commands(session.command, study, arguments))


def choose(
    context: typer.Context,
    study: Annotated[str, typer.Argument(help="A study, by the name that `lnln tune` says.")],
    seeds: Annotated[str, typer.Option(help="Seeds that the study did not use, two or more, such as 2111,2112,2113.")],
    candidates: Annotated[int, typer.Option(min=1, help="How many of the best trials are compared.")] = 1,
    publish_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Publish the best run of a trial that is shown to be better under this name."
        ),
    ] = None,
    workers: WorkerRange = "1",
    parallel: Parallel = None,
    gpus_per_worker: GpusPerWorker = 1.0,
) -> None:
    """A study's best trial against the configured parameters, both trained with fresh seeds; only what is shown to be
    better is published."""
    chosen_seeds, num_workers = read_seeds("--seeds", seeds), read_workers("--workers", workers)
    num_gpus = read_gpus("--gpus-per-worker", gpus_per_worker)
    from tuning.choose import choose as run_choice

    assert chosen_seeds is not None
    session: Session = context.obj
    with session.console.as_progress():
        choice = run_choice(
            session.store,
            study,
            seeds=chosen_seeds,
            num_candidates=candidates,
            num_workers=num_workers,
            gpus_per_worker=num_gpus,
            num_parallel=parallel,
            publish_as=publish_as,
        )
    show.choice(session.console, choice, command=session.command)


def _stop(session: Session, address: str, corpus: str, config: Config, space: Space, num_trials: int) -> str:
    """The id of the study whose job on the cluster is no more."""
    from tuning.jobs import stop_study

    with session.console.as_progress():
        study_id = _study_id(session, corpus, config, space)
        stop_study(
            address,
            store_url=session.store.url,
            corpus=corpus,
            config=config,
            num_trials=num_trials,
            space=space,
        )
    return study_id


def _study_id(session: Session, corpus: str, config: Config, space: Space) -> str:
    from lnln.data.manifest import read_features
    from lnln.data.model_inputs import with_simulation_in_use
    from tuning.sweep import study_id_for

    manifest = read_features(session.store, corpus)
    return study_id_for(corpus, manifest.feature_id, with_simulation_in_use(session.store, manifest, config), space)


def train_arguments(corpus: str, config: str | None, overrides: Sequence[str] | None, seed: int | None) -> list[str]:
    """Arguments of `lnln train` that mean the config that the study was given.

    Without what is about the study, such as its database's URL, which may hold a password.
    """
    of_runs = [item for item in overrides or [] if not item.strip().startswith("tune.")]
    options = [("--config", config), *(("--set", item) for item in of_runs), ("--seed", seed)]
    return [corpus, *(str(word) for pair in options if pair[1] is not None for word in pair)]


def next_commands(command: str, study: Study, of_train: Sequence[str]) -> dict[str, str]:
    """What may follow a study, by verb: `train` with its best trial, `choose`, `report`; those that make sense.

    command: `lnln` as the user has to write it. of_train: as of `train_arguments`.
    """
    from tuning.select import fresh_seeds, ranked_trials
    from tuning.space import PARAMETERS

    made = {}
    ranked = ranked_trials(study)
    if ranked:
        found = [("--set", f"{PARAMETERS[name]}={value!r}") for name, value in ranked[0].parameters.items()]
        made["train"] = shlex.join(["train", *of_train, *(word for pair in found for word in pair)])
    if any(not trial.is_configured for trial in ranked):
        seeds = ",".join(map(str, fresh_seeds(study)))
        made["choose"] = shlex.join(["choose", study.study_id, "--seeds", seeds])
    made["report"] = shlex.join(["report", study.study_id])
    return {verb: f"{command} {words}" for verb, words in made.items()}
