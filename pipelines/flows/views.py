"""The `views` flow: the evaluation views and training draws of a corpus, as jobs on Dask.

From Python `views(corpus="mosi", config="mosi")`; as a deployment `prefect deployment run views/views -p corpus=mosi`
(see `prefect.yaml`).
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from lnln.config import Config, config_for
from lnln.data.manifest import ViewManifest
from lnln.data.store import Store
from pipelines.corrupt import corrupt
from pipelines.execute import dask_client
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, shown_progress, stage, tell_of_failure
from pipelines.settings import Settings


@flow(
    name="views",
    flow_run_name="views of {corpus}",
    timeout_seconds=6 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def views(
    corpus: str, config: str | None = None, overrides: list[str] | None = None, store: str | None = None
) -> dict[str, Any]:
    """Write the masks of every missing rate and training draw that a config names. Views made before are kept.

    Args:
        corpus: An imported corpus, such as mosi.
        config: A config by name or .yaml path. None: the one called like the corpus, if there is one.
        overrides: Config keys to change, such as corruption.mask_seed=1.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        The ids of the views, evaluation views first.
    """
    settings = settings_of_run(store)
    chosen = config_for(corpus, config, overrides or [])
    made = make_views(settings, corpus, chosen)
    feature_ids = sorted({view.feature_id for view in made})
    create_table_artifact(
        key=artifact_key("views", corpus),
        table=[row for view in made for row in _rows(view)],
        description=f"{len(made)} views of corpus **{corpus}** in `{settings.store}`: the shares that are erased.",
    )
    get_run_logger().info("%d views of %s in %s", len(made), corpus, settings.store)
    return {"corpus": corpus, "feature_ids": feature_ids, "view_ids": [view.view_id for view in made]}


@stage("corrupt")
def make_views(settings: Settings, corpus: str, config: Config) -> list[ViewManifest]:
    """Their manifests, evaluation views first."""
    progress = shown_progress(artifact_key("progress-views", corpus), f"Views of {corpus}")
    with progress, dask_client(settings) as client:
        return corrupt(Store(settings.store), corpus, config, client)


def _rows(view: ViewManifest) -> list[dict[str, Any]]:
    rates = view.spec["rates"]
    missing_rate = f"drawn, number {view.spec['draw']}" if rates is None else ", ".join(f"{rate:g}" for rate in rates)
    return [
        {
            "view": view.view_id,
            "protocol": view.spec["protocol"],
            "missing rate (text, audio, vision)": missing_rate,
            "seed": view.spec["seed"],
            "split": split,
            **{f"{modality} erased": f"{share:.3f}" for modality, share in realised.items()},
        }
        for split, realised in view.realised_rates.items()
    ]
