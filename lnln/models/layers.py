"""The few blocks LNLN is made of: pre-norm attention, Transformer, hyper-modality layer, gradient reversal.

B utterances, S positions of a sequence, C positions of its context, D width of the model, K learnable tokens.
Positions whose key mask is False are attended by nobody; learnable tokens are always attended, so no row is ever empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class BlockSizes:
    """Shape of one Transformer: its layers, its attention heads, its feed-forward width, what it can be given."""

    depth: int
    num_heads: int
    head_dim: int
    feed_forward_dim: int
    # Learnable tokens in front of the input, and the longest input.
    num_tokens: int
    max_length: int


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values each have a normalisation of their own, as published."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_dim
        self.norm_query, self.norm_key, self.norm_value = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query = nn.Linear(dim, inner, bias=False)
        self.key = nn.Linear(dim, inner, bias=False)
        self.value = nn.Linear(dim, inner, bias=False)
        self.out = nn.Linear(inner, dim)

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        context: Float[Tensor, "B C D"],
        key_mask: Bool[Tensor, "B 1 1 C"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        query, keys, values = self.query(self.norm_query(x)), self.norm_key(context), self.norm_value(context)
        if self._asks_inputs(x.shape[1], context.shape[1]):
            attended = self._ask_inputs(query, keys, values, key_mask)
        else:
            attended = attend(query, self.key(keys), self.value(values), self.num_heads, key_mask)
        out: Tensor = self.out(attended)
        return out

    def _asks_inputs(self, num_queries: int, num_keys: int) -> bool:
        """Whether few queries look at so many positions that to make a key and a value of each would cost more."""
        dim, inner = self.key.in_features, self.key.out_features
        of_inputs = num_queries * (dim * inner + num_keys * dim * self.num_heads)
        return of_inputs < num_keys * (dim * inner + num_queries * inner)

    def _ask_inputs(
        self,
        query: Float[Tensor, "B S H"],
        keys: Float[Tensor, "B C D"],
        values: Float[Tensor, "B C D"],
        key_mask: Bool[Tensor, "B 1 1 C"] | None,
    ) -> Float[Tensor, "B S H"]:
        """What `attend` gives, with the projections on the other side: q (W k) = (q W) k, and W v is left until v is
        averaged. All heads then ask the same positions."""
        by_head = self.num_heads, -1
        in_inputs = torch.einsum("bshd,hdi->bhsi", query.unflatten(-1, by_head), self.key.weight.unflatten(0, by_head))
        scale = (query.shape[-1] // self.num_heads) ** -0.5
        found = _attend(in_inputs.flatten(1, 2)[:, None], keys[:, None], values[:, None], scale, key_mask)
        averaged = found[:, 0].unflatten(1, by_head)
        return torch.einsum("bhsi,hdi->bshd", averaged, self.value.weight.unflatten(0, by_head)).flatten(2)


def attend(
    query: Float[Tensor, "B S H"],
    key: Float[Tensor, "B C H"],
    value: Float[Tensor, "B C H"],
    num_heads: int,
    key_mask: Bool[Tensor, "B 1 1 C"] | None = None,
) -> Float[Tensor, "B S H"]:
    """softmax(q k / sqrt(head size)) v, head by head; H is all heads side by side."""
    query, key, value = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    return _attend(query, key, value, query.shape[-1] ** -0.5, key_mask).transpose(1, 2).flatten(2)


def _attend(
    query: Float[Tensor, "B N S H"],
    key: Float[Tensor, "B N C H"],
    value: Float[Tensor, "B N C H"],
    scale: float,
    key_mask: Bool[Tensor, "B 1 1 C"] | None,
) -> Float[Tensor, "B N S H"]:
    """softmax(scale q k) v for N heads."""
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # Fused attention on the CPU takes 5 to 12 times as long for the gradients in bfloat16.
        scores = (query * scale) @ key.transpose(-2, -1)
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask, float("-inf"))
        return scores.softmax(dim=-1) @ value
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, scale=scale)


class Layer(nn.Module):
    """Attention, then a feed-forward network, both pre-normalised and residual; dropout on what each adds."""

    def __init__(self, dim: int, sizes: BlockSizes, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(dim, sizes.num_heads, sizes.head_dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, sizes.feed_forward_dim),
            nn.GELU(),
            nn.Linear(sizes.feed_forward_dim, dim),
        )

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        context: Float[Tensor, "B C D"],
        key_mask: Bool[Tensor, "B 1 1 C"] | None = None,
    ) -> Float[Tensor, "B S D"]:
        x = x + self.dropout(self.attention(x, context, key_mask))
        out: Tensor = x + self.dropout(self.feed_forward(x))
        return out


class Transformer(nn.Module):
    """Learnable tokens in front of the input, learned positions added, then `depth` layers of self-attention.

    position_std: deviation of the positions at the start.
    """

    def __init__(self, dim: int, sizes: BlockSizes, *, position_std: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.zeros(1, sizes.num_tokens, dim)) if sizes.num_tokens else None
        self.positions = nn.Parameter(position_std * torch.randn(1, sizes.num_tokens + sizes.max_length, dim))
        self.layers = nn.ModuleList(Layer(dim, sizes, dropout) for _ in range(sizes.depth))

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"] | None = None,
        num_read: int | None = None,
        places: Int64[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B S_out D"]:
        """The last layer's output, tokens first; with `num_read` only its first positions, which is all that is
        computed of it (the rest would be thrown away, and gets no gradient either way).

        places: where each step of `x` stood before steps were left out; None: where it stands.
        """
        return self.states(x, mask, num_read, places)[-1]

    def states(
        self,
        x: Float[Tensor, "B S D"],
        mask: Bool[Tensor, "B S"] | None = None,
        num_read: int | None = None,
        places: Int64[Tensor, "B S"] | None = None,
    ) -> list[Tensor]:
        """The input with tokens and positions, then the output of every layer."""
        num_tokens = 0
        if self.tokens is not None:
            num_tokens = self.tokens.shape[1]
            x = torch.cat([self.tokens.expand(len(x), -1, -1), x], dim=1)
        assert x.shape[1] <= self.positions.shape[1], "input longer than the positions"
        key_mask = None if mask is None else functional.pad(mask, (num_tokens, 0), value=True)[:, None, None, :]
        states = [x + self._positions(num_tokens, x.shape[1], places)]
        for layer in self.layers[:-1]:
            states.append(layer(states[-1], states[-1], key_mask))
        states.append(self.layers[-1](states[-1][:, :num_read], states[-1], key_mask))
        return states

    def _positions(self, num_tokens: int, length: int, places: Int64[Tensor, "B S"] | None) -> Float[Tensor, "_ K+S D"]:
        if places is None:
            return self.positions[:, :length]
        of_tokens = self.positions[:, :num_tokens].expand(len(places), -1, -1)
        return torch.cat([of_tokens, functional.embedding(num_tokens + places, self.positions[0])], dim=1)


class CrossTransformer(nn.Module):
    """Layers in which a sequence attends to a context that stays as it is (eq. 4).

    One learnable token, the same for both sides, goes in front of each; its output comes first.
    position_std: deviation of the positions at the start.
    """

    def __init__(self, dim: int, sizes: BlockSizes, *, position_std: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(position_std * torch.randn(1, 1 + sizes.max_length, dim))
        self.context_positions = nn.Parameter(position_std * torch.randn(1, 1 + sizes.max_length, dim))
        self.layers = nn.ModuleList(Layer(dim, sizes, dropout) for _ in range(sizes.depth))

    def forward(self, x: Float[Tensor, "B S D"], context: Float[Tensor, "B C D"]) -> Float[Tensor, "B S+1 D"]:
        token = self.token.expand(len(x), -1, -1)
        x = torch.cat([token, x], dim=1)
        context = torch.cat([token, context], dim=1)
        x = x + self.positions[:, : x.shape[1]]
        context = context + self.context_positions[:, : context.shape[1]]
        for layer in self.layers:
            x = layer(x, context)
        return x


class HyperModalityLayer(nn.Module):
    """Eq. 3: the dominant feature asks audio and vision, and the answers move the hyper-modality.

    One query projection serves both attentions and one output projection their sum; there is no feed-forward network.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, residual: str) -> None:
        super().__init__()
        self.num_heads, self.residual = num_heads, residual
        inner = num_heads * head_dim
        self.norm_dominant, self.norm_audio, self.norm_vision = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        # Published: the residual is added to the normalised hyper-modality (D18). Eq. 3 needs no normalisation.
        self.norm_hyper = nn.LayerNorm(dim) if residual == "normalised" else nn.Identity()
        self.query = nn.Linear(dim, inner, bias=False)
        self.key_audio = nn.Linear(dim, inner, bias=False)
        self.key_vision = nn.Linear(dim, inner, bias=False)
        self.value_audio = nn.Linear(dim, inner, bias=False)
        self.value_vision = nn.Linear(dim, inner, bias=False)
        self.out = nn.Linear(inner, dim)

    def forward(
        self,
        dominant: Float[Tensor, "B K D"],
        audio: Float[Tensor, "B K D"],
        vision: Float[Tensor, "B K D"],
        hyper: Float[Tensor, "B K D"],
    ) -> Float[Tensor, "B K D"]:
        query = self.query(self.norm_dominant(dominant))
        audio, vision = self.norm_audio(audio), self.norm_vision(vision)
        from_audio = attend(query, self.key_audio(audio), self.value_audio(audio), self.num_heads)
        from_vision = attend(query, self.key_vision(vision), self.value_vision(vision), self.num_heads)
        moved: Tensor = self.norm_hyper(hyper) + self.out(from_audio + from_vision)
        return moved


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, strength: float) -> Tensor:
        context.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -context.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """`x` itself; its gradient comes back times `-strength` (the max over theta_DFG of eq. 10)."""
    result: Tensor = _Reverse.apply(x, strength)
    return result
