"""`python -m benchmarks.performance run|table`; `make bench` and `make bench-table` call it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.performance.measure import MIN_REPETITIONS
from benchmarks.performance.page import measured_on, rows, write_page
from benchmarks.performance.record import make_record, write_record
from benchmarks.performance.sections import SECTIONS, choose_sections
from lnln.errors import RefusedError
from lnln.markdown import table as markdown_table

HERE = Path(__file__).parents[1]
TIMINGS, PAGE = HERE / "timings", HERE.parent / "docs" / "performance.md"
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

TimingsFolder = Annotated[Path, typer.Option(help="Where the seconds are kept.")]
Page = Annotated[Path, typer.Option(help="The page that is written.")]


@app.command()
def run(
    only: Annotated[str | None, typer.Option(help="Sections, with commas between; default: all.")] = None,
    shared: Annotated[bool, typer.Option(help="Other work runs on this machine meanwhile, which is noted.")] = False,
    repetitions: Annotated[int, typer.Option(min=MIN_REPETITIONS)] = MIN_REPETITIONS,
    timings: TimingsFolder = TIMINGS,
    page: Page = PAGE,
) -> None:
    """Measure, show, keep the seconds and write the page. Takes up to 2.6 GB of the system's temporary folder."""
    for name in choose_sections(only):
        with tempfile.TemporaryDirectory(prefix="lnln-bench-") as folder:
            comparisons = SECTIONS[name].measure(Path(folder), repetitions)
        record = make_record(name, comparisons, shared=shared, device=SECTIONS[name].device())
        sys.stdout.write(f"{SECTIONS[name].title}: {measured_on(record)}\n\n{markdown_table(rows(record))}\n")
        write_record(timings, record)
    table(timings, page)


@app.command()
def table(timings: TimingsFolder = TIMINGS, page: Page = PAGE) -> None:
    """Write the page from the seconds that are there; measures nothing."""
    write_page(timings, page)
    sys.stderr.write(f"{page}\n")


def main() -> None:
    """Run one command; a refusal is one line on standard error and exit code 1."""
    try:
        app()
    except (RefusedError, OSError) as error:
        sys.stderr.write(f"bench: {' '.join(str(error).split())}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
