"""The robustness curve: a score over the missing rate, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lnln.evaluations import PLAIN_NUMBERS, Evaluation
from lnln.metrics import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito: told apart with any colour vision, each with a marker of its own for print without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
BASELINES = {
    "mae": (("predict_mean", "train mean", "--"), ("predict_median", "train median", ":")),
    "acc2": (("one_class", "one class", "--"),),
    "acc2_np": (("one_class", "one class", "--"),),
}


def draw_robustness(evaluations: Sequence[Evaluation]) -> bytes:
    """A PNG: MAE and two-class accuracy over the missing rate, one row of panels per corpus.

    Lines are means over mask seeds, bands 95% bootstrap intervals over utterances, grey lines what needs no model.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    corpora = list(dict.fromkeys((evaluation.corpus, evaluation.split) for evaluation in evaluations))
    looks = {id(evaluation): index for index, evaluation in enumerate(evaluations)}
    num_legend_rows = -(-len(evaluations) // 2) + 1
    figure = Figure(figsize=(10, 3.9 * len(corpora) + 0.25 * num_legend_rows), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(corpora), 2, squeeze=False)
    for row, (corpus, split) in zip(panels, corpora, strict=True):
        shown = [evaluation for evaluation in evaluations if (evaluation.corpus, evaluation.split) == (corpus, split)]
        first = shown[0]
        for axes, metric in zip(row, ("mae", "acc2_np" if "acc2_np" in first.mean else "acc2"), strict=True):
            _draw_panel(axes, shown, metric, looks)
        note = ", synthetic" if first.synthetic else ""
        title = f"{corpus}{note}: {split} split, {first.num_labelled} utterances"
        row[0].set_title(_plain(title), loc="left", fontsize=11, fontweight="bold", pad=12)
    lines = [line for row in panels for line in row[0].get_lines() if not line.get_label().startswith("_")]
    figure.legend(
        handles=lines,
        loc="outside lower center",
        ncols=min(len(lines), 2),
        frameon=False,
        fontsize=9,
        title="mean over mask seeds, band: 95% interval over utterances, grey: no model",
        title_fontsize=8.5,
    )
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": "lnln"})
    return out.getvalue()


def _draw_panel(axes: Axes, evaluations: Sequence[Evaluation], metric: str, looks: dict[int, int]) -> None:
    scale = 1 if metric in PLAIN_NUMBERS else 100
    for evaluation in evaluations:
        index = looks[id(evaluation)]
        # A curve is over rates that all modalities share; others have no place on its axis.
        shared = {rate: place for place, rate in enumerate(evaluation.rates) if not isinstance(rate, tuple)}
        positions = sorted(shared)
        intervals = [evaluation.rate_intervals[metric][shared[rate]] for rate in positions]
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(
            positions,
            [scale * i.low for i in intervals],
            [scale * i.high for i in intervals],
            color=colour,
            alpha=0.18 if len(evaluations) < 3 else 0.08,
            lw=0,
        )
        axes.plot(
            positions,
            [scale * i.value for i in intervals],
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            lw=2,
            label=_plain(evaluation.title),
        )
    baselines = [
        (scale * evaluations[0].baselines[baseline][metric], label, style)
        for baseline, label, style in BASELINES[metric]
        if metric in evaluations[0].baselines.get(baseline, {})
    ]
    for value, _, style in baselines:
        axes.axhline(value, color="#555555", lw=1.2, ls=style, zorder=1)
    axes.autoscale_view(scalex=False)  # axhline alone may end on the frame
    rates = sorted({rate for each in evaluations for rate in each.rates if not isinstance(rate, tuple)})
    if len(rates) <= 12:
        axes.set_xticks(rates)
    axes.set_xlabel("missing rate, all modalities")
    axes.set_ylabel("MAE (lower is better)" if metric == "mae" else f"{TITLES[metric]}, % (higher is better)")
    axes.grid(axis="y", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _name_baselines(axes, baselines)


def _name_baselines(axes: Axes, baselines: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name outside, at its right end; lines too close for a name each share one."""
    low, high = axes.get_ylim()
    groups: list[list[tuple[float, str]]] = []
    for value, label, _ in sorted(baselines):
        if groups and value - groups[-1][-1][0] < 0.055 * (high - low):
            groups[-1].append((value, label))
        else:
            groups.append([(value, label)])
    for group in groups:
        height = sum(value for value, _ in group) / len(group)
        text = "\n".join(label for _, label in reversed(group))
        axes.text(
            1.01, height, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color="#555555"
        )  # fmt: skip


def _plain(text: str) -> str:
    """A dollar sign would switch Matplotlib to mathematics."""
    return text.replace("$", r"\$")
