"""Rank-N-Contrast as its formula stands, with a loop over the columns of pairs, which is how it is published."""

from __future__ import annotations

import torch
from torch import Tensor

TIE = 1e-4


def plain_rank_contrast(features: Tensor, label: Tensor, temperature: float = 2.0) -> Tensor:
    """Mean over ordered pairs i != j of -log(exp(s_ij) / sum over k != i with d_ik >= d_ij - 1e-4 of exp(s_ik)).

    features: (N, R). label: (N,).
    """
    num = len(label)
    others = ~torch.eye(num, dtype=torch.bool, device=label.device)

    def without_itself(x: Tensor) -> Tensor:
        return x[others].view(num, num - 1)

    apart = without_itself((label[:, None] - label[None, :]).abs())
    logits = -(features[:, None] - features[None, :]).norm(dim=-1) / temperature
    logits = without_itself(logits - logits.max(dim=1, keepdim=True).values.detach())
    exponentials = logits.exp()
    loss = features.new_zeros(())
    for column in range(num - 1):
        is_summed = (apart >= apart[:, column : column + 1] - TIE).float()
        log_sums = (is_summed * exponentials).sum(dim=1).log()
        loss = loss - (logits[:, column] - log_sums).sum() / (num * (num - 1))
    return loss
