"""The robustness curve of an evaluation, as an image that a browser shows without asking anybody for it."""

from __future__ import annotations

import base64
import io

from lnln.evaluations import Evaluation

METRIC = "mae"


def curve_url(evaluation: Evaluation) -> str | None:
    """A `data:` URL of MAE over the missing rate, with its interval; None where modalities do not share their rates.

    Prefect shows an image by its address, and one in a bucket would need a key.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rates = [rate for rate in evaluation.rates if not isinstance(rate, tuple)]
    if len(rates) < max(2, len(evaluation.rates)):
        return None
    values = [scores[METRIC] for scores in evaluation.by_rate()]
    intervals = evaluation.rate_intervals.get(METRIC, ())
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    if len(intervals) == len(rates):
        lows, highs = [each.low for each in intervals], [each.high for each in intervals]
        axes.fill_between(rates, lows, highs, alpha=0.15, lw=0, label="95% interval")
    axes.plot(rates, values, marker="o", label=_plain(evaluation.name))
    baselines = [scores[METRIC] for scores in evaluation.baselines.values() if METRIC in scores]
    if baselines:
        axes.axhline(min(baselines), color="#555555", ls="--", lw=1, label="best constant answer")
    axes.set_xlabel("missing rate of all modalities")
    axes.set_ylabel("MAE, lower is better")
    axes.set_title(_plain(f"{evaluation.corpus}, {evaluation.split} split"), loc="left")
    axes.legend(frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "lnln"})
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"


def _plain(text: str) -> str:
    """matplotlib reads what is between two dollars as a formula."""
    return text.replace("$", r"\$")
