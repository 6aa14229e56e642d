from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lnln.config import LossConfig, ModelConfig, TrainConfig, to_dict
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.models import LNLN, MODELS, SentimentModel, TextOnly, build_model, load_model
from tests.lnln.models.random_inputs import (
    ENCODER,
    FEATURE_SPEC,
    SPEC,
    random_batch,
    random_inputs,
    small_config,
    small_model,
    small_text_only,
)

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (2, 0, 0), (0, 5, 2)]
TRAIN = TrainConfig(learning_rate=1e-3, encoder_learning_rate=1e-4, weight_decay=0.1)


def with_encoder(**encoder: Any) -> LNLN:
    values = {**ENCODER, **encoder}
    return LNLN(model=to_dict(small_config()), spec=to_dict(SPEC), encoder=values)


def rates(model: SentimentModel, train: TrainConfig) -> dict[str, float]:
    """The learning rate of every parameter; each has exactly one."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = model.parameter_groups(train)
    assert all(group["params"] for group in groups)
    found = [(names[id(p)], float(group["lr"])) for group in groups for p in group["params"]]
    assert len(found) == len(names) == len(dict(found))
    return dict(found)


def test_layer_decay_slows_the_encoder_from_its_last_layer_to_its_embeddings() -> None:
    found = rates(with_encoder(num_hidden_layers=3), dataclasses.replace(TRAIN, encoder_layer_decay=0.5))
    for name, rate in found.items():
        if not name.startswith("text_encoder."):
            assert rate == 1e-3
        elif ".embeddings." in name:
            assert rate == pytest.approx(1e-4 / 8)
        else:
            layer = int(name.split(".layer.")[1].split(".")[0])
            assert rate == pytest.approx(1e-4 * 0.5 ** (2 - layer))


@pytest.mark.parametrize("model", [small_model(), small_text_only()], ids=["lnln", "text_only"])
def test_without_layer_decay_there_are_two_groups_of_each_kind(model: SentimentModel) -> None:
    groups = model.parameter_groups(TRAIN)
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {
        (rate, decay) for rate in (1e-3, 1e-4) for decay in (0.0, 0.1)
    }
    assert len(groups) == 4
    # In the order of the parameters, on which nothing hangs but the reader's peace.
    order = {id(parameter): place for place, parameter in enumerate(model.parameters())}
    places = [order[id(group["params"][0])] for group in groups]
    assert places == sorted(places)


@pytest.mark.parametrize("model", [small_model(FEATURE_SPEC), small_text_only(FEATURE_SPEC)])
def test_a_corpus_with_features_has_no_groups_of_an_encoder(model: SentimentModel) -> None:
    found = rates(model, dataclasses.replace(TRAIN, encoder_layer_decay=0.5))
    assert set(found.values()) == {1e-3} and model.text_encoder is None


def test_a_model_of_ids_needs_an_encoder() -> None:
    with pytest.raises(RefusedError, match="needs the config of its text encoder"):
        LNLN(model=to_dict(small_config()), spec=to_dict(SPEC), encoder=None)


@pytest.mark.parametrize(("size", "fits"), [(200, True), (73, True), (72, False), (201, False), (21128, False)])
def test_a_vocabulary_that_is_not_the_encoders_is_refused(size: int, fits: bool) -> None:
    """The encoder's table has 200 rows, of which up to 127 may be padding."""
    spec = dataclasses.replace(SPEC, vocabulary_size=size, tokenizer="some-tokenizer")
    if fits:
        small_model(spec)
        return
    with pytest.raises(RefusedError, match=rf"knows 200 ids, the corpus .* vocabulary of {size} \(some-tokenizer\)"):
        small_model(spec)


def test_an_english_encoder_is_refused_for_chinese_ids() -> None:
    chinese = dataclasses.replace(SPEC, vocabulary_size=21128, tokenizer="bert-base-chinese")
    for name in ("tiny", "minilm"):
        with pytest.raises(RefusedError, match=r"knows 30522 ids, .* 21128 \(bert-base-chinese\); set model\.text_enc"):
            build_model(small_config(text_encoder=name), chinese)


@pytest.mark.parametrize("name", MODELS)
def test_features_need_no_encoder_whatever_the_config_says(name: str, tmp_path: Path) -> None:
    config = small_config(name=name, text_encoder="no/such-encoder")
    statistics = {"text": {"mean": [1.0] * 5, "std": [2.0] * 5}, "audio": {"mean": [0.0] * 3, "std": [1.0] * 3}}
    spec = dataclasses.replace(FEATURE_SPEC, simulated_text_dim=5)
    model = build_model(config, spec, statistics).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder"] is None
    inputs = random_inputs(LENGTHS, spec)
    assert torch.equal(load_model(tmp_path)(inputs).sentiment, model(inputs).sentiment)
    assert load_file(tmp_path / "model.safetensors")["text_std"].tolist() == [2.0] * 5


@pytest.mark.parametrize("mode", ["clean", "reference"])
@pytest.mark.parametrize("make", [small_model, small_text_only])
def test_features_train_every_parameter(make: Any, mode: str) -> None:
    model, batch, config = make(FEATURE_SPEC, mode=mode), random_batch(LENGTHS, FEATURE_SPEC), LossConfig()
    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config)
    total_loss(terms, batch.weight, config, len(LENGTHS)).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()


def test_text_features_are_standardised_where_there_are_statistics_of_them() -> None:
    model = small_model(FEATURE_SPEC)
    frames = torch.tensor([[[3.0] * 5, [0.0] * 5]])
    torch.testing.assert_close(model.read_text(frames, torch.ones(1, 2).bool()), frames)
    model.set_statistics({"text": {"mean": [1.0] * 5, "std": [4.0] * 5}})
    expected = torch.tensor([[[0.5] * 5, [0.0] * 5]])
    torch.testing.assert_close(model.read_text(frames, torch.ones(1, 2).bool()), expected)
    with pytest.raises(RefusedError, match="text statistics must have 5 columns, got 2 means"):
        model.set_statistics({"text": {"mean": [1.0, 1.0], "std": [4.0, 4.0]}})
    # Of ids there is nothing to standardise.
    assert "text_mean" not in small_model().state_dict()
    small_model().set_statistics({"text": {"mean": [1.0], "std": [4.0]}})


def test_a_config_saved_before_a_switch_existed_means_what_it_meant(tmp_path: Path) -> None:
    model = small_model(proxy_read="own_tokens", normalise_discriminated=False, mask_erased=False).eval()
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for switch in ("proxy_read", "position_std", "normalise_discriminated", "mask_erased"):
        del values["model"][switch]
    (tmp_path / "config.json").write_text(json.dumps(values))
    inputs = random_inputs(LENGTHS)
    loaded = load_model(tmp_path)
    assert loaded.config.mode == "clean" and loaded.config.proxy_read == "own_tokens"
    assert loaded.config.position_std == 1.0
    assert not loaded.config.normalise_discriminated and not loaded.config.mask_erased
    assert loaded.config.detach_targets, "what the config states holds"
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)


def test_models_go_by_name(tmp_path: Path) -> None:
    assert {name: ModelConfig(name=name).name for name in MODELS} == {name: name for name in MODELS}  # type: ignore[arg-type]
    for model in (small_model(), small_text_only()):
        folder = tmp_path / model.config.name
        model.save_pretrained(folder)
        assert type(load_model(folder)) is type(model)
    values = json.loads((tmp_path / "text_only/config.json").read_text())
    values["model"]["name"] = "other"
    (tmp_path / "text_only/config.json").write_text(json.dumps(values))
    with pytest.raises(RefusedError, match="of model 'other', expected one of lnln, text_only"):
        load_model(tmp_path / "text_only")


def test_a_model_that_is_saved_says_what_made_it(tmp_path: Path) -> None:
    for model, cls in ((small_model(), LNLN), (small_text_only(), TextOnly)):
        model.save_pretrained(tmp_path / cls.__name__)
        card = (tmp_path / cls.__name__ / "README.md").read_text()
        assert "library_name: lnln" in card and "multimodal-sentiment-analysis" in card


# Small ones of every kind of encoder that reads WordPiece ids.
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "ernie": {},
    "megatron-bert": {},
    "electra": {"embedding_size": 8},
    "convbert": {"embedding_size": 8, "conv_kernel_size": 3},
    "mobilebert": {"embedding_size": 8, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
}


def of_type(model_type: str, **options: Any) -> LNLN:
    return with_encoder(model_type=model_type, **ENCODERS[model_type], **options)


def backward(model: SentimentModel) -> None:
    batch, config = random_batch(LENGTHS), LossConfig()
    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config)
    total_loss(terms, batch.weight, config, len(LENGTHS)).backward()


@pytest.mark.parametrize("model_type", ENCODERS)
@pytest.mark.parametrize("frozen", ["none", "embeddings", "encoder"])
def test_exactly_what_is_frozen_gets_no_gradient_and_no_group(model_type: str, frozen: Any) -> None:
    model, train = of_type(model_type), dataclasses.replace(TRAIN, frozen=frozen, encoder_layer_decay=0.5)
    model.freeze(train)
    model.train()
    backward(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = {names[id(parameter)] for group in model.parameter_groups(train) for parameter in group["params"]}
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    expected = {name for name in names.values() if not is_frozen(name, frozen)}
    assert grouped == with_gradient == expected
    assert (len(expected) < len(names)) == (frozen != "none")


def is_frozen(name: str, frozen: str) -> bool:
    """The embeddings are what is in no layer of the encoder, and no normalisation behind the last."""
    if not name.startswith("text_encoder."):
        return False
    comes_later = ".layer." in name or ".encoder.ln." in name
    return frozen == "encoder" or (frozen == "embeddings" and not comes_later)


@pytest.mark.parametrize("make", [with_encoder, small_text_only])
def test_the_rest_has_the_gradient_that_it_has_without_freezing(make: Any) -> None:
    gradients = []
    for frozen in ("none", "embeddings", "encoder"):
        torch.manual_seed(3)
        model = make()
        model.freeze(dataclasses.replace(TRAIN, frozen=frozen))
        backward(model.eval())  # no dropout
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, *frozen_ones = gradients
    for frozen_one in frozen_ones:
        assert 0 < len(frozen_one) < len(whole)
        assert all(torch.equal(value, whole[name]) for name, value in frozen_one.items())


@pytest.mark.parametrize(("frozen", "keeps_graph"), [("none", True), ("embeddings", True), ("encoder", False)])
def test_a_frozen_encoder_reads_as_in_prediction_and_keeps_nothing_for_a_backward_pass(
    frozen: Any, keeps_graph: bool
) -> None:
    model = with_encoder(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    model.freeze(dataclasses.replace(TRAIN, frozen=frozen))
    model.eval()
    model.train()
    inputs, kept = random_inputs(LENGTHS), list[torch.Size]()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape), lambda x: x):
        first, second = (model.read_text(inputs.text, inputs.text_mask) for _ in range(2))
    assert first.requires_grad == bool(kept) == keeps_graph
    assert torch.equal(first, second) == (frozen == "encoder")
    assert model.training and all(part.training for part in model.embeddings.modules())
    if frozen == "encoder":
        assert torch.equal(first, model.eval().read_text(inputs.text, inputs.text_mask))


@pytest.mark.parametrize("make", [small_model, small_text_only])
def test_language_features_have_nothing_to_freeze(make: Any) -> None:
    model = make(FEATURE_SPEC)
    model.freeze(TRAIN)
    for frozen in ("embeddings", "encoder"):
        with pytest.raises(RefusedError, match=f"train.frozen is '{frozen}', .* of width 5 .* set train.frozen=none"):
            model.freeze(dataclasses.replace(TRAIN, frozen=frozen))


def test_a_model_that_was_trained_frozen_is_saved_like_any(tmp_path: Path) -> None:
    model = with_encoder()
    model.freeze(dataclasses.replace(TRAIN, frozen="encoder"))
    model.eval().save_pretrained(tmp_path)
    loaded, inputs = load_model(tmp_path), random_inputs(LENGTHS)
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
