"""What is said while something runs: lines and bars on standard error, and the one switch that silences both.

    line("epoch 3 of 40")
    with bar("views of mosi", total=12) as advance:
        for job in jobs: ...; advance()

`--quiet` is `be_quiet()`. Only the process that talks to the user calls any of these: workers report through it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

_is_quiet = False
# Told of every bar: its text, the steps that are done, and all of them.
_watchers: list[Callable[[str, int, int], None]] = []


class Advance(Protocol):
    """Moves a bar."""

    def __call__(self, num_steps: int = 1) -> None: ...


def be_quiet(wanted: bool = True) -> None:
    """From now on lines and bars are not shown, or with False shown again."""
    global _is_quiet
    _is_quiet = wanted


def line(text: str) -> None:
    """`text` as one line on standard error."""
    if not _is_quiet:
        sys.stderr.write(" ".join(text.splitlines()) + "\n")
        sys.stderr.flush()


@contextmanager
def bar(text: str, total: int) -> Iterator[Advance]:
    """A bar of `total` steps on standard error while that is a terminal; what is yielded moves it by one, or more."""
    num_done = 0

    def move(num_steps: int = 1) -> None:
        nonlocal num_done
        num_done += num_steps
        advance(num_steps)
        for watch in tuple(_watchers):
            watch(text, num_done, total)

    with _drawn(text, total) as advance:
        yield move


@contextmanager
def watched(watch: Callable[[str, int, int], None]) -> Iterator[None]:
    """Inside, `watch` is told of every step of every bar of this process, drawn or not: text, steps done, all steps."""
    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)


@contextmanager
def _drawn(text: str, total: int) -> Iterator[Advance]:
    if _is_quiet or not total or not sys.stderr.isatty():
        yield lambda num_steps=1: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(text, total=total)
        yield lambda num_steps=1: shown.advance(task, num_steps)
