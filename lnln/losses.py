"""The four loss terms of eq. 14, one number per utterance, and their weighted sum.

    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config.loss)
    total_loss(terms, batch.weight, config.loss, normaliser=len(batch.label)).backward()

Per utterance, so that workers with unequal shares of a batch still sum to exactly what one worker would get.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lnln.batches import Batch
from lnln.config import LossConfig
from lnln.models.output import Output


def loss_terms(output: Output, batch: Batch, config: LossConfig) -> dict[str, Float[Tensor, " B"]]:
    """Every term that `output` allows, unweighted; without the complete pass that is completeness and sentiment, and
    a model that estimates no completeness has no such term.

    completeness: squared difference to 1 - missing rate of text (eq. 6). adversarial: cross-entropy over the tokens of
    both classes (eq. 10). reconstruction: mean squared difference over all tokens (eq. 12). sentiment: eq. 13, or
    another distance; 0 for an utterance without a label.
    """
    terms: dict[str, Tensor] = {}
    if output.completeness is not None:
        terms["completeness"] = (output.completeness.float() - (1 - batch.missing_rates[:, 0])) ** 2
    if output.discriminator_logits is not None:
        logits = output.discriminator_logits.float()
        classes = logits.new_zeros(logits.shape[:2], dtype=torch.long)
        classes[:, : logits.shape[1] // 2] = 1  # the stand-in's half; complete language is class 0 (D16)
        terms["adversarial"] = functional.cross_entropy(logits.transpose(1, 2), classes, reduction="none").mean(dim=1)
    if output.reconstructed is not None and output.reconstruction_target is not None:
        difference = output.reconstructed.float() - output.reconstruction_target.float()
        terms["reconstruction"] = (difference**2).mean(dim=(1, 2))
    elif output.reconstruction_error is not None:
        terms["reconstruction"] = output.reconstruction_error
    terms["sentiment"] = _distance(output.sentiment.float(), batch.label, config.sentiment_distance)
    return terms


def total_loss(
    terms: Mapping[str, Float[Tensor, " B"]], weight: Float[Tensor, " B"], config: LossConfig, normaliser: float
) -> Float[Tensor, ""]:
    """sum over utterances i of weight_i * sum over terms k of w_k * term_k,i, divided by `normaliser`.

    With the utterances of the whole batch (of all workers) as `normaliser` this is the published total.
    """
    per_utterance = sum((getattr(config, name) * term for name, term in terms.items()), torch.zeros_like(weight))
    return (weight * per_utterance).sum() / normaliser


def _distance(sentiment: Float[Tensor, " B"], label: Float[Tensor, " B"], kind: str) -> Float[Tensor, " B"]:
    is_labelled = ~label.isnan()
    # The label is replaced before the difference: 0 * NaN would be NaN again, in the gradient too.
    target = torch.where(is_labelled, label, sentiment.detach())
    if kind == "mse":
        return functional.mse_loss(sentiment, target, reduction="none")
    if kind == "l1":
        return functional.l1_loss(sentiment, target, reduction="none")
    assert kind == "huber", kind
    return functional.huber_loss(sentiment, target, reduction="none")
