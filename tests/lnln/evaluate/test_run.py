"""Evaluations: right numbers, stored once, refused where features do not fit."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lnln.batches import corrupt_inputs, to_inputs
from lnln.config import CorruptionConfig, Protocol, Rate
from lnln.corruption import ViewSpec
from lnln.corruption.typos import typos_of
from lnln.data.shards import read_labels, read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate, read_predictions
from lnln.evaluate.scores import score_views
from lnln.evaluations import Evaluation, evaluation_id
from lnln.metrics import score
from lnln.model_store import load, publish, pull
from lnln.views import Views
from tests.finished_run import finished_run, small_corpus
from tests.lnln.conftest import RunStore


def test_equals_one_utterance_at_a_time(run_store: RunStore) -> None:
    evaluation = evaluate(run_store.store, run_store.worse, rates=[0.0, 0.5, 1.0], mask_seeds=[0, 7], batch_size=5)
    utterances = read_split(run_store.store, run_store.manifest, "test")
    model = load(run_store.worse, run_store.store)
    table = pq.read_table(io.BytesIO(run_store.store.read(evaluation.predictions["path"]))).to_pandas()
    assert len(table) == 6 * len(utterances) and len(evaluation.views) == 6
    for view in evaluation.views:
        spec = ViewSpec.evaluation(view.missing_rate, view.mask_seed)
        assert spec.view_id == view.view_id
        expected = []
        for row in range(len(utterances)):
            one = utterances.take([row])
            kept = Views(one, "test").masks(spec).kept
            padded = {m: torch.from_numpy(sequences.padded()) for m, sequences in kept.items()}
            with torch.inference_mode():
                inputs = corrupt_inputs(to_inputs(one), padded, run_store.manifest.tokenizer.unknown_id)
                expected.append(float(model(inputs).sentiment[0]))
        stored = table[(table.missing_rate == view.missing_rate) & (table.mask_seed == view.mask_seed)]
        assert list(stored.utterance_id) == utterances.utterance_id
        np.testing.assert_allclose(stored.prediction, expected, atol=2e-5)
        assert view.scores == score(stored.prediction, utterances.label, (-3, 3))
    mean = np.mean([view.scores["mae"] for view in evaluation.views])
    assert evaluation.mean["mae"] == pytest.approx(float(mean))


@pytest.mark.parametrize("damage", ["absent", "flipped"])
def test_an_evaluation_whose_predictions_are_lost_is_made_anew(run_store: RunStore, damage: str) -> None:
    store = run_store.store
    first = evaluate(store, run_store.worse)
    path = first.predictions["path"]
    if damage == "absent":
        store.remove(path)
    else:
        data = bytearray(store.read(path))
        data[len(data) // 2] ^= 1
        store.write(path, bytes(data))
    assert evaluate(store, run_store.worse) == first
    assert len(read_predictions(store, first).label) == first.num_utterances


def test_stored_evaluation_is_returned_unless_forced(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(run_store.store, run_store.worse)
    record = f"runs/{run_store.worse}/evaluations/{first.evaluation_id}.json"
    assert Evaluation.from_dict(json.loads(run_store.store.read(record))) == first
    monkeypatch.setattr("lnln.evaluate.run.predict_views", lambda *_: pytest.fail("computed again"))
    assert evaluate(run_store.store, run_store.worse) == first
    with pytest.raises(pytest.fail.Exception):
        evaluate(run_store.store, run_store.worse, force=True)
    with pytest.raises(pytest.fail.Exception):
        evaluate(run_store.store, run_store.worse, rates=[0.3])


def test_computing_again_gives_the_same_bytes(run_store: RunStore) -> None:
    first = evaluate(run_store.store, run_store.worse)
    record = f"runs/{run_store.worse}/evaluations/{first.evaluation_id}.json"
    before = run_store.store.read(record)
    evaluate(run_store.store, run_store.worse, force=True)
    assert run_store.store.read(record) == before


def test_damaged_record_is_computed_again(run_store: RunStore) -> None:
    first = evaluate(run_store.store, run_store.worse)
    record = f"runs/{run_store.worse}/evaluations/{first.evaluation_id}.json"
    for data in (b"{", b"{}", b"[]", b'{"views": 3}'):
        run_store.store.write(record, data)
        assert evaluate(run_store.store, run_store.worse) == first


def test_published_model_and_pulled_folder_score_as_their_run(run_store: RunStore, tmp_path: Path) -> None:
    publish(run_store.store, run_store.worse, "small-lnln")
    folder = pull(run_store.store, "small-lnln", tmp_path / "pulled")
    published = evaluate(run_store.store, "small-lnln")
    run = evaluate(run_store.store, run_store.worse)
    assert published.name == "small-lnln@v1" and published.predictions["path"].startswith(
        "models/small-lnln/evaluations/"
    )
    assert run.evaluation_id == published.evaluation_id and run.views == published.views
    assert evaluate(run_store.store, str(folder)).mean == run.mean


def test_other_splits_and_corpora(run_store: RunStore, tmp_path: Path) -> None:
    valid = evaluate(run_store.store, run_store.worse, split="valid")
    assert valid.split == "valid" and valid.num_utterances == 12
    small_corpus(run_store.store, tmp_path, "other")
    other = evaluate(run_store.store, run_store.worse, "other")
    assert other.corpus == "other" and other.evaluation_id != valid.evaluation_id
    with pytest.raises(RefusedError, match="split is one of"):
        evaluate(run_store.store, run_store.worse, split="dev")
    with pytest.raises(RefusedError, match="no corpus 'nothing'"):
        evaluate(run_store.store, run_store.worse, "nothing")


def test_features_that_do_not_fit_are_refused_with_both_values(run_store: RunStore) -> None:
    from pipelines.ingest import import_sample

    import_sample(run_store.store, "sample")
    with pytest.raises(RefusedError, match=r"takes audio dim 4, not 8; vision dim 3, not 10"):
        evaluate(run_store.store, run_store.worse, "sample")


@pytest.mark.parametrize(
    ("rates", "seeds"), [([], None), (None, []), ([0.1, 0.1], None), ([2.0], None), ([-0.1], None)]
)
def test_impossible_views_are_refused(run_store: RunStore, rates: list[float] | None, seeds: list[int] | None) -> None:
    with pytest.raises(RefusedError):
        evaluate(run_store.store, run_store.worse, rates=rates, mask_seeds=seeds)


def test_models_are_compared_on_the_same_views(run_store: RunStore) -> None:
    """However each was trained: the views are those that are asked for."""
    corruption = {"rates": [0.0, 0.5], "validation_rates": [0.5], "mask_seed": 1111, "shared_uniforms": True}
    other = finished_run(run_store.store, run_store.manifest, corruption=corruption)
    apart = [evaluate(run_store.store, run, rates=[0.5]) for run in (run_store.worse, other)]
    assert apart[0].views[0].view_id != apart[1].views[0].view_id
    chosen = CorruptionConfig(mask_seed=3)
    same = [evaluate(run_store.store, run, rates=[0.5], corruption=chosen) for run in (run_store.worse, other)]
    assert same[0].views[0].view_id == same[1].views[0].view_id == ViewSpec.evaluation(0.5, 3).view_id
    assert same[0].views[0].scores == same[1].views[0].scores, "their weights are equal"


@pytest.mark.parametrize("protocol", ["frame", "block", "modality", "noise"])
def test_every_protocol_and_the_rates_of_each_modality(run_store: RunStore, protocol: Protocol) -> None:
    rates: list[Rate] = [0.5, (1.0, 0.0, 0.25), (0.0, 1.0, 0.25)]
    made = evaluate(run_store.store, run_store.worse, rates=rates, mask_seeds=[0, 1], protocol=protocol)
    specs = [ViewSpec.evaluation(rate, seed, protocol) for seed in (0, 1) for rate in rates]
    assert [view.view_id for view in made.views] == [spec.view_id for spec in specs]
    assert made.rates == tuple(rates) and made.protocol == protocol
    assert made.title == (run_store.worse if protocol == "frame" else f"{run_store.worse} ({protocol})")
    assert [row["missing rate"] for row in made.rows()[:4]] == ["0.5", "1/0/0.25", "0/1/0.25", "mean"]
    for rate, scores in zip(rates, made.by_rate(), strict=True):
        own = [view.scores["mae"] for view in made.views if view.missing_rate == rate]
        assert len(own) == 2 and scores["mae"] == pytest.approx(sum(own) / 2)
    assert len({view.scores["mae"] for view in made.views}) > 1
    # Stored, and out of JSON again.
    assert evaluate(run_store.store, run_store.worse, rates=rates, mask_seeds=[0, 1], protocol=protocol) == made
    assert Evaluation.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    said = read_predictions(run_store.store, made)
    assert said.missing_rate.tolist()[::3] == [0.5, 0.5] and np.isnan(said.missing_rate).sum() == 4
    table = pq.read_table(io.BytesIO(run_store.store.read(made.predictions["path"]))).to_pandas()
    assert len(table[(table.rate_text == 1) & (table.rate_audio == 0) & (table.rate_vision == 0.25)]) == 2 * 14
    assert table.missing_rate.isna().sum() == 4 * 14
    for view, row in zip(made.views, said.sentiment, strict=True):
        assert view.scores == score(row, said.label, made.label_range)


def test_protocols_are_evaluations_of_their_own(run_store: RunStore) -> None:
    apart = [
        evaluate(run_store.store, run_store.worse, rates=[0.5], protocol=protocol)
        for protocol in ("frame", "block", "modality", "noise")
    ]
    assert len({each.evaluation_id for each in apart}) == 4
    assert len({each.views[0].scores["mae"] for each in apart}) == 4
    louder = CorruptionConfig(protocol="noise", noise_scale=2.0)
    made = evaluate(run_store.store, run_store.worse, rates=[0.5], corruption=louder)
    assert made.evaluation_id not in {each.evaluation_id for each in apart}
    assert made.title.endswith(" (noise 2)") and made.noise_scale == 2


def test_noise_on_ids_of_an_unknown_vocabulary_is_refused_at_once(
    run_store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tokenizer: object) -> list[str]:
        raise RefusedError("not at hand")

    typos_of.cache_clear()
    monkeypatch.setattr("lnln.corruption.typos.read_vocabulary", refuse)
    monkeypatch.setattr("lnln.evaluate.run.read_split", lambda *_: pytest.fail("read"))
    with pytest.raises(RefusedError, match="not at hand"):
        evaluate(run_store.store, run_store.worse, protocol="noise")


def test_records_from_before_there_were_protocols_are_read(run_store: RunStore) -> None:
    first = evaluate(run_store.store, run_store.worse)
    record = f"runs/{run_store.worse}/evaluations/{first.evaluation_id}.json"
    values = json.loads(run_store.store.read(record))
    del values["protocol"], values["noise_scale"]
    run_store.store.write_json(record, values)
    assert evaluate(run_store.store, run_store.worse) == first


def test_rows_are_the_printed_table(run_store: RunStore) -> None:
    rows = evaluate(run_store.store, run_store.worse).rows()
    assert [row["missing rate"] for row in rows] == [
        "0",
        "0.5",
        "0.9",
        "mean",
        "95% interval",
        "predict the train mean",
        "predict the train median",
        "one class",
    ]
    assert set(rows[0]) == {"missing rate", "MAE", "Corr", "Acc-7", "Acc-5", "Acc-2 np", "F1 np", "Acc-2 nn", "F1 nn"}
    assert rows[-1]["MAE"] == "" and "to" in rows[4]["MAE"]


def test_stored_views_and_computed_masks_agree(run_store: RunStore) -> None:
    from lnln.config import Config
    from pipelines.corrupt import corrupt
    from tests.finished_run import TINY

    computed = evaluate(run_store.store, run_store.worse)
    corrupt(run_store.store, "small", Config.from_dict(TINY))
    assert evaluate(run_store.store, run_store.worse, force=True) == computed


def test_perfect_and_useless_models_are_told_from_the_baselines() -> None:
    random = np.random.default_rng(0)
    train = np.round(random.uniform(-3, 3, 300), 1).astype(np.float32)
    labels = np.round(random.uniform(-3, 3, 200), 1).astype(np.float32)
    labels[:3] = np.nan
    specs = [ViewSpec.evaluation(rate, 0) for rate in (0.0, 0.5)]
    truth = np.nan_to_num(np.tile(labels, (2, 1)))
    perfect = score_views(specs, truth, truth, labels, train, (-3, 3))
    assert perfect["mean"]["mae"] == 0 and perfect["mean"]["acc7"] == 1
    assert perfect["margins"]["predict_mean"]["mae"].low > 1
    assert perfect["margins"]["one_class"]["acc2_np"].low > 0
    constant = np.full_like(truth, train.mean())
    useless = score_views(specs, constant, constant, labels, train, (-3, 3))
    margin = useless["margins"]["predict_mean"]["mae"]
    assert (margin.value, margin.low, margin.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert [view.collapse_share for view in useless["views"]] == [1, 1]
    for metric, interval in useless["intervals"].items():
        assert interval.low <= interval.value <= interval.high, metric
    worse = score_views(specs, -truth, truth, labels, train, (-3, 3))
    assert worse["margins"]["predict_mean"]["mae"].high < 0


def test_ids_depend_on_what_they_name_and_not_on_order() -> None:
    first = evaluation_id("w", "m", "test", ["a", "b"])
    assert first == evaluation_id("w", "m", "test", ["b", "a"])
    others = {evaluation_id("x", "m", "test", ["a", "b"]), evaluation_id("w", "n", "test", ["a", "b"])}
    others |= {evaluation_id("w", "m", "valid", ["a", "b"]), evaluation_id("w", "m", "test", ["a"])}
    assert first not in others and len(others) == 4


def test_baselines_use_the_train_labels(run_store: RunStore) -> None:
    evaluation = evaluate(run_store.store, run_store.worse)
    train = read_labels(run_store.store, run_store.manifest, "train")
    labels = read_labels(run_store.store, run_store.manifest, "test")
    expected = float(np.abs(labels - np.float32(train.mean())).mean())
    assert evaluation.baselines["predict_mean"]["mae"] == pytest.approx(expected, abs=1e-5)


def test_works_without_a_terminal_and_for_one_utterance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.ingest import import_corpus
    from tests.corpora import mmsa_pickle

    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "store")
    manifest = import_corpus(store, mmsa_pickle(tmp_path / "one.pkl", num=(4, 1, 1)), "one")
    evaluation = evaluate(store, finished_run(store, manifest))
    assert evaluation.num_labelled == 1 and evaluation.mean["corr"] == 0
