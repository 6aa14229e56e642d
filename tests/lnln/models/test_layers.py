from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lnln.models.layers import Attention, BlockSizes, CrossTransformer, Layer, Transformer, attend, reverse_gradient

SIZES = BlockSizes(depth=3, num_heads=2, head_dim=5, feed_forward_dim=7, num_tokens=2, max_length=6)


def test_attend_is_softmax_attention_head_by_head() -> None:
    query, key, value = torch.randn(2, 3, 8), torch.randn(2, 4, 8), torch.randn(2, 4, 8)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 4**0.5
        scores = scores.masked_fill(~mask[:, None], float("-inf"))
        heads.append(functional.softmax(scores, dim=-1) @ value[..., part])
    torch.testing.assert_close(attend(query, key, value, 2, mask[:, None, None]), torch.cat(heads, dim=-1))


def test_reading_less_of_the_last_layer_changes_no_number_and_no_gradient() -> None:
    torch.manual_seed(0)
    transformer = Transformer(4, SIZES)
    x, mask = torch.randn(2, 5, 4), torch.tensor([[True] * 5, [True, False, False, False, False]])
    whole, read = transformer(x, mask)[:, :2], transformer(x, mask, num_read=2)
    torch.testing.assert_close(read, whole)
    weight = torch.randn_like(read)
    expected = torch.autograd.grad((whole * weight).sum(), list(transformer.parameters()))
    actual = torch.autograd.grad((read * weight).sum(), list(transformer.parameters()))
    torch.testing.assert_close(actual, expected)


def test_masked_positions_do_not_matter_and_tokens_stay() -> None:
    transformer = Transformer(4, SIZES)
    x, nothing = torch.randn(1, 5, 4), torch.zeros(1, 5, dtype=torch.bool)
    masked = transformer(x, nothing, num_read=2)
    torch.testing.assert_close(masked, transformer(torch.randn(1, 3, 4), nothing[:, :3], num_read=2))
    torch.testing.assert_close(masked, transformer(x[:, :0], nothing[:, :0], num_read=2))


def test_states_begin_with_the_input_at_its_positions() -> None:
    transformer = Transformer(4, BlockSizes(2, 1, 4, 4, num_tokens=0, max_length=3))
    x = torch.randn(2, 3, 4)
    states = transformer.states(x)
    assert len(states) == 3 and transformer.tokens is None
    torch.testing.assert_close(states[0], x + transformer.positions)
    torch.testing.assert_close(states[-1], transformer(x))


def test_cross_transformer_looks_at_its_context_only_through_attention() -> None:
    fusion = CrossTransformer(4, SIZES)
    x, context = torch.randn(2, 3, 4), torch.randn(2, 6, 4)
    assert fusion(x, context).shape == (2, 4, 4)
    for index in range(SIZES.depth):
        torch.nn.init.zeros_(fusion.get_parameter(f"layers.{index}.attention.out.weight"))
    torch.testing.assert_close(fusion(x, context), fusion(x, torch.randn(2, 6, 4)))


def test_positions_start_with_the_deviation_asked_for() -> None:
    wide = BlockSizes(1, 1, 4, 4, num_tokens=2, max_length=500)
    for std in (0.0, 0.02, 1.0):
        torch.manual_seed(0)
        plain = Transformer(8, wide, position_std=std)
        crossed = CrossTransformer(8, wide, position_std=std)
        for positions in (plain.positions, crossed.positions, crossed.context_positions):
            assert abs(positions.std().item() - std) <= 0.05 * std


def test_dropout_falls_on_what_attention_and_feed_forward_add() -> None:
    layer = Layer(4, SIZES, dropout=0.999)
    x = torch.randn(2, 3, 4)
    assert (layer(x, x) == x).float().mean() > 0.9  # both additions are dropped, the input never
    layer.eval()
    undropped = Layer(4, SIZES)
    undropped.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x, x), undropped(x, x))
    torch.testing.assert_close(undropped(x, x), undropped(x, x))
    for part in ("attention.out", "feed_forward.3"):
        # Either alone is dropped, too.
        one = Layer(4, SIZES, dropout=0.999)
        torch.nn.init.zeros_(one.get_parameter(f"{part}.weight"))
        torch.nn.init.zeros_(one.get_parameter(f"{part}.bias"))
        assert (one(x, x) == x).float().mean() > 0.9


def test_reverse_gradient_turns_only_the_gradient() -> None:
    x = torch.randn(3, requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert torch.equal(x, y)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), -0.25))


@pytest.mark.parametrize("has_mask", [False, True])
def test_few_queries_ask_inputs_to_the_same_numbers_and_gradients(has_mask: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(6, num_heads=2, head_dim=5)
    for part in (attention.norm_key, attention.norm_value):
        torch.nn.init.normal_(part.weight)
        torch.nn.init.normal_(part.bias)
    x, context = torch.randn(3, 2, 6, requires_grad=True), torch.randn(3, 40, 6, requires_grad=True)
    mask = torch.rand(3, 1, 1, 40) < 0.5 if has_mask else None
    assert attention._asks_inputs(2, 40) and not attention._asks_inputs(40, 40)
    query, key, value = attention.norm_query(x), attention.norm_key(context), attention.norm_value(context)
    expected = attention.out(
        attend(attention.query(query), attention.key(key), attention.value(value), num_heads=2, key_mask=mask)
    )
    found = attention(x, context, mask)
    torch.testing.assert_close(found, expected)
    weight, wanted = torch.randn_like(found), [x, context, *attention.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), wanted), torch.autograd.grad((expected * weight).sum(), wanted)
    )


def test_inputs_are_asked_where_that_is_less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiplications of both ways, counted."""
    attention = Attention(128, num_heads=8, head_dim=64)
    for num_queries, num_keys in ((8, 8), (8, 9), (8, 30), (1, 2), (8, 500), (500, 500), (40, 60), (32, 32)):
        counts = []
        for asks in (False, True):
            with monkeypatch.context() as patch, FlopCounterMode(display=False) as counter:
                patch.setattr(attention, "_asks_inputs", lambda *_, asks=asks: asks)
                with sdpa_kernel(SDPBackend.MATH):
                    attention(torch.randn(1, num_queries, 128), torch.randn(1, num_keys, 128))
            counts.append(counter.get_total_flops())
        assert attention._asks_inputs(num_queries, num_keys) == (counts[1] < counts[0])


@pytest.mark.parametrize("num_queries", [2, 40])
def test_bfloat16_on_the_cpu_is_attention_too(num_queries: int) -> None:
    """Written out there, with and without asking inputs; rows see nothing of what is masked."""
    torch.manual_seed(0)
    attention = Attention(16, num_heads=2, head_dim=8)
    x, context = torch.randn(2, num_queries, 16), torch.randn(2, 40, 16)
    mask = torch.rand(2, 1, 1, 40) < 0.5
    mask[1] = False
    mask[1, ..., 7] = True
    expected = attention(x, context, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(x, context, mask)
        changed = attention(x, context.masked_fill(~mask[:, 0, 0, :, None], 100.0), mask)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.05)
    torch.testing.assert_close(changed, found)
