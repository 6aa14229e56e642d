"""docs/performance.md, from what was stored of measurements alone: the same records give the same page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from benchmarks.performance import scaling
from benchmarks.performance.measure import AnyComparison, Comparison, Peak, PeakComparison, Spread, Timing
from benchmarks.performance.record import Record, read_record
from benchmarks.performance.sections import SECTIONS
from lnln.markdown import escape, table

_HEAD = """\
# Performance

Written by `make bench`, from what was measured into `benchmarks/timings`; `make bench-table` writes it again from \
these. Do not edit this page.

Each row puts ours beside a baseline at the same work, in the same run, in turn: each was run once unmeasured and then \
as often as stated, who began changing every time. The ratio says how many times as fast as the baseline ours is: \
above 1 ours is faster, below 1 slower. It is the median over the repetitions, paired, with the smallest and the \
largest in brackets; trust it more than the figures beside it, which are medians and go with the machine. *Per core* \
counts seconds of CPU time, all else seconds that passed. Of memory the ratio says how many times as much the baseline \
takes."""

NOT_RUN = "Not yet run."


def write_page(timings: Path, page: Path) -> None:
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(read_records(timings)), encoding="utf-8")


def read_records(timings: Path) -> dict[str, Record]:
    """Of every section that was measured."""
    found = {name: read_record(timings, name) for name in SECTIONS}
    return {name: record for name, record in found.items() if record is not None}


def render(records: Mapping[str, Record]) -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        record = records.get(name)
        parts += [f"## {section.title}", NOT_RUN if record is None else measured_on(record)]
        if record is not None:
            parts.append(table(rows(record)))
        parts.append(section.explanation)
    parts += [f"## {scaling.TITLE}", scaling.note()]
    return "\n\n".join(parts) + "\n"


def measured_on(record: Record) -> str:
    versions = ", ".join(f"{'Python' if name == 'python' else name} {each}" for name, each in record.versions.items())
    others = " Other work ran on the machine meanwhile: the ratios are what counts." if record.shared else ""
    repetitions = record.comparisons[0].num_repetitions
    device = f"{escape(record.device)}, " if record.device else ""
    return (
        f"{repetitions} repetitions, {record.date}, {device}{record.num_cores} cores of {escape(record.cpu)}, "
        f"{escape(versions)}.{others}"
    )


def rows(record: Record) -> list[dict[str, str]]:
    """One for each pair of ours and a baseline."""
    return [row for comparison in record.comparisons for row in _rows(comparison)]


def _rows(comparison: AnyComparison) -> list[dict[str, str]]:
    if isinstance(comparison, PeakComparison):
        return [
            {
                "work": comparison.name + _limit_of_memory(comparison, each),
                "ours": _memory(comparison.ours),
                "baseline": escape(each.title),
                "baseline's figure": _memory(each),
                "ratio": _spread(comparison.ratio(each)),
            }
            for each in comparison.baselines
        ]
    return [
        {
            "work": comparison.name + _limit(comparison),
            "ours": _figure(comparison, comparison.ours),
            "baseline": escape(each.title),
            "baseline's figure": _figure(comparison, each),
            "ratio": _spread(comparison.ratio(each)),
        }
        for each in comparison.baselines
    ]


def _spread(ratio: Spread) -> str:
    return f"**{_number(ratio.median)}** ({_number(ratio.lowest)}–{_number(ratio.highest)})"


def _figure(comparison: Comparison, timing: Timing) -> str:
    """Median throughput, or seconds; and what was written."""
    if comparison.amount:
        said = f"{_number(comparison.amount / timing.median())} {comparison.unit}/s"
    else:
        said = f"{_number(timing.median())} s"
    said += " per core" if comparison.clock == "core" else ""
    said += "" if timing.num_bytes is None else f", writes {_number(timing.num_bytes / 1e6)} MB"
    return f"{said} ({escape(timing.note)})" if timing.note else said


def _limit(comparison: Comparison) -> str:
    if comparison.limit_seconds is None:
        return ""
    kept = comparison.ours.median() < comparison.limit_seconds
    return f" (asked: below {_number(comparison.limit_seconds)} s; {'kept' if kept else 'not kept'})"


def _memory(peak: Peak) -> str:
    """Medians of the peak and of what was there before."""
    return f"{_number(peak.median() / 1e9)} GB ({_number(statistics.median(peak.before) / 1e9)} before)"


def _limit_of_memory(comparison: PeakComparison, baseline: Peak) -> str:
    if comparison.limit_ratio is None:
        return ""
    kept = comparison.ratio(baseline).median >= comparison.limit_ratio
    return f" (asked: ratio {_number(comparison.limit_ratio)} or more; {'kept' if kept else 'not kept'})"


def _number(value: float) -> str:
    """Three digits, or all of a whole number above."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
