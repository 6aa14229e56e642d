"""What all models share: config and features, how text is read, standardisation, optimizer groups, saving and loading.

A model is one file with a subclass of `SentimentModel`, and one entry in `lnln.models.MODELS`.
B utterances, T steps, F width of the features of one modality.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lnln.config import ModelConfig, TrainConfig, from_dict, stored_model
from lnln.data.schema import FeatureSpec, Modality
from lnln.errors import RefusedError
from lnln.models.text_encoder import TextEncoder, check_size


class SentimentModel(nn.Module, PyTorchModelHubMixin, library_name="lnln", tags=["multimodal-sentiment-analysis"]):
    """All arguments of a model are JSON-able, since they are what `config.json` of a saved one holds.

    model: a ModelConfig as a dict. spec: a FeatureSpec as a dict. encoder: `TextEncoder.config_dict()`; None, and not
    looked at, where the corpus has ready-made language features (`spec.text_dim`) instead of token ids.
    Weights are random, the text encoder's too; `lnln.models.build_model` brings the trained ones of that.

    A subclass has `forward(corrupted: Inputs, complete: Inputs | None = None) -> Output`: predictions for `corrupted`,
    and with `complete`, the same utterances before corruption, what losses need.
    """

    def __init__(self, model: dict[str, Any], spec: dict[str, Any], encoder: dict[str, Any] | None) -> None:
        super().__init__()
        self.config = from_dict(ModelConfig, model, where="model.")
        self.spec = from_dict(FeatureSpec, spec, where="spec.")
        self.text_encoder = None
        if not self.spec.text_dim:
            if encoder is None:
                raise RefusedError("a model that reads token ids needs the config of its text encoder, got none")
            self.text_encoder = TextEncoder.from_config(encoder)
            known = self.text_encoder.vocabulary_size
            check_size(self.config.text_encoder, known, self.spec.tokenizer, self.spec.vocabulary_size)
        if self.spec.text_dim:
            self._add_statistics("text", self.spec.text_dim)

    @property
    def text_dim(self) -> int:
        """Width of a step of text, as `read_text` gives it."""
        return self.spec.text_dim if self.text_encoder is None else self.text_encoder.dim

    @property
    def longest_text(self) -> int | None:
        """Most steps of text that can be read at once; None: any number."""
        return None if self.text_encoder is None else self.text_encoder.max_length

    def read_text(
        self, x: Tensor, mask: Bool[Tensor, "B T"], places: Int64[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T F"]:
        """Word features: the text encoder's of ids (B, T), or ready-made ones (B, T, F), standardised.

        places: where each step stood before others were left out; None: where it stands.
        """
        if self.text_encoder is None:
            return self.standardize(x, "text")
        features: Tensor = self.text_encoder(x, mask, places=places)
        return features

    @property
    def text_drops_out(self) -> bool:
        """Whether `read_text` gives the same ids other features each time."""
        encoder = self.text_encoder
        return encoder is not None and encoder.training and encoder.drops_out

    def can_leave_out(self, modality: Modality) -> bool:
        """Whether steps that attention does not see have no effect, so that they need not be computed."""
        return modality != "text" or self.text_encoder is None or self.text_encoder.mixes_by_attention_alone

    def attended(self, x: Tensor, mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Of the real steps those that attention sees: all, or with `mask_erased` those that were not erased.

        x: ids (B, T), erased where [UNK], or features (B, T, F), erased where zero.
        """
        if not self.config.mask_erased:
            return mask
        return mask & (x != self.spec.unknown_id if x.dim() == 2 else (x != 0).any(dim=-1))

    def standardize(self, x: Float[Tensor, "B T F"], modality: Modality) -> Float[Tensor, "B T F"]:
        """Real frames to zero mean and unit deviation; erased and padded ones are zeros and stay so."""
        if not self.config.standardize:
            return x
        is_real = (x != 0).any(dim=-1, keepdim=True)
        mean, std = self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_std")
        return torch.where(is_real, (x - mean) / std, 0.0)

    def set_statistics(self, statistics: Mapping[str, Mapping[str, Any]]) -> None:
        """Mean and deviation over the training split, `{"audio": {"mean": [...], "std": [...]}, ...}`.

        A modality without statistics stays as it is; a column that does not vary gets deviation 1.
        Raises RefusedError when the number of columns is another.
        """
        buffers = dict(self.named_buffers(recurse=False))
        for modality in ("text", "audio", "vision"):
            if modality not in statistics or f"{modality}_mean" not in buffers:
                continue
            mean, std = (torch.as_tensor(statistics[modality][key], dtype=torch.float64) for key in ("mean", "std"))
            buffer = buffers[f"{modality}_mean"]
            if mean.shape != buffer.shape or std.shape != buffer.shape:
                raise RefusedError(
                    f"{modality} statistics must have {len(buffer)} columns, got {mean.numel()} means and "
                    f"{std.numel()} deviations; import the corpus again"
                )
            varies = std > 1e-6 * mean.abs().clamp(min=1e-6)
            buffer.copy_(mean)
            buffers[f"{modality}_std"].copy_(torch.where(varies, std, 1.0))

    def freeze(self, train: TrainConfig) -> None:
        """Take what `train.frozen` names out of training: it gets no gradient, no decay and no state of an optimizer.

        `embeddings`: all that comes before the encoder's first layer. `encoder`: all of it; what it reads is then the
        same in training as in prediction, without dropout, and needs no graph.
        RefusedError where there is no encoder.
        """
        check_frozen(self.spec, train)
        if self.text_encoder is None or train.frozen == "none":
            return
        for name, parameter in self.text_encoder.named_parameters():
            if train.frozen == "encoder" or "embeddings" in name:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but a frozen encoder stays as it is in prediction."""
        super().train(mode)
        if self.text_encoder is not None and not any(p.requires_grad for p in self.text_encoder.parameters()):
            self.text_encoder.eval()
        return self

    def parameter_groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """For the optimizer: the text encoder and the rest, each with and without weight decay; no group is empty.

        What is frozen is in none. Biases and normalisation weights, the parameters of one dimension, do not decay
        unless `decay_everything`. With `encoder_layer_decay` each layer of the encoder is a group of its own, slower
        the deeper it lies.
        """
        groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            decays = train.decay_everything or parameter.dim() > 1
            is_encoder = self.text_encoder is not None and name.startswith("text_encoder.")
            rate = train.learning_rate
            if is_encoder and self.text_encoder is not None:
                rate = train.encoder_learning_rate * train.encoder_layer_decay ** self.text_encoder.layers_above(name)
            groups.setdefault((is_encoder, rate, decays), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": train.weight_decay if decays else 0.0}
            for (_, rate, decays), parameters in groups.items()
        ]

    def _add_statistics(self, modality: Modality, dim: int) -> None:
        """Room for what `set_statistics` brings; mean 0 and deviation 1 until then."""
        self.register_buffer(f"{modality}_mean", torch.zeros(dim))
        self.register_buffer(f"{modality}_std", torch.ones(dim))

    @classmethod
    def _from_pretrained(cls, **arguments: Any) -> Any:
        if isinstance(model := arguments.get("model"), dict):
            arguments["model"] = stored_model(model)
        # The mixin says on standard output, which belongs to results, that it loads.
        with contextlib.redirect_stdout(io.StringIO()):
            return super()._from_pretrained(**arguments)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        # The mixin would leave weights that a file lacks at random values, without a word.
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)


def check_frozen(spec: FeatureSpec, train: TrainConfig) -> None:
    """RefusedError where `train.frozen` names a part of an encoder that a corpus with language features has not."""
    if train.frozen != "none" and spec.text_dim:
        raise RefusedError(
            f"train.frozen is {train.frozen!r}, but the corpus has ready-made language features of width "
            f"{spec.text_dim} and so no text encoder; set train.frozen=none"
        )
