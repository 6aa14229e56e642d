"""The `train` flow: one run, on the Ray cluster of the worker, or here.

From Python `train(corpus="mosi", num_workers=2)`; as a deployment `prefect deployment run train/train -p corpus=mosi
-p num_workers=2` (see `prefect.yaml`). A run that was interrupted continues from its newest checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from lnln import markdown
from lnln.config import Config, config_for
from lnln.data.store import Store
from lnln.runs import Run, load_run
from lnln.train.launch import train as train_in_store
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, shown_progress, stage, tell_of_failure


def _run_name() -> str:
    given = flow_run.parameters
    chosen = f" as {Path(given['config']).stem}" if given.get("config") else ""
    return f"train on {given['corpus']}{chosen}"


@flow(
    name="train",
    flow_run_name=_run_name,
    timeout_seconds=72 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def train(
    corpus: str,
    config: str | None = None,
    overrides: list[str] | None = None,
    store: str | None = None,
    num_workers: int = 1,
) -> dict[str, Any]:
    """Train one run, or continue it. One that is finished is not trained again.

    Args:
        corpus: An imported or extracted corpus, such as mosi.
        config: A config by name or .yaml path. None: the one called like the corpus, if there is one.
        overrides: Config keys to change, such as train.seed=1112 or model.name=text_only.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.
        num_workers: Train workers, with a GPU each where there are as many.

    Returns:
        The run's id, the epoch that was chosen, and its score on validation.
    """
    there = settings_of_run(store).store
    run_id = train_run(there, corpus, config_for(corpus, config, overrides or []).to_dict(), num_workers, config)
    run = load_run(Store(there), run_id)
    create_table_artifact(
        key=artifact_key("train", corpus),
        table=_table(run),
        description=f"Epochs of run {markdown.code(run_id)}; epoch {run.best_epoch} was chosen on validation.",
    )
    get_run_logger().info(
        "%s: epoch %d of %d, validation MAE %.4f", run_id, run.best_epoch, len(run.history), run.score
    )
    return {"corpus": corpus, "run_id": run_id, "best_epoch": run.best_epoch, "score": run.score}


@stage("train")
def train_run(store: str, corpus: str, config: dict[str, Any], num_workers: int, config_name: str | None) -> str:
    """The run's id; an interrupted run continues from its newest checkpoint."""
    with shown_progress(artifact_key("progress-train", corpus), f"Training on {corpus}, by epochs") as say:
        run = train_in_store(
            Store(store),
            corpus,
            Config.from_dict(config),
            num_workers=num_workers,
            config_name=config_name,
            progress=say,
        )
    return run.run_id


def _table(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "epoch": number,
            "training loss": round(record["loss"]["total"], 4),
            "validation MAE": round(record["score"], 4),
            "seconds": round(record["train_seconds"] + record["validation_seconds"], 1),
            "chosen": "yes" if number == run.best_epoch else "",
        }
        for number, record in enumerate(run.history, start=1)
    ]
