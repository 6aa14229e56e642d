"""Reports: the verdict is right, the files are whole, nothing from outside becomes markup."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lnln.config import Config, load_config
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.evaluations import Evaluation, Interval
from lnln.markdown import code, escape
from lnln.model_store import publish
from lnln.report import render, report, scores_csv, verdict
from lnln.report.charts import draw_robustness
from lnln.runs import load_run
from tests.extracted_corpus import extracted_corpus
from tests.finished_run import finished_run
from tests.lnln.conftest import RunStore


@pytest.fixture
def evaluation(run_store: RunStore) -> Evaluation:
    return evaluate(run_store.store, run_store.worse)


def test_report_is_complete(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.better, "small-lnln")
    names = [run_store.worse, "small-lnln@best", run_store.worse]
    path = report(run_store.store, names, tmp_path / "deep" / "report")
    assert path == tmp_path / "deep" / "report" / "index.md"
    text = path.read_text()
    assert text.index("predicting the train mean") < text.index("robustness.png") < text.index("| missing rate |")
    assert "small\\-lnln" not in text and text.count("\n## ") == 5
    assert (path.parent / "robustness.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(io.StringIO((path.parent / "scores.csv").read_text())))
    assert len(rows) == 6 and {row["name"] for row in rows} == {run_store.worse, "small-lnln@v1"}
    stored = json.loads((path.parent / "scores.json").read_text())["evaluations"]
    assert Evaluation.from_dict(stored[0]) == evaluate(run_store.store, run_store.worse)
    assert not [entry for entry in path.parent.iterdir() if entry.name.startswith(".")]
    config = re.search(r"--config (\S+\.yaml)", text)
    assert config is not None
    trained = load_run(run_store.store, run_store.worse).config
    assert load_config(str(path.parent / config[1])) == Config.from_dict(trained.to_dict())


def test_a_report_says_which_protocol_and_the_rates_of_each_modality(run_store: RunStore, tmp_path: Path) -> None:
    corruption = {"protocol": "modality", "rates": [0.0, [1, 0, 0], [0, 1, 1]], "validation_rates": [0.0, [0, 1, 1]]}
    other = finished_run(run_store.store, run_store.manifest, corruption=corruption)
    subsets = finished_run(run_store.store, run_store.manifest, corruption={**corruption, "rates": [[0, 1, 1]]})
    path = report(run_store.store, [run_store.worse, other, subsets], tmp_path / "report")
    text = path.read_text()
    assert f"## {escape(other)} \\(modality\\)" in text or f"## {other} (modality)" in text
    assert "| 1/0/0 |" in text and "| 0/1/1 |" in text
    rows = list(csv.DictReader(io.StringIO((path.parent / "scores.csv").read_text())))
    assert [(row["protocol"], row["missing_rate"]) for row in rows[3:]] == [
        ("modality", "0"),
        ("modality", "1/0/0"),
        ("modality", "0/1/1"),
        ("modality", "0/1/1"),
    ]
    assert {row["protocol"] for row in rows[:3]} == {"frame"}
    # Where no rate is shared by all modalities there is no curve, and a picture all the same.
    assert draw_robustness([evaluate(run_store.store, subsets)]).startswith(b"\x89PNG")
    card = publish(run_store.store, other, "small-subsets")
    assert card


def test_a_report_shows_what_an_extraction_met(run_store: RunStore, tmp_path: Path) -> None:
    manifest = extracted_corpus(run_store.store, tmp_path)
    other = finished_run(run_store.store, manifest)
    text = report(run_store.store, [run_store.worse, other, other], tmp_path / "report").read_text()
    assert text.count("\n## Corpus\n") == 1
    assert text.index("| missing rate |") < text.index("## Corpus") < text.index("## How to read this")
    assert "`clips`, features `eeeeeeeeeeee`, extracted from raw clips" in text
    assert "| vision frames without face | 7 of 1,400 |" in text and "| rows repeated | 1 |" in text
    assert manifest.extraction is not None and manifest.extraction.quarantine is not None
    assert f"the whole table is `{run_store.store.url}/{manifest.extraction.quarantine.path}`" in text
    assert "| `a/notes.txt` | `table` | Raw/a/notes.txt is not in label.csv |" in text and "<b>" not in text
    assert "## Corpus" not in report(run_store.store, [run_store.worse], tmp_path / "import").read_text()

    run_store.store.write(manifest.extraction.quarantine.path, b"damaged")
    text = report(run_store.store, [other], tmp_path / "damaged").read_text()
    assert "quarantine table cannot be read" in text and "| rows repeated | 1 |" in text


def test_report_again_gives_the_same_bytes(run_store: RunStore, tmp_path: Path) -> None:
    first = report(run_store.store, [run_store.worse], tmp_path / "a").parent
    second = report(run_store.store, [run_store.worse], tmp_path / "b").parent
    for entry in first.iterdir():
        assert entry.read_bytes() == (second / entry.name).read_bytes(), entry.name


def test_refusals(run_store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="got none"):
        report(run_store.store, [], tmp_path / "r")
    with pytest.raises(RefusedError, match="no run and no model"):
        report(run_store.store, ["nothing"], tmp_path / "r")
    assert not (tmp_path / "r").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RefusedError, match="another folder"):
        report(run_store.store, [run_store.worse], tmp_path / "file")


@pytest.mark.parametrize(
    ("low", "value", "high", "words"),
    [
        (0.1, 0.2, 0.3, "beats predicting the train mean"),
        (-0.1, 0.1, 0.3, "is not told apart from predicting the train mean"),
        (0.0, 0.1, 0.3, "is not told apart from"),
        (-0.3, -0.2, -0.1, "is worse than predicting the train mean"),
    ],
)
def test_verdict(evaluation: Evaluation, low: float, value: float, high: float, words: str) -> None:
    margins = {**evaluation.margins, "predict_mean": {"mae": Interval(value, low, high)}}
    text = verdict(replace(evaluation, margins=margins))
    assert words in text
    if low > 0 or high < 0:
        assert "0.200 (95% interval 0.100 to 0.300)" in text


def test_synthetic_and_collapse_are_said(evaluation: Evaluation) -> None:
    synthetic = render([replace(evaluation, synthetic=True)], {})
    assert "corpus is synthetic" in synthetic and "corpus is synthetic" not in render([evaluation], {})
    views = tuple(replace(view, collapse_share=0.95) for view in evaluation.views)
    assert "**Collapse**" in render([replace(evaluation, views=views)], {})
    views = tuple(replace(view, collapse_share=0.3) for view in evaluation.views)
    assert "**Collapse**" not in render([replace(evaluation, views=views)], {})


def test_a_model_without_completeness_is_reported(run_store: RunStore, tmp_path: Path) -> None:
    model = {"name": "text_only", "text_encoder": "tiny"}
    run_id = finished_run(run_store.store, run_store.manifest, model=model)
    path = report(run_store.store, [run_id, run_store.worse], tmp_path / "report")
    rows = list(csv.DictReader(io.StringIO((path.parent / "scores.csv").read_text())))
    estimated = {row["name"]: row["mean_completeness"] for row in rows}
    assert estimated[run_id] == "" != estimated[run_store.worse]
    stored = json.loads((path.parent / "scores.json").read_text())["evaluations"]
    assert [view["mean_completeness"] for view in stored[0]["views"]] == [None] * len(stored[0]["views"])


HOSTILE = [
    "<img src=x>",
    "a|b",
    "`x`",
    "# head",
    "[x](http://y)",
    "*b*",
    "a\n\n# b",
    "$x$",
    "\\",
    "```\n",
    "_a_",
    "-x",
    "1. x",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_outside_text_never_becomes_markup(evaluation: Evaluation, name: str) -> None:
    text = render([replace(evaluation, name=name, corpus=name)], {name: "config.yaml"})
    prose = re.sub(r"(`{3,})\n.*?\n\1\n", "", text, flags=re.S)
    assert "<img" not in re.sub(r"`[^`\n]*`", "", prose)
    assert not re.search(r"^# (head|b)", prose, re.M)
    assert "](http" not in re.sub(r"`[^`\n]*`", "", prose).replace("\\](http", "")
    tables = [line for line in prose.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert widths <= {8, 10}
    assert draw_robustness([replace(evaluation, name=name, corpus=name)]).startswith(b"\x89PNG")


def test_escape_keeps_plain_names_plain() -> None:
    assert escape("mosi-lnln@v1") == "mosi-lnln@v1"
    assert escape("a\x00b\nc") == "a b c"
    assert code("a`b") == "`` a`b ``"


def test_many_models_of_several_corpora_fit_one_figure(evaluation: Evaluation) -> None:
    many = [replace(evaluation, name=f"model-{i}" * 3, corpus=f"corpus-{i % 3}") for i in range(8)]
    assert draw_robustness(many).startswith(b"\x89PNG")
    one_rate = replace(evaluation, rates=evaluation.rates[:1], views=evaluation.views[:1])
    one_rate = replace(one_rate, rate_intervals={m: i[:1] for m, i in evaluation.rate_intervals.items()})
    assert draw_robustness([one_rate]).startswith(b"\x89PNG")


def test_csv_has_the_metrics_of_all_corpora(evaluation: Evaluation) -> None:
    def without(scores: dict[str, Any]) -> dict[str, Any]:
        return {metric: value for metric, value in scores.items() if metric != "acc7"}

    views = tuple(replace(view, scores=without(view.scores)) for view in evaluation.views)
    other = replace(evaluation, views=views, mean=without(evaluation.mean))
    rows = list(csv.DictReader(io.StringIO(scores_csv([evaluation, other]))))
    assert rows[0]["acc7"] != "" and rows[-1]["acc7"] == ""
