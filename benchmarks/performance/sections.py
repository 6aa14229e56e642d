"""What can be measured, by name. A section is added here, and `make bench` and the page have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.performance import data, extract, gpu, memory, ranking, training
from benchmarks.performance.measure import AnyComparison
from lnln.errors import RefusedError
from lnln.progress import line


@dataclass(frozen=True)
class Section:
    """explanation: Markdown, what is compared with what. measure: of (an empty folder, number of repetitions).
    needs: what this machine lacks for it, "" where nothing. device: what it runs on beside the CPU."""

    title: str
    explanation: str
    measure: Callable[[Path, int], Sequence[AnyComparison]]
    needs: Callable[[], str] = str
    device: Callable[[], str] = str


SECTIONS: dict[str, Section] = {
    "data": Section("Data", data.EXPLANATION, data.measure_data),
    "training": Section("Training", training.EXPLANATION, training.measure_training),
    "ranking": Section("Rank-N-Contrast", ranking.EXPLANATION, ranking.measure_ranking),
    "memory": Section("Memory", memory.EXPLANATION, memory.measure_memory, memory.what_is_missing),
    "gpu": Section("Training on a GPU", gpu.EXPLANATION, gpu.measure_gpu, gpu.what_is_missing, gpu.card),
    "extract": Section("Extraction", extract.EXPLANATION, extract.measure_extract),
}


def choose_sections(only: str | None) -> list[str]:
    """The names in `only`, with commas between; where it is None all that can be measured here.

    RefusedError for one that is not there, or that this machine lacks something for.
    """
    names = list(SECTIONS) if only is None else [name.strip() for name in only.split(",")]
    for name in names:
        if name not in SECTIONS:
            raise RefusedError(f"no section called {name!r}; ONLY takes {', '.join(SECTIONS)}")
    lacking = {name: SECTIONS[name].needs() for name in names}
    for name, what in lacking.items():
        if what and only is not None:
            raise RefusedError(f"section {name} cannot be measured here: {what}")
        if what:
            line(f"section {name} is left out: {what}")
    return [name for name in names if not lacking[name]]
