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
