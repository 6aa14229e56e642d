"""The verb for the first five minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnln.cli import show
from lnln.cli.arguments import (
    ConfigName,
    Overrides,
    Workers,
)
from lnln.cli.session import Session


def demo(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="An MMSA pickle; default: the synthetic sample corpus.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="What to call the corpus; default: mine with --data, else sample.")
    ] = None,
    config: ConfigName = None,
    overrides: Overrides = None,
    workers: Workers = 2,
    trials: Annotated[int, typer.Option(help="Trials of the study over the loss weights; 0: no study.")] = 4,
) -> None:
    """The whole path, from a corpus to a published model, a report and three predictions."""
    from pipelines.flows.demo import corpus_of_demo
    from pipelines.flows.demo import demo as run_demo

    session: Session = context.obj
    name = corpus_of_demo(data, corpus)
    with session.console.as_progress():
        outcome = run_demo(
            store_url=session.store.url,
            corpus=name,
            source=data,
            config_name=config,
            overrides=overrides or [],
            num_workers=workers,
            num_trials=trials,
            folder=Path(),
        )
    show.demo(session.console, outcome, command=session.command, is_sample=data is None)
