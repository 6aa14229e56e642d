"""Verbs of the model store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lnln.cli import show
from lnln.cli.arguments import read_rates
from lnln.cli.session import Session
from lnln.errors import RefusedError

if TYPE_CHECKING:
    from lnln.data.store import Store
    from lnln.model_store import Origin


def publish(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help="A finished run.")],
    name: Annotated[str, typer.Option(help="Name in the model store, such as mosi-lnln.")],
    study: Annotated[
        str | None, typer.Option(help="The study whose parameters the run was trained with; goes into its lineage.")
    ] = None,
) -> None:
    """A finished run to an immutable version in the model store."""
    from lnln.model_store import publish as publish_run

    session: Session = context.obj
    with session.console.as_progress():
        origin = None if study is None else _origin(session.store, run, study)
        version = publish_run(session.store, run, name, origin=origin)
    session.console.result({"model": f"{name}@{version}"}, lines=[f"{name}@{version}"])


def _origin(store: Store, run_id: str, study_id: str) -> Origin:
    """Which trial of the study has the parameters of the run; RefusedError where none has, and where the run differs
    from what the study chooses for in anything else that a model hangs on but its seed."""
    from lnln.evaluate.systems import seedless_values
    from lnln.model_store import Origin
    from lnln.runs import load_run
    from tuning.record import load_study
    from tuning.space import with_parameters

    study, run = load_study(store, study_id), load_run(store, run_id)
    parameters = study.space.configured(run.config)
    trial = next((trial for trial in study.trials if trial.parameters == parameters), None)
    if trial is None or run.corpus != study.corpus:
        said = ", ".join(f"{name} {value:g}" for name, value in parameters.items())
        raise RefusedError(
            f"no trial of study {study_id} on {study.corpus} has the parameters of run {run_id} on {run.corpus}, "
            f"{said}; leave --study out"
        )
    mine, theirs = (seedless_values(each) for each in (run.config, with_parameters(study.trained_config(), parameters)))
    mine["features"], theirs["features"] = run.feature_id, study.feature_id
    absent = "none"
    if differing := [key for key in {**theirs, **mine} if mine.get(key, absent) != theirs.get(key, absent)]:
        said = ", ".join(f"{key} {mine.get(key, absent)}, not {theirs.get(key, absent)}" for key in differing)
        raise RefusedError(f"run {run_id} is none of what study {study_id} tried: it has {said}; leave --study out")
    return Origin(study_id, None if trial.is_configured else trial.number)


def import_model(
    context: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="A published .pth, or a folder with model.safetensors, such as a pulled one.")
    ],
    name: Annotated[str, typer.Option(help="Name in the model store, such as published-mosi.")],
    corpus: Annotated[
        str | None, typer.Option(help="Whose features it takes; for a .pth, and a folder that does not say.")
    ] = None,
    args: Annotated[
        Path | None,
        typer.Option(help="The published YAML of a .pth whose numbers of heads are not the published ones."),
    ] = None,
) -> None:
    """A model that was trained elsewhere to an immutable version in the model store."""
    from lnln.model_store import import_model as run_import

    session: Session = context.obj
    with session.console.as_progress():
        version = run_import(session.store, path, name, corpus, args)
    made = f"{name}@{version}"
    session.console.result(
        {"model": made}, lines=[made, f"score it: {session.command} evaluate {made} --suite ten_rates"]
    )


def alias(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A published model, such as mosi-lnln.")],
    alias: Annotated[str, typer.Argument(help="What its version is to be called too, such as production.")],
    version: Annotated[str, typer.Argument(help="v2, or another alias.")],
) -> None:
    """A name for one version of a published model; an alias may be moved, `best` and its like move by themselves."""
    from lnln.model_store import set_alias

    session: Session = context.obj
    made, target = f"{name}@{alias}", f"{name}@{set_alias(session.store, name, alias, version)}"
    session.console.result({"alias": made, "model": target}, lines=[f"{made} is {target}"])


def models(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(help="One model: its versions, aliases and their history; with @v2 the lineage of v2."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Two versions side by side: what made them, and scores on the same views."),
    ] = None,
) -> None:
    """What the model store holds; one model of it, or two versions side by side."""
    from lnln.model_store import compare as compare_versions
    from lnln.model_store import list_models, read_lineage, read_model, resolve

    session: Session = context.obj
    store = session.store
    if compare is not None:
        first, second = (_full_reference(name, each) for each in compare)
        show.comparison(session.console, compare_versions(store, first, second), command=session.command)
    elif name is None:
        show.models(session.console, list_models(store))
    else:
        version = resolve(store, name)
        model = read_model(store, version.name)
        if model is None:
            raise RefusedError(f"{version.name} was removed from {store.url} meanwhile; run the same command again")
        show.model(session.console, model, version, read_lineage(store, version))


def _full_reference(name: str | None, given: str) -> str:
    """`v2` of `lnln models NAME --compare v1 v2` as name@v2; what is a whole reference as it is."""
    return given if name is None or "@" in given else f"{name.partition('@')[0]}@{given}"


def pull(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="name, name@version or name@alias.")],
    folder: Annotated[Path, typer.Argument(help="Where it goes.")],
) -> None:
    """A published model to a folder, every checksum verified; a pull that was cut off is continued."""
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
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Clips, sentences, or feature shards (.parquet); - alone: one sentence a line of standard input. With "
            "--out: shards, folders of them, patterns such as 'shards/*.parquet', or s3://bucket/prefix."
        ),
    ] = None,
    transcripts: Annotated[
        list[str] | None,
        typer.Option("--transcript", help="What is said in a clip; once for each clip, in order, or not at all."),
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Every utterance of this corpus, to Parquet files.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Of the corpus: train, valid, test (if nothing is said), unassigned or all.")
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="What is to be missing, such as 0.5, or 1/0/0 for text, audio, vision; default: nothing.",
        ),
    ] = None,
    mask_seed: Annotated[int | None, typer.Option(help="Of the view; default: the model's.")] = None,
    protocol: Annotated[
        Literal["frame", "block", "modality", "noise"] | None,
        typer.Option(help="How the view is made; default: the model's."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the Parquet files go, a folder or s3://bucket/prefix; default for a corpus: below reports/ of "
            "the store.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:1; default: the accelerator if there is one.")
    ] = None,
) -> None:
    """Sentiment of clips, sentences or feature shards, with what was missing; of a whole corpus to Parquet files."""
    session: Session = context.obj
    if corpus is None and out is None:
        _refuse_options(
            {"--split": split, "--view": view, "--mask-seed": mask_seed, "--protocol": protocol},
            "it is for many utterances: give --corpus, or feature shards and --out",
        )
        _predict_few(session, model, inputs or [], transcripts or [], device)
        return
    _refuse_options({"--transcript": transcripts}, "it belongs to a clip, and these are feature shards")
    if corpus is None:
        _refuse_options({"--split": split}, "it is of a corpus; give --corpus")
    if (corpus is not None) == bool(inputs):
        raise typer.BadParameter("give either --corpus or feature shards", param_hint="INPUTS")
    rates = read_rates("--view", view)
    if rates is not None and len(rates) != 1:
        raise typer.BadParameter(f"expected one missing rate, got {view!r}", param_hint="--view")
    rate = None if rates is None else rates[0]
    from pipelines.execute import dask_client
    from pipelines.predict import predict_corpus, predict_files
    from pipelines.settings import Settings

    store = session.store
    with session.console.as_progress(), dask_client(Settings(store=store.url)) as client:
        if corpus is not None:
            made = predict_corpus(
                store,
                model,
                corpus,
                out,
                split=split or "test",
                rate=rate,
                mask_seed=mask_seed,
                protocol=protocol,
                device=device,
                client=client,
            )
        else:
            made = predict_files(
                store,
                model,
                inputs or [],
                out,
                rate=rate,
                mask_seed=mask_seed,
                protocol=protocol,
                device=device,
                client=client,
            )
    parts = f"{made.num_parts} file{'' if made.num_parts == 1 else 's'}, {made.num_new} of them new"
    session.console.result(made.to_dict(), lines=[f"{made.num_utterances} predictions in {made.url} ({parts})"])


def _predict_few(session: Session, model: str, inputs: list[str], transcripts: list[str], device: str | None) -> None:
    """Inputs whose answers are one table."""
    if not inputs:
        raise typer.BadParameter("give sentences, clips or feature shards, or --corpus", param_hint="INPUTS")
    if "-" in inputs and (len(inputs) > 1 or transcripts):
        raise typer.BadParameter("standard input stands alone: give - or other inputs", param_hint="INPUTS")
    from lnln.predict import predict_lines
    from pipelines.clips.predict import predict as run_prediction

    if inputs == ["-"]:
        with session.console.as_progress():
            rows = predict_lines(session.store, model, sys.stdin.buffer, device)
        show.predictions(session.console, rows)
        return
    with session.console.as_progress():
        predictions, left_out = run_prediction(session.store, model, inputs, transcripts, device=device)
    show.predictions(session.console, predictions, left_out)


def _refuse_options(given: dict[str, object], reason: str) -> None:
    """Wrong usage where one of these is given, which would be ignored."""
    for option, value in given.items():
        if value not in (None, []):
            raise typer.BadParameter(reason, param_hint=option)
