"""What the models do not compute, because it would make no difference, makes none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lnln.batches import Batch, Inputs
from lnln.config import LossConfig
from lnln.losses import loss_terms, total_loss
from lnln.models import LNLN, TextOnly
from lnln.models.padding import GROUP_SIZE, seen_first, take
from lnln.models.text_encoder import _MODEL_TYPES, TextEncoder
from tests.lnln.models.random_inputs import (
    ENCODER,
    FEATURE_SPEC,
    SPEC,
    random_batch,
    small_model,
    small_text_only,
)

LENGTHS = [(12, 10, 9), (4, 0, 9), (7, 3, 0), (1, 0, 0), (0, 5, 2)]
MANY = [LENGTHS[i % len(LENGTHS)] for i in range(GROUP_SIZE + 4)]
SPECS = pytest.mark.parametrize("spec", [SPEC, FEATURE_SPEC], ids=["ids", "features"])


def trained(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Predictions, and the gradient of each parameter that has one."""
    model.zero_grad()
    output = model(batch.corrupted, batch.complete)
    total_loss(loss_terms(output, batch, LossConfig()), batch.weight, LossConfig(), len(batch.label)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.sentiment.detach(), gradients


def assert_equal(ours: tuple[Tensor, dict[str, Tensor]], plain: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(ours[0], plain[0], atol=1e-6, rtol=1e-5)
    assert ours[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        torch.testing.assert_close(ours[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def widths(model: LNLN, batch: Batch) -> dict[str, list[int]]:
    """Steps that each embedding is given, call by call."""
    found: dict[str, list[int]] = {}
    hooks = [
        part.register_forward_hook(lambda _, x, __, name=name: found.setdefault(name, []).append(x[0].shape[1]))
        for name, part in model.embeddings.items()
    ]
    model(batch.corrupted)
    for hook in hooks:
        hook.remove()
    return found


@SPECS
def test_steps_that_nobody_attends_to_are_not_computed(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = small_model(spec), random_batch(MANY, spec)
    ours, narrow = trained(model, batch), widths(model, batch)
    monkeypatch.setattr(LNLN, "_leaves_out_erased", lambda *_: False)
    plain, wide = trained(model, batch), widths(model, batch)
    assert_equal(ours, plain)
    assert all(max(narrow[name]) < max(wide[name]) for name in ("text", "audio", "vision")), (narrow, wide)


@SPECS
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_nothing_erased_and_everything_erased(spec: Any, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = small_model(spec), random_batch(MANY, spec)
    if rate == 0:
        batch = replace(batch, corrupted=batch.complete)
    else:
        gone = torch.zeros_like if spec.text_dim else lambda x: torch.full_like(x, spec.unknown_id)
        whole = batch.complete
        erased = replace(whole, text=gone(whole.text), audio=0 * whole.audio, vision=0 * whole.vision)
        batch = replace(batch, corrupted=erased)
    ours = trained(model, batch)
    monkeypatch.setattr(LNLN, "_leaves_out_erased", lambda *_: False)
    assert_equal(ours, trained(model, batch))


@SPECS
def test_the_baseline_leaves_them_out_too(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = small_text_only(spec).eval(), random_batch(MANY, spec)
    ours = trained(model, batch)
    monkeypatch.setattr(TextOnly, "can_leave_out", lambda *_: False)
    assert_equal(ours, trained(model, batch))


def test_a_word_whose_neighbours_feel_it_is_not_left_out() -> None:
    convolving = {**ENCODER, "model_type": "convbert", "conv_kernel_size": 3, "head_ratio": 1}
    plain = TextEncoder.from_config(ENCODER)
    assert plain.mixes_by_attention_alone and plain.model.config._attn_implementation == "sdpa"
    assert not TextEncoder.from_config(convolving).mixes_by_attention_alone


@pytest.mark.parametrize("model_type", _MODEL_TYPES)
def test_what_encoders_say_of_themselves_is_so(model_type: str) -> None:
    """An unseen id in the middle is left out, and the others come out the same, or the encoder says they do not."""
    torch.manual_seed(0)
    own = {"mobilebert": {"embedding_size": 16}, "convbert": {"conv_kernel_size": 3, "head_ratio": 1}}
    encoder = TextEncoder.from_config({**ENCODER, "model_type": model_type, **own.get(model_type, {})}).eval()
    ids, seen = torch.randint(1, 200, (1, 6)), torch.tensor([[True, True, False, True, False, True]])
    whole = encoder(ids, seen)[seen]
    kept = seen[0].nonzero()[:, 0]
    short = encoder(ids[:, kept], seen[:, kept], places=kept[None])[0]
    assert torch.allclose(whole, short, atol=1e-5) == encoder.mixes_by_attention_alone


@SPECS
def test_what_was_not_corrupted_is_read_once(spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published mode, whose targets have gradients: of these rows text, of those audio and vision are complete."""
    model, batch = small_model(spec, mode="reference"), random_batch(MANY, spec)
    whole, some = batch.complete, torch.arange(len(MANY)) % 3 == 0
    text_mask = some.reshape(-1, *[1] * (whole.text.dim() - 1))
    corrupted = replace(
        batch.corrupted,
        text=torch.where(text_mask, whole.text, batch.corrupted.text),
        audio=torch.where(some.roll(1)[:, None, None], whole.audio, batch.corrupted.audio),
        vision=whole.vision,
    )
    batch, rows = replace(batch, corrupted=corrupted), []
    hook = model.embeddings["vision"].register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    ours = trained(model, batch)
    hook.remove()
    assert rows == [len(MANY)]
    monkeypatch.setattr(LNLN, "_drops_out", lambda *_: True)
    assert_equal(ours, trained(model, batch))


def test_with_dropout_each_is_read_for_itself() -> None:
    encoder = {**ENCODER, "hidden_dropout_prob": 0.5}
    assert TextEncoder.from_config(encoder).drops_out and not TextEncoder.from_config(ENCODER).drops_out
    model, batch = small_model(mode="reference", dropout=0.5), random_batch(MANY)
    rows: list[int] = []
    model.embeddings["vision"].register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    model(batch.complete, batch.complete)
    model.eval()(batch.complete, batch.complete)
    assert rows == [2 * len(MANY), len(MANY)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_seen_first_keeps_the_order_and_says_where_each_stood(rows: list[list[bool]]) -> None:
    seen = torch.tensor(rows)
    x = torch.arange(seen.numel()).reshape(seen.shape)
    front, moved, places = seen_first(seen, x)
    for i, row in enumerate(rows):
        kept = [step for step, is_seen in enumerate(row) if is_seen]
        assert front[i].tolist() == [True] * len(kept) + [False] * (6 - len(kept))
        assert places[i, : len(kept)].tolist() == kept and moved[i].tolist() == (x[i, places[i]]).tolist()
    deep = torch.stack([x, -x], dim=-1)
    assert torch.equal(seen_first(seen, deep)[1], torch.stack([moved, -moved], dim=-1))


def test_take_takes_rows() -> None:
    inputs: Inputs = random_batch(LENGTHS).complete
    taken = take(inputs, torch.tensor([4, 0, 0]))
    assert torch.equal(taken.audio, inputs.audio[[4, 0, 0]]) and torch.equal(
        taken.text_mask, inputs.text_mask[[4, 0, 0]]
    )


def equal_texts(inputs: Inputs) -> Inputs:
    """As several views of one short text are; audio and vision beside it differ."""
    first = (x[:1].expand_as(x) for x in (inputs.text, inputs.text_mask))
    return replace(inputs, **dict(zip(("text", "text_mask"), first, strict=True)))


@pytest.mark.parametrize("make", [small_model, small_text_only])
def test_equal_texts_are_read_once_in_prediction(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, rows = make(SPEC).eval(), equal_texts(random_batch(MANY, SPEC).corrupted), []
    model.text_encoder.register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    with torch.no_grad():
        once = model(inputs).sentiment
        assert rows == [1]
        monkeypatch.setattr(type(model), "can_leave_out", lambda *_: False)
        torch.testing.assert_close(once, model(inputs).sentiment, atol=1e-5, rtol=1e-4)
    assert sum(rows) == 1 + len(MANY)


@pytest.mark.parametrize("make", [small_model, small_text_only])
def test_where_dropout_makes_them_differ_they_are_not_one(make: Any) -> None:
    model, rows = make(SPEC).train(), []
    for part in model.text_encoder.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.1
    model.text_encoder.register_forward_hook(lambda _, x, __: rows.append(len(x[0])))
    model(equal_texts(random_batch(MANY, SPEC).corrupted))
    assert sum(rows) == len(MANY)
