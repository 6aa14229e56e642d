"""A report on one or more models: the verdict first, then tables, curves, and how to get the same numbers again.

    path = report(store, ["mosi-lnln@best", "mosi-lnln-1f3a0c9d2b44"], Path("reports/mosi"))

Writes `index.md`, `robustness.png`, `scores.csv` (one row per view), `scores.json` (everything) and the config of each
model as YAML, which `lnln train --config` takes.
"""

from __future__ import annotations

import csv
import io
import re
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from lnln.corruption import format_rate
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluations import Evaluation, Interval, format_interval, format_score
from lnln.markdown import code, escape, table
from lnln.metrics import COLLAPSE_SHARE, TITLES
from lnln.model_store.card import SYNTHETIC
from lnln.model_store.opened import OpenedModel, open_model
from lnln.report.charts import draw_robustness
from lnln.report.corpus import describe_corpora


def report(store: Store, names: Sequence[str], folder: Path | str) -> Path:
    """Write the report on the models `names` (runs, published models, folders) to `folder`; returns its index.md.

    Models not evaluated on test before are evaluated now; a run with `train.selection: published` a second time, with
    the weights that were selected on test, as a section of its own that says so. Raises RefusedError for no name or an
    unknown one.
    """
    if not names:
        raise RefusedError("a report needs a run or a published model or more, got none; see `lnln models`")
    folder = Path(folder)
    evaluations = [
        evaluate(store, name, selection=selection)
        for name in dict.fromkeys(names)
        for selection in _selections(open_model(store, name))
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RefusedError(f"cannot write a report to {folder}: {error.strerror}; give another folder") from error
    configs = _write_configs(store, names, folder)
    _write(folder / "scores.csv", scores_csv(evaluations).encode())
    values = {"evaluations": [evaluation.to_dict() for evaluation in evaluations]}
    _write(folder / "scores.json", encode_json(values))
    _write(folder / "robustness.png", draw_robustness(evaluations))
    _write(folder / "index.md", render(evaluations, configs, describe_corpora(store, evaluations)).encode())
    return folder / "index.md"


def render(evaluations: Sequence[Evaluation], configs: dict[str, str], corpora: Sequence[str] = ()) -> str:
    """index.md. configs: name of the YAML file of each model, by evaluation name, where its config is known.

    corpora: what there is to say of the corpora, as Markdown.
    """
    parts = ["# Robustness to missing data", "\n".join(f"- {verdict(evaluation)}" for evaluation in evaluations)]
    if any(evaluation.synthetic for evaluation in evaluations):
        parts.append(SYNTHETIC)
    parts.append("![MAE and two-class accuracy over the missing rate](robustness.png)")
    if len(evaluations) > 1:
        parts += ["## Side by side", _side_by_side(evaluations)]
    for evaluation in evaluations:
        parts += [
            f"## {escape(evaluation.title)}",
            _facts(evaluation),
            table(evaluation.rows()),
            *_warnings(evaluation),
        ]
    if corpora:
        parts += ["## Corpus", *corpora]
    parts += ["## How to read this", _READING, "## How to get the same", _how_to_reproduce(evaluations, configs)]
    return "\n\n".join(parts) + "\n"


def verdict(evaluation: Evaluation) -> str:
    """One sentence: better than predicting the train mean, worse, or not told apart, and by how much.

    None of it for scores that were selected on test.
    """
    margin = evaluation.margins["predict_mean"]["mae"]
    mean, baseline = evaluation.mean["mae"], evaluation.baselines["predict_mean"]["mae"]
    by = f"{abs(margin.value):.3f} (95% interval {_ordered(margin)})"
    where = f"on {code(evaluation.corpus)} {evaluation.split}"
    numbers = f"mean MAE {mean:.3f} over {len(evaluation.rates)} missing rates, baseline {baseline:.3f}"
    name = f"**{escape(evaluation.title)}"
    if evaluation.note:
        return f"{name}: {escape(evaluation.note)}** {where}: {numbers}."
    if margin.low > 0:
        return f"{name} beats predicting the train mean** {where}: {numbers}, better by {by}. {_one_class(evaluation)}"
    if margin.high < 0:
        return f"{name} is worse than predicting the train mean** {where}: {numbers}, worse by {by}."
    return (
        f"{name} is not told apart from predicting the train mean** {where}: {numbers}, "
        f"difference {margin.value:+.3f} (95% interval {margin.low:+.3f} to {margin.high:+.3f})."
    )


def scores_csv(evaluations: Sequence[Evaluation]) -> str:
    """One row per model and view; metrics that a corpus does not have stay empty."""
    metrics = [metric for metric in TITLES if any(metric in evaluation.mean for evaluation in evaluations)]
    fixed = ["name", "selection", "corpus", "split", "protocol", "missing_rate", "mask_seed", "view_id"]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*fixed, *metrics, "collapse_share", "mean_completeness"], lineterminator="\n")
    writer.writeheader()
    for evaluation in evaluations:
        for view in evaluation.views:
            same = {"name": evaluation.name, "selection": evaluation.selection}
            same |= {"corpus": evaluation.corpus, "split": evaluation.split, "protocol": evaluation.protocol}
            spec = {
                "missing_rate": format_rate(view.missing_rate),
                "mask_seed": view.mask_seed,
                "view_id": view.view_id,
            }
            more = {"collapse_share": view.collapse_share, "mean_completeness": view.mean_completeness}
            writer.writerow({**same, **spec, **view.scores, **more})
    return out.getvalue()


_READING = """\
- Every modality has the missing rate of the row, or text/audio/vision have the three of it; masks are the same for
  every model and nested over rates.
- One checkpoint gives all numbers. It was selected on validation; test took no part. Where it did, the section says
  so, and its numbers are for comparison with tables that were made so.
- Accuracies and F1 are in percent. np: negative against positive, zeros left out; nn: negative against non-negative.
- Intervals come from drawing the utterances again, with replacement; they say nothing of other training seeds.
- F1 has its arguments in the right order; the tables of the LNLN paper do not, and select on test."""


def _selections(opened: OpenedModel) -> list[str]:
    """A run keeps the weights that were selected on test, if there are any; what was published of it does not."""
    keeps = opened.config is not None and opened.config.train.selection == "published"
    return ["validation", "published"] if keeps and opened.run_id == opened.reference else ["validation"]


def _one_class(evaluation: Evaluation) -> str:
    metric = "acc2_np" if "acc2_np" in evaluation.mean else "acc2"
    margin = evaluation.margins["one_class"][metric]
    word = "above" if margin.low > 0 else "below" if margin.high < 0 else "not told apart from"
    value, baseline = evaluation.mean[metric], evaluation.baselines["one_class"][metric]
    return f"{TITLES[metric]} {100 * value:.2f}%, {word} the one-class baseline's {100 * baseline:.2f}%."


def _ordered(margin: Interval) -> str:
    low, high = sorted((abs(margin.low), abs(margin.high)))
    return f"{low:.3f} to {high:.3f}"


def _facts(evaluation: Evaluation) -> str:
    seeds = ", ".join(str(seed) for seed in evaluation.mask_seeds)
    absent = escape(" and ".join(evaluation.absent_modalities))
    return (
        f"{f'**These scores are {escape(evaluation.note)}.** ' if evaluation.note else ''}"
        f"Corpus {code(evaluation.corpus)}{' (synthetic)' if evaluation.synthetic else ''}, {evaluation.split} split, "
        f"{evaluation.num_labelled} labelled utterances, mask seeds {seeds}."
        f"{f' Trained without {absent}: no utterance of the training split has it.' if absent else ''}"
    )


def _warnings(evaluation: Evaluation) -> list[str]:
    rates = [
        f"{format_rate(rate)} ({100 * row['collapse_share']:.0f}%)"
        for rate, row in zip(evaluation.rates, evaluation.by_rate(), strict=True)
        if row["collapse_share"] > COLLAPSE_SHARE
    ]
    if not rates:
        return []
    return [f"**Collapse**: nearly all utterances get the same class at missing rate {', '.join(rates)}."]


def _side_by_side(evaluations: Sequence[Evaluation]) -> str:
    metrics = [m for m in TITLES if any(m in evaluation.intervals for evaluation in evaluations)]
    rows = []
    for evaluation in evaluations:
        cells = {"model": escape(evaluation.title), "corpus": escape(evaluation.corpus)}
        for metric in metrics:
            found = evaluation.intervals.get(metric)
            cells[TITLES[metric]] = (
                f"{format_score(metric, found.value)} ({format_interval(metric, (found.low, found.high))})"
                if found is not None
                else ""
            )
        rows.append(cells)
    return "Means over missing rates, with 95% intervals.\n\n" + table(rows)


def _how_to_reproduce(evaluations: Sequence[Evaluation], configs: dict[str, str]) -> str:
    lines = []
    for evaluation in evaluations:
        if evaluation.name in configs:
            lines.append(
                f"lnln train {shlex.quote(evaluation.corpus)} --config {shlex.quote(configs[evaluation.name])}"
            )
        options = " --selection published" if evaluation.selection == "published" else ""
        lines.append(f"lnln evaluate {shlex.quote(evaluation.name)}{options}")
    names = dict.fromkeys(evaluation.name for evaluation in evaluations)
    lines.append("lnln report " + " ".join(map(shlex.quote, names)))
    fence = "`" * (3 + max((len(run) for run in re.findall("`+", "".join(lines))), default=0))
    rows = [
        {
            "model": escape(evaluation.title),
            "run": code(str(evaluation.model["run_id"])),
            "weights SHA-256": code(str(evaluation.model["weights_sha256"])[:12]),
            "features": code(evaluation.feature_id),
            "manifest SHA-256": code(evaluation.manifest_digest[:12]),
            "evaluation": code(evaluation.evaluation_id),
            "code": code(evaluation.code_version),
        }
        for evaluation in evaluations
    ]
    intro = "With the same store (`--store` or `LNLN_STORE`), in this folder:"
    commands = "\n".join(dict.fromkeys(lines))
    return f"{intro}\n\n{fence}\n{commands}\n{fence}\n\n{table(rows)}\n\nAll views, intervals and ids: `scores.json`."


def _write_configs(store: Store, names: Sequence[str], folder: Path) -> dict[str, str]:
    """The config of each model as YAML beside the report: file name by the model's reference."""
    written = {}
    for name in dict.fromkeys(names):
        opened = open_model(store, name)
        if opened.config is None:
            continue
        file = f"config-{opened.config.fingerprint()}.yaml"
        _write(folder / file, yaml.safe_dump(opened.config.to_dict(), sort_keys=False).encode())
        written[opened.reference] = file
    return written


def _write(path: Path, data: bytes) -> None:
    """Whole or absent: a file beside takes the name."""
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
