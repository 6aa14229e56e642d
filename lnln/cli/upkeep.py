"""Verbs that check and tidy."""

from __future__ import annotations

from typing import Annotated

import typer

from lnln.cli import show
from lnln.cli.session import Session


def verify(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A corpus, a model or a run; default: every corpus and model.")
    ] = None,
) -> None:
    """Every checksum of a corpus and its views, a model, or a run; exit 1 names what is damaged."""
    from lnln.verify import verify as run_verification

    session: Session = context.obj
    with session.console.as_progress():
        counts = run_verification(session.store, name)
    said = ", ".join(f"{count} {what}" for what, count in counts.items())
    nothing = f"nothing to check: {session.store.url} holds no corpus and no model"
    session.console.result(counts, lines=[f"whole: {said}" if said else nothing])


def gc(
    context: typer.Context,
    grace: Annotated[
        float, typer.Option(help="Hours; what is younger stays, since a writer may need it; 0 only if nobody writes.")
    ] = 24.0,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else it is only listed.")] = False,
) -> None:
    """What lies in the store and nothing names: what killed writers left."""
    from lnln.gc import DEFAULT_GRACE_HOURS, find_garbage, remove_garbage

    session: Session = context.obj
    store = session.store
    with session.console.as_progress():
        garbage = find_garbage(store, grace)
        removed = remove_garbage(store, garbage) if delete else []
    again = f"{session.command} gc" if grace == DEFAULT_GRACE_HOURS else f"{session.command} gc --grace {grace:g}"
    show.garbage(session.console, garbage, removed if delete else None, command=again)


def doctor(
    context: typer.Context,
    config: Annotated[
        str | None, typer.Option(help="A config that a training is to have: name or .yaml; it may ask for a GPU.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="section.key=value of it; repeatable.")] = None,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that a training is to have, here or on RAY_ADDRESS.")] = 0,
) -> None:
    """What this machine and the configured store, Dask, Ray and Prefect can do, and what is wrong."""
    from lnln.config import load_config
    from lnln.doctor import examine

    session: Session = context.obj
    chosen = load_config(config, overrides or []) if config or overrides else None
    with session.console.as_progress():
        findings = examine(session.store_url, chosen, gpus)
    show.findings(session.console, findings)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)
