"""What a model says of B utterances, and in training what the losses compare."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Flow:
    """One flow of SDUMC: its prediction, and what is compared with the other flow.

    text_hidden: the query that is made of the text as it was pooled. text_query: what each of the Q queries found in
    the text. fused: what the prediction is made of. ranked: what Rank-N-Contrast compares.
    """

    sentiment: Float[Tensor, " B"]
    text_hidden: Float[Tensor, "B D"]
    text_query: Float[Tensor, "B Q C"]
    fused: Float[Tensor, "B C"]
    ranked: Float[Tensor, "B R"]


@dataclass(frozen=True)
class Output:
    """What is None is not there: a model without that part, or a prediction, which has no losses.

    sentiment: on the scale of the labels. completeness: estimated 1 - missing rate of text, within (0, 1).
    discriminator_logits: two classes per token; the first K tokens stand in for language (class 1), the last K are
    complete language (class 0).
    reconstructed, reconstruction_target: K tokens of text, audio, vision, of the corrupted and the complete input.
    reconstruction_error: where features are reconstructed instead of tokens, their mean squared error already.
    full, missing: the flows of SDUMC; `sentiment` is then the missing one's. difference: whether a root of a mean
    square between them is over all entries of a `batch`, or of each `utterance`.
    """

    sentiment: Float[Tensor, " B"]
    completeness: Float[Tensor, " B"] | None = None
    discriminator_logits: Float[Tensor, "B 2*K 2"] | None = None
    reconstructed: Float[Tensor, "B 3*K D"] | None = None
    reconstruction_target: Float[Tensor, "B 3*K D"] | None = None
    reconstruction_error: Float[Tensor, " B"] | None = None
    full: Flow | None = None
    missing: Flow | None = None
    difference: str = "utterance"
