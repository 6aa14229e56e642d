"""The `simulate` flow: simulated text of a corpus, as jobs on Dask.

From Python `simulate(corpus="mosi")`; as a deployment `prefect deployment run simulate/simulate -p corpus=mosi` (see
`prefect.yaml`).
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact

from lnln.data.simulated_text import Simulation
from lnln.data.store import Store
from pipelines.execute import dask_client
from pipelines.flows.features import artifact_key, settings_of_run
from pipelines.flows.stage import HOUR, shown_progress, stage, tell_of_failure
from pipelines.settings import Settings
from pipelines.simulate import simulate as simulate_corpus
from pipelines.simulators import Provider, load_provider


@flow(
    name="simulate",
    flow_run_name="simulated text of {corpus}",
    timeout_seconds=24 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def simulate(
    corpus: str,
    provider: str = "regressor",
    overrides: list[str] | None = None,
    clips: str | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Write what the text's features might be, judged by the audio. What was made before is not made again.

    Args:
        corpus: An imported or extracted corpus, such as mosi.
        provider: What simulates: regressor, recognition or speech_llm.
        overrides: Knobs of the provider to change, such as num_steps=16.
        clips: Of a provider that hears clips, the folder or s3://bucket/prefix that they lie in.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        The id of the simulated text, its width, and how many utterances have some.
    """
    settings = settings_of_run(store)
    chosen = load_provider(provider, overrides or [])
    made = make_simulation(settings, corpus, chosen, clips)
    create_table_artifact(
        key=artifact_key("simulate", corpus),
        table=_table(made),
        description=f"Simulated text `{made.simulation_id}` of **{corpus}** in `{settings.store}`, by {provider}.",
    )
    get_run_logger().info("simulated text %s of %s in %s", made.simulation_id, corpus, settings.store)
    return {
        "corpus": corpus,
        "feature_id": made.feature_id,
        "simulation_id": made.simulation_id,
        "dim": made.dim,
        "num_simulated": sum(made.splits[split].num_utterances - own.num_absent for split, own in made.lengths.items()),
    }


@stage("simulate")
def make_simulation(settings: Settings, corpus: str, provider: Provider, clips: str | None) -> Simulation:
    """Its manifest."""
    progress = shown_progress(artifact_key("progress-simulate", corpus), f"Simulated text of {corpus}")
    with progress, dask_client(settings) as client:
        return simulate_corpus(Store(settings.store), corpus, provider, client, clips=clips).simulation


def _table(made: Simulation) -> list[dict[str, Any]]:
    rows = []
    for split, lengths in made.lengths.items():
        row: dict[str, Any] = {
            "split": split,
            "utterances": made.splits[split].num_utterances,
            "mean steps": round(lengths.mean, 1),
            "without": lengths.num_absent,
        }
        for said, scores in made.quality.get(split, {}).items():
            if isinstance(scores, dict):
                row.update({f"{said}: {score}": value for score, value in scores.items()})
        rows.append(row)
    return rows
