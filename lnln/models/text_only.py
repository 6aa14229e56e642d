"""The baseline that a multimodal model has to beat: the text encoder fine-tuned, its mean, one linear layer.

    model = build_model(ModelConfig(name="text_only"), spec, statistics)      # lnln.models
    sentiment = model(inputs).sentiment

B utterances, T steps of text, H width of their features.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lnln.batches import Inputs
from lnln.models.base import SentimentModel
from lnln.models.distinct import by_distinct
from lnln.models.output import Output
from lnln.models.padding import by_length, can_ask, fit, seen_first
from lnln.models.sizes import max_text_length

DROPOUT = 0.1


class TextOnly(SentimentModel):
    """Text features, averaged over the real steps. Of `model` only the encoder and the longest text are read.

    Ready-made language features are averaged too, standardised in `clean` mode; only the linear layer is trained then.
    An utterance without text gets the layer's bias.
    """

    def __init__(self, model: dict[str, Any], spec: dict[str, Any], encoder: dict[str, Any] | None) -> None:
        super().__init__(model, spec, encoder)
        self.max_length = max_text_length(self.config, self.spec, self.longest_text)
        self.limits = {"text": self.max_length}  # of what is read, as LNLN's
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(self.text_dim, 1)

    def forward(self, corrupted: Inputs, complete: Inputs | None = None) -> Output:
        """Predictions for `corrupted`; no loss of this model asks for `complete`."""
        inputs = fit(corrupted, {"text": self.max_length, "audio": 0, "vision": 0}, trim=True)
        mask, x = inputs.text_mask, inputs.text
        seen = self.attended(x, mask)
        if self.can_leave_out("text"):
            read, sequences = partial(by_length, self._mean), seen_first(seen, x)
            is_repeated = x.dim() == 2 and can_ask(x) and not self.text_drops_out
            (mean,) = by_distinct(read, *sequences) if is_repeated else read(*sequences)
        else:
            (mean,) = by_length(lambda _, *sequences: self._mean(*sequences), mask, seen, x)
        return Output(self.head(self.dropout(mean)).squeeze(-1))

    def _mean(
        self, seen: Bool[Tensor, "B T"], x: Tensor, places: Int64[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B H"]]:
        features = self.read_text(x, seen, places).masked_fill(~seen[:, :, None], 0.0)
        return (features.sum(dim=1) / seen.sum(dim=1, keepdim=True).clamp(min=1),)
