"""What can be measured, by name. A section is added here, and `make bench` and the page have it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.performance import data, extract, training
from benchmarks.performance.measure import Comparison
from lnln.errors import RefusedError


@dataclass(frozen=True)
class Section:
    """explanation: Markdown, what is compared with what. measure: of (an empty folder, number of repetitions)."""

    title: str
    explanation: str
    measure: Callable[[Path, int], list[Comparison]]


SECTIONS: dict[str, Section] = {
    "data": Section("Data", data.EXPLANATION, data.measure_data),
    "training": Section("Training", training.EXPLANATION, training.measure_training),
    "extract": Section("Extraction", extract.EXPLANATION, extract.measure_extract),
}


def choose_sections(only: str | None) -> list[str]:
    """The names in `only`, with commas between; all where it is None. RefusedError for one that is not there."""
    names = list(SECTIONS) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in SECTIONS:
            raise RefusedError(f"no section called {name!r}; ONLY takes {', '.join(SECTIONS)}")
    return names
