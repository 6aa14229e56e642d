from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lnln.batches import Batch, EvaluationBatches, Inputs, TrainBatches, corrupt_inputs, map_inputs
from lnln.config import SDUMC_TERMS, Config, LossConfig, ModelConfig, SdumcConfig, TrainConfig, load_config, to_dict
from lnln.corruption import ViewSpec
from lnln.data.schema import MODALITIES, FeatureSpec, Ragged, Utterances
from lnln.errors import RefusedError
from lnln.losses import loss_terms, total_loss
from lnln.models import SDUMC, build_model, load_model
from lnln.train.compiled import compile_model
from lnln.train.loop import Loop
from lnln.train.ranks import Ranks
from lnln.views import Views
from tests.lnln.models.random_inputs import (
    ENCODER,
    FEATURE_SPEC,
    SPEC,
    erase_all,
    random_batch,
    random_inputs,
    rows,
    small_config,
)

IDS = dataclasses.replace(SPEC, simulated_text_dim=16, simulated_text_length=6)
FEATURES = dataclasses.replace(FEATURE_SPEC, simulated_text_dim=5, simulated_text_length=6)
SPECS = [IDS, FEATURES]
LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (2, 0, 0), (0, 5, 2), (0, 0, 0)]
STREAMS = ("text", "audio", "vision", "simulated_text")


def sdumc_config(own: dict[str, Any] | None = None, **changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = {"query_dim": 6, "rank_dim": 4, "dropout": 0.0, "hidden_dropout": 0.0}
    return small_config(**{"name": "sdumc", "sdumc": SdumcConfig(**(sizes | (own or {}))), **changes})


def small_sdumc(spec: FeatureSpec = IDS, own: dict[str, Any] | None = None, seed: int = 0, **changes: Any) -> SDUMC:
    """Without dropout, and with random weights where a new model has zeros."""
    torch.manual_seed(seed)
    encoder = None if spec.text_dim else ENCODER
    model = SDUMC(model=to_dict(sdumc_config(own, **changes)), spec=to_dict(spec), encoder=encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch_of(lengths: list[tuple[int, int, int]], spec: FeatureSpec, erased: list[int] | None = None) -> Batch:
    """The texts of the utterances `erased` fall out whole in the corrupted input; of the others, and of audio, every
    third step, and of vision every second. So half of the simulated text stays."""
    batch = random_batch(lengths, spec)
    kept = {m: torch.ones_like(getattr(batch.complete, f"{m}_mask")) for m in MODALITIES}
    kept["text"][:, 1::3] = kept["audio"][:, ::3] = kept["vision"][:, 1::2] = False
    corrupted, gone = corrupt_inputs(batch.complete, kept, spec.unknown_id), erase_all(batch.complete, spec)
    text = corrupted.text.clone()
    for row in range(len(lengths)) if erased is None else erased:
        text[row] = gone.text[row]
    return dataclasses.replace(batch, corrupted=dataclasses.replace(corrupted, text=text))


def loss(model: SDUMC, batch: Batch, config: LossConfig | None = None) -> torch.Tensor:
    config = config or LossConfig()
    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config)
    return total_loss(terms, batch.weight, config, len(batch.label))


def changed(inputs: Inputs, stream: str, row: int | None = None) -> Inputs:
    """`inputs` with other content in one stream, of one row or of all; masks, and what is erased, stay."""
    x = getattr(inputs, stream).clone()
    mask = getattr(inputs, f"{stream}_mask").clone()
    if row is not None:
        mask[torch.arange(len(mask)) != row] = False
    if x.dim() == 2:
        mask &= x != SPEC.unknown_id
        x[mask] = (x[mask] + 7) % 90
    else:
        mask &= (x != 0).any(dim=-1)
        x[mask] += 1.5
    return dataclasses.replace(inputs, **{stream: x})


def which_rows(model: SDUMC, one: Inputs, other: Inputs) -> list[bool]:
    """Whose prediction differs."""
    left, right = model(one).sentiment, model(other).sentiment
    return [not torch.allclose(a, b, atol=1e-6) for a, b in zip(left, right, strict=True)]


lengths_of_one = st.tuples(st.integers(0, 12), st.integers(0, 10), st.integers(0, 9))


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(lengths_of_one, min_size=1, max_size=20),
    features=st.booleans(),
    imagination=st.booleans(),
    data=st.data(),
)
@example([(0, 0, 0)], False, True, None)
@example([(12, 10, 9)], True, True, None)
def test_a_row_alone_is_the_row_in_any_batch(
    lengths: list[tuple[int, int, int]], features: bool, imagination: bool, data: Any
) -> None:
    spec = SPECS[features]
    erased = [] if data is None else data.draw(st.lists(st.integers(0, len(lengths) - 1)))
    model = small_sdumc(spec, {"imagination": imagination}).eval()
    corrupted = batch_of(lengths, spec, erased).corrupted
    with torch.no_grad():
        together = model(corrupted).sentiment
        alone = torch.cat([model(trimmed(rows(corrupted, [row]))).sentiment for row in range(len(lengths))])
    assert together.isfinite().all() and together.shape == (len(lengths),)
    torch.testing.assert_close(alone, together, atol=2e-6, rtol=1e-4)


def trimmed(inputs: Inputs) -> Inputs:
    """One row without its padding."""
    values: dict[str, torch.Tensor] = {}
    for stream in STREAMS:
        mask = getattr(inputs, f"{stream}_mask")
        length = int(mask.sum())
        values |= {stream: getattr(inputs, stream)[:, :length], f"{stream}_mask": mask[:, :length]}
    return Inputs(**values)


@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
def test_what_stands_in_the_padding_and_at_erased_steps_does_not_matter(spec: FeatureSpec) -> None:
    model = small_sdumc(spec).eval()
    inputs = batch_of(LENGTHS, spec, [0, 2]).corrupted
    values = {stream: getattr(inputs, stream).clone() for stream in STREAMS}
    for stream, x in values.items():
        x[~getattr(inputs, f"{stream}_mask")] = 77 if x.dim() == 2 else 1e4
    dirty = dataclasses.replace(inputs, **values)
    torch.testing.assert_close(model(dirty).sentiment, model(inputs).sentiment)
    # A frame that was erased is one that never was.
    kept = [frame for frame in range(10) if frame % 3]
    audio, mask = inputs.audio[:, kept], inputs.audio_mask[:, kept]
    assert not inputs.audio[:, ::3].any()
    shorter = dataclasses.replace(inputs, audio=audio, audio_mask=mask)
    torch.testing.assert_close(model(shorter).sentiment, model(inputs).sentiment)


def test_in_reference_mode_a_prediction_hangs_on_the_longest_of_its_batch() -> None:
    """As published (S4)."""
    model = small_sdumc(FEATURES, mode="reference").eval()
    inputs = random_inputs([(3, 2, 4), (12, 10, 9)], FEATURES)
    assert not torch.allclose(model(inputs).sentiment[:1], model(trimmed(rows(inputs, [0]))).sentiment)
    for padding, erased in itertools.product([True, False], repeat=2):
        model = small_sdumc(FEATURES, mode="reference", mask_padding=padding, mask_erased=erased).eval()
        hangs = not torch.allclose(model(inputs).sentiment[:1], model(trimmed(rows(inputs, [0]))).sentiment)
        assert hangs == (not padding)


@pytest.mark.parametrize("mode", ["reference", "clean"])
@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
@pytest.mark.parametrize("num", [1, len(LENGTHS)])
def test_every_parameter_is_trained_and_every_gradient_finite(spec: FeatureSpec, mode: str, num: int) -> None:
    model, batch = small_sdumc(spec, mode=mode), batch_of(LENGTHS[:num], spec)
    loss(model, batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("mode", ["reference", "clean"])
@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
@pytest.mark.parametrize("lengths", [[(0, 0, 0)], [(0, 0, 0)] * 3, [(1, 0, 0)], [(0, 1, 0)], [(0, 0, 1)]])
def test_utterances_of_nothing_or_one_step(spec: FeatureSpec, mode: str, lengths: list[tuple[int, int, int]]) -> None:
    model, batch = small_sdumc(spec, mode=mode), batch_of(lengths, spec)
    value = loss(model, batch)
    value.backward()
    assert value.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
def test_a_text_is_read_or_what_it_might_be_never_both(spec: FeatureSpec) -> None:
    model = small_sdumc(spec).eval()
    inputs = batch_of([(9, 8, 5)] * 3 + [(0, 8, 5)], spec, [1]).corrupted
    is_missing = [False, True, False, True]
    assert which_rows(model, inputs, changed(inputs, "text")) == [True, False, True, False]
    assert which_rows(model, inputs, changed(inputs, "simulated_text")) == is_missing
    for row in range(4):
        expected = [place == row for place in range(4)]
        assert which_rows(model, inputs, changed(inputs, "audio", row)) == expected


def test_the_share_from_which_a_text_counts_as_missing() -> None:
    inputs = batch_of([(11, 8, 5)] * 2, IDS, [1]).corrupted  # of the first every third id is erased
    for share, expected in ((1.0, [False, True]), (0.3, [True, True])):
        model = small_sdumc(text_missing_share=share).eval()
        assert which_rows(model, inputs, changed(inputs, "simulated_text")) == expected


@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
def test_both_flows_are_what_is_predicted_of_their_inputs(spec: FeatureSpec) -> None:
    model, batch = small_sdumc(spec).eval(), batch_of(LENGTHS, spec, [0])
    output = model(batch.corrupted, batch.complete)
    assert output.full is not None and output.missing is not None
    torch.testing.assert_close(output.full.sentiment, model(batch.complete).sentiment)
    without_text = dataclasses.replace(batch.corrupted, text=erase_all(batch.complete, spec).text)
    torch.testing.assert_close(output.missing.sentiment, model(without_text).sentiment)
    assert output.sentiment is output.missing.sentiment
    shapes = {field.name: getattr(output.full, field.name).shape for field in dataclasses.fields(output.full)}
    num = len(LENGTHS)
    assert shapes == {
        "sentiment": (num,),
        "text_hidden": (num, 16),
        "text_query": (num, 7, 6),
        "fused": (num, 6),
        "ranked": (num, 4),
    }


@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
def test_what_the_missing_flow_reads(spec: FeatureSpec) -> None:
    batch = batch_of([(12, 10, 9)] * 2, spec, [1])
    other = changed(batch.corrupted, "text", 0)
    for flow, hangs in (("simulated", False), ("corrupted", True)):
        model = small_sdumc(spec, {"missing_flow": flow}).eval()
        one, two = (model(corrupted, batch.complete) for corrupted in (batch.corrupted, other))
        assert (not torch.allclose(one.sentiment[0], two.sentiment[0])) == hangs
        torch.testing.assert_close(one.sentiment[1], two.sentiment[1])
        torch.testing.assert_close(one.full.sentiment, two.full.sentiment)
    torch.testing.assert_close(one.sentiment, model(batch.corrupted).sentiment)


def test_the_terms_are_those_of_sdumc() -> None:
    model, batch = small_sdumc(), batch_of(LENGTHS, IDS)
    terms = loss_terms(model(batch.corrupted, batch.complete), batch, LossConfig())
    assert tuple(terms) == SDUMC_TERMS
    assert all(term.shape == (len(LENGTHS),) and term.isfinite().all() for term in terms.values())
    assert loss_terms(model(batch.corrupted), batch, LossConfig()).keys() == {"sentiment"}


def outputs_of(inputs: Batch, own: dict[str, Any]) -> Any:
    return small_sdumc(FEATURES, own).eval()(inputs.corrupted, inputs.complete)


def values_of(output: Any) -> dict[str, torch.Tensor]:
    flows = {"full": output.full, "missing": output.missing}
    return {
        f"{name}.{field.name}": getattr(flow, field.name).detach()
        for name, flow in flows.items()
        for field in dataclasses.fields(flow)
    }


def same_values(left: Any, right: Any) -> set[str]:
    mine, theirs = values_of(left), values_of(right)
    return {name for name in mine if torch.allclose(mine[name], theirs[name])}


FULL = {"full.sentiment", "full.text_hidden", "full.text_query", "full.fused", "full.ranked"}
MISSING = {name.replace("full", "missing") for name in FULL}


def test_each_switch_changes_what_it_should_and_nothing_else() -> None:
    batch = batch_of([(12, 10, 9), (7, 3, 4), (5, 9, 1)], FEATURES)
    base = outputs_of(batch, {})
    terms = loss_terms(base, batch, LossConfig())

    # Weights of modalities are in four of the seven queries, and in all that comes behind.
    raw = outputs_of(batch, {"normalise_weights": False})
    assert same_values(base, raw) == {"full.text_hidden", "missing.text_hidden"}

    attached = outputs_of(batch, {"detach_fused": False})
    assert same_values(base, attached) == FULL | MISSING
    assert not base.full.fused.requires_grad and attached.full.fused.requires_grad
    assert base.missing.fused.requires_grad and base.full.sentiment.requires_grad

    together = outputs_of(batch, {"difference": "batch"})
    assert same_values(base, together) == FULL | MISSING
    others = loss_terms(together, batch, LossConfig())
    equal = {name for name, term in terms.items() if torch.allclose(term, others[name])}
    assert equal == {"full_sentiment", "missing_sentiment", "rank_contrast"}
    for name in ("text_hidden", "text_query", "fused"):
        torch.testing.assert_close(others[name], others[name][:1].expand(3))
        torch.testing.assert_close(others[name][0], (terms[name] ** 2).mean().sqrt())

    plain = outputs_of(batch, {"imagination_residual": "text"})
    assert same_values(base, plain) == FULL
    sharper = outputs_of(batch, {"attention_scale": 1.0})
    assert not same_values(base, sharper)


def test_without_imagination_only_missing_texts_are_read_otherwise() -> None:
    model = small_sdumc(FEATURES).eval()
    without = small_sdumc(FEATURES, {"imagination": False}).eval()
    names = set(model.state_dict()) - set(without.state_dict())
    assert names and all(name.startswith("imagine_") for name in names)
    without.load_state_dict({name: x for name, x in model.state_dict().items() if name not in names})
    inputs = batch_of([(9, 8, 5)] * 3, FEATURES, [1]).corrupted
    left, right = model(inputs).sentiment, without(inputs).sentiment
    assert [torch.allclose(a, b) for a, b in zip(left, right, strict=True)] == [True, False, True]


def test_weights_are_shares_in_clean_mode() -> None:
    scores = torch.tensor([[1.0, -50.0, 3.0], [0.0, 0.0, 0.0]])
    clean, reference = small_sdumc(), small_sdumc(mode="reference")
    torch.testing.assert_close(clean._weights(scores).sum(dim=1), torch.ones(2))
    assert (clean._weights(scores) >= 0).all() and torch.equal(reference._weights(scores), scores)


def test_one_step_gives_attention_nothing_to_choose() -> None:
    batch = batch_of([(1, 1, 1)] * 2, FEATURES)
    assert same_values(outputs_of(batch, {}), outputs_of(batch, {"attention_scale": 5.0})) == FULL | MISSING


@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
def test_modalities_left_out_are_not_looked_at(spec: FeatureSpec) -> None:
    batch = batch_of([(9, 8, 5), (12, 10, 9)], spec)
    for size in (1, 2):
        for kept in itertools.combinations(("text", "audio", "vision"), size):
            model = small_sdumc(spec, modalities=kept).eval()
            loss(model, batch).backward()
            for stream in ("text", "audio", "vision"):
                is_read = any(which_rows(model, batch.complete, changed(batch.complete, stream)))
                assert is_read == (stream in kept), (kept, stream)
            # Without the text the simulated one is read, and that is made of audio.
            reads_simulated = any(which_rows(model, batch.complete, changed(batch.complete, "simulated_text")))
            assert reads_simulated == ("text" not in kept and "audio" in kept)


def test_longer_inputs_are_cut() -> None:
    model = small_sdumc(max_text_length=4, max_audio_length=3, max_vision_length=2).eval()
    inputs = random_inputs([(12, 10, 9)], IDS)
    cut = dataclasses.replace(
        inputs,
        **{
            name: getattr(inputs, name)[:, :length]
            for stream, length in (("text", 4), ("audio", 3), ("vision", 2))
            for name in (stream, f"{stream}_mask")
        },
    )
    torch.testing.assert_close(model(inputs).sentiment, model(cut).sentiment)


def test_statistics_standardise_text_and_simulated_text_alike() -> None:
    model = small_sdumc(FEATURES).eval()
    inputs = batch_of([(6, 8, 5)] * 2, FEATURES, [1]).corrupted
    before = model(inputs).sentiment
    model.set_statistics({"text": {"mean": [1.0] * 5, "std": [2.0] * 5}})
    assert inputs.simulated_text is not None
    shifted = dataclasses.replace(
        inputs,
        **{
            name: torch.where((x != 0).any(dim=-1, keepdim=True), 2 * x + 1, 0.0)
            for name, x in (("text", inputs.text), ("simulated_text", inputs.simulated_text))
        },
    )
    assert not torch.allclose(model(inputs).sentiment, before)
    torch.testing.assert_close(model(shifted).sentiment, before)
    model.set_statistics({"audio": {"mean": [1.0] * 3, "std": [2.0] * 3}})
    assert not torch.allclose(model(shifted).sentiment, before)


def test_what_is_not_simulated_or_of_another_width_is_refused() -> None:
    with pytest.raises(RefusedError, match="the corpus has none; run: lnln simulate CORPUS"):
        small_sdumc(SPEC)
    with pytest.raises(RefusedError, match="the corpus has none; run: lnln simulate CORPUS"):
        build_model(sdumc_config(), FEATURE_SPEC)
    with pytest.raises(
        RefusedError, match="has 9 columns and one of its encoder 'minilm' 16; run lnln simulate CORPUS"
    ):
        small_sdumc(dataclasses.replace(SPEC, simulated_text_dim=9))
    with pytest.raises(RefusedError, match="has 9 columns and one of its language features 5"):
        small_sdumc(dataclasses.replace(FEATURE_SPEC, simulated_text_dim=9))
    with pytest.raises(RefusedError, match="these inputs have none; run: lnln simulate CORPUS"):
        small_sdumc()(erase_all(random_inputs([(3, 2, 1)])))


@pytest.mark.parametrize("spec", SPECS, ids=["ids", "features"])
def test_it_is_saved_and_loaded(spec: FeatureSpec, tmp_path: Path) -> None:
    model = small_sdumc(spec, {"imagination_residual": "text", "attention_scale": 0.7}).eval()
    model.save_pretrained(tmp_path)
    loaded, inputs = load_model(tmp_path), batch_of(LENGTHS, spec, [0]).corrupted
    assert isinstance(loaded, SDUMC) and loaded.config == model.config and loaded.spec == spec
    assert torch.equal(loaded(inputs).sentiment, model(inputs).sentiment)
    assert "arxiv.org/abs/2410.15029" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("mode", ["reference", "clean"])
def test_bfloat16_is_near_float32_and_its_losses_are_float32(mode: str) -> None:
    model, batch = small_sdumc(mode=mode), batch_of(LENGTHS, IDS)
    whole = loss(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.corrupted, batch.complete)
    terms = loss_terms(output, batch, LossConfig())
    assert all(term.dtype == torch.float32 for term in terms.values())
    value = total_loss(terms, batch.weight, LossConfig(), len(LENGTHS))
    value.backward()
    torch.testing.assert_close(value, whole, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_dropout_is_for_training_alone() -> None:
    model, inputs = small_sdumc(own={"dropout": 0.5, "hidden_dropout": 0.3}), random_inputs(LENGTHS[:1], IDS)
    assert not torch.equal(model(inputs).sentiment, model(inputs).sentiment)
    model.eval()
    assert torch.equal(model(inputs).sentiment, model(inputs).sentiment)


def test_nothing_is_asked_of_a_device() -> None:
    """`meta` has no values that could be asked for."""
    batch = batch_of(LENGTHS, IDS)
    for own in ({}, {"missing_flow": "corrupted"}):
        for mode in ("reference", "clean"):
            model = small_sdumc(own=own, mode=mode).to("meta")
            there: dict[str, Any] = {
                name: map_inputs(getattr(batch, name), lambda x: x.to("meta")) for name in ("corrupted", "complete")
            }
            there |= {name: getattr(batch, name).to("meta") for name in ("label", "missing_rates", "weight")}
            loss(model, dataclasses.replace(batch, **there)).backward()


def test_a_compiled_step_has_the_same_gradients() -> None:
    torch._dynamo.reset()
    batch, gradients = batch_of(LENGTHS, FEATURES), []
    for compiled in (False, True):
        model = small_sdumc(FEATURES)
        if compiled:
            compile_model(model, TrainConfig(compile="default"), backend="aot_eager")
        loss(model, batch).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)
    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == 0
    torch._dynamo.reset()


def made_utterances(num: int) -> Utterances:
    """Sentiment is the mean of the first column of each modality."""
    random = np.random.default_rng(0)
    label = random.uniform(-3, 3, num).astype(np.float32)
    lengths = random.integers(1, 6, num)

    def frames(dim: int) -> Ragged:
        values = random.normal(size=(lengths.sum(), dim)).astype(np.float32)
        values[:, 0] += np.repeat(label, lengths)
        return Ragged.from_lengths(values, lengths)

    ids = [f"u{row}" for row in range(num)]
    text, simulated = frames(FEATURES.text_dim), frames(FEATURES.text_dim)
    audio, vision = frames(FEATURES.audio_dim), frames(FEATURES.vision_dim)
    return Utterances(ids, [None] * num, label, text, audio, vision, simulated_text=simulated)


@pytest.mark.parametrize("parts", [1, 3])
def test_it_learns_in_the_training_loop(parts: int) -> None:
    model_config = sdumc_config({"dropout": 0.1, "hidden_dropout": 0.1})
    train = TrainConfig(epochs=15, batch_size=16, learning_rate=5e-3, accumulation_steps=parts)
    config = Config(model=model_config, train=train)
    model = small_sdumc(FEATURES, {"dropout": 0.1, "hidden_dropout": 0.1})
    utterances = made_utterances(60)
    views = Views(utterances, "train")
    text_missing = ViewSpec.evaluation((1.0, 0.0, 0.0), 0)
    loop = Loop(
        model,
        config,
        TrainBatches(utterances, views, config, 0),
        EvaluationBatches(utterances, views, [ViewSpec.evaluation(0.0, 0), text_missing], 0),
        utterances.label,
        (-3.0, 3.0),
        Ranks(),
        torch.device("cpu"),
    )
    records = list(loop.epochs())
    assert set(records[0]["loss"]) == {"total", *SDUMC_TERMS}
    assert records[-1]["loss"]["full_sentiment"] < 0.5 * records[0]["loss"]["full_sentiment"]
    for rate in records[0]["validation"]:
        assert records[-1]["validation"][rate]["mae"] < 0.8 * records[0]["validation"][rate]["mae"]


def test_the_shipped_config_is_of_this_model() -> None:
    config = load_config("sdumc")
    assert config.model.name == "sdumc" and config.model.hidden_dim == 256 and config.train.frozen == "encoder"
    assert config.model.reads_simulated_text and config.model.mode == "clean"
