"""The front door: `lnln VERB`, each verb one function of the library.

Results go to standard output, everything else to standard error. Exit 0 done, 1 a refusal in one line, 2 usage.
Each verb imports what it needs when it is called, so that `lnln --help` is instant.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnln import show
from lnln.console import Console
from lnln.errors import RefusedError

if TYPE_CHECKING:
    from lnln.config import Config
    from lnln.data.store import Store

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Multimodal sentiment analysis with incomplete data: from corpus to published model.",
)

Corpus = Annotated[str, typer.Argument(help="Name of an imported corpus, such as mosi or sample.")]
ConfigName = Annotated[
    str | None, typer.Option("--config", help="A config by name or .yaml path; default: the corpus's own, if any.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="One config key, such as loss.adversarial=0.5; may be repeated.")
]
Workers = Annotated[int, typer.Option("--workers", help="Ray Train workers; the result is the same for any number.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the run (train.seed).")]


class Session:
    """What the global options say, for the verb that follows."""

    def __init__(self, store_url: str | None, console: Console) -> None:
        self.store_url = store_url
        self.console = console

    @property
    def store(self) -> Store:
        from lnln.data.store import Store, default_store

        return Store(self.store_url or default_store())


@app.callback()
def _session(
    context: typer.Context,
    store: Annotated[
        str | None, typer.Option(help="A folder or s3://bucket/prefix; default: LNLN_STORE, else ./store.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    context.obj = Session(store, Console(as_json=as_json, quiet=quiet))


def _config(corpus: str, name: str | None, overrides: list[str] | None, seed: int | None = None) -> Config:
    from lnln.config import config_for

    return config_for(corpus, name, [*(overrides or []), *([f"train.seed={seed}"] if seed is not None else [])])


@app.command()
def demo(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="An MMSA pickle; default: the synthetic sample corpus.")] = None,
    corpus: Annotated[str, typer.Option(help="What to call the corpus.")] = "sample",
    config: ConfigName = None,
    overrides: Overrides = None,
    workers: Workers = 2,
    trials: Annotated[int, typer.Option(help="Trials of the study over the loss weights; 0: no study.")] = 4,
) -> None:
    """The whole path, from a corpus to a published model, a report and three predictions."""
    from pipelines.flows.demo import demo as run_demo

    session: Session = context.obj
    console = session.console
    with console.as_progress():
        outcome = run_demo(
            store_url=session.store.url,
            corpus=corpus,
            source=data,
            config_name=config,
            overrides=overrides or [],
            num_workers=workers,
            num_trials=trials,
            folder=Path(),
            say=console.say,
        )
    show.demo(console, outcome)


@app.command("import")
def import_(
    context: typer.Context,
    pickle: Annotated[Path, typer.Argument(help="An MMSA pickle such as unaligned_50.pkl; `sample` makes the sample.")],
    corpus: Annotated[str, typer.Option(help="What to call the corpus.")],
) -> None:
    """An MMSA pickle to feature shards."""
    from pipelines.execute import dask_client
    from pipelines.ingest import import_corpus, import_sample
    from pipelines.settings import Settings

    session: Session = context.obj
    with session.console.as_progress(), dask_client(Settings()) as client:
        if str(pickle) == "sample" and not pickle.exists():
            manifest = import_sample(session.store, corpus, client=client)
        else:
            manifest = import_corpus(session.store, pickle, corpus, client=client)
    show.corpus(session.console, manifest)


@app.command()
def corrupt(
    context: typer.Context, corpus: Corpus, config: ConfigName = None, overrides: Overrides = None, seed: Seed = None
) -> None:
    """The evaluation views and the training draws of a corpus."""
    from pipelines.corrupt import corrupt as write_views
    from pipelines.execute import dask_client
    from pipelines.settings import Settings

    session: Session = context.obj
    with session.console.as_progress(), dask_client(Settings()) as client:
        views = write_views(session.store, corpus, _config(corpus, config, overrides, seed), client=client)
    show.views(session.console, corpus, views)


@app.command()
def train(
    context: typer.Context,
    corpus: Corpus,
    config: ConfigName = None,
    overrides: Overrides = None,
    seed: Seed = None,
    workers: Workers = 1,
    model: Annotated[str | None, typer.Option(help="The network (model.name).")] = None,
) -> None:
    """One run; started again with the same arguments it continues, or says that it is done."""
    from lnln.train.launch import train as run_training

    session: Session = context.obj
    chosen = [*(overrides or []), *([f"model.name={model}"] if model else [])]
    with session.console.as_progress():
        run = run_training(
            session.store,
            corpus,
            _config(corpus, config, chosen, seed),
            num_workers=workers,
            config_name=config,
            progress=session.console.say,
        )
    show.run(session.console, run)


@app.command()
def tune(
    context: typer.Context,
    corpus: Corpus,
    trials: Annotated[int, typer.Option(help="Finished trials that the study is to have.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    seed: Seed = None,
    workers: Workers = 1,
) -> None:
    """A study over the loss weights; running it again continues it."""
    from tuning.select import table
    from tuning.sweep import tune as run_study

    session: Session = context.obj
    with session.console.as_progress():
        study = run_study(
            session.store,
            corpus,
            _config(corpus, config, overrides, seed),
            num_trials=trials,
            num_workers=workers,
        )
    show.study(
        session.console,
        {**study.to_dict(), "trials": [trial.to_dict() for trial in study.trials]},
        table(study),
    )


@app.command()
def evaluate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A run or a published model (mosi-lnln@best).")],
    corpus: Annotated[str | None, typer.Option(help="Another corpus than the model was trained on.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
) -> None:
    """All missing rates and all metrics, from one load of the corpus."""
    from lnln.evaluate import evaluate as run_evaluation

    session: Session = context.obj
    with session.console.as_progress():
        evaluation = run_evaluation(session.store, name, corpus, split=split)
    show.evaluation(session.console, evaluation)


@app.command()
def report(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Runs or published models, evaluated before.")],
    folder: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("reports"),
) -> None:
    """Tables and the robustness curve of one or more models."""
    from lnln.report import report as write_report

    session: Session = context.obj
    with session.console.as_progress():
        path = write_report(session.store, names, folder)
    session.console.result({"report": str(path)}, lines=[str(path)])


@app.command()
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


@app.command()
def models(context: typer.Context) -> None:
    """What the model store holds."""
    from lnln.model_store import list_models

    session: Session = context.obj
    show.models(session.console, list_models(session.store))


@app.command()
def pull(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="name, name@version or name@alias.")],
    folder: Annotated[Path, typer.Argument(help="Where it goes.")],
) -> None:
    """A published model to a folder, every checksum verified."""
    from lnln.model_store import pull as pull_model

    session: Session = context.obj
    with session.console.as_progress():
        path = pull_model(session.store, name, folder)
    session.console.result({"model": name, "folder": str(path)}, lines=[str(path)])


@app.command()
def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A pulled folder, a published model, or a run.")],
    inputs: Annotated[list[str], typer.Argument(help="Sentences, or a feature shard (.parquet).")],
) -> None:
    """Sentiment of sentences or feature shards, with what was missing."""
    from lnln.predict import predict as run_prediction

    session: Session = context.obj
    with session.console.as_progress():
        predictions = run_prediction(session.store, model, inputs)
    show.predictions(session.console, predictions)


@app.command()
def verify(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A corpus or a model; default: everything.")] = None,
) -> None:
    """Every checksum of a corpus, its views, or a model; exit 1 names what is damaged."""
    from lnln.verify import verify as run_verification

    session: Session = context.obj
    with session.console.as_progress():
        counts = run_verification(session.store, name)
    said = ", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing to check"
    session.console.result(counts, lines=[f"whole: {said}"])


@app.command()
def doctor(context: typer.Context) -> None:
    """What this machine and the configured store, Dask, Ray and Prefect can do, and what is wrong."""
    from lnln.doctor import examine

    session: Session = context.obj
    findings = examine(session.store_url)
    show.findings(session.console, findings)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)


@app.command(hidden=True)
def version(context: typer.Context) -> None:
    """The version of lnln."""
    from lnln import __version__

    context.obj.console.result({"version": __version__}, lines=[__version__])


def main() -> None:
    """Run one verb; a refusal is one line on standard error and exit code 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except (RefusedError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        sys.stderr.write(f"lnln: {' '.join(str(error).split())}\n")
        sys.exit(1)
