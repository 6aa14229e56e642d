"""Verbs of the model store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnln.cli import show
from lnln.cli.session import Session


def publish(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A finished run.")],
    name: Annotated[str, typer.Option(help="Name in the model store, such as mosi-lnln.")],
) -> None:
    """A finished run to an immutable version in the model store."""
    from lnln.model_store import publish as publish_run

    session: Session = context.obj
    with session.console.as_progress():
        version = publish_run(session.store, run, name)
    session.console.result({"model": f"{name}@{version}"}, lines=[f"{name}@{version}"])


def alias(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A published model, such as mosi-lnln.")],
    alias: Annotated[str, typer.Argument(help="What its version is to be called too, such as production.")],
    version: Annotated[str, typer.Argument(help="v2, or another alias.")],
) -> None:
    """A name for one version of a published model; an alias may be moved, `best` moves by itself."""
    from lnln.model_store import resolve, set_alias

    session: Session = context.obj
    set_alias(session.store, name, alias, version)
    made, target = f"{name}@{alias}", resolve(session.store, f"{name}@{alias}").reference
    session.console.result({"alias": made, "model": target}, lines=[f"{made} is {target}"])


def models(context: typer.Context) -> None:
    """What the model store holds."""
    from lnln.model_store import list_models

    session: Session = context.obj
    show.models(session.console, list_models(session.store))


def pull(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="name, name@version or name@alias.")],
    folder: Annotated[Path, typer.Argument(help="Where it goes.")],
) -> None:
    """A published model to a folder, every checksum verified."""
    from lnln.model_store import pull as pull_model
    from lnln.model_store import resolve

    session: Session = context.obj
    with session.console.as_progress():
        version = resolve(session.store, name).reference  # once, since an alias may move meanwhile
        path = pull_model(session.store, version, folder)
    session.console.result({"model": version, "folder": str(path)}, lines=[f"{version} in {path}"])


def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A pulled folder, a published model, or a run.")],
    inputs: Annotated[list[str], typer.Argument(help="Clips, sentences, or feature shards (.parquet).")],
    transcripts: Annotated[
        list[str] | None,
        typer.Option("--transcript", help="What is said in a clip; once for each clip, in order, or not at all."),
    ] = None,
) -> None:
    """Sentiment of clips, sentences or feature shards, with what was missing."""
    from pipelines.clips.predict import predict as run_prediction

    session: Session = context.obj
    with session.console.as_progress():
        predictions, left_out = run_prediction(session.store, model, inputs, transcripts or [])
    show.predictions(session.console, predictions, left_out)
