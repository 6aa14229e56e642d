"""SDUMC: double-flow self-distillation with unified modality cross-attention, for when text is missing
(arXiv 2410.15029).

    model = build_model(config.model, spec, statistics)      # lnln.models, `model.name: sdumc`
    output = model(batch.corrupted, batch.complete)          # training
    output = model(inputs)                                   # prediction

One network, two flows: the full flow reads the text, the missing flow what audio says that the text might be
(`lnln simulate`). B utterances, T steps, F width of the features of one modality, D width, Q queries, C width of what
they find. `reference` and `clean` differ by the switches of `SDUMC_SWITCHES`, and by mask_padding, mask_erased and
standardize; each is read in one place, here, in `base.py` or, of `difference`, in the losses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lnln.batches import Inputs
from lnln.data.schema import MODALITIES, Modality
from lnln.errors import RefusedError
from lnln.models.base import SentimentModel
from lnln.models.distinct import by_distinct
from lnln.models.missing_text import text_counts_as_missing
from lnln.models.output import Flow, Output
from lnln.models.padding import by_length, can_ask, fit, leave_out, resize, seen_first, steps
from lnln.models.sizes import max_text_length
from lnln.models.umca import Imagination, Pooling, QueryAttention, mlp

# In the published order, which the columns of several weights have.
ORDER: tuple[Modality, ...] = ("audio", "text", "vision")
# What each query is made of, in their published order: several modalities mixed, or one.
VIEWS: dict[str, tuple[Modality, ...]] = {
    "all": ("audio", "text", "vision"),
    "audio_text": ("audio", "text"),
    "text_vision": ("text", "vision"),
    "audio_vision": ("audio", "vision"),
    "audio": ("audio",),
    "text": ("text",),
    "vision": ("vision",),
}


@dataclass(frozen=True)
class Frames:
    """The projected steps of one modality, and which of them are looked at."""

    x: Float[Tensor, "B T D"]
    seen: Bool[Tensor, "B T"]


class SDUMC(SentimentModel, paper_url="https://arxiv.org/abs/2410.15029"):
    """The network; arguments as `SentimentModel` has them.

    An utterance whose text counts as missing (`model.text_missing_share`) is read with its simulated text instead, and
    imagined further from audio and vision (`model.sdumc.imagination`). RefusedError for a corpus without simulated
    text, or with one of another width than its text.
    """

    def __init__(self, model: dict[str, Any], spec: dict[str, Any], encoder: dict[str, Any] | None) -> None:
        super().__init__(model, spec, encoder)
        self._check_simulated_text()
        self._add_statistics("audio", self.spec.audio_dim)
        self._add_statistics("vision", self.spec.vision_dim)
        config, own = self.config, self.config.sdumc
        self.limits = {
            "text": max_text_length(config, self.spec, self.longest_text),
            "audio": config.max_audio_length or self.spec.audio_length,
            "vision": config.max_vision_length or self.spec.vision_length,
        }
        dim, found_dim = config.hidden_dim, own.query_dim
        widths = {"text": self.text_dim, "audio": self.spec.audio_dim, "vision": self.spec.vision_dim}

        self.project = nn.ModuleDict({m: nn.Linear(widths[m], dim) for m in MODALITIES})
        self.pool = nn.ModuleDict({m: Pooling(dim, own.attention_scale, own.dropout) for m in MODALITIES})
        self.hidden = nn.ModuleDict({m: mlp((dim, dim, dim), own.hidden_dropout) for m in MODALITIES})
        self.weigh_modalities = nn.Sequential(
            mlp((len(ORDER) * dim, dim, dim), own.hidden_dropout), nn.Linear(dim, len(ORDER))
        )
        self.queries = nn.ModuleDict({view: nn.Sequential(nn.Linear(dim, dim), nn.ReLU()) for view in VIEWS})
        self.ask = nn.ModuleDict({m: QueryAttention(dim, own.attention_scale, own.dropout) for m in MODALITIES})
        self.found = nn.ModuleDict({m: mlp((dim, dim, found_dim), own.hidden_dropout) for m in MODALITIES})
        self.weigh_queries = nn.Sequential(
            mlp((len(VIEWS) * found_dim, dim, found_dim), own.hidden_dropout), nn.Linear(found_dim, len(VIEWS))
        )
        self.sentiment_head = nn.Linear(found_dim, 1)
        self.rank_head = nn.Sequential(
            nn.Linear(found_dim, own.rank_dim), nn.ReLU(), nn.Linear(own.rank_dim, own.rank_dim)
        )
        if own.imagination:
            self.imagine_hidden = Imagination(dim, own.imagination_residual)
            self.imagine_found = Imagination(found_dim, own.imagination_residual)

    def forward(self, corrupted: Inputs, complete: Inputs | None = None) -> Output:
        """Predictions for `corrupted`; with `complete`, the same utterances before corruption, both flows.

        The missing flow reads the audio and vision of `corrupted`, whose text it does not look at unless
        `model.sdumc.missing_flow` is `corrupted`; `sentiment` is then its prediction.
        """
        kept, own = self.config.modalities, self.config.sdumc
        if complete is None:
            return Output(self._flow(leave_out(corrupted, kept)).sentiment)
        full = self._flow(leave_out(complete, kept))
        if own.missing_flow == "simulated":
            kept = tuple(modality for modality in kept if modality != "text")
        missing = self._flow(leave_out(corrupted, kept))
        if own.detach_fused:
            full = replace(full, fused=full.fused.detach())
        return Output(missing.sentiment, full=full, missing=missing, difference=str(own.difference))

    def _flow(self, inputs: Inputs) -> Flow:
        is_missing = text_counts_as_missing(inputs, self.config.text_missing_share, self.spec.unknown_id)
        frames = self._read(inputs, is_missing)
        hidden = {m: self.hidden[m](self.pool[m](frames[m].x, frames[m].seen)) for m in ORDER}
        if self.config.sdumc.imagination:
            imagined = self.imagine_hidden(*(hidden[m] for m in ORDER))
            hidden["text"] = torch.where(is_missing[:, None], imagined, hidden["text"])

        weights = self._weights(self.weigh_modalities(torch.cat([hidden[m] for m in ORDER], dim=1)))
        share = {m: weights[:, place, None] for place, m in enumerate(ORDER)}
        asked = {view: self.queries[view](_mix(hidden, share, view)) for view in VIEWS}
        queries = torch.stack(list(asked.values()), dim=1)

        found = {m: self.found[m](self.ask[m](frames[m].x, frames[m].seen, queries)) for m in ORDER}
        if self.config.sdumc.imagination:
            imagined = self.imagine_found(*(found[m] for m in ORDER))
            found["text"] = torch.where(is_missing[:, None, None], imagined, found["text"])

        mixed = torch.stack([share[m][:, :, None] * found[m] for m in ORDER]).sum(dim=0)
        query_weights = self._weights(self.weigh_queries(mixed.flatten(1)))
        fused = (query_weights[:, :, None] * mixed).sum(dim=1)
        return Flow(
            sentiment=self.sentiment_head(fused).squeeze(-1),
            text_hidden=asked["text"],
            text_query=found["text"],
            fused=fused,
            ranked=self.rank_head(fused),
        )

    def _weights(self, scores: Float[Tensor, "B N"]) -> Float[Tensor, "B N"]:
        """Of modalities or queries: any numbers as published, or positive ones that add up to 1 (S5)."""
        return scores.softmax(dim=1) if self.config.sdumc.normalise_weights else scores

    def _read(self, inputs: Inputs, is_missing: Bool[Tensor, " B"]) -> dict[Modality, Frames]:
        """Every modality projected; for text what stands for it."""
        fitted = fit(inputs, self.limits, trim=True)
        frames: dict[Modality, Frames] = {"text": self._read_language(inputs, fitted, is_missing)}
        for modality in ("audio", "vision"):
            x, mask = steps(fitted, modality)
            seen = self._looked_at(self.attended(x, mask), mask)
            frames[modality] = Frames(self.project[modality](self.standardize(x, modality)), seen)
        return frames

    def _looked_at(self, seen: Bool[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """What is `seen` of the real steps, and as published the padding behind `mask` (S4)."""
        return seen if self.config.mask_padding else seen | ~mask

    def _read_language(self, inputs: Inputs, fitted: Inputs, is_missing: Bool[Tensor, " B"]) -> Frames:
        """The steps of the text and of the simulated text one after the other, of which each utterance looks at one."""
        parts: list[Frames] = []
        if inputs.text.shape[1] and _may_be(~is_missing):
            x, mask = fitted.text, fitted.text_mask
            features, seen = self._text_features(x, self.attended(x, mask & ~is_missing[:, None]), mask)
            seen = self._looked_at(seen, mask) & ~is_missing[:, None]
            parts.append(Frames(self.project["text"](features), seen))
        if not parts or _may_be(is_missing):
            x, mask = _simulated_text(inputs)
            features = self.standardize(x, "text") if self.text_encoder is None else x
            seen = self._looked_at(self.attended(x, mask), mask) & is_missing[:, None]
            parts.append(Frames(self.project["text"](features), seen))
        return Frames(torch.cat([part.x for part in parts], dim=1), torch.cat([part.seen for part in parts], dim=1))

    def _text_features(
        self, x: Tensor, seen: Bool[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T F"], Bool[Tensor, "B T"]]:
        """The text as read, zeros where nothing is `seen`, and where that is: in front, where the others can be left
        out, since neither pooling nor queries know the order of steps."""
        read = partial(self._read_text, x.shape[1])
        if not self.config.mask_padding or not self.can_leave_out("text"):
            return by_length(lambda _, *sequences: read(*sequences), mask, seen, x)[0], seen
        sequences = seen_first(seen, x)
        is_repeated = x.dim() == 2 and can_ask(x) and not self.text_drops_out
        (features,) = by_distinct(partial(by_length, read), *sequences) if is_repeated else by_length(read, *sequences)
        return features, sequences[0]

    def _read_text(
        self, length: int, seen: Bool[Tensor, "B T"], x: Tensor, places: Int64[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T_all F"]]:
        features = self.read_text(x, seen, places).masked_fill(~seen[:, :, None], 0.0)
        return (resize(features, length),)

    def _check_simulated_text(self) -> None:
        width = self.spec.simulated_text_dim
        if not width:
            raise RefusedError(
                "model sdumc reads simulated text where text is missing, and the corpus has none; run: "
                "lnln simulate CORPUS"
            )
        if width != self.text_dim:
            kind = "language features" if self.text_encoder is None else f"encoder {self.config.text_encoder!r}"
            raise RefusedError(
                f"model sdumc reads text and simulated text alike, but a step of simulated text has {width} columns "
                f"and one of its {kind} {self.text_dim}; run lnln simulate CORPUS for features of that width"
            )


def _mix(
    hidden: dict[Modality, Float[Tensor, "B D"]], share: dict[Modality, Float[Tensor, "B 1"]], view: str
) -> Float[Tensor, "B D"]:
    """What a query is made of: a weighted sum of several modalities, or one as it is."""
    modalities = VIEWS[view]
    if len(modalities) == 1:
        return hidden[modalities[0]]
    return torch.stack([share[m] * hidden[m] for m in modalities]).sum(dim=0)


def _simulated_text(inputs: Inputs) -> tuple[Float[Tensor, "B T F"], Bool[Tensor, "B T"]]:
    """Cut at the longest of the batch where that may be asked."""
    x, mask = inputs.simulated_text, inputs.simulated_text_mask
    if x is None or mask is None:
        raise RefusedError(
            "model sdumc reads simulated text where text is missing, these inputs have none; run: lnln simulate CORPUS"
        )
    longest = int(mask.any(dim=0).sum()) if can_ask(mask) else mask.shape[1]
    return x[:, :longest], mask[:, :longest]


def _may_be(rows: Bool[Tensor, " B"]) -> bool:
    """Whether it holds for an utterance, as far as that may be asked."""
    return not can_ask(rows) or bool(rows.any())
