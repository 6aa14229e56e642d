"""`python -m benchmarks.results run|table`; `make results` and `make results-table` call it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.results.plan import SEARCH, read_plan
from lnln.data.manifest import read_features
from lnln.data.store import Store
from lnln.errors import RefusedError

HERE = Path(__file__).parents[1]
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

PlanFile = Annotated[Path, typer.Option(help="What is to be trained.")]
StoreFolder = Annotated[Path, typer.Option(help="Folder of the corpus and the runs; may be thrown away.")]
ScoresFolder = Annotated[Path, typer.Option(help="Where the scores are kept.")]
Page = Annotated[Path, typer.Option(help="The page that is written.")]
RetrainOlderCode = Annotated[bool, typer.Option(help="Train and score anew what other code than the present made.")]
Cores = Annotated[str, typer.Option(help="Numbers of the cores to stay on; default: all.")]
Parent = Annotated[int, typer.Option(help="Process without which this one ends.")]

PLAN, STORE, SCORES = HERE / "results.yaml", Path("results-store"), HERE / "scores"
PAGE = HERE.parent / "docs" / "results.md"


@app.command()
def run(
    data: Annotated[
        Path | None, typer.Option(help="The MMSA pickle of the plan's corpus; the report alone needs none.")
    ] = None,
    plan: PlanFile = PLAN,
    store: StoreFolder = STORE,
    scores: ScoresFolder = SCORES,
    page: Page = PAGE,
    jobs: Annotated[int, typer.Option(help="Trainings side by side; they share the cores.")] = 1,
    only: Annotated[
        str | None, typer.Option(help="Groups or experiments, `search` or `report`, with commas between; default: all.")
    ] = None,
    retrain_older_code: RetrainOlderCode = False,
) -> None:
    """Train and score what is missing, then write the page."""
    from benchmarks.results.run import run_plan

    wanted = read_plan(plan)
    try:
        run_plan(wanted, plan, data, store, scores, num_jobs=jobs, only=only, retrain_older_code=retrain_older_code)
    finally:
        _write_page(plan, scores, page, Store(store))


@app.command()
def table(plan: PlanFile = PLAN, scores: ScoresFolder = SCORES, page: Page = PAGE) -> None:
    """Write the page and its figure from the scores that are there; needs no data."""
    _write_page(plan, scores, page)


@app.command(hidden=True)
def one(
    plan: PlanFile,
    store: StoreFolder,
    scores: ScoresFolder,
    names: Annotated[str, typer.Option(help="Experiments of equal config.")],
    seed: Annotated[int, typer.Option()],
    cores: Cores = "",
    parent: Parent = 0,
    retrain_older_code: RetrainOlderCode = False,
) -> None:
    """One training of `run`, in a process of its own."""
    from benchmarks.results.run import Job, train_and_score

    _settle(cores, parent)
    wanted = read_plan(plan)
    job = Job(tuple(wanted.experiment(name) for name in names.split(",")), seed)
    train_and_score(wanted, job, Store(store), scores, retrain_older_code=retrain_older_code)


@app.command(hidden=True)
def section(
    name: Annotated[Literal["search", "report"], typer.Argument(help="Which.")],
    plan: PlanFile,
    store: StoreFolder,
    scores: ScoresFolder,
    cores: Cores = "",
    parent: Parent = 0,
    retrain_older_code: RetrainOlderCode = False,
) -> None:
    """The search or the report of `run`, in a process of its own."""
    from benchmarks.results.report import make_report
    from benchmarks.results.search import search_and_choose

    _settle(cores, parent)
    wanted = read_plan(plan)
    if name == SEARCH:
        search_and_choose(wanted, Store(store), scores, retrain_older_code=retrain_older_code)
    else:
        make_report(wanted, Store(store), scores)


def _settle(cores: str, parent: int) -> None:
    from benchmarks.results.run import end_with_parent, share_cores

    share_cores([int(core) for core in cores.split(",") if core])
    if parent:
        end_with_parent(parent)


def _write_page(plan: Path, scores: Path, page: Path, store: Store | None = None) -> None:
    """store: scores of other features than it has of the corpus count as missing."""
    from benchmarks.results.page import write_page

    wanted, manifest = read_plan(plan), None
    if store is not None:
        with suppress(RefusedError):  # nothing is imported yet
            manifest = read_features(store, wanted.corpus)
    write_page(wanted, scores, page, manifest)
    sys.stderr.write(f"{page}\n")


def main() -> None:
    """Run one command; a refusal is one line on standard error and exit code 1."""
    try:
        app()
    except (RefusedError, OSError) as error:
        sys.stderr.write(f"results: {' '.join(str(error).split())}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
