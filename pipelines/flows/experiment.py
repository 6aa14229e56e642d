"""The `experiment` flow: from a corpus with its views to a scored and published model.

    study (num_trials > 0) -> train -> evaluate -> publish (publish_as) -> report

A study comes first, and the run then trains with the parameters of its best trial. The configured ones are the study's
first trial, so they are used where no other beats them. With `compare_seeds` both are trained with fresh seeds first,
as `lnln choose` does, and the best is taken only if it is better by more than noise. From Python
`experiment(corpus="mosi", num_trials=8)`;
as a deployment `prefect deployment run experiment/experiment -p corpus=mosi -p num_trials=8` (see `prefect.yaml`).

Each step is a task that calls the library and returns names, never data. Prefect keeps no results: the store knows
what is done, so a flow that is run again does what is missing.
"""

from __future__ import annotations

import tempfile
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from lnln import markdown
from lnln.config import Config, config_for
from lnln.data.store import Store
from lnln.model_store.catalog import check_name
from pipelines.flows.evaluate import evaluate_run, keep_report, publish_run, write_report
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, stage, tell_of_failure
from pipelines.flows.train import train_run
from tuning.choose import choose
from tuning.report import study_report
from tuning.select import best_trial, table, verdict
from tuning.space import Space, default_space, with_parameters
from tuning.sweep import tune


@flow(
    name="experiment",
    flow_run_name="experiment on {corpus}",
    timeout_seconds=168 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def experiment(
    corpus: str,
    config: str | None = None,
    overrides: list[str] | None = None,
    store: str | None = None,
    num_workers: int = 1,
    num_trials: int = 0,
    space: dict[str, Any] | None = None,
    compare_seeds: list[int] | None = None,
    publish_as: str | None = None,
) -> dict[str, Any]:
    """Search the loss weights, train, evaluate over all missing rates, publish, report. What is done is not redone.

    Args:
        corpus: An imported corpus, such as mosi.
        config: A config by name or .yaml path. None: the one called like the corpus, if there is one.
        overrides: Config keys to change, such as train.seed=1112, or tune.seeds=[1111,1112] for two in each trial.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.
        num_workers: Train workers of the run, and of each trial.
        num_trials: Trials that the study is to have. 0: no study, the configured parameters.
        space: Ranges of the study by parameter, such as {"adversarial": {"low": 0.1, "high": 3}}. None: the default.
        compare_seeds: Two seeds or more, fresh ones, with which the best trial is compared with the configured
            parameters; the run gets its parameters only if they are shown to be better (as `lnln choose`). None: they
            are taken on the study's own word.
        publish_as: Name in the model store, such as mosi-lnln. None: not published.

    Returns:
        Names of the study, run, evaluation and model (None where there is none), where the reports on study and model
        are, and the mean scores over the missing rates of the test split.
    """
    there = settings_of_run(store).store
    chosen = config_for(corpus, config, overrides or [])
    if publish_as:
        check_name(publish_as)  # now, and not after hours of training
    ranges = default_space(chosen) if space is None else Space.from_dict(space)
    study_id = study_page = trial = None
    if num_trials:
        study = search(there, corpus, chosen.to_dict(), ranges.to_dict(), num_trials, num_workers)
        study_id, study_page = study["study_id"], write_study_report(there, study["study_id"])
        found = compare(there, study_id, compare_seeds, num_workers) if compare_seeds else study
        chosen, trial = with_parameters(chosen, found["parameters"]), found["trial"]
    run_id = train_run(there, corpus, chosen.to_dict(), num_workers, config)
    evaluation = evaluate_run(there, run_id)
    model = publish_run(there, run_id, publish_as, study_id, trial) if publish_as else None
    report_url = write_report(there, model or run_id, publish_as or run_id)
    get_run_logger().info("%s: %s, report %s", corpus, model or run_id, report_url)
    return {
        "corpus": corpus,
        "study_id": study_id,
        "study_report": study_page,
        "run_id": run_id,
        "evaluation_id": evaluation["evaluation_id"],
        "model": model,
        "report": report_url,
        "scores": evaluation["scores"],
    }


@stage("study")
def search(
    store: str, corpus: str, config: dict[str, Any], space: dict[str, Any], num_trials: int, num_workers: int
) -> dict[str, Any]:
    """study_id, and number and parameters of the study's best trial; None for the configured ones."""
    study = tune(
        Store(store),
        corpus,
        Config.from_dict(config),
        num_trials=num_trials,
        num_workers=num_workers,
        space=Space.from_dict(space),
    )
    create_table_artifact(
        key=artifact_key("study", corpus),
        table=table(study),
        description=f"Study {markdown.code(study.study_id)}: {markdown.escape(verdict(study))}.",
    )
    best = best_trial(study)
    return {
        "study_id": study.study_id,
        "trial": None if best.is_configured else best.number,
        "parameters": best.parameters,
    }


@stage("choice")
def compare(store: str, study_id: str, seeds: list[int], num_workers: int) -> dict[str, Any]:
    """Number and parameters of the trial that was shown to be better than the configured ones, else those, and None."""
    choice = choose(Store(store), study_id, seeds=seeds, num_workers=num_workers)
    create_table_artifact(
        key=artifact_key("choice", choice.corpus),
        table=choice.rows(),
        description=f"Study {markdown.code(study_id)}: {markdown.escape(choice.verdict)}",
    )
    better = choice.best if choice.outcome == "better" else None
    taken = better or choice.configured
    return {"trial": taken.trial, "parameters": taken.parameters}


@stage("study report")
def write_study_report(store: str, study_id: str) -> str:
    """Where the page on the study is, as of `write_report`."""
    with tempfile.TemporaryDirectory(prefix="lnln-report-") as folder:
        return keep_report(Store(store), study_report(Store(store), study_id, folder), study_id)
