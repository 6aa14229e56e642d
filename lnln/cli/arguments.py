"""Arguments of the command line: those that several verbs have, and those that Typer does not read by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer

from lnln.config import Rate

Number = TypeVar("Number", int, float)

Corpus = Annotated[str, typer.Argument(help="Name of a corpus that was imported or extracted, such as mosi or sample.")]
ConfigName = Annotated[
    str | None, typer.Option("--config", help="A config by name or .yaml path; default: the corpus's own, if any.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="One config key, such as loss.adversarial=0.5; may be repeated.")
]
Workers = Annotated[int, typer.Option("--workers", help="Ray Train workers; any number takes the same steps.")]
WorkerRange = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="NUMBER|FROM-TO",
        help="Ray Train workers, such as 2; or 2-4 for as many as Ray has room for, also while it trains. Any number "
        "takes the same steps.",
    ),
]
GpusPerWorker = Annotated[
    float,
    typer.Option("--gpus-per-worker", help="Where there are GPUs: 1, or 0.5 for two small runs on each."),
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", help="Several runs, one for each of these seeds, such as 1111,1112,1113.")
]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", min=1, help="Runs of --seeds at a time; default: as many as there is room for."),
]
TrialSeeds = Annotated[
    str | None,
    typer.Option("--seeds", help="Seeds that each trial trains with, one after the other, such as 1111,1112."),
]
ParallelTrials = Annotated[
    int | None, typer.Option("--parallel", min=1, help="Trials at a time; default: as many as there is room for.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the run (train.seed).")]


def global_options_first(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the options of every verb before the verb, where Typer wants them; from `--` on as they are."""
    first, rest = [], list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    options, after = iter(rest[:end]), rest[end:]
    others = []
    for argument in options:
        if argument in ("--json", "--quiet") or argument.startswith("--store="):
            first.append(argument)
        elif argument == "--store":
            value = next(options, None)
            if value is None:
                return [argument]  # Typer says what is missing
            first += [argument, value]
        else:
            others.append(argument)
    return [*first, *others, *after]


def read_numbers(option: str, text: str | None, kind: type[Number]) -> list[Number] | None:
    """The numbers of `0,0.5`; wrong usage where one is none."""
    try:
        return None if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected numbers with commas between them, got {text!r}", param_hint=option
        ) from None


def read_rates(option: str, text: str | None) -> list[Rate] | None:
    """The missing rates of `0,0.5,1/0/0`; wrong usage where one is neither a number nor three."""
    if text is None:
        return None
    rates: list[Rate] = []
    for part in text.split(","):
        try:
            values = tuple(float(value) for value in part.split("/"))
        except ValueError:
            values = ()
        if len(values) not in (1, 3):
            raise typer.BadParameter(
                f"expected missing rates with commas between them, each a number or three such as 1/0/0 (text, audio, "
                f"vision), got {text!r}",
                param_hint=option,
            )
        rates.append(values[0] if len(set(values)) == 1 else (values[0], values[1], values[2]))
    return rates


def read_workers(option: str, text: str) -> int | tuple[int, int]:
    """The number of `2`, or both of `2-4`; wrong usage where it is neither, or one is below 1."""
    parts = text.split("-")
    numbers = [int(part) for part in parts if part.isdecimal()]
    if len(numbers) != len(parts) or len(parts) > 2 or numbers != sorted(numbers) or not all(numbers):
        raise typer.BadParameter(f"expected 1 or more, or a range such as 2-4, got {text!r}", param_hint=option)
    return numbers[0] if numbers[0] == numbers[-1] else (numbers[0], numbers[1])


def read_gpus(option: str, number: float) -> float:
    """`number`; wrong usage where it is no share of a GPU."""
    if not 0 < number <= 1:
        raise typer.BadParameter(f"expected a number above 0 and up to 1, got {number:g}", param_hint=option)
    return number


def read_minutes(option: str, number: float | None) -> float | None:
    """`number`; wrong usage where it is no time."""
    if number is not None and not 0 < number < float("inf"):
        raise typer.BadParameter(f"expected a number above 0, got {number:g}", param_hint=option)
    return number


def read_seeds(option: str, text: str | None) -> list[int] | None:
    """The seeds of `1111,1112`; wrong usage where they are not whole numbers that differ."""
    seeds = read_numbers(option, text, int)
    if seeds is not None and len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"expected different seeds, got {text!r}", param_hint=option)
    return seeds
