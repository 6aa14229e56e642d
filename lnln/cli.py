"""The front door: `lnln VERB`, each verb one function of the library.

Results go to standard output, everything else to standard error. Exit 0 done, 1 a refusal in one line, 2 usage.
Each verb imports what it needs when it is called, so that `lnln --help` is instant. `--store`, `--json` and `--quiet`
may stand anywhere before a `--`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lnln import __version__, progress, show
from lnln.arguments import (
    ConfigName,
    Corpus,
    GpusPerWorker,
    Overrides,
    Parallel,
    Seed,
    Seeds,
    WorkerRange,
    Workers,
    global_options_first,
    read_gpus,
    read_numbers,
    read_rates,
    read_seeds,
    read_workers,
)
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


def _config(corpus: str, name: str | None, overrides: list[str] | None, seed: int | None = None) -> Config:
    from lnln.config import config_for

    return config_for(corpus, name, [*(overrides or []), *([f"train.seed={seed}"] if seed is not None else [])])


@app.command()
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


@app.command("import")
def import_(
    context: typer.Context,
    pickle: Annotated[Path, typer.Argument(help="An MMSA pickle such as unaligned_50.pkl; `sample` makes the sample.")],
    corpus: Annotated[str, typer.Option(help="What to call the corpus.")],
    text: Annotated[
        Literal["ids", "features"] | None,
        typer.Option(help="Token ids or ready-made language features; default: ids, where the pickle has them."),
    ] = None,
    tokenizer: Annotated[
        Literal["bert-base-uncased", "bert-base-chinese"] | None,
        typer.Option(help="What made the token ids; default: what transcripts, ids or labels show."),
    ] = None,
) -> None:
    """An MMSA pickle to feature shards."""
    from pipelines.execute import dask_client
    from pipelines.ingest import import_corpus, import_sample
    from pipelines.settings import Settings

    session: Session = context.obj
    with session.console.as_progress(), dask_client(Settings()) as client:
        if str(pickle) == "sample" and text != "features" and tokenizer is None and not pickle.exists():
            manifest = import_sample(session.store, corpus, client=client)
        else:
            manifest = import_corpus(session.store, pickle, corpus, client=client, text=text, tokenizer=tokenizer)
    show.corpus(session.console, manifest)


@app.command()
def extract(
    context: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="Clips: label.csv and Raw/<video_id>/<clip_id>.<ext>, in a folder or s3://bucket/prefix; `sample` "
            "draws some.",
        ),
    ],
    corpus: Annotated[str, typer.Option(help="What to call the corpus.")],
    config: Annotated[
        str | None, typer.Option("--config", help="Extractors and their knobs, by name or .yaml path.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="One key, such as audio.name=egemaps or vision.rate_hz=5; may be repeated."),
    ] = None,
) -> None:
    """Raw clips to feature shards; what cannot be used is listed, and why.

    Extractors by modality, as in --set audio.name=egemaps:

    text: wordpiece

    audio: egemaps, librosa_sims, none, speech_encoder

    vision: face, image_encoder, none, openface

    configs: sdumc, sims; without one wordpiece, librosa_sims, face
    """
    from lnln.data.quarantine import read_quarantine
    from pipelines.execute import dask_client
    from pipelines.extract import extract_corpus
    from pipelines.extractors.config import load_extract_config
    from pipelines.settings import Settings

    session: Session = context.obj
    chosen = load_extract_config(config, overrides or [])
    there = f"./{folder}" if folder == "sample" and Path(folder).exists() else folder
    with session.console.as_progress(), dask_client(Settings()) as client:
        manifest = extract_corpus(session.store, there, corpus, chosen, client)
        left_out = read_quarantine(session.store, manifest)
    show.extraction(session.console, manifest, left_out, store_url=session.store.url)


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
    seeds: Seeds = None,
    parallel: Parallel = None,
    workers: WorkerRange = "1",
    gpus_per_worker: GpusPerWorker = 1.0,
    model: Annotated[str | None, typer.Option(help="The network: lnln or text_only (model.name).")] = None,
) -> None:
    """One run, or one for each seed; started again with the same arguments it continues, or says that it finished
    before."""
    if seed is not None and seeds is not None:
        raise typer.BadParameter("a run has one seed: give --seed or --seeds", param_hint="--seeds")
    if seeds is not None and any(item.partition("=")[0].strip() == "train.seed" for item in overrides or []):
        raise typer.BadParameter("a run has one seed: give --set train.seed or --seeds", param_hint="--seeds")
    if parallel is not None and seeds is None:
        raise typer.BadParameter("it is the number of runs of --seeds at a time", param_hint="--parallel")
    several, num_workers = read_seeds("--seeds", seeds), read_workers("--workers", workers)
    num_gpus = read_gpus("--gpus-per-worker", gpus_per_worker)
    from lnln.train.launch import train as run_training
    from lnln.train.seeds import SeedsFailedError, finished_seeds, train_seeds

    session: Session = context.obj
    chosen = _config(corpus, config, [*(overrides or []), *([f"model.name={model}"] if model else [])], seed)
    failed: SeedsFailedError | None = None
    with session.console.as_progress():
        store = session.store
        were_finished = finished_seeds(store, corpus, chosen, several or [chosen.train.seed])
        if several is None:
            run = run_training(
                store, corpus, chosen, num_workers=num_workers, gpus_per_worker=num_gpus, config_name=config
            )
        else:
            try:
                made = train_seeds(
                    store,
                    corpus,
                    chosen,
                    several,
                    num_workers=num_workers,
                    gpus_per_worker=num_gpus,
                    num_parallel=parallel,
                    config_name=config,
                )
                runs = dict(zip(several, made, strict=True))
            except SeedsFailedError as error:
                failed, runs = error, error.runs
    if several is None:
        show.run(session.console, run, was_finished=bool(were_finished))
    elif runs:
        reasons = failed.reasons if failed else {}
        show.seeds(session.console, runs, reasons, were_finished=were_finished, command=session.command)
    if failed:
        raise failed


@app.command()
def tune(
    context: typer.Context,
    corpus: Corpus,
    trials: Annotated[int, typer.Option(help="Finished trials that the study is to have.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    seed: Seed = None,
    workers: Workers = 1,
    space: Annotated[
        Path | None, typer.Option(help="A YAML file of ranges, such as `adversarial: {low: 0.1, high: 3}`.")
    ] = None,
) -> None:
    """A study over the loss weights; running it again continues it."""
    from tuning.select import best_trial, table
    from tuning.space import load_space
    from tuning.sweep import tune as run_study

    session: Session = context.obj
    with session.console.as_progress():
        study = run_study(
            session.store,
            corpus,
            _config(corpus, config, overrides, seed),
            num_trials=trials,
            num_workers=workers,
            space=load_space(space),
        )
    chosen = [*(overrides or []), *(f"loss.{name}={weight!r}" for name, weight in best_trial(study).weights.items())]
    options = [("--config", config), *(("--set", item) for item in chosen), ("--seed", seed)]
    words = ["train", corpus, *(str(word) for pair in options if pair[1] is not None for word in pair)]
    value = {**study.to_dict(), "trials": [trial.to_dict() for trial in study.trials]}
    show.study(session.console, value, table(study), f"{session.command} {shlex.join(words)}")


@app.command()
def evaluate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A run, a published model (mosi-lnln@best) or a pulled folder.")],
    corpus: Annotated[str | None, typer.Option(help="Another corpus than the model was trained on.")] = None,
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "test",
    rates: Annotated[
        str | None,
        typer.Option(help="Missing rates, such as 0,0.5,0.9, or 1/0/0 for text, audio, vision; default: the model's."),
    ] = None,
    mask_seeds: Annotated[str | None, typer.Option(help="Mask seeds, such as 0,1,2; default: the model's.")] = None,
    selection: Annotated[
        str,
        typer.Option(
            help="published: each metric by the epoch that was best in it on test, of a run with train.selection "
            "published; to compare with published tables only."
        ),
    ] = "validation",
    protocol: Annotated[
        Literal["frame", "block", "modality", "noise"] | None,
        typer.Option(help="How views are made; default: the model's."),
    ] = None,
) -> None:
    """All missing rates and all metrics, from one load of the corpus."""
    from lnln.evaluate import evaluate as run_evaluation

    session: Session = context.obj
    at, seeds = read_rates("--rates", rates), read_numbers("--mask-seeds", mask_seeds, int)
    with session.console.as_progress():
        evaluation = run_evaluation(
            session.store, name, corpus, split=split, rates=at, mask_seeds=seeds, selection=selection, protocol=protocol
        )
    show.evaluation(session.console, evaluation)


@app.command()
def report(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Runs, published models or pulled folders.")],
    folder: Annotated[
        Path | None, typer.Option(help="Where the report goes; default: reports/ and the first name.")
    ] = None,
) -> None:
    """Tables and the robustness curve of one or more models."""
    from lnln.report import report as write_report

    session: Session = context.obj
    with session.console.as_progress():
        path = write_report(session.store, names, folder or Path("reports") / Path(names[0]).resolve().name)
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
    from lnln.model_store import resolve

    session: Session = context.obj
    with session.console.as_progress():
        version = resolve(session.store, name).reference  # once, since an alias may move meanwhile
        path = pull_model(session.store, version, folder)
    session.console.result({"model": version, "folder": str(path)}, lines=[f"{version} in {path}"])


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def doctor(context: typer.Context) -> None:
    """What this machine and the configured store, Dask, Ray and Prefect can do, and what is wrong."""
    from lnln.doctor import examine

    session: Session = context.obj
    findings = examine(session.store_url)
    show.findings(session.console, findings)
    if any(finding.level == "wrong" for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run one verb; a refusal is one line on standard error and exit code 1."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app(args=global_options_first(sys.argv[1:]))
    except (RefusedError, OSError) as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        sys.stderr.write(f"lnln: {' '.join(str(error).split())}\n")
        sys.exit(1)
