"""The robustness curves of a group of systems as SVG, the same bytes for the same scores."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.results.plan import Experiment
from benchmarks.results.scores import Scores
from lnln.config import fingerprint
from lnln.metrics import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: told apart with any colour vision, each with a marker of its own for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")

Curves = Mapping[str, Sequence[Scores]]


def curve_points(scored: Sequence[Scores], metric: str) -> list[tuple[float, float, float, float]]:
    """(rate, value, low, high) of one system, by rate, r = 1 included: means over its trainings.

    low, high: the 95% interval over utterances of one training, its ends averaged over the trainings.
    """
    points = []
    for pick in ("test", "all_missing"):
        splits = [getattr(each, pick) for each in scored]
        for position, rate in enumerate(splits[0].rates):
            values = [split.by_rate[position][metric] for split in splits]
            ends = [split.rate_intervals[metric][position] for split in splits]
            mean = [sum(column) / len(splits) for column in (values, *zip(*ends, strict=True))]
            points.append((rate, mean[0], mean[1], mean[2]))
    return sorted(points)


def curves_digest(curves: Curves) -> str:
    """Fingerprint of what the figure shows; stands in it, so a test can tell whether it is up to date."""
    return fingerprint(
        {
            name: [[round(x, 5) for x in point] for metric in ("mae", "corr") for point in curve_points(scored, metric)]
            for name, scored in curves.items()
        }
    )


def draw_curves(corpus: str, experiments: Sequence[Experiment], curves: Curves) -> bytes:
    """MAE and Corr over the missing rate, a line for each of `experiments` that has scores."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "lnln", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(10, 4.9), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, 2)
        for axes, metric in zip(panels, ("mae", "corr"), strict=True):
            _draw_panel(axes, experiments, curves, metric)
        panels[0].set_title(f"{corpus}, test split", loc="left", fontsize=11, fontweight="bold")
        figure.legend(
            handles=panels[0].get_lines(), loc="outside lower center", ncols=2, frameon=False, fontsize=9,
            title="mean over training and mask seeds; band: 95% interval over utterances of one training",
            title_fontsize=8.5,
        )  # fmt: skip
        out = io.BytesIO()
        figure.savefig(
            out,
            format="svg",
            metadata={"Date": None, "Creator": "lnln", "Description": f"scores {curves_digest(curves)}"},
        )
    return out.getvalue()


def _draw_panel(axes: Axes, experiments: Sequence[Experiment], curves: Curves, metric: str) -> None:
    for index, experiment in enumerate(experiments):
        if experiment.name not in curves:
            continue
        rates, values, lows, highs = zip(*curve_points(curves[experiment.name], metric), strict=True)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axes.fill_between(rates, lows, highs, color=colour, alpha=0.08, lw=0)
        label = experiment.title.replace("$", r"\$")
        axes.plot(rates, values, color=colour, marker=marker, markersize=4.5, lw=1.8, label=label)
    if metric == "mae":
        test = next(iter(curves.values()))[0].test
        assert test is not None, "curves are of test scores"
        constant = min(scores["mae"] for scores in test.baselines.values() if "mae" in scores)
        axes.axhline(constant, color="#555555", lw=1.2, ls="--", zorder=1, label="best constant of the train labels")
    axes.set_xlabel("missing rate, all modalities")
    axes.set_ylabel(f"{TITLES[metric]} ({'lower' if metric == 'mae' else 'higher'} is better)")
    axes.set_xticks([i / 10 for i in range(11)])
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
