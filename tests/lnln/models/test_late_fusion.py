from __future__ import annotations

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lnln.batches import Inputs
from lnln.config import LossConfig, TrainConfig, to_dict
from lnln.data.schema import MODALITIES, FeatureSpec
from lnln.data.store import Store
from lnln.evaluate import evaluate, read_predictions
from lnln.evaluate.systems import score_systems
from lnln.losses import loss_terms
from lnln.model_store.opened import open_model
from lnln.models import LateFusion, build_model, load_model
from lnln.models.padding import GROUP_SIZE
from lnln.predict import Predictor
from lnln.train.compiled import compile_model
from tests.finished_run import TINY, finished_run, small_corpus
from tests.lnln.models.random_inputs import (
    BERT_SPEC,
    ENCODER,
    FEATURE_SPEC,
    SPEC,
    erase_all,
    erase_some,
    random_batch,
    random_inputs,
    rows,
    small_config,
)
from tests.lnln.train.loops import digest, import_small, make_config, make_loop, saved, untimed
from tests.lnln.train.test_no_waits import first_wait
from tests.lnln.train.test_no_waits import make_loop as make_meta_loop

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (3, 0, 0), (0, 5, 2), (0, 0, 0)]
SPECS = pytest.mark.parametrize("spec", [SPEC, FEATURE_SPEC], ids=["ids", "features"])


def small_late_fusion(spec: FeatureSpec = SPEC, seed: int = 0, **changes: Any) -> LateFusion:
    """Random weights, shares and bias included, so that nothing is zero or equal by chance."""
    torch.manual_seed(seed)
    config = small_config(name="late_fusion", **changes)
    model = LateFusion(model=to_dict(config), spec=to_dict(spec), encoder=None if spec.text_dim else ENCODER)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def by_hand(model: LateFusion, inputs: Inputs, row: int) -> Tensor:
    """One utterance by the formula of the docstring, one step after the other."""
    votes, weights = [], []
    for number, modality in enumerate(MODALITIES):
        x, mask = getattr(inputs, modality)[row : row + 1], getattr(inputs, f"{modality}_mask")[row : row + 1]
        length = int(mask.sum())
        if not length:
            continue
        x, mask = x[:, :length], mask[:, :length]
        is_kept = x[0] != model.spec.unknown_id if x.dim() == 2 else (x[0] != 0).any(dim=1)
        if int(is_kept.sum()) <= (2 if x.dim() == 2 else 0):
            continue
        seen = is_kept if model.config.mask_erased else torch.ones(length, dtype=torch.bool)
        features = model.read_text(x, seen[None])[0] if modality == "text" else model.standardize(x, modality)[0]
        votes.append(model.heads[modality](features[seen].mean(dim=0))[0])
        weights.append(model.weights[number].exp())
    shares = torch.stack(weights) / torch.stack(weights).sum() if weights else torch.zeros(0)
    return model.bias[0] + sum((share * vote for share, vote in zip(shares, votes, strict=True)), torch.zeros(()))


@SPECS
@pytest.mark.parametrize("mode", ["reference", "clean"])
def test_it_is_the_weighted_mean_of_heads_on_the_means_of_the_features(spec: FeatureSpec, mode: str) -> None:
    model = small_late_fusion(spec, mode=mode).eval()
    for modality, dim in (("audio", spec.audio_dim), ("vision", spec.vision_dim)):
        model.set_statistics({modality: {"mean": [0.4] * dim, "std": [2.0] * dim}})
    complete = random_inputs(LENGTHS, spec)
    for inputs in (complete, erase_some(complete, spec), erase_all(complete, spec)):
        expected = torch.stack([by_hand(model, inputs, row) for row in range(len(LENGTHS))])
        torch.testing.assert_close(model(inputs).sentiment, expected, atol=1e-5, rtol=1e-5)


@SPECS
@pytest.mark.parametrize("mode", ["reference", "clean"])
def test_of_everything_missing_it_says_its_bias(spec: FeatureSpec, mode: str) -> None:
    """[CLS] and [SEP] stand in every text, and say nothing of it."""
    model = small_late_fusion(spec, mode=mode).eval()
    erased = erase_all(random_inputs(LENGTHS, spec), spec)
    assert torch.equal(model(erased).sentiment, model.bias.expand(len(LENGTHS)))
    nothing = random_inputs([(0, 0, 0)], spec, padded_to=(1, 0, 0))
    assert torch.equal(model(nothing).sentiment, model.bias)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.floats(-50, 50), min_size=3, max_size=3),
)
def test_shares_are_of_what_is_there_and_one_together(is_there: list[list[bool]], weights: list[float]) -> None:
    model = small_late_fusion(FEATURE_SPEC)
    with torch.no_grad():
        model.weights.copy_(torch.tensor(weights))
    there = torch.tensor(is_there)
    shares = model.shares(there)
    assert shares.isfinite().all() and (shares >= 0).all() and (shares[~there] == 0).all()
    for row, share in zip(there, shares, strict=True):
        softmax = model.weights.detach().double()[row].softmax(dim=0)
        torch.testing.assert_close(share[row].double(), softmax, atol=1e-4, rtol=1e-3)


def test_an_absent_modality_has_no_say_and_a_present_one_has() -> None:
    model, inputs = small_late_fusion().eval(), random_inputs([(8, 6, 5)] * 4)
    whole = model(inputs).sentiment
    for modality in MODALITIES:
        x = getattr(inputs, modality)
        other = dataclasses.replace(inputs, **{modality: x.roll(1, dims=0)})
        assert (model(other).sentiment != whole).all()
        mask = torch.zeros_like(getattr(inputs, f"{modality}_mask"))
        gone, also = (
            dataclasses.replace(each, **{f"{modality}_mask": mask, modality: torch.zeros_like(x)})
            for each in (inputs, other)
        )
        assert torch.equal(model(gone).sentiment, model(also).sentiment)


@SPECS
def test_an_utterance_is_the_same_in_any_company(spec: FeatureSpec) -> None:
    model = small_late_fusion(spec).eval()
    lengths = [(n % 13, n % 3, n % 4) for n in range(40)]
    together = erase_some(random_inputs(lengths, spec, padded_to=(14, 3, 4)), spec)
    sentiment = model(together).sentiment
    for i in (0, 1, 12, 25, 39):
        torch.testing.assert_close(model(rows(together, [i])).sentiment[0], sentiment[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kept", [kept for num in (1, 2) for kept in itertools.combinations(MODALITIES, num)])
def test_a_modality_that_is_left_out_is_one_that_nobody_has(kept: tuple[str, ...]) -> None:
    inputs = random_inputs([(8, 6, 5), (3, 0, 4), (0, 2, 0)])
    gone: list[str] = [modality for modality in MODALITIES if modality not in kept]
    changes = {modality: torch.zeros_like(getattr(inputs, modality)) for modality in gone}
    changes |= {f"{modality}_mask": torch.zeros_like(getattr(inputs, f"{modality}_mask")) for modality in gone}
    without = dataclasses.replace(inputs, **changes)
    whole, some = small_late_fusion().eval(), small_late_fusion(modalities=kept).eval()
    torch.testing.assert_close(some(inputs).sentiment, whole(without).sentiment, atol=1e-6, rtol=1e-6)


@SPECS
@pytest.mark.parametrize("lengths", [LENGTHS, [(0, 0, 0)] * 2, [(0, 1, 0)]], ids=["some", "nothing", "one frame"])
def test_every_parameter_has_a_finite_gradient(spec: FeatureSpec, lengths: list[tuple[int, int, int]]) -> None:
    """Of an absent modality it is zero, never absent: workers add up theirs."""
    batch = random_batch(lengths, spec)
    model = small_late_fusion(spec)
    output = model(batch.corrupted, batch.complete)
    assert output.completeness is None and output.reconstructed is None
    terms = loss_terms(output, batch, LossConfig())
    assert terms.keys() == {"sentiment"}
    terms["sentiment"].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if lengths == LENGTHS:
        for shared in (model.weights, model.bias):
            assert shared.grad is not None and bool(shared.grad.ne(0).all())


def test_its_parameters_are_the_encoder_a_head_each_three_shares_and_a_bias() -> None:
    model = small_late_fusion()
    assert model.text_encoder is not None
    encoder = sum(p.numel() for p in model.text_encoder.parameters())
    heads = 16 + sum(dim * 16 + 16 + 16 for dim in (SPEC.audio_dim, SPEC.vision_dim))
    assert sum(p.numel() for p in model.parameters()) == encoder + heads + 3 + 1
    features = small_late_fusion(FEATURE_SPEC)
    assert features.text_encoder is None
    assert sum(p.numel() for p in features.parameters()) == heads - 16 + FEATURE_SPEC.text_dim + 4


def test_dropout_is_in_training_only() -> None:
    model, inputs = small_late_fusion(), random_inputs([(8, 4, 4)] * 64)
    assert not torch.equal(model(inputs).sentiment, model(inputs).sentiment)
    model.eval()
    assert torch.equal(model(inputs).sentiment, model(inputs).sentiment)


def test_long_inputs_are_cut_and_the_limits_are_known() -> None:
    model = small_late_fusion(max_audio_length=4).eval()
    assert model.limits == {"text": 12, "audio": 4, "vision": 9}
    long = random_inputs([(30, 20, 20)])
    cut = {m: getattr(long, m)[:, :length] for m, length in model.limits.items()}
    cut |= {f"{m}_mask": getattr(long, f"{m}_mask")[:, :length] for m, length in model.limits.items()}
    assert torch.equal(model(long).sentiment, model(dataclasses.replace(long, **cut)).sentiment)


@SPECS
def test_what_is_erased_is_left_out_to_equal_effect(spec: FeatureSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [LENGTHS[i % len(LENGTHS)] for i in range(GROUP_SIZE + 4)]
    model, batch = small_late_fusion(spec).eval(), random_batch(many, spec)
    ours = model(batch.corrupted).sentiment
    monkeypatch.setattr(LateFusion, "can_leave_out", lambda *_: False)
    torch.testing.assert_close(ours, model(batch.corrupted).sentiment, atol=1e-6, rtol=1e-5)


def test_equal_texts_are_read_once_in_prediction_and_each_for_itself_where_dropout_makes_them_differ() -> None:
    inputs, read = random_inputs([(8, 3, 3)] * 20), []
    first = (x[:1].expand_as(x) for x in (inputs.text, inputs.text_mask))
    inputs = dataclasses.replace(inputs, **dict(zip(("text", "text_mask"), first, strict=True)))
    model = small_late_fusion().eval()
    assert model.text_encoder is not None
    model.text_encoder.register_forward_hook(lambda _, x, __: read.append(len(x[0])))
    model(inputs)
    assert read == [1]
    for part in model.text_encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.1
    model.train()(inputs)
    assert sum(read) == 1 + 20


def test_it_computes_in_bfloat16_to_its_rounding() -> None:
    model, inputs = small_late_fusion().eval(), random_inputs(LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(inputs).sentiment
    torch.testing.assert_close(rounded.float(), model(inputs).sentiment, atol=0.1, rtol=0.1)


def test_it_is_built_saved_and_loaded_by_its_name(tmp_path: Path) -> None:
    statistics = {"audio": {"mean": [1.0] * 3, "std": [3.0] * 3}}
    model = build_model(small_config(name="late_fusion", text_encoder="tiny"), BERT_SPEC, statistics).eval()
    assert isinstance(model, LateFusion) and model.get_buffer("audio_std").tolist() == [3.0] * 3
    model.save_pretrained(tmp_path)
    inputs = random_inputs(LENGTHS)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, LateFusion) and not loaded.training
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)


def test_it_shares_the_trainer_and_continues_exactly(tmp_path: Path) -> None:
    corpus = import_small(tmp_path)
    config = make_config({"name": "late_fusion"}, epochs=6, learning_rate=5e-3, average_decay=0.9)
    whole = make_loop(corpus, config)
    records = list(whole.epochs())
    assert records[0]["loss"].keys() == {"total", "sentiment"}
    assert records[-1]["loss"]["total"] < 0.8 * records[0]["loss"]["total"]
    assert whole.checkpoint().weights["weights"].abs().min() > 0, "shares are learned"
    first = make_loop(corpus, config)
    next(iter(first.epochs()))
    rest = make_loop(corpus, config)
    rest.restore(saved(first, tmp_path / "checkpoint"))
    list(rest.epochs())
    assert untimed(rest.history) == untimed(whole.history)
    assert digest(rest.selected) == digest(whole.selected)


def test_its_runs_are_evaluated_and_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "store")
    run_id = finished_run(store, small_corpus(store, tmp_path), model={**TINY["model"], "name": "late_fusion"})
    assert run_id.startswith("small-late_fusion-")
    bias = float(open_model(store, run_id).load().get_parameter("bias").detach()[0])
    said = read_predictions(store, evaluate(store, run_id, rates=[0.0, 1.0, (0.0, 1.0, 1.0)]))
    assert said.completeness is None and np.ptp(said.sentiment[0]) > 0
    np.testing.assert_allclose(said.sentiment[1], bias, atol=1e-7)
    (system,) = score_systems(store, [run_id], ["absent"])
    assert system.title == "late fusion"
    (prediction,) = Predictor.open(store, run_id).predict_texts(["a good movie"])
    assert np.isfinite(prediction.sentiment) and prediction.completeness is None


def test_a_step_asks_the_device_for_nothing() -> None:
    assert first_wait(make_meta_loop(2, model={"name": "late_fusion"}))[-2:] == ["_train_epoch", "check"]


@SPECS
def test_it_is_one_graph_with_the_same_result(spec: FeatureSpec) -> None:
    eager = small_late_fusion(spec).train()
    for part in eager.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    traced = copy.deepcopy(eager)
    compile_model(traced, TrainConfig(compile="default"), backend="eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    batch = random_batch([(5, 3, 2), (4, 8, 9), (3, 1, 1)], spec)
    torch.testing.assert_close(
        traced(batch.corrupted).sentiment, eager(batch.corrupted).sentiment, atol=1e-6, rtol=1e-5
    )
    assert not torch._dynamo.utils.counters["graph_break"]
