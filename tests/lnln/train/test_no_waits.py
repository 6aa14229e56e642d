"""A training step asks the device for nothing: on torch's `meta` device, where there are shapes and no values, whatever
asks for a value is an error. The first that is wanted is the look for numbers that are not finite."""

from __future__ import annotations

import dataclasses
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lnln
from lnln.batches import EvaluationBatches, TrainBatches
from lnln.config import Config, SdumcConfig, TrainConfig, to_dict
from lnln.models import MODELS, SentimentModel
from lnln.train.finite import CHECK_EVERY
from lnln.train.loop import Loop
from lnln.train.ranks import Ranks
from lnln.views import Views
from tests.lnln.models.random_inputs import ENCODER, SPEC, small_config
from tests.lnln.test_batches import make_utterances, with_simulated_text

META = torch.device("meta")


class MetaLoop(Loop):
    """Autocast knows no device `meta`."""

    def _precision(self) -> torch.autocast:
        enabled = self.config.train.precision == "bfloat16"
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


class Asks(nn.Module):
    """In place of the last layer of a model: looks at what comes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        assert x.sum().item() != 1
        return self.layer(x)


def make_loop(num_steps: int, asks: bool = False, model: dict[str, Any] | None = None, **train: Any) -> Loop:
    """A run whose model, optimizer and batches lie on the device, of so many steps in an epoch."""
    values: dict[str, Any] = {"batch_size": 4, "average_decay": 0.9, **train}
    config = Config(model=small_config(**(model or {})), train=TrainConfig(**values))
    spec = SPEC
    if config.model.reads_simulated_text:
        spec = dataclasses.replace(SPEC, simulated_text_dim=ENCODER["hidden_size"], simulated_text_length=4)
    made: SentimentModel = MODELS[config.model.name](to_dict(config.model), to_dict(spec), ENCODER)
    if asks:
        head = "head" if config.model.name == "text_only" else "sentiment_head"
        setattr(made, head, Asks(made.get_submodule(head)))
    made = made.to(META)
    utterances = make_utterances(4 * num_steps - 1)
    # Features of the widths that the model is for.
    for modality, dim in (("audio", SPEC.audio_dim), ("vision", SPEC.vision_dim)):
        sequences = utterances.sequences(modality)  # type: ignore[arg-type]
        object.__setattr__(sequences, "values", np.ones((len(sequences.values), dim), np.float32))
    if config.model.reads_simulated_text:
        utterances = with_simulated_text(utterances, [4, 0] * (2 * num_steps - 1) + [4], spec.simulated_text_dim)
    views = Views(utterances, "train")
    batches = TrainBatches(utterances, views, config, SPEC.unknown_id, device=META)
    validation = EvaluationBatches(utterances, views, [], SPEC.unknown_id, device=META)
    return MetaLoop(made, config, batches, validation, utterances.label, (-3.0, 3.0), Ranks(), META)


def first_wait(loop: Loop) -> list[str]:
    """The functions of the package in which the first value is asked for, from the outermost on."""
    with pytest.raises((RuntimeError, NotImplementedError), match="meta") as refused:
        next(loop.epochs())
    package = str(Path(lnln.__file__).parent)
    frames = traceback.extract_tb(refused.tb)
    return [frame.name for frame in frames if frame.filename.startswith(package)]


CASES: list[dict[str, Any]] = [
    {"mode": "reference"},
    {"mode": "clean"},
    {"mode": "clean", "reconstruct": "features"},
    {"mode": "clean", "reconstruction": False, "fusion": "concat"},
    {"mode": "reference", "mask_erased": True, "dropout": 0.1},
    {"name": "text_only"},
    {"name": "sdumc"},
    {"name": "sdumc", "sdumc": SdumcConfig(missing_flow="corrupted", difference="batch")},
    {"simulated_text": "when_missing"},
    {"simulated_text": "when_missing", "text_missing_share": 0.5, "detach_targets": False},
    {"name": "late_fusion"},
]


@pytest.mark.parametrize("model", CASES, ids=str)
def test_nothing_is_asked_for_before_an_epoch_ends(model: dict[str, Any]) -> None:
    assert first_wait(make_loop(2, model=model))[-2:] == ["_train_epoch", "check"]


@pytest.mark.parametrize(
    "train",
    [
        {"precision": "bfloat16"},
        {"accumulation_steps": 2},
        {"clip_norm": 0.0},
        {"average_decay": 0.0},
        {"frozen": "encoder"},
        {"encoder_layer_decay": 0.9, "schedule": "published"},
    ],
    ids=str,
)
def test_nor_with_any_way_to_train(train: dict[str, Any]) -> None:
    assert first_wait(make_loop(2, **train))[-2:] == ["_train_epoch", "check"]


def test_in_a_long_epoch_it_is_asked_every_few_steps() -> None:
    model = {"name": "text_only"}
    assert first_wait(make_loop(CHECK_EVERY + 1, model=model))[-3:] == ["_train_epoch", "add", "check"]
    assert first_wait(make_loop(CHECK_EVERY - 1, model=model))[-2:] == ["_train_epoch", "check"]


@pytest.mark.parametrize("model", [{"mode": "reference"}, {"mode": "clean"}, {"name": "text_only"}], ids=str)
def test_a_model_that_asks_is_found_out(model: dict[str, Any]) -> None:
    assert "check" not in first_wait(make_loop(1, asks=True, model=model))
