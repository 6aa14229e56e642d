"""Which printed numbers of others may stand beside an evaluation: those of the same corpus, split and labels."""

from __future__ import annotations

from lnln.evaluations import Evaluation
from lnln.metrics import metric_names
from lnln.report.data import PrintedLine, PrintedMean
from lnln.report.printed import PrintedScore, printed_averages, printed_curves

# Label ranges of the corpora that the papers are about.
LABELS = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0)}


def printed_lines(first: Evaluation) -> tuple[PrintedLine, ...]:
    """Published curves, where corpus, split and labels are those that they are of."""
    by_method: dict[str, dict[str, tuple[float, ...]]] = {}
    means: dict[str, dict[str, float | None]] = {}
    scores: dict[str, PrintedScore] = {}
    if not _is_published(first):
        return ()
    for metric in metric_names(first.label_range):
        for method, curve in printed_curves(first.corpus, metric).items():
            if curve.is_comparable:
                by_method.setdefault(method, {})[metric] = curve.values
                means.setdefault(method, {})[metric] = None if curve.average is None else curve.average.value
                scores.setdefault(method, curve.scores[0])
    return tuple(
        PrintedLine(
            method, scores[method].source.name, scores[method].status, scores[method].selection, curves, means[method]
        )
        for method, curves in by_method.items()
    )


def printed_means(first: Evaluation) -> tuple[PrintedMean, ...]:
    """Published means over the ten rates, of every source."""
    if not _is_published(first):
        return ()
    found: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for metric in metric_names(first.label_range):
        for score in printed_averages(first.corpus, metric):
            if score.is_comparable:
                key = score.method, score.source.name, score.status, score.selection
                found.setdefault(key, {})[metric] = score.value
    return tuple(PrintedMean(*key, mean) for key, mean in found.items())


def _is_published(first: Evaluation) -> bool:
    """Whether published numbers are of this split: of the corpus's real test split, with its labels."""
    return (
        first.split == "test"
        and not first.synthetic
        and not first.trained_on
        and LABELS.get(first.corpus) == first.label_range
    )
