from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from lnln.config import SWITCHES, LossConfig, ModelConfig, TrainConfig, from_dict
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.models import LNLN, build_model, load_model
from tests.lnln.models.random_inputs import (
    SPEC,
    erase_some,
    random_batch,
    random_inputs,
    rows,
    small_config,
    small_model,
)

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (2, 0, 0), (0, 5, 2)]


def gradients(
    model: LNLN, config: LossConfig | None = None, lengths: list[tuple[int, int, int]] = LENGTHS
) -> dict[str, Tensor | None]:
    batch, config = random_batch(lengths), config or LossConfig()
    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config)
    model.zero_grad(set_to_none=True)
    total_loss(terms, batch.weight, config, len(lengths)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def only(term: str) -> LossConfig:
    weights = dict.fromkeys(("completeness", "adversarial", "reconstruction", "sentiment"), 0.0) | {term: 1.0}
    return from_dict(LossConfig, weights)


@given(lengths=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 10), st.integers(0, 9)), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_an_utterance_is_the_same_alone_and_in_any_batch(lengths: list[tuple[int, int, int]]) -> None:
    model = small_model().eval()
    together = random_inputs(lengths, padded_to=(14, 11, 20))
    output = model(together, together)
    for i in range(len(lengths)):
        alone = model(rows(together, [i]), rows(together, [i]))
        for field in dataclasses.fields(output):
            mine, theirs = getattr(alone, field.name), getattr(output, field.name)
            assert (mine is None) == (theirs is None)
            if isinstance(mine, torch.Tensor):
                torch.testing.assert_close(mine[0], theirs[i], atol=1e-5, rtol=1e-5)


def test_what_lies_in_the_padding_does_not_matter() -> None:
    model = small_model().eval()
    inputs = random_inputs(LENGTHS)
    dirty = dataclasses.replace(
        inputs,
        text=torch.where(inputs.text_mask, inputs.text, 7),
        audio=torch.where(inputs.audio_mask[..., None], inputs.audio, 9.0),
        vision=torch.where(inputs.vision_mask[..., None], inputs.vision, -9.0),
    )
    torch.testing.assert_close(model(inputs).sentiment, model(dirty).sentiment, atol=1e-6, rtol=1e-5)


def test_reference_attends_to_padding() -> None:
    model = small_model(mode="reference").eval()
    inputs = random_inputs(LENGTHS)
    longer = random_inputs(LENGTHS, padded_to=(12, 10, 9))
    torch.testing.assert_close(model(inputs).sentiment, model(longer).sentiment)  # pads to its own lengths
    audio = torch.where(inputs.audio_mask[..., None], inputs.audio, 9.0)
    assert not torch.allclose(model(inputs).sentiment, model(dataclasses.replace(inputs, audio=audio)).sentiment)


@pytest.mark.parametrize("mode", ["clean", "reference"])
@pytest.mark.parametrize("absent", [(1, 0, 0), (0, 5, 0), (0, 0, 0), (5, 0, 3)])
def test_a_modality_that_all_lack_is_an_ordinary_input(mode: str, absent: tuple[int, int, int]) -> None:
    model = small_model(mode=mode)
    for gradient in gradients(model, lengths=[absent, absent]).values():
        assert gradient is not None and gradient.isfinite().all()


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_a_corpus_without_a_modality_needs_no_features_of_it(mode: str) -> None:
    spec = dataclasses.replace(SPEC, vision_dim=2, vision_length=0, text_length=0)
    model = small_model(spec, mode=mode)
    batch = random_batch([(0, 4, 0), (0, 10, 0)], spec)
    output = model(batch.corrupted, batch.complete)
    output.sentiment.sum().backward()
    assert output.sentiment.isfinite().all() and output.reconstructed is not None
    # What the training split never had is not looked at later.
    with_vision = random_inputs([(0, 4, 3), (0, 10, 1)], spec)
    assert model(with_vision).sentiment.isfinite().all()


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_inputs_longer_than_the_positions_are_cut(mode: str) -> None:
    model = small_model(mode=mode).eval()
    long = random_inputs([(40, 30, 20)])
    cut = dataclasses.replace(
        long,
        **{
            name: getattr(long, name)[:, :length]
            for length, names in ((12, "text text_mask"), (10, "audio audio_mask"), (9, "vision vision_mask"))
            for name in names.split()
        },
    )
    torch.testing.assert_close(model(long).sentiment, model(cut).sentiment)


def test_text_is_cut_at_what_the_encoder_takes() -> None:
    model = small_model(dataclasses.replace(SPEC, text_length=100))
    assert model.sizes.text.max_length == 32
    assert model(random_inputs([(100, 1, 1)])).sentiment.isfinite().all()


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_every_parameter_gets_a_gradient_even_at_weight_zero(mode: str) -> None:
    model = small_model(mode=mode)
    for config in (LossConfig(), only("sentiment"), only("completeness")):
        missing = [name for name, gradient in gradients(model, config).items() if gradient is None]
        assert not missing


def test_every_combination_of_switches_trains() -> None:
    switches = {name: values for name, values in SWITCHES.items() if name != "position_std"}  # only the start
    for values in itertools.product(*switches.values()):
        model = small_model(**dict(zip(switches, values, strict=True)))
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients(model).values())


def test_modes_set_the_switches_and_each_can_be_set_alone() -> None:
    reference, clean = ModelConfig(mode="reference"), ModelConfig(mode="clean")
    for switch, (published, right) in SWITCHES.items():
        assert (getattr(reference, switch), getattr(clean, switch)) == (published, right)
        assert getattr(ModelConfig(mode="clean", **{switch: published}), switch) == published


def proxy_gradient(loss: str, **switches: Any) -> Tensor:
    """What one loss term alone asks of the proxy generator."""
    gradient = gradients(small_model(**switches), only(loss))["proxy_encoder.positions"]
    assert gradient is not None
    return gradient


def test_reversal_before_mixing_raises_the_sentiment_loss() -> None:  # D15
    plain = proxy_gradient("sentiment", reverse_before_mixing=False)
    torch.testing.assert_close(proxy_gradient("sentiment", reverse_before_mixing=True), -plain)
    torch.testing.assert_close(
        proxy_gradient("sentiment", reverse_before_mixing=True, reversal_strength=0.5), -0.5 * plain
    )


@pytest.mark.parametrize("before_mixing", [False, True])
@pytest.mark.parametrize("discriminate", ["mixture", "proxy"])
def test_the_adversarial_loss_is_reversed_exactly_once(before_mixing: bool, discriminate: str) -> None:
    switches = {"reverse_before_mixing": before_mixing, "discriminate": discriminate}
    reversed_once = proxy_gradient("adversarial", **switches)
    doubled = proxy_gradient("adversarial", **switches, reversal_strength=2.0)
    torch.testing.assert_close(doubled, 2 * reversed_once)
    assert reversed_once.norm() > 0


def test_reversed_at_the_discriminator_a_mixture_teaches_the_proxy_generator_alone() -> None:  # D15
    """Else completeness head and language would be told the opposite of what the published code tells them."""
    one = gradients(small_model(mode="reference", reverse_before_mixing=False), only("adversarial"))
    for name in ("embeddings.text.project.weight", "completeness_head.0.weight"):
        gradient = one[name]
        assert gradient is not None
        # What is left of text's gradient comes by the complete language, which the reference does not detach.
        assert (gradient.norm() == 0) == (name == "completeness_head.0.weight")
    both = gradients(
        small_model(mode="reference", reverse_before_mixing=False, detach_targets=True), only("adversarial")
    )
    text = both["embeddings.text.project.weight"]
    assert text is not None and text.norm() == 0
    proxy = both["proxy_encoder.positions"]
    assert proxy is not None and proxy.norm() > 0


def test_a_discriminator_that_sees_normalised_tokens_cannot_be_beaten_by_size() -> None:
    batch = random_batch(LENGTHS)
    for normalised in (True, False):
        model = small_model(normalise_discriminated=normalised)
        before = model(batch.corrupted, batch.complete).discriminator_logits
        last = model.proxy_encoder.layers[-1]
        last.register_forward_hook(lambda _, __, out: 1000 * out)
        after = model(batch.corrupted, batch.complete).discriminator_logits
        assert before is not None and after is not None
        assert torch.allclose(before, after, atol=1e-2) == normalised


def rename(model: LNLN, token: int) -> None:
    """Give a token another meaning."""
    embedding = model.get_submodule("text_encoder.model.embeddings.word_embeddings").get_parameter("weight")
    with torch.no_grad():
        embedding[token] = torch.linspace(-3, 3, embedding.shape[1])


@pytest.mark.parametrize("mask_padding", [True, False])
def test_erased_steps_are_not_seen_where_they_are_masked(mask_padding: bool) -> None:  # D12
    """[UNK] is the same as no word at all to whoever does not attend to it; its place in the sentence stays empty."""
    batch = random_batch(LENGTHS)
    inputs = batch.corrupted
    unknown = SPEC.unknown_id
    assert (inputs.text == unknown).any()
    model = small_model(mask_erased=True, mask_padding=mask_padding).eval()
    plain = model(inputs).sentiment
    rename(model, unknown)
    torch.testing.assert_close(model(inputs).sentiment, plain)
    seen = small_model(mask_erased=False, mask_padding=mask_padding).eval()
    before = seen(inputs).sentiment
    rename(seen, unknown)
    assert not torch.allclose(seen(inputs).sentiment, before, atol=1e-4)


@pytest.mark.parametrize("before_mixing", [False, True])
def test_clean_discriminator_leaves_language_and_completeness_alone(before_mixing: bool) -> None:
    clean = gradients(small_model(reverse_before_mixing=before_mixing), only("adversarial"))
    published = gradients(small_model(mode="reference"), only("adversarial"))
    for name in ("text_encoder.model.embeddings.word_embeddings.weight", "completeness_head.0.weight"):
        mine, theirs = clean[name], published[name]
        assert mine is not None and theirs is not None
        assert mine.norm() == 0 and theirs.norm() > 0


def test_detached_targets_are_the_same_numbers_without_a_gradient() -> None:
    batch = random_batch(LENGTHS)
    detached = small_model(detach_targets=True)(batch.corrupted, batch.complete)
    attached = small_model(detach_targets=False)(batch.corrupted, batch.complete)
    assert detached.reconstruction_target is not None and attached.reconstruction_target is not None
    torch.testing.assert_close(detached.reconstruction_target, attached.reconstruction_target, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(detached.discriminator_logits, attached.discriminator_logits, atol=1e-5, rtol=1e-5)
    assert not detached.reconstruction_target.requires_grad and attached.reconstruction_target.requires_grad


def test_plain_residual_adds_to_what_was_there() -> None:  # eq. 3 against D18
    for residual in ("plain", "normalised"):
        layer = small_model(residual=residual).hyper_layers[0]
        torch.nn.init.zeros_(layer.get_parameter("out.weight"))
        torch.nn.init.zeros_(layer.get_parameter("out.bias"))
        hyper, other = 5 + torch.randn(2, 3, 16), torch.randn(2, 3, 16)
        unmoved = torch.equal(layer(other, other, other, hyper), hyper)
        assert unmoved == (residual == "plain")


def test_standardisation_leaves_erased_and_padded_frames_at_zero() -> None:
    model = small_model()
    statistics = {
        "audio": {"mean": [1.0, 2.0, 5.0], "std": [2.0, 4.0, 0.0]},
        "vision": {"mean": [0.0] * 4, "std": [1.0] * 4},
    }
    model.set_statistics(statistics)
    frames = torch.tensor([[[3.0, 2.0, 5.0], [0.0, 0.0, 0.0], [1.0, 6.0, 6.0]]])
    expected = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]])  # a constant column has deviation 1
    torch.testing.assert_close(model.standardize(frames, "audio"), expected)
    torch.testing.assert_close(small_model(standardize=False).standardize(frames, "audio"), frames)
    with pytest.raises(RefusedError, match="audio statistics must have 3 columns, got 2 means"):
        model.set_statistics(statistics | {"audio": {"mean": [0.0, 1.0], "std": [1.0, 1.0]}})


def test_erasing_changes_the_answer() -> None:
    model = small_model().eval()
    inputs = random_inputs(LENGTHS)
    assert not torch.allclose(model(inputs).sentiment, model(erase_some(inputs)).sentiment)


def test_completeness_lies_within_bounds() -> None:
    completeness = small_model()(random_inputs(LENGTHS)).completeness
    assert ((completeness > 0) & (completeness < 1)).all()


def test_prediction_gives_nothing_that_only_losses_need() -> None:
    output = small_model()(random_inputs(LENGTHS))
    assert output.discriminator_logits is None and output.reconstructed is None
    assert output.sentiment.shape == output.completeness.shape == (len(LENGTHS),)


@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_training_and_prediction_agree(mode: str) -> None:
    model, batch = small_model(mode=mode), random_batch(LENGTHS)
    with_losses, without = model(batch.corrupted, batch.complete), model(batch.corrupted)
    torch.testing.assert_close(with_losses.sentiment, without.sentiment, atol=1e-5, rtol=1e-5)


def test_bfloat16_trains_every_parameter() -> None:
    model, batch, config = small_model(), random_batch(LENGTHS), LossConfig()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.corrupted, batch.complete)
    terms = loss_terms(output, batch, config)
    assert all(term.dtype == torch.float32 for term in terms.values())
    total_loss(terms, batch.weight, config, len(LENGTHS)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad is not None and p.grad.norm() > 0 for p in model.embeddings.parameters())


def test_a_saved_model_comes_back_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = small_model().eval()
    model.set_statistics({m: {"mean": [1.0] * d, "std": [2.0] * d} for m, d in (("audio", 3), ("vision", 4))})
    model.save_pretrained(tmp_path)
    inputs = random_inputs(LENGTHS)
    for loaded in (LNLN.from_pretrained(tmp_path), load_model(tmp_path)):
        assert not loaded.training
        assert loaded.config == model.config and loaded.spec == model.spec
        assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)
    config = (tmp_path / "config.json").read_text()
    load_model(tmp_path).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/config.json").read_text() == config
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_load_model_refuses_damaged_folders(tmp_path: Path) -> None:
    small_model().save_pretrained(tmp_path / "good")
    for name in ("config.json", "model.safetensors"):
        good = (tmp_path / "good" / name).read_bytes()
        for kind, damaged in (("absent", None), ("cut", good[: len(good) // 2]), ("empty", b"")):
            folder = tmp_path / f"{name}-{kind}"
            small_model().save_pretrained(folder)
            (folder / name).unlink()
            if damaged is not None:
                (folder / name).write_bytes(damaged)
            with pytest.raises(RefusedError, match=name):
                load_model(folder)
    with pytest.raises(RefusedError, match=r"no config\.json"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "config", ["[]", "{}", '{"model": {"name": "other"}}', '{"model": {"name": "lnln", "wings": 2}}', "null"]
)
def test_load_model_refuses_foreign_configs(tmp_path: Path, config: str) -> None:
    small_model().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(RefusedError):
        load_model(tmp_path)


def test_weights_that_lack_some_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    small_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["hyper_tokens"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RefusedError, match="hyper_tokens"):
        load_model(tmp_path)


def test_a_vocabulary_too_small_is_refused_with_both_numbers() -> None:
    with pytest.raises(RefusedError, match=r"knows 200 ids.*vocabulary of 21128"):
        small_model(dataclasses.replace(SPEC, vocabulary_size=21128))


def test_build_model_is_decided_by_the_seed() -> None:
    config = small_config(text_encoder="tiny")
    spec = dataclasses.replace(SPEC, vocabulary_size=30522)
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(build_model(config, spec))
    states = [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_parameter_groups_hold_every_parameter_once() -> None:
    model = small_model()
    train = TrainConfig(learning_rate=1e-3, encoder_learning_rate=1e-5, weight_decay=0.1)
    groups = model.parameter_groups(train)
    parameters = [p for group in groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == len(list(model.parameters()))
    assert model.text_encoder is not None
    encoder = {id(p) for p in model.text_encoder.parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["lr"] == (1e-5 if id(parameter) in encoder else 1e-3)
            assert group["weight_decay"] == (0.1 if parameter.dim() > 1 else 0.0)
    everything = model.parameter_groups(dataclasses.replace(train, decay_everything=True))
    assert {group["weight_decay"] for group in everything} == {0.1} and len(everything) == 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["clean", "reference"])
def test_two_workers_get_the_gradients_of_one(mode: str, tmp_path: Path) -> None:
    """DistributedDataParallel, without a search for unused parameters, over three utterances and two."""
    spawn(_worker, args=(mode, str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=2)
    expected = gradients(small_model(mode=mode))
    shared = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for name, gradient in expected.items():
        torch.testing.assert_close(shared[name], gradient, atol=1e-5, rtol=1e-4)


def _worker(rank: int, mode: str, rendezvous: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    model = small_model(mode=mode)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    batch, mine, config = random_batch(LENGTHS), [[0, 1, 2], [3, 4]][rank], LossConfig()
    share = dataclasses.replace(
        batch, label=batch.label[mine], missing_rates=batch.missing_rates[mine], weight=batch.weight[mine]
    )
    for _ in range(2):  # the second pass fails if a parameter went without a gradient in the first
        model.zero_grad(set_to_none=True)
        output = parallel(rows(batch.corrupted, mine), rows(batch.complete, mine))
        # DDP averages over the workers, so each divides by its part of the whole batch.
        total_loss(loss_terms(output, share, config), share.weight, config, len(LENGTHS) / 2).backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, Path(folder) / "gradients.pt")
    torch.distributed.destroy_process_group()
