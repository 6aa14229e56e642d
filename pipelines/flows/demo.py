"""The whole path in one sitting: `lnln demo`, `make run`.

Every step is the function or flow that a user would call for it; the demo only puts them in order and says so.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnln import progress
from lnln.config import config_for
from lnln.errors import RefusedError

if TYPE_CHECKING:
    from lnln.data.store import Store

# The corpus without a file of the user's own, and with one, where nothing else is asked for.
SAMPLE, MINE = "sample", "mine"

# Epochs of the run on a corpus of the user's own, unless --set says another number: enough to see what comes of it,
# in half the time that `lnln train` takes.
MAX_EPOCHS = 8

SENTENCES = (
    "the film was absolutely wonderful and I loved it",
    "honestly the plot was boring and I want my money back",
    "the music is pretty good but it is too long",
)


def corpus_of_demo(source: Path | None, asked: str | None) -> str:
    """What the demo calls its corpus; RefusedError where a corpus is asked for by name without its file."""
    if source is not None:
        return MINE if asked is None else asked
    if asked not in (None, SAMPLE):
        raise RefusedError(
            f"the demo makes corpus {asked} from an MMSA pickle: add --data FILE.pkl; without it the demo runs on the "
            f"synthetic corpus, which is called {SAMPLE}"
        )
    return SAMPLE


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
) -> dict[str, Any]:
    """Import, corrupt, search, train, evaluate, publish, report, pull, predict; what is done already is not done again.

    The pulled model goes to `folder/models/<name>`, the report to `folder/reports/<name>`. The result is what the
    `experiment` flow returns, with the evaluation, the predictions and where report and model are.
    """
    # Prefect reads these when it is imported; who set them otherwise keeps that.
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # A busy laptop takes longer than Prefect's 20 s to start the API that the flows report to.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    # A flow that fails would be logged with its traceback, and then raise what the command line says in one line.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")

    from lnln.data.store import Store
    from lnln.evaluate import evaluate
    from lnln.model_store import pull
    from lnln.report import report
    from pipelines.flows.experiment import experiment
    from pipelines.flows.features import features
    from pipelines.flows.views import views

    started = time.monotonic()

    def step(number: int, text: str) -> None:
        progress.line(f"[{number}/6] {text}  ({time.monotonic() - started:.0f} s)")

    if source is not None and config_for(corpus, config_name).train.epochs > MAX_EPOCHS:
        overrides = [f"train.epochs={MAX_EPOCHS}", *overrides]
    name = re.sub(r"[^a-z0-9_-]+", "-", f"{corpus}-lnln".lower())
    step(1, f"features: {source or 'the synthetic sample corpus'} to Parquet shards in {store_url}")
    features(corpus=corpus, source=str(source) if source else None, store=store_url)

    step(2, "views: masks for every missing rate, and the training draws, as Dask jobs")
    views(corpus=corpus, config=config_name, overrides=list(overrides), store=store_url)

    step(3, f"experiment: a study ({num_trials} trials), a run (Ray workers: {num_workers}), its evaluation")
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
    predictions = _predictions(store, str(pulled), None if source is None else corpus)
    return {
        **outcome,
        "evaluation": evaluate(store, outcome["model"]).to_dict(),  # as the experiment left it in the store
        "report": str(report_path),
        "folder": str(pulled),
        "predictions": predictions,
        "seconds": round(time.monotonic() - started, 1),
    }


def _predictions(store: Store, model: str, corpus: str | None) -> list[dict[str, Any]]:
    """Three predictions: for `SENTENCES`, or for the first test utterances of a user's corpus, in its own language."""
    from lnln.data.manifest import read_features
    from lnln.data.shards import read_split
    from lnln.predict import Predictor, predict

    if corpus is None:
        return predict(store, model, list(SENTENCES))
    utterances = read_split(store, read_features(store, corpus), "test")
    chosen = utterances.take(range(min(3, len(utterances))))
    return [{"input": made.text, **made.to_dict()} for made in Predictor.open(store, model).predict_utterances(chosen)]
