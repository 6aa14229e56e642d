"""The layers of SDUMC: pooling over time, unified modality cross-attention (UMCA), modality imagination (MIA).

B utterances, T steps, D width of a step, Q queries, C width of what a query finds.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def over_time(scores: Float[Tensor, "B T *Q"], seen: Bool[Tensor, "B T"]) -> Float[Tensor, "B T *Q"]:
    """Softmax over the steps that are seen; 0 for the others, and so 0 everywhere where none is."""
    hidden = ~seen if scores.dim() == 2 else ~seen[:, :, None]
    # Not -inf, of which a row of nothing else would make NaN.
    weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(dim=1)
    return weights.masked_fill(hidden, 0.0)


class Pooling(nn.Module):
    """One vector of a sequence: its steps weighted by softmax(scale * tanh(W x) c), c learned."""

    def __init__(self, dim: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.key = nn.Linear(dim, dim)
        self.context = nn.Parameter(dim**-0.5 * torch.randn(1, dim))

    def forward(self, x: Float[Tensor, "B T D"], seen: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        x = self.dropout(x)
        scores = torch.tanh(self.key(x)) @ self.context[0]
        weights = over_time(self.scale * scores, seen)
        pooled: Tensor = self.dropout((weights[:, None, :].to(x.dtype) @ x).squeeze(1))
        return pooled


class QueryAttention(nn.Module):
    """UMCA for one modality: queries that all modalities share ask its steps, which are their own values."""

    def __init__(self, dim: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "B T D"], seen: Bool[Tensor, "B T"], queries: Float[Tensor, "B Q D"]
    ) -> Float[Tensor, "B Q D"]:
        x = self.dropout(x)
        scores = torch.tanh(self.key(x)) @ self.query(queries).transpose(1, 2)
        weights = over_time(self.scale * scores, seen)
        found: Tensor = self.dropout(weights.transpose(1, 2).to(x.dtype) @ x)
        return found


class Imagination(nn.Module):
    """MIA: what the text would be, from what stands for it and the other two modalities; a residual autoencoder.

    residual: what the decoder's output is added to, the encoder's input, or the text.
    """

    def __init__(self, dim: int, residual: str) -> None:
        super().__init__()
        self.residual = residual
        self.transition = nn.Sequential(nn.Linear(3 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.encoder = nn.Linear(dim, max(1, dim // 2))
        self.decoder = nn.Linear(max(1, dim // 2), dim)

    def forward(
        self, audio: Float[Tensor, "*B D"], text: Float[Tensor, "*B D"], vision: Float[Tensor, "*B D"]
    ) -> Float[Tensor, "*B D"]:
        x = self.transition(torch.cat([audio, text, vision], dim=-1))
        imagined: Tensor = self.decoder(self.encoder(x)) + (x if self.residual == "input" else text)
        return imagined


def mlp(widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Layers of these widths, each followed by ReLU and dropout."""
    layers: list[nn.Module] = []
    for num_in, num_out in itertools.pairwise(widths):
        layers += [nn.Linear(num_in, num_out), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
