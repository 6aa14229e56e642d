"""The whole path in one sitting: `lnln demo`, `make run`.

Every step is the function or flow that a user would call for it; the demo only puts them in order and says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SENTENCES = (
    "the film was absolutely wonderful and I loved it",
    "honestly the plot was boring and I want my money back",
    "the music is pretty good but it is too long",
)


def demo(
    *,
    store_url: str,
    corpus: str,
    source: Path | None,
    config_name: str | None,
    overrides: Sequence[str],
    num_workers: int,
    num_trials: int,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Import, corrupt, search, train, evaluate, publish, report, pull, predict; what is done already is not done again.

    The pulled model goes to `folder/models/<name>`, the report to `folder/reports/<name>`.
    """
    # Prefect reads these when it is imported; who set them otherwise keeps that.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

    from lnln.data.store import Store
    from lnln.model_store import pull
    from lnln.predict import predict
    from lnln.report import report
    from pipelines.flows.experiment import experiment
    from pipelines.flows.features import features
    from pipelines.flows.views import views

    started = time.monotonic()

    def step(number: int, text: str) -> None:
        say(f"[{number}/6] {text}  ({time.monotonic() - started:.0f} s)")

    name = f"{corpus}-lnln"
    step(1, f"features: {source or 'the synthetic sample corpus'} to Parquet shards in {store_url}")
    features(corpus=corpus, source=str(source) if source else None, store=store_url)

    step(2, "views: masks for every missing rate, and the training draws, as Dask jobs")
    views(corpus=corpus, config=config_name, overrides=list(overrides), store=store_url)

    step(3, f"experiment: a study of {num_trials} trials, a run on {num_workers} Ray workers, its evaluation")
    outcome = experiment(
        corpus=corpus,
        config=config_name,
        overrides=list(overrides),
        store=store_url,
        num_workers=num_workers,
        num_trials=num_trials,
        publish_as=name,
    )

    step(4, f"report on {outcome['model']}")
    store = Store(store_url)
    report_path = report(store, [outcome["model"]], folder / "reports" / name)

    step(5, f"pull {outcome['model']}, every checksum verified")
    pulled = pull(store, outcome["model"], folder / "models" / name)

    step(6, "predictions by the pulled model")
    predictions = predict(store, str(pulled), list(SENTENCES))
    return {
        **outcome,
        "report": str(report_path),
        "folder": str(pulled),
        "predictions": predictions,
        "seconds": round(time.monotonic() - started, 1),
    }
