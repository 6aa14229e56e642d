"""The simplest model of all modalities: each is averaged over time, each has a head, and the heads are averaged.

    model = build_model(ModelConfig(name="late_fusion"), spec, statistics)      # lnln.models
    sentiment = model(inputs).sentiment

No step of one modality ever meets a step of another, so what a model gains over this one it gains by fusion.
B utterances, T steps, F width of the features of one modality, M modalities.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lnln.batches import Inputs
from lnln.data.schema import MODALITIES, Modality
from lnln.models.base import SentimentModel
from lnln.models.distinct import by_distinct
from lnln.models.output import Output
from lnln.models.padding import by_length, can_ask, fit, leave_out, seen_first, steps
from lnln.models.sizes import max_text_length

DROPOUT = 0.1
# [CLS] and [SEP], which stand in every text of token ids, whatever is erased.
NUM_ENDS = 2


class LateFusion(SentimentModel):
    """bias + sum over modalities m of share_m * head_m(mean of m's features).

    Text has the features of its encoder and a linear head, as `TextOnly`; audio and vision have the frames themselves,
    standardised in `clean` mode, and a hidden layer of `hidden_dim`. The shares are a softmax of one learned number
    for each modality, over those of which the utterance has something: what is absent, or erased to the last step, has
    none, and an utterance without anything gets the bias. A modality that `model.modalities` leaves out is one that
    every utterance lacks. Of `model` nothing else is read but the lengths and the text encoder.
    """

    def __init__(self, model: dict[str, Any], spec: dict[str, Any], encoder: dict[str, Any] | None) -> None:
        super().__init__(model, spec, encoder)
        self._add_statistics("audio", self.spec.audio_dim)
        self._add_statistics("vision", self.spec.vision_dim)
        self.limits = {
            "text": max_text_length(self.config, self.spec, self.longest_text),
            "audio": self.config.max_audio_length or self.spec.audio_length,
            "vision": self.config.max_vision_length or self.spec.vision_length,
        }
        hidden = self.config.hidden_dim
        self.heads = nn.ModuleDict(
            {
                "text": nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(self.text_dim, 1, bias=False)),
                "audio": _head(self.spec.audio_dim, hidden),
                "vision": _head(self.spec.vision_dim, hidden),
            }
        )
        self.weights = nn.Parameter(torch.zeros(len(MODALITIES)))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, corrupted: Inputs, complete: Inputs | None = None) -> Output:
        """Predictions for `corrupted`; no loss of this model asks for `complete`."""
        inputs = fit(leave_out(corrupted, self.config.modalities), self.limits, trim=True)
        votes, is_there = [], []
        for modality in MODALITIES:
            x, mask = steps(inputs, modality)
            votes.append(self.heads[modality](self._average(modality, x, mask)).squeeze(-1))
            is_there.append(self._says_something(x, mask))
        shares = self.shares(torch.stack(is_there, dim=1))
        return Output(self.bias + (shares * torch.stack(votes, dim=1)).sum(dim=1))

    def shares(self, is_there: Bool[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """How much each modality counts, 1 together; 0 for those that are not there, so 0 all where none is."""
        weights = self.weights.expand(is_there.shape)
        # Not -inf, of which a row of nothing else would make NaN.
        shares: Tensor = weights.masked_fill(~is_there, torch.finfo(weights.dtype).min).softmax(dim=1) * is_there
        return shares

    def _says_something(self, x: Tensor, mask: Bool[Tensor, "B T"]) -> Bool[Tensor, " B"]:
        """Whether a step is left that was not erased; of token ids one between the ends."""
        if x.dim() == 2:
            return (mask & (x != self.spec.unknown_id)).sum(dim=1) > NUM_ENDS
        return (mask & (x != 0).any(dim=-1)).any(dim=1)

    def _average(self, modality: Modality, x: Tensor, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B F"]:
        """The mean of the features over the steps that are seen; zeros where none is."""
        seen = self.attended(x, mask)
        if modality != "text":
            return _mean(self.standardize(x, modality), seen)
        if not self.can_leave_out("text"):
            return by_length(lambda _, *sequences: self._average_text(*sequences), mask, seen, x)[0]
        read, sequences = partial(by_length, self._average_text), seen_first(seen, x)
        is_repeated = x.dim() == 2 and can_ask(x) and not self.text_drops_out
        return (by_distinct(read, *sequences) if is_repeated else read(*sequences))[0]

    def _average_text(
        self, seen: Bool[Tensor, "B T"], x: Tensor, places: Int64[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B F"]]:
        return (_mean(self.read_text(x, seen, places), seen),)


def _mean(features: Float[Tensor, "B T F"], seen: Bool[Tensor, "B T"]) -> Float[Tensor, "B F"]:
    total = features.masked_fill(~seen[:, :, None], 0.0).sum(dim=1)
    return total / seen.sum(dim=1, keepdim=True).clamp(min=1)


def _head(dim: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(hidden, 1, bias=False))
