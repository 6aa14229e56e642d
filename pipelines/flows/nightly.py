"""The `nightly` flow: the whole path for one corpus, of which only what is new is done.

    features -> views -> train -> evaluate -> publish (publish_as) -> report

From Python `nightly(corpus="mosi", source="unaligned_50.pkl", publish_as="mosi-lnln")`; as a deployment `prefect
deployment run nightly/nightly -p corpus=mosi -p source=/srv/unaligned_50.pkl` (see `prefect.yaml`).

Everything is known by a fingerprint of what it is made of. So another source has other features, these have other
runs, and so on down the path; what is as it was is looked at (each shard is read, each file weighed) and left.
What each stage came to stands in `reports/<name>/chain.json`, and the next chain says what of it is new.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.states import Completed

from lnln.config import config_for
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store.catalog import check_name
from pipelines.flows.evaluate import evaluate_run, publish_run, write_report
from pipelines.flows.features import artifact_key, features, settings_of_run
from pipelines.flows.stage import HOUR, tell_of_failure
from pipelines.flows.train import train
from pipelines.flows.views import views


@flow(
    name="nightly",
    flow_run_name="nightly chain of {corpus}",
    timeout_seconds=168 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def nightly(
    corpus: str,
    source: str | None = None,
    clips: str | None = None,
    extractors: str | None = None,
    config: str | None = None,
    overrides: list[str] | None = None,
    num_workers: int = 1,
    publish_as: str | None = None,
    store: str | None = None,
) -> Any:
    """From a corpus to a published model and its report, doing only what the last such chain has not done.

    Args:
        corpus: What the corpus is called in the store, such as mosi.
        source: Path of an MMSA pickle, as the worker sees it. None, and no clips: the synthetic sample corpus.
        clips: A folder or s3://bucket/prefix of raw clips with a label.csv, as the workers see it; sample draws some.
        extractors: Of clips, a config of extractors by name or .yaml path. None: the default ones.
        config: A config by name or .yaml path. None: the one called like the corpus, if there is one.
        overrides: Config keys to change, such as train.seed=1112.
        num_workers: Train workers.
        publish_as: Name in the model store, such as mosi-lnln. None: not published.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        What each stage came to, which of them are new, and the mean scores over the missing rates of the test split.
    """
    started = time.monotonic()
    if publish_as:
        check_name(publish_as)
    config_for(corpus, config, overrides or [])  # refused now, and not after hours of extraction
    url = settings_of_run(store).store
    made = features(corpus=corpus, source=source, clips=clips, extractors=extractors, store=url)
    masks = views(corpus=corpus, config=config, overrides=overrides, store=url)
    run = train(corpus=corpus, config=config, overrides=overrides, store=url, num_workers=num_workers)
    evaluation = evaluate_run(url, run["run_id"])
    model = publish_run(url, run["run_id"], publish_as, None, None) if publish_as else None
    name = publish_as or run["run_id"]
    there, record = Store(url), f"reports/{name}/chain.json"
    now = {
        "features": made["digest"],
        "views": masks["view_ids"],
        "run": run["run_id"],
        "evaluation": evaluation["evaluation_id"],
        "model": model,
        "report": f"{url}/reports/{name}/index.html",
    }
    before = _read(there, record)
    if now != before or not there.exists(f"reports/{name}/index.html"):
        write_report(url, model or run["run_id"], name)
        there.write_json(record, now)
    new = [stage for stage, result in now.items() if before.get(stage) != result]
    seconds = round(time.monotonic() - started, 1)
    said = f"new: {', '.join(new)}" if new else "nothing is new, nothing was done"
    create_table_artifact(
        key=artifact_key("nightly", corpus),
        table=[
            {"stage": stage, "result": _shown(result), "new": "yes" if stage in new else ""}
            for stage, result in now.items()
        ],
        description=f"The chain of **{corpus}** in {seconds:g} s: {said}.",
    )
    get_run_logger().info("%s in %g s: %s", corpus, seconds, said)
    outcome = {"corpus": corpus, **now, "new": new, "seconds": seconds, "scores": evaluation["scores"]}
    return Completed(message=said, data=outcome)  # whoever calls the flow gets the outcome


def _read(store: Store, path: str) -> dict[str, Any]:
    """What the last chain came to; empty where there was none, or where it left no whole record."""
    try:
        found = store.read_json(path) if store.exists(path) else {}
    except StoreFailedError:
        raise
    except RefusedError:
        return {}
    return found if isinstance(found, dict) else {}


def _shown(result: Any) -> str:
    return f"{len(result)}, the first {result[0]}" if isinstance(result, list) and result else str(result)
