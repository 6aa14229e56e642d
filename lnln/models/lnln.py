"""LNLN, the language-dominated noise-resistant learning network (arXiv 2409.20012, section 3).

    model = build_model(config.model, spec, statistics)      # lnln.models
    output = model(batch.corrupted, batch.complete)          # training
    output = model(inputs)                                   # prediction
    model = LNLN.from_pretrained(folder)                     # model.safetensors and config.json, no network

B utterances, T steps, K tokens kept of each modality, D width. `reference` and `clean` differ by the switches of
`ModelConfig`, each of which is read in exactly one place below.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lnln.batches import Inputs
from lnln.config import ModelConfig, TrainConfig, from_dict
from lnln.data.schema import MODALITIES, FeatureSpec, Modality
from lnln.errors import RefusedError
from lnln.models.layers import BlockSizes, CrossTransformer, HyperModalityLayer, Transformer, reverse_gradient
from lnln.models.padding import by_length, concatenate, fit
from lnln.models.sizes import Sizes
from lnln.models.text_encoder import TextEncoder


@dataclass(frozen=True)
class Output:
    """What the model says, and in training what the losses compare.

    completeness: estimated 1 - missing rate of text, within (0, 1).
    discriminator_logits: two classes per token; the first K tokens stand in for language (class 1), the last K are
    complete language (class 0).
    reconstructed, reconstruction_target: K tokens of text, audio, vision, of the corrupted and the complete input.
    """

    sentiment: Float[Tensor, " B"]
    completeness: Float[Tensor, " B"]
    discriminator_logits: Float[Tensor, "B 2*K 2"] | None = None
    reconstructed: Float[Tensor, "B 3*K D"] | None = None
    reconstruction_target: Float[Tensor, "B 3*K D"] | None = None


class Embedding(nn.Module):
    """Eq. 1: features of one modality, of any length, to K tokens."""

    def __init__(self, feature_dim: int, dim: int, sizes: BlockSizes, num_read: int) -> None:
        super().__init__()
        self.num_read = num_read
        self.project = nn.Linear(feature_dim, dim)
        self.transformer = Transformer(dim, sizes)

    def forward(self, x: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B K D"]:
        tokens: Tensor = self.transformer(self.project(x), mask, self.num_read)
        return tokens


class LNLN(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="lnln",
    paper_url="https://arxiv.org/abs/2409.20012",
    tags=["multimodal-sentiment-analysis"],
):
    """The network. All arguments are JSON-able, since they are what `config.json` of a saved model holds.

    model: a ModelConfig as a dict. spec: a FeatureSpec as a dict. encoder: `TextEncoder.config_dict()`.
    sizes: a Sizes as a dict, where a published checkpoint's blocks differ from what `model` can say.
    Weights are random, the text encoder's too; `build_model` brings the trained ones of that.
    """

    def __init__(
        self,
        model: dict[str, Any],
        spec: dict[str, Any],
        encoder: dict[str, Any],
        sizes: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config = from_dict(ModelConfig, model, where="model.")
        self.spec = from_dict(FeatureSpec, spec, where="spec.")
        self.text_encoder = TextEncoder.from_config(encoder)
        if self.text_encoder.vocabulary_size < self.spec.vocabulary_size:
            raise RefusedError(
                f"text encoder {config.text_encoder!r} knows {self.text_encoder.vocabulary_size} ids, the corpus has "
                f"ids of a vocabulary of {self.spec.vocabulary_size}; set model.text_encoder to one with its vocabulary"
            )
        self.sizes = (
            Sizes.from_config(config, self.spec, self.text_encoder.max_length)
            if sizes is None
            else Sizes.from_dict(sizes)
        )
        size, dim, num_tokens = self.sizes, self.sizes.dim, self.sizes.num_tokens
        self.register_buffer("audio_mean", torch.zeros(self.spec.audio_dim))
        self.register_buffer("audio_std", torch.ones(self.spec.audio_dim))
        self.register_buffer("vision_mean", torch.zeros(self.spec.vision_dim))
        self.register_buffer("vision_std", torch.ones(self.spec.vision_dim))
        self.embeddings = nn.ModuleDict(
            {
                "text": Embedding(self.text_encoder.dim, dim, size.text, num_tokens),
                "audio": Embedding(self.spec.audio_dim, dim, size.audio, num_tokens),
                "vision": Embedding(self.spec.vision_dim, dim, size.vision, num_tokens),
            }
        )
        self.completeness_encoder = Transformer(dim, size.completeness)
        self.completeness_head = _head(dim, size.completeness_hidden, 1)
        self.proxy_tokens = nn.Parameter(torch.ones(1, num_tokens, dim))
        self.proxy_encoder = Transformer(dim, size.proxy)
        self.discriminator = _head(dim, size.discriminator_hidden, 2)
        self.dominant_encoder = Transformer(dim, size.dominant)
        self.hyper_tokens = nn.Parameter(torch.ones(1, num_tokens, dim))
        self.hyper_layers = nn.ModuleList(
            HyperModalityLayer(dim, size.hyper.num_heads, size.hyper.head_dim, str(config.residual))
            for _ in range(size.hyper.depth)
        )
        self.fusion = CrossTransformer(dim, size.fusion)
        self.sentiment_head = nn.Linear(dim, 1)
        self.reconstructors = nn.ModuleDict({modality: Transformer(dim, size.reconstructor) for modality in MODALITIES})

    def forward(self, corrupted: Inputs, complete: Inputs | None = None) -> Output:
        """Predictions for `corrupted`; with `complete`, the same utterances before corruption, what losses need."""
        tokens, targets = self._embed_both(corrupted, complete)
        language, audio, vision = (tokens[modality] for modality in MODALITIES)
        completeness = self.estimate_completeness(language)
        proxy = self.make_proxy(audio, vision)
        dominant = (1 - completeness[:, None, None]) * proxy + completeness[:, None, None] * language  # eq. 8
        sentiment = self.predict(dominant, audio, vision)
        if targets is None:
            return Output(sentiment, completeness)

        stand_in = dominant if self.config.discriminate == "mixture" else proxy
        if not self.config.reverse_before_mixing:
            stand_in = reverse_gradient(stand_in, self.config.reversal_strength)
        # Eq. 11, on tokens instead of raw features, as published (D17).
        reconstructed = [self.reconstructors[modality](tokens[modality]) for modality in MODALITIES]
        return Output(
            sentiment=sentiment,
            completeness=completeness,
            discriminator_logits=self.discriminator(torch.cat([stand_in, targets["text"]], dim=1)),
            reconstructed=torch.cat(reconstructed, dim=1),
            reconstruction_target=torch.cat([targets[modality] for modality in MODALITIES], dim=1),
        )

    def embed(self, inputs: Inputs) -> dict[Modality, Float[Tensor, "B K D"]]:
        """Eq. 1 for the three modalities."""
        limits = {"text": self.sizes.text, "audio": self.sizes.audio, "vision": self.sizes.vision}
        is_masked = bool(self.config.mask_padding)
        inputs = fit(inputs, {m: size.max_length for m, size in limits.items()}, trim=is_masked)
        steps: dict[Modality, tuple[Tensor, Tensor]] = {
            "text": (inputs.text_ids, inputs.text_mask),
            "audio": (inputs.audio, inputs.audio_mask),
            "vision": (inputs.vision, inputs.vision_mask),
        }
        tokens: dict[Modality, Tensor] = {}
        for modality, (x, mask) in steps.items():
            read = partial(self._embed, modality)
            tokens[modality] = by_length(read, x, mask) if is_masked else read(x, mask)
        return tokens

    def _embed(self, modality: Modality, x: Tensor, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B K D"]:
        features = self.text_encoder(x, mask) if modality == "text" else self._standardize(x, modality)
        tokens: Tensor = self.embeddings[modality](features, mask if self.config.mask_padding else None)
        return tokens

    def estimate_completeness(self, language: Float[Tensor, "B K D"]) -> Float[Tensor, " B"]:
        """Eq. 5."""
        summary = self.completeness_encoder(language, num_read=1)[:, 0]
        return torch.sigmoid(self.completeness_head(summary)).squeeze(-1)

    def make_proxy(self, audio: Float[Tensor, "B K D"], vision: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        """Eq. 7: what language might have been, from audio and vision."""
        context = torch.cat([self.proxy_tokens.expand(len(audio), -1, -1), audio, vision], dim=1)
        # Read at the Transformer's own tokens, not at the proxy tokens, which are mere context as published (D20).
        proxy: Tensor = self.proxy_encoder(context, num_read=self.sizes.num_tokens)
        return reverse_gradient(proxy, self.config.reversal_strength) if self.config.reverse_before_mixing else proxy

    def predict(
        self,
        dominant: Float[Tensor, "B K D"],
        audio: Float[Tensor, "B K D"],
        vision: Float[Tensor, "B K D"],
    ) -> Float[Tensor, " B"]:
        """Eq. 2 to 4: sentiment from the dominant feature H_d^1 and what it finds in audio and vision."""
        states = self.dominant_encoder.states(dominant)
        hyper = self.hyper_tokens.expand(len(dominant), -1, -1)
        for state, layer in zip(states, self.hyper_layers, strict=False):
            hyper = layer(state, audio, vision, hyper)
        fused = self.fusion(states[-1], hyper)
        sentiment: Tensor = self.sentiment_head(fused[:, 1:].mean(dim=1)).squeeze(-1)
        return sentiment

    def set_statistics(self, statistics: Mapping[str, Mapping[str, Any]]) -> None:
        """Mean and deviation of the training split's audio and vision, `{"audio": {"mean": [...], "std": [...]}, ...}`.

        A column that does not vary gets deviation 1. Raises RefusedError when the number of columns is another.
        """
        for modality in ("audio", "vision"):
            mean, std = (torch.as_tensor(statistics[modality][key], dtype=torch.float64) for key in ("mean", "std"))
            buffer = self.get_buffer(f"{modality}_mean")
            if mean.shape != buffer.shape or std.shape != buffer.shape:
                raise RefusedError(
                    f"{modality} statistics must have {len(buffer)} columns, got {mean.numel()} means and "
                    f"{std.numel()} deviations; import the corpus again"
                )
            varies = std > 1e-6 * mean.abs().clamp(min=1e-6)
            buffer.copy_(mean)
            self.get_buffer(f"{modality}_std").copy_(torch.where(varies, std, 1.0))

    def parameter_groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """For the optimizer: the text encoder and the rest, each with and without weight decay; no group is empty.

        Biases and normalisation weights, the parameters of one dimension, do not decay unless `decay_everything`.
        """
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            decays = train.decay_everything or parameter.dim() > 1
            groups.setdefault((name.startswith("text_encoder."), decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": train.encoder_learning_rate if is_encoder else train.learning_rate,
                "weight_decay": train.weight_decay if decays else 0.0,
            }
            for (is_encoder, decays), parameters in groups.items()
        ]

    def _embed_both(
        self, corrupted: Inputs, complete: Inputs | None
    ) -> tuple[dict[Modality, Tensor], dict[Modality, Tensor] | None]:
        """Tokens of the corrupted and of the complete input."""
        if complete is None:
            return self.embed(corrupted), None
        if self.config.detach_targets:
            # No backward pass for the targets: a third less to compute. Second, because autocast keeps the weights
            # it has cast, and those cast without gradients would be of no use to the first.
            tokens = self.embed(corrupted)
            with torch.no_grad():
                return tokens, self.embed(complete)
        both = self.embed(concatenate(corrupted, complete))
        num_utterances = len(corrupted.text_ids)
        return (
            {modality: tokens[:num_utterances] for modality, tokens in both.items()},
            {modality: tokens[num_utterances:] for modality, tokens in both.items()},
        )

    @classmethod
    def _from_pretrained(cls, **arguments: Any) -> Any:
        # The mixin says on standard output, which belongs to results, that it loads.
        with contextlib.redirect_stdout(io.StringIO()):
            return super()._from_pretrained(**arguments)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        # The mixin would leave weights that a file lacks at random values, without a word.
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)

    def _standardize(self, x: Float[Tensor, "B T F"], modality: Modality) -> Float[Tensor, "B T F"]:
        """Real frames to zero mean and unit deviation; erased and padded ones are zeros and stay so."""
        if not self.config.standardize:
            return x
        is_real = (x != 0).any(dim=-1, keepdim=True)
        mean, std = self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_std")
        return torch.where(is_real, (x - mean) / std, 0.0)


def _head(dim: int, hidden: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, num_out))
