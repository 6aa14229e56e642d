"""The card of a published model: metadata that Hugging Face reads, and what has to be said of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from lnln.data.store import Store
from lnln.evaluate import evaluate
from lnln.evaluations import Evaluation
from lnln.model_store import publish, pull
from lnln.model_store.card import model_card
from tests.finished_run import finished_run, small_corpus
from tests.lnln.conftest import RunStore


def card_of(store: Store, run: str, folder: Path) -> str:
    publish(store, run, "small-lnln")
    return (pull(store, "small-lnln", folder) / "README.md").read_text()


def test_metadata_is_what_hugging_face_reads(run_store: RunStore, tmp_path: Path) -> None:
    small_corpus(run_store.store, tmp_path, "another")
    scored = [evaluate(run_store.store, run_store.worse, corpus) for corpus in (None, "another")]
    data: Any = ModelCard(card_of(run_store.store, run_store.worse, tmp_path / "pulled")).data
    assert data.language == ["en"] and "pytorch_model_hub_mixin" in data.tags
    results = data.eval_results
    assert {(result.dataset_name, result.dataset_split) for result in results} == {
        ("small", "test"),
        ("another", "test"),
    }
    assert {result.metric_type for result in results} == {"mae", "pearsonr", "accuracy", "f1"}
    for evaluation in scored:
        own = {result.metric_name: result for result in results if result.dataset_name == evaluation.corpus}
        assert len(own) == len(evaluation.metrics())
        mae = own["MAE (mean over missing rates)"]
        assert mae.metric_value == pytest.approx(evaluation.mean["mae"], abs=1e-6)
        interval = mae.metric_args["interval_95"]
        assert interval["low"] < mae.metric_value < interval["high"]
        assert mae.metric_args["missing_rates"] == "0, 0.5, 0.9" and mae.metric_args["mask_seeds"] == "0"


def test_the_table_and_its_intervals_are_there(run_store: RunStore, tmp_path: Path) -> None:
    evaluation = evaluate(run_store.store, run_store.worse)
    body = card_of(run_store.store, run_store.worse, tmp_path / "pulled").split("---\n", 2)[2]
    assert "predict the train mean" in body and "| 0.5 |" in body and "synthetic" not in body
    interval = evaluation.intervals["mae"]
    assert f"MAE {interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})" in body
    assert "Scored under one draw of the masks" in body and "### On" not in body


def test_scores_of_several_mask_seeds_and_of_three_rates_say_so(run_store: RunStore, tmp_path: Path) -> None:
    lineage = _lineage(run_store, tmp_path)
    evaluation = evaluate(run_store.store, run_store.worse, rates=[(1.0, 0.0, 0.0), 0.5], mask_seeds=[0, 4])
    card = model_card("small-lnln", lineage, {"small": evaluation})
    assert "means over the mask seeds 0, 4" in card and "one draw of the masks" not in card
    (result,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert result["metrics"][0]["args"]["missing_rates"] == "1/0/0, 0.5"


def test_what_does_not_carry_over_to_another_corpus_is_said(run_store: RunStore, tmp_path: Path) -> None:
    lineage = _lineage(run_store, tmp_path)
    values = evaluate(run_store.store, run_store.worse).to_dict()
    elsewhere = Evaluation.from_dict({**values, "corpus": "another", "carries_over": ["labels are <b>other</b> ones"]})
    card = model_card("small-lnln", lineage, {"another": elsewhere})
    assert "### On `another`" in card and "- labels are &lt;b&gt;other&lt;/b&gt; ones" in card


def test_a_model_without_scores_says_so(run_store: RunStore, tmp_path: Path) -> None:
    card = card_of(run_store.store, run_store.worse, tmp_path / "pulled")
    assert "Not evaluated on test when it was published" in card and "model-index" not in card
    assert "over the rates 0, 0.5 (1.3000, epoch 3)" in card


def test_views_of_the_config_may_have_three_rates(run_store: RunStore, tmp_path: Path) -> None:
    rates = {"rates": [0.5], "validation_rates": [0.5, [1.0, 0.0, 0.5]]}
    run = finished_run(run_store.store, run_store.manifest, corruption=rates)
    assert "over the rates 0.5, 1/0/0.5 (" in card_of(run_store.store, run, tmp_path / "pulled")


def test_synthetic_corpora_and_absent_modalities_are_stated(run_store: RunStore, tmp_path: Path) -> None:
    lineage = {**_lineage(run_store, tmp_path), "synthetic": True, "absent_modalities": ["audio", "vision"]}
    card = model_card("small-lnln", lineage, {})
    assert "corpus is synthetic" in card and "- synthetic" in card
    assert "- Trained without audio and vision: no utterance" in card


@pytest.mark.parametrize(
    "hostile", ["a|b", "<script>alert(1)</script>", "x\n# y", "`code`", "---\nlicense: mit", "[x](y)"]
)
def test_names_from_outside_never_become_markup(run_store: RunStore, tmp_path: Path, hostile: str) -> None:
    lineage = _lineage(run_store, tmp_path)
    lineage |= {"corpus": hostile, "run_id": hostile, "extractors": {"audio": {"name": hostile}}}
    lineage["imported"] = {"name": hostile, "kind": hostile, "num_bytes": 1, "sha256": hostile}
    lineage["model"] = {**lineage["model"], "text_encoder": hostile}
    card = model_card("small-lnln", lineage, {})
    data = ModelCard(card).data.to_dict()
    assert "license" not in data
    body = card.split("---\n", 2)[2]
    assert "\n# y" not in body and "\n---" not in body
    outside_code = [part for line in body.splitlines() for part in line.split("`")[::2]]
    assert not any("<script>" in part for part in outside_code if "`" not in hostile)


def _lineage(run_store: RunStore, folder: Path) -> dict[str, Any]:
    publish(run_store.store, run_store.worse, "plain")
    values: dict[str, Any] = json.loads((pull(run_store.store, "plain", folder / "plain") / "lineage.json").read_text())
    return values
