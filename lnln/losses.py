"""The loss terms, LNLN's four of eq. 14 or SDUMC's six, one number per utterance, and their weighted sum.

    terms = loss_terms(model(batch.corrupted, batch.complete), batch, config.loss)
    total_loss(terms, batch.weight, config.loss, normaliser=len(batch.label)).backward()

Per utterance, so that workers with unequal shares of a batch still sum to exactly what one worker would get. Of SDUMC
that is so but for `rank_contrast`, which compares the utterances that are computed together, and for the roots of mean
squares with `model.sdumc.difference: batch`, which are over them: a worker's share, or a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lnln.batches import Batch
from lnln.config import LossConfig
from lnln.models.output import Flow, Output

# Labels are as far from each other where their distances differ by no more.
TIE = 1e-4


def loss_terms(output: Output, batch: Batch, config: LossConfig) -> dict[str, Float[Tensor, " B"]]:
    """Every term that `output` allows, unweighted; without the complete pass that is completeness and sentiment, and
    a model that estimates no completeness has no such term.

    completeness: squared difference to 1 - missing rate of text (eq. 6). adversarial: cross-entropy over the tokens of
    both classes (eq. 10). reconstruction: mean squared difference over all tokens (eq. 12). sentiment: eq. 13, or
    another distance; 0 for an utterance without a label. With the two flows of SDUMC its terms instead
    (`lnln.config.SDUMC_TERMS`).
    """
    if output.full is not None and output.missing is not None:
        return _flow_terms(output.full, output.missing, output.difference, batch, config)
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


def rank_contrast(
    features: Float[Tensor, "V B R"],
    label: Float[Tensor, " B"],
    temperature: float = 2.0,
    counted: Bool[Tensor, " B"] | None = None,
) -> Float[Tensor, " B"]:
    """Rank-N-Contrast over V features of each utterance: for each feature i the mean over all j != i of

        -log( exp(s_ij) / sum of exp(s_ik) over k != i with d_ik >= d_ij - 1e-4 )

    with s_ij = -|f_i - f_j| / temperature and d_ij = |y_i - y_j|: what is rated further from i shall lie further from
    it. Of each utterance the mean over its features; the mean over the utterances is the published loss.

    counted: whose features are compared; the other utterances get 0. Without a loop, and in memory for (V B)^2 numbers:
    with the utterances in the order of their label's distance the sums are running ones.
    """
    num_views, num = features.shape[:2]
    counted = torch.ones_like(label, dtype=torch.bool) if counted is None else counted
    # Double precision, so that products keep the digits of short distances, and sums those of features that are far.
    apart = _distances(features.flatten(0, 1).double() / temperature)
    # What is compared is not itself. Summed over the features of an utterance, which have one label.
    is_counted = counted.repeat(num_views)
    left_out = torch.eye(len(apart), dtype=torch.bool, device=label.device) | ~is_counted
    similarity = (-apart).masked_fill(left_out, -torch.inf)
    nearest = similarity.detach().amax(dim=1, keepdim=True).clamp(min=torch.finfo(apart.dtype).min)
    shares = (similarity - nearest).exp().view(num_views, num, num_views, num).sum(dim=2)

    # Those that are not counted come last, behind all that is summed.
    label = label.where(counted, 0.0)
    rated_apart = (label[:, None] - label).abs().masked_fill(~counted, -torch.inf)
    nearest_first, order = rated_apart.sort(dim=1)
    num_summed = num - torch.searchsorted(nearest_first, rated_apart - TIE)
    running = shares.gather(2, order.flip(1).expand_as(shares)).cumsum(dim=2)
    sums = running.gather(2, (num_summed - 1).clamp(min=0).expand_as(shares))
    log_sums = sums.clamp(min=torch.finfo(sums.dtype).tiny).log() + nearest.view(num_views, num, 1)

    # How many features of an utterance another is compared with: one less where it is its own.
    num_compared = counted.double() * num_views - torch.eye(num, dtype=torch.double, device=label.device)
    num_compared = num_compared.clamp(min=0)
    of_pairs = (num_compared * log_sums).sum(dim=2) + (apart @ is_counted.double()).view(num_views, num)
    mean = (of_pairs / num_compared.sum(dim=1).clamp(min=1)).mean(dim=0)
    return mean.where(counted, 0.0).to(features.dtype)


def _distances(x: Float[Tensor, "N R"]) -> Float[Tensor, "N N"]:
    """|x_i - x_j|. Where it is 0 its gradient is 0, which that of a root is not."""
    lengths = (x**2).sum(dim=1)
    squares = torch.addmm(lengths[:, None] + lengths, x, x.T, alpha=-2)
    return squares.clamp(min=torch.finfo(x.dtype).tiny).sqrt()


def _flow_terms(
    full: Flow, missing: Flow, difference: str, batch: Batch, config: LossConfig
) -> dict[str, Float[Tensor, " B"]]:
    """SDUMC's terms. No gradient reaches the full flow by `text_hidden` and `text_query`."""
    counts = batch.weight > 0  # not a stand-in that fills a worker's share
    distance, temperature = config.sentiment_distance, config.rank_temperature

    def apart(mine: Tensor, target: Tensor) -> Tensor:
        return _root_mean_square(mine.float() - target.float(), difference, counts)

    ranked = torch.stack([full.ranked.float(), missing.ranked.float()])
    return {
        "full_sentiment": _distance(full.sentiment.float(), batch.label, distance),
        "missing_sentiment": _distance(missing.sentiment.float(), batch.label, distance),
        "text_hidden": apart(missing.text_hidden, full.text_hidden.detach()),
        "text_query": apart(missing.text_query, full.text_query.detach()),
        "fused": apart(missing.fused, full.fused),
        "rank_contrast": rank_contrast(ranked, batch.label, temperature, counts & ~batch.label.isnan()),
    }


def _root_mean_square(x: Float[Tensor, "B ..."], over: str, counts: Bool[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Over the entries of each utterance, or, the same for all, over those of every utterance that `counts`. Where it
    is 0 its gradient is 0, which that of a root is not."""
    squares = (x**2).flatten(1).mean(dim=1)
    if over == "batch":
        squares = (torch.where(counts, squares, 0.0).sum() / counts.sum().clamp(min=1)).expand(len(x))
    is_zero = squares == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squares).sqrt())


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
