"""Verbs from views to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lnln.cli import show, show_ablations
from lnln.cli.arguments import (
    ConfigName,
    Corpus,
    GpusPerWorker,
    Overrides,
    Parallel,
    Seed,
    Seeds,
    WorkerRange,
    read_gpus,
    read_numbers,
    read_rates,
    read_seeds,
    read_workers,
)
from lnln.cli.session import Session, chosen_config
from lnln.errors import RefusedError


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
    model: Annotated[
        str | None, typer.Option(help="The network: lnln, sdumc, text_only or late_fusion (model.name).")
    ] = None,
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
    chosen = chosen_config(corpus, config, [*(overrides or []), *([f"model.name={model}"] if model else [])], seed)
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


def ablate(
    context: typer.Context,
    corpus: Corpus,
    seeds: Annotated[str, typer.Option(help="Seeds of every setting, such as 1111,1112,1113.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Some of the ablations, such as no_correction,no_adversarial."),
    ] = None,
    split: Annotated[str, typer.Option(help="train, valid or test: what is scored.")] = "test",
    parallel: Parallel = None,
    workers: WorkerRange = "1",
    gpus_per_worker: GpusPerWorker = 1.0,
) -> None:
    """Train with one part left out at a time, and say what each is worth; run again it continues."""
    several, num_workers = read_seeds("--seeds", seeds), read_workers("--workers", workers)
    num_gpus = read_gpus("--gpus-per-worker", gpus_per_worker)
    if any(item.partition("=")[0].strip() == "train.seed" for item in overrides or []):
        raise typer.BadParameter("a run has one seed: give --set train.seed or --seeds", param_hint="--seeds")
    from lnln.train.ablations import ablate as run_ablations

    assert several is not None
    session: Session = context.obj
    with session.console.as_progress():
        made = run_ablations(
            session.store,
            corpus,
            chosen_config(corpus, config, overrides),
            several,
            only=None if only is None else [name.strip() for name in only.split(",")],
            split=split,
            num_workers=num_workers,
            gpus_per_worker=num_gpus,
            num_parallel=parallel,
            config_name=config,
        )
    show_ablations.ablations(session.console, made, command=session.command)
    if made.failed:
        raise RefusedError(
            f"{', '.join(made.settings[name].title for name in made.failed)}: some seeds failed; all else is trained, "
            "and the same command continues"
        )


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
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Sets of views, the same for all models: ten_rates, absent (modalities), text_missing, block, noise, "
            "grid (rates by modality), or all.",
        ),
    ] = None,
) -> None:
    """All missing rates and all metrics, from one load of the corpus."""
    from lnln.evaluate import evaluate as run_evaluation
    from lnln.evaluate import evaluate_suites

    session: Session = context.obj
    at, seeds = read_rates("--rates", rates), read_numbers("--mask-seeds", mask_seeds, int)
    if suite is not None:
        for option, given in (("--rates", rates), ("--protocol", protocol)):
            if given is not None:
                raise typer.BadParameter("a suite states its own; give --suite or this", param_hint=option)
        with session.console.as_progress():
            suites = evaluate_suites(
                session.store,
                name,
                [part.strip() for part in suite.split(",")],
                corpus,
                split=split,
                mask_seeds=seeds,
                selection=selection,
            )
        show.suites(session.console, suites)
        return
    with session.console.as_progress():
        evaluation = run_evaluation(
            session.store, name, corpus, split=split, rates=at, mask_seeds=seeds, selection=selection, protocol=protocol
        )
    show.evaluation(session.console, evaluation)


def report(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(help="Runs, published models or pulled folders, each perhaps as TITLE=NAME; or one study."),
    ],
    folder: Annotated[
        Path | None, typer.Option(help="Where the report goes; default: reports/ and the first name.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Sets of views; default: ten_rates,absent.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Another corpus than the models were trained on.")] = None,
    split: Annotated[str | None, typer.Option(help="train, valid or test, which is the default.")] = None,
    mask_seeds: Annotated[str | None, typer.Option(help="Mask seeds, such as 0,1,2, which is the default.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared with, by title or name; default: the first.")
    ] = None,
) -> None:
    """One page on one or more models, with tables as CSV, LaTeX and Markdown; or on what a study shows."""
    from tuning.record import is_study

    session: Session = context.obj
    store, seeds = session.store, read_numbers("--mask-seeds", mask_seeds, int)
    studies = [name for name in names if is_study(store, name)]
    if studies and len(names) > 1:
        raise RefusedError(
            f"a study is reported alone, got {', '.join(names)}; `{session.command} report {studies[0]}` does that"
        )
    given = {
        "--suite": suite,
        "--corpus": corpus,
        "--split": split,
        "--mask-seeds": mask_seeds,
        "--reference": reference,
    }
    for option in [option for option, value in given.items() if studies and value is not None]:
        raise typer.BadParameter("it is about models, and this is a study", param_hint=option)
    where = folder or Path("reports") / Path(names[0].rpartition("=")[2]).resolve().name
    with session.console.as_progress():
        if studies:
            from tuning.report import study_report

            path = study_report(store, studies[0], where)
        else:
            from lnln.report import report as write_report
            from lnln.report.collect import DEFAULT_SUITES

            path = write_report(
                store,
                names,
                where,
                suites=DEFAULT_SUITES if suite is None else [part.strip() for part in suite.split(",")],
                corpus=corpus,
                split=split or "test",
                mask_seeds=seeds,
                reference=reference,
            )
    session.console.result({"report": str(path)}, lines=[str(path)])
