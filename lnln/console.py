"""Results for a person or a program: tables on standard output, or one JSON object; all else on standard error."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table


class Console:
    """Standard output belongs to results; `say` and everything that libraries print goes to standard error."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def say(self, text: str = "") -> None:
        """One line for the person who waits."""
        if not self.quiet:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    @contextlib.contextmanager
    def as_progress(self) -> Iterator[None]:
        """Inside, whatever is printed on standard output, by child processes too, goes to standard error."""
        sys.stdout.flush()
        try:
            descriptor = sys.stdout.fileno()
        except (io.UnsupportedOperation, AttributeError):  # a captured stream that is no file
            with contextlib.redirect_stdout(sys.stderr):
                yield
            return
        saved = os.dup(descriptor)
        os.dup2(2, descriptor)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(saved, descriptor)
            os.close(saved)

    def result(self, value: Any, *, lines: Sequence[str] = (), table: rich.table.Table | None = None) -> None:
        """`value` as JSON if asked for, else the table and the lines."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
            return
        if table is not None:
            rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)
        for line in lines:
            sys.stdout.write(f"{line}\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> rich.table.Table:
    """A plain table; every column but the first is right-aligned. Cells are text, never markup."""
    from rich.text import Text

    made = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        made.add_row(*[Text(str(cell)) for cell in row])
    return made
