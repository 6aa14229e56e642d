from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.performance.plain_lnln import Shape, make_args, make_weights
from lnln.errors import RefusedError
from lnln.models import LNLN
from lnln.models.published import from_published, our_name, published_state_dict
from tests.lnln.models.random_inputs import random_inputs


def test_every_weight_has_a_place_of_its_own() -> None:
    weights = make_weights(Shape())
    model = from_published(weights, make_args(Shape()))
    names = [our_name(name) for name in weights if "pooler" not in name]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in model.named_parameters()}
    assert our_name("bertmodel.model.embeddings.position_ids") is None
    assert published_state_dict(weights).keys() == set(names)


def test_heads_without_args_are_the_published_ones() -> None:
    shape = Shape(dim=32, head_dim=64, heads=dict.fromkeys(Shape().heads, 2), bert_dim=128)
    sizes = from_published(make_weights(shape)).sizes
    assert (sizes.text.num_heads, sizes.text.head_dim) == (2, 64)
    assert (sizes.hyper.num_heads, sizes.hyper.head_dim) == (2, 16)


def test_heads_that_cannot_be_are_refused() -> None:
    args = make_args(Shape())
    for heads in (0, 3.5, "two", 7):
        args["model"]["reconstructor"]["heads"] = heads
        with pytest.raises(RefusedError, match=r"args\.model\.reconstructor\.heads must be .* divides the 128 columns"):
            from_published(make_weights(Shape()), args)
    with pytest.raises(RefusedError, match="width 8 says nothing of its number of heads"):
        from_published(make_weights(Shape()))


def test_a_published_file_loads_and_is_saved_as_ours(tmp_path: Path) -> None:
    shape = Shape()
    torch.save({"state_dict": make_weights(shape), "epoch": 3}, tmp_path / "published.pth")
    state = torch.load(tmp_path / "published.pth", weights_only=True)["state_dict"]
    model = from_published(state, make_args(shape))
    model.save_pretrained(tmp_path / "ours")
    loaded = LNLN.from_pretrained(tmp_path / "ours")
    inputs = random_inputs([(9, 7, 11), (3, 2, 4)], model.spec)
    assert model.config.mode == "reference" and loaded.sizes == model.sizes
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)


def test_names_of_a_model_that_was_trained_on_several_gpus(tmp_path: Path) -> None:
    weights = make_weights(Shape())
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    model, expected = from_published(wrapped, make_args(Shape())), from_published(weights, make_args(Shape()))
    assert (
        model.sizes == expected.sizes and published_state_dict(wrapped).keys() == published_state_dict(weights).keys()
    )
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(RefusedError, match=r"'conv1\.weight' is no weight"):
        from_published(wrapped | {"module.conv1.weight": torch.zeros(1)}, make_args(Shape()))


def test_weights_that_are_no_lnln_are_refused() -> None:
    weights = make_weights(Shape())
    with pytest.raises(RefusedError, match=r"'conv1\.weight' is no weight"):
        from_published(weights | {"conv1.weight": torch.zeros(1)}, make_args(Shape()))
    for name in ("h_hyper", "proj_v.1.encoder.layers.0.0.norm_q.bias", "bertmodel.model.embeddings.LayerNorm.weight"):
        with pytest.raises(RefusedError, match="published LNLN checkpoint"):
            from_published({key: value for key, value in weights.items() if key != name}, make_args(Shape()))
    with pytest.raises(RefusedError):
        from_published({})
    with pytest.raises(RefusedError, match="published LNLN checkpoint"):
        from_published(weights | {"dmml.3.weight": torch.zeros(1, 5)}, make_args(Shape()))
