"""What every verb starts from: the application, the global options, and the config that the options choose."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lnln import __version__, progress
from lnln.cli.console import Console

if TYPE_CHECKING:
    from lnln.config import Config
    from lnln.data.store import Store

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Multimodal sentiment analysis with incomplete data: from corpus to published model.",
)


class Session:
    """What the global options say, for the verb that follows."""

    def __init__(self, store_url: str | None, console: Console) -> None:
        self.store_url = store_url
        self.console = console
        progress.be_quiet(console.quiet)

    @property
    def store(self) -> Store:
        from lnln.data.store import Store, default_store

        return Store(self.store_url or default_store())

    @property
    def command(self) -> str:
        """`lnln`, with the store where that has to be said again."""
        return "lnln" if self.store_url is None else f"lnln --store {shlex.quote(self.store_url)}"


def _say_version(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit


@app.callback()
def _session(
    context: typer.Context,
    store: Annotated[
        str | None, typer.Option(help="A folder or s3://bucket/prefix; default: LNLN_STORE, else ./store.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="The version of lnln.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    context.obj = Session(store, Console(as_json=as_json, quiet=quiet))


def chosen_config(corpus: str, name: str | None, overrides: list[str] | None, seed: int | None = None) -> Config:
    from lnln.config import config_for

    return config_for(corpus, name, [*(overrides or []), *([f"train.seed={seed}"] if seed is not None else [])])
