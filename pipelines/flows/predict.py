"""The `predict` flow: predictions for a whole corpus, or for feature shards from elsewhere, as jobs on Dask.

From Python `predict(model="mosi-lnln@best", corpus="mosi")`; as a deployment
`prefect deployment run predict/predict -p model=mosi-lnln@best -p corpus=mosi -p split=all` (see `prefect.yaml`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import deployment

from lnln.config import Protocol
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.execute import dask_client
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, shown_progress, stage, tell_of_failure
from pipelines.predict import PredictedFolder, predict_corpus, predict_files
from pipelines.settings import Settings


@flow(
    name="predict",
    flow_run_name="predict by {model}",
    timeout_seconds=24 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def predict(
    model: str,
    corpus: str | None = None,
    shards: list[str] | None = None,
    split: str = "test",
    missing_rate: float | list[float] | None = None,
    mask_seed: int | None = None,
    protocol: Protocol | None = None,
    out: str | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Write what a model says of every utterance as Parquet. What was predicted before is not predicted again.

    Args:
        model: A published model such as mosi-lnln@best, or a run.
        corpus: The corpus whose utterances are predicted.
        shards: Instead of a corpus, feature shards as the workers see them: files, folders, patterns such as
            /srv/shards/*.parquet, or s3://bucket/prefix.
        split: Of the corpus; all for every split.
        missing_rate: What is to be missing, one number or those of text, audio and vision. None: nothing.
        mask_seed: Of the masks. None: the model's own.
        protocol: How views are made. None: the model's own.
        out: A folder or s3://bucket/prefix of its own. None: below reports/ of the store, by what is asked for.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        Where predictions and manifest are, what they are of, and how many.
    """
    if (corpus is None) == (shards is None):
        raise RefusedError(f"predictions are of a corpus or of shards, got corpus {corpus} and shards {shards}")
    if out is not None and deployment.id and "://" not in out and not Path(out).is_absolute():
        raise RefusedError(
            f"a deployment needs a folder that outlives its run, got the relative one {out}; set the parameter out to "
            "s3://bucket/prefix or an absolute path, or leave it out"
        )
    if isinstance(missing_rate, list):
        if len(missing_rate) != 3:
            raise RefusedError(f"a missing rate is one number or those of text, audio, vision, got {missing_rate}")
        text, audio, vision = missing_rate
        rate: float | tuple[float, float, float] | None = (text, audio, vision)
    else:
        rate = missing_rate
    made = write_predictions(
        settings_of_run(store),
        model,
        corpus=corpus,
        shards=shards,
        out=out,
        split=split,
        rate=rate,
        mask_seed=mask_seed,
        protocol=protocol,
    )
    create_table_artifact(
        key=artifact_key("predictions", corpus or "files"),
        table=_table(made),
        description=f"Predictions of {made.request} in `{made.url}`.",
    )
    get_run_logger().info("%d predictions in %s, %d parts new", made.num_utterances, made.url, made.num_new)
    return made.to_dict()


@stage("predict")
def write_predictions(
    settings: Settings,
    model: str,
    *,
    corpus: str | None,
    shards: list[str] | None,
    out: str | None,
    split: str,
    **how: Any,
) -> PredictedFolder:
    """Of a corpus, or else of shards. how: further arguments of both."""
    there = Store(settings.store)
    progress = shown_progress(artifact_key("progress-predict", corpus or "files"), f"Predictions by {model}")
    with progress, dask_client(settings) as client:
        if corpus is not None:
            return predict_corpus(there, model, corpus, out, split=split, client=client, **how)
        return predict_files(there, model, shards or [], out, client=client, **how)


def _table(made: PredictedFolder) -> list[dict[str, Any]]:
    return [
        {"what": "model", "value": made.request.model},
        {"what": "utterances", "value": made.num_utterances},
        {"what": "parts", "value": made.num_parts},
        {"what": "of these new", "value": made.num_new},
        {"what": "folder", "value": made.url},
    ]
