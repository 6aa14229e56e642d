"""From utterances in memory to the tensors of one training or evaluation step.

B utterances, T steps of one modality (padded to the longest), D features of one frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """One version (complete or corrupted) of B utterances.

    Masks are True at real steps and False at padding. They say nothing of what was erased: an erased token is [UNK],
    an erased frame is zeros, and both remain real steps. T may be 0: a modality that all B utterances lack.
    """

    text_ids: Int64[Tensor, "B Tt"]
    text_mask: Bool[Tensor, "B Tt"]
    audio: Float[Tensor, "B Ta Da"]
    audio_mask: Bool[Tensor, "B Ta"]
    vision: Float[Tensor, "B Tv Dv"]
    vision_mask: Bool[Tensor, "B Tv"]


@dataclass(frozen=True)
class Batch:
    """B utterances, complete and corrupted, with what the losses need.

    label: NaN where unlabelled. missing_rates: drawn rate of text, audio, vision.
    weight: 1, or 0 for the stand-in that a worker gets when a last batch has too few utterances for all.
    """

    utterance_ids: list[str]
    complete: Inputs
    corrupted: Inputs
    label: Float[Tensor, " B"]
    missing_rates: Float[Tensor, "B 3"]
    weight: Float[Tensor, " B"]
