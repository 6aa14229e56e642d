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
    model = build_model(config, FEATURE_SPEC, statistics).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder"] is None
    inputs = random_inputs(LENGTHS, FEATURE_SPEC)
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
