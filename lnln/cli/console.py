"""Results for a person or a program: tables on standard output, or one JSON object; all else goes elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table

# Columns of a table that goes to a file or a pipe: room for all metrics with their intervals.
PLAIN_WIDTH = 160


class Console:
    """Standard output belongs to results; what libraries print there goes to standard error, or nowhere if quiet."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @contextlib.contextmanager
    def as_progress(self) -> Iterator[None]:
        """Inside, whatever is printed on standard output, by child processes too, goes where progress goes."""
        sys.stdout.flush()
        try:
            descriptor = sys.stdout.fileno()
        except (io.UnsupportedOperation, AttributeError):  # a captured stream that is no file
            with contextlib.redirect_stdout(io.StringIO() if self.quiet else sys.stderr):
                yield
            return
        saved = os.dup(descriptor)
        if self.quiet:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), descriptor)
        else:
            os.dup2(2, descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(saved, descriptor)
            os.close(saved)

    def result(
        self, value: Any, *, lines: Sequence[str] = (), table: rich.table.Table | rich.console.Group | None = None
    ) -> None:
        """`value` as JSON if asked for, else the table, or several of them, and the lines."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
            return
        if table is not None:
            rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
        for line in lines:
            sys.stdout.write(f"{line}\n")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None, *, is_prose: bool = False
) -> rich.table.Table:
    """A plain table. Columns of numbers are right-aligned, all but the first; cells are text, never markup.

    is_prose: the first column holds sentences, which may be broken into lines; else it holds names, which may not.
    """
    from rich.text import Text

    cells = [[visible(str(cell)) for cell in row] for row in rows]
    made = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        are_numbers = index > 0 and all(_is_number_like(row[index]) for row in cells)
        made.add_column(column, justify="right" if are_numbers else "left", no_wrap=index == 0 and not is_prose)
    for row in cells:
        made.add_row(*map(Text, row))
    return made


def _is_number_like(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "+-−"


def visible(text: str) -> str:
    """`text` with what would move a terminal's cursor, or do worse, spelled out; names come from anywhere."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
