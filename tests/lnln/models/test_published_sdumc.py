from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.performance import plain_lnln
from lnln.errors import RefusedError
from lnln.models import SDUMC, load_model
from lnln.models.published_sdumc import from_published, is_published_sdumc, our_name
from tests.lnln.models.plain_sdumc import Sizes, flow, make_weights
from tests.lnln.models.random_inputs import random_inputs


def test_every_weight_has_a_place_of_its_own() -> None:
    weights = make_weights(Sizes(), imagination=True)
    model = from_published(weights)
    names = [name for name in map(our_name, weights) if name is not None]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in model.named_parameters()}
    assert our_name("normali.running_var") is None and our_name("normali.num_batches_tracked") is None
    assert our_name("fc_out_e.weight") is None


def test_sizes_come_from_the_weights() -> None:
    sizes = Sizes(audio=3, text=11, vision=2, model=9, query=4, rank=6)
    model = from_published(make_weights(sizes, imagination=True))
    assert model.config.mode == "reference" and model.config.hidden_dim == 9 and not model.training
    assert (model.config.sdumc.query_dim, model.config.sdumc.rank_dim) == (4, 6)
    assert (model.spec.audio_dim, model.spec.text_dim, model.spec.vision_dim) == (3, 11, 2)
    assert model.spec.simulated_text_dim == 11
    assert not (model.config.sdumc.normalise_weights or model.config.sdumc.detach_fused)
    assert model.config.sdumc.difference == "batch"


def test_whether_the_autoencoder_takes_part() -> None:
    """By the file the checkpoint is of, or as stated."""
    for of_file in (True, False):
        weights = make_weights(Sizes(), imagination=of_file)
        assert from_published(weights).config.sdumc.imagination == of_file
        for stated in (True, False):
            assert from_published(weights, {"imagination": stated}).config.sdumc.imagination == stated


def test_names_of_a_model_that_was_trained_on_several_gpus() -> None:
    weights = make_weights(Sizes(), imagination=True)
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    one, other = from_published(weights), from_published(wrapped)
    assert one.config == other.config and is_published_sdumc(wrapped)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("imagination", [True, False])
def test_a_published_file_loads_and_is_saved_as_ours(imagination: bool, tmp_path: Path) -> None:
    weights = make_weights(Sizes(), imagination)
    torch.save(weights, tmp_path / "published.pt")
    model = from_published(torch.load(tmp_path / "published.pt", weights_only=True))
    model.save_pretrained(tmp_path / "ours")
    loaded = load_model(tmp_path / "ours")
    assert isinstance(loaded, SDUMC) and loaded.config == model.config
    inputs = random_inputs([(9, 8, 7)] * 2, model.spec)
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)
    plain = flow(weights, inputs.audio, inputs.text, inputs.vision, imagines=False)
    torch.testing.assert_close(loaded(inputs).sentiment, plain["prediction"][:, 0])


def test_inputs_of_any_length_are_read_whole() -> None:
    weights = make_weights(Sizes(), imagination=False)
    model = from_published(weights)
    inputs = random_inputs([(700, 1300, 3)], model.spec)
    plain = flow(weights, inputs.audio, inputs.text, inputs.vision, imagines=False)
    torch.testing.assert_close(model(inputs).sentiment, plain["prediction"][:, 0])


def test_an_lnln_is_no_sdumc_and_the_other_way_round() -> None:
    weights = plain_lnln.make_weights(plain_lnln.Shape())
    assert not is_published_sdumc(weights) and not is_published_sdumc({})
    assert is_published_sdumc(make_weights(Sizes(), imagination=True))
    with pytest.raises(RefusedError, match="is no weight of a published SDUMC checkpoint"):
        from_published(weights)


def test_weights_that_are_no_sdumc_are_refused_by_one_line() -> None:
    weights = make_weights(Sizes(), imagination=True)
    damaged = [weights | {"conv1.weight": torch.zeros(1)}, {}, weights | {"fc_att.weight": torch.zeros(3, 5)}]
    damaged += [{key: value for key, value in weights.items() if key != name} for name in weights if our_name(name)]
    damaged += [weights | {name: torch.zeros(())} for name in ("frame_dim_reshape_0.weight", "fc_out_v.weight")]
    damaged += [weights | {"frame_dim_reshape_0.weight": torch.zeros(0, 0)}]
    for state in damaged:
        with pytest.raises(RefusedError, match=r"published SDUMC checkpoint|model\.hidden_dim") as refused:
            from_published(state)
        assert "\n" not in str(refused.value)
