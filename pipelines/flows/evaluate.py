"""The `evaluate` flow: a run or a model scored over all missing rates, published, and reported on.

From Python `evaluate(model="mosi-lnln-1f3a0c9d2b44", publish_as="mosi-lnln")`; as a deployment `prefect deployment run
evaluate/evaluate -p model=mosi-lnln@best` (see `prefect.yaml`). What was scored or published before is not again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact

from lnln import markdown
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate as evaluate_in_store
from lnln.evaluations import Evaluation
from lnln.model_store import Origin, publish
from lnln.model_store.catalog import check_name
from lnln.report import report
from pipelines.flows.curve import curve_url
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, shown_progress, stage, tell_of_failure


@flow(
    name="evaluate",
    flow_run_name="evaluate {model}",
    timeout_seconds=24 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def evaluate(
    model: str, corpus: str | None = None, publish_as: str | None = None, store: str | None = None
) -> dict[str, Any]:
    """Score a model at every missing rate of its config, publish it, and write its report.

    Args:
        model: A run, or a published model such as mosi-lnln@best.
        corpus: Another corpus than the one it was trained on, of the same features. None: its own.
        publish_as: Of a run, its name in the model store, such as mosi-lnln. None: not published.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        The evaluation's id, its mean scores over the missing rates of the test split, the published model (None where
        there is none), and where the report is.
    """
    if publish_as and "@" in model:
        raise RefusedError(f"{model} is published already; leave publish_as {publish_as} out, or give a run")
    if publish_as:
        check_name(publish_as)
    there = settings_of_run(store).store
    evaluation = evaluate_run(there, model, corpus)
    published = publish_run(there, model, publish_as, None, None) if publish_as else None
    report_url = write_report(there, published or model, publish_as or model.replace("@", "-"))
    get_run_logger().info("%s: %s, report %s", model, published or "not published", report_url)
    return {**evaluation, "model": published, "report": report_url}


@stage("evaluate")
def evaluate_run(store: str, name: str, corpus: str | None = None) -> dict[str, Any]:
    """The evaluation's id, and its mean scores over the missing rates."""
    with shown_progress(artifact_key("progress-evaluate", name), f"Scores of {name}"):
        evaluation = evaluate_in_store(Store(store), name, corpus)
    create_markdown_artifact(
        key=artifact_key("experiment", evaluation.corpus),
        markdown=score_table(evaluation),
        description=f"{name} on the {evaluation.split} split",
    )
    curve = curve_url(evaluation)
    if curve is not None:
        create_image_artifact(
            image_url=curve,
            key=artifact_key("curve", evaluation.corpus),
            description=f"MAE of {markdown.code(name)} over the missing rate",
        )
    return {"evaluation_id": evaluation.evaluation_id, "scores": evaluation.mean}


@stage("publish")
def publish_run(store: str, run_id: str, name: str, study_id: str | None, trial: int | None) -> str:
    """`name@version`; a run published before keeps its version. study_id, trial: where its parameters are from."""
    origin = None if study_id is None else Origin(study_id, trial)
    return f"{name}@{publish(Store(store), run_id, name, origin=origin)}"


@stage("report")
def write_report(store: str, model: str, name: str) -> str:
    """Where the report on `model` is: in the store, since the worker's own disk may go with the worker."""
    with tempfile.TemporaryDirectory(prefix="lnln-report-") as folder:
        url = keep_report(Store(store), report(Store(store), [model], folder), name)
    create_link_artifact(
        link=url, link_text=f"report on {model}", key=artifact_key("report", name), description=f"The report on {model}"
    )
    return url


def keep_report(store: Store, index: Path, name: str) -> str:
    """Upload the folder of a report to `reports/<name>/`; returns the URL of its index."""
    files = sorted(path for path in index.parent.rglob("*") if path.is_file() and path != index)
    for path in [*files, index]:  # the index last: where it is, what it shows is
        store.upload(path, f"reports/{name}/{path.relative_to(index.parent).as_posix()}")
    return f"{store.url}/reports/{name}/{index.name}"


def score_table(evaluation: Evaluation) -> str:
    """Every metric at every missing rate, as Markdown."""
    origin = " (synthetic)" if evaluation.synthetic else ""
    heading = f"# {markdown.escape(evaluation.name)} on {markdown.escape(evaluation.corpus)}{origin}"
    return f"{heading}\n\n{markdown.table(evaluation.rows())}\n"
