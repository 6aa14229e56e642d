"""The `search` flow: a study over the loss weights, on a Ray cluster from a worker that is anywhere, or here.

    study (on the cluster at ray_jobs_address, else by tune) -> its trials as a table, what it found as text

From Python `search(corpus="mosi", num_trials=24)`; as a deployment `prefect deployment run search/search -p corpus=mosi
-p num_trials=24 -p ray_jobs_address=http://head:8265` (see `prefect.yaml`).

A run that is retried or started again follows the job that is there, and one that is cancelled stops it; either way the
store keeps every trial that ended, and the same parameters continue the study.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.flows import Flow
from prefect.tasks import Task
from prefect.utilities.callables import get_parameter_defaults

from lnln import markdown
from lnln.config import Config, config_for
from lnln.data.manifest import read_features
from lnln.data.model_inputs import with_simulation_in_use
from lnln.data.store import Store
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, stage, tell_of_failure
from tuning.jobs import UnreachableError, stop_study, submit_study
from tuning.record import Study, load_study
from tuning.select import best_trial, configured_trial, table
from tuning.space import Space, default_space
from tuning.sweep import study_id_for, tune


def stop_job(flow: Flow[..., Any], flow_run: FlowRun, state: State) -> None:
    """Stop the cluster's job of a flow run that is cancelled; Prefect itself ends only the process that follows it."""
    given = {**get_parameter_defaults(flow.fn), **flow_run.parameters}
    if given["ray_jobs_address"] is not None:
        chosen = config_for(given["corpus"], given["config"], given["overrides"] or [])
        stop_study(
            given["ray_jobs_address"],
            store_url=settings_of_run(given["store"]).store,
            corpus=given["corpus"],
            config=chosen,
            num_trials=given["num_trials"],
            space=_space(given["space"], chosen),
        )


@flow(
    name="search",
    flow_run_name="search on {corpus}",
    timeout_seconds=168 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
    on_cancellation=[stop_job],
)
def search(
    corpus: str,
    num_trials: int,
    config: str | None = None,
    overrides: list[str] | None = None,
    space: dict[str, Any] | None = None,
    store: str | None = None,
    num_workers: int = 1,
    gpus_per_worker: float = 1.0,
    max_minutes: float | None = None,
    ray_jobs_address: str | None = None,
) -> dict[str, Any]:
    """Search the loss weights of a corpus until the study has its trials. Those that it has are not run again.

    Args:
        corpus: An imported corpus, such as mosi.
        num_trials: Trials that the study is to have, complete or pruned.
        config: A config by name or .yaml path. None: the one called like the corpus, if there is one.
        overrides: Config keys to change, such as tune.epochs=8.
        space: Ranges by parameter, such as adversarial with low 0.1 and high 3. None: the loss weights of the network.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.
        num_workers: Train workers of each trial.
        gpus_per_worker: The share of a GPU that each worker takes, where there are GPUs.
        max_minutes: After so many minutes no trial is started. None: no limit.
        ray_jobs_address: The dashboard of a Ray cluster, such as http://head:8265. None: the Ray of this worker.

    Returns:
        The study's name, how many trials it has in each state, and the best one's number, parameters and scores.
    """
    there = settings_of_run(store).store
    chosen = config_for(corpus, config, overrides or [])
    ranges = _space(space, chosen)
    arguments: dict[str, Any] = {
        "config": chosen.to_dict(),
        "space": ranges.to_dict(),
        "num_trials": num_trials,
        "num_workers": num_workers,
        "gpus_per_worker": gpus_per_worker,
        "max_minutes": max_minutes,
    }
    if ray_jobs_address is None:
        study_id = search_here(there, corpus, **arguments)
    else:
        study_id = search_on_cluster(ray_jobs_address, there, corpus, **arguments)
    study = load_study(Store(there), study_id)
    _show(study)
    best = best_trial(study)
    return {
        "corpus": corpus,
        "study_id": study_id,
        "num_trials": study.to_dict()["num_trials"],
        "best": {"number": best.number, "parameters": best.parameters, "values": best.values},
    }


@stage("study")
def search_here(store: str, corpus: str, *, config: dict[str, Any], space: dict[str, Any], **arguments: Any) -> str:
    """The study's id; its trials on the Ray of this worker."""
    return tune(Store(store), corpus, Config.from_dict(config), space=Space.from_dict(space), **arguments).study_id


def _was_unreachable(task: Task[..., Any], task_run: TaskRun, state: State) -> bool:
    """What a cluster refuses, it would refuse again."""
    return isinstance(state.result(raise_on_failure=False), UnreachableError)


@task(
    name="study on a cluster",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=60,
    retry_condition_fn=_was_unreachable,
)
def search_on_cluster(
    address: str, store: str, corpus: str, *, config: dict[str, Any], space: dict[str, Any], **arguments: Any
) -> str:
    """The study's id; its trials on the cluster at `address`, whose lines are those of this task's log."""
    chosen, ranges, there = Config.from_dict(config), Space.from_dict(space), Store(store)
    log = get_run_logger()
    submit_study(
        address,
        store_url=there.url,
        corpus=corpus,
        config=chosen,
        space=ranges,
        say=lambda text: log.info("%s", text),
        **arguments,
    )
    manifest = read_features(there, corpus)
    return study_id_for(corpus, manifest.feature_id, with_simulation_in_use(there, manifest, chosen), ranges)


def _space(ranges: dict[str, Any] | None, config: Config) -> Space:
    return default_space(config) if ranges is None else Space.from_dict(ranges)


def _show(study: Study) -> None:
    """The trials as a table, what they found as text."""
    create_table_artifact(
        key=artifact_key("study", study.corpus),
        table=table(study),
        description=f"The trials of study {markdown.code(study.study_id)}, the best first.",
    )
    create_markdown_artifact(
        key=artifact_key("search", study.corpus),
        markdown=summary(study),
        description=f"What study {markdown.code(study.study_id)} found",
    )


def summary(study: Study) -> str:
    """What the study found so far, as Markdown, and the command that says whether it is more than noise."""
    best, configured = best_trial(study), configured_trial(study)
    states = ", ".join(f"{count} {state}" for state, count in study.to_dict()["num_trials"].items() if count)
    rows = []
    for name in study.directions:
        row = {"validation": markdown.escape(name), f"trial {best.number}, the best": f"{best.values[name]:.4f}"}
        if configured is not None:
            row[f"trial {configured.number}, as configured"] = f"{configured.values[name]:.4f}"
        rows.append(row)
    found = ", ".join(f"{name} {value:.3g}" for name, value in best.parameters.items())
    seeds = "one seed" if len(study.seeds) == 1 else f"{len(study.seeds)} seeds"
    choose = markdown.code(f"lnln choose {study.study_id}")
    return (
        f"# Study {markdown.escape(study.study_id)}\n\n{states}; each trial trains with {seeds}.\n\n"
        f"{markdown.table(rows)}\n\nThe best has {markdown.escape(found)}. Seeds differ by as much as most weights do: "
        f"{choose} with fresh seeds says whether it is better than what is configured.\n"
    )
