"""LNLN, the language-dominated noise-resistant learning network (arXiv 2409.20012, section 3).

    model = build_model(config.model, spec, statistics)      # lnln.models
    output = model(batch.corrupted, batch.complete)          # training
    output = model(inputs)                                   # prediction
    model = LNLN.from_pretrained(folder)                     # model.safetensors and config.json, no network

B utterances, T steps, F width of the features of one modality, K tokens kept of each modality, D width. `reference`
and `clean` differ by the switches of `ModelConfig`, each of which is read in exactly one place, here or in `base.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from lnln.batches import Inputs
from lnln.data.schema import MODALITIES, Modality
from lnln.errors import RefusedError
from lnln.models.base import SentimentModel
from lnln.models.distinct import by_distinct
from lnln.models.layers import BlockSizes, CrossTransformer, HyperModalityLayer, Transformer, reverse_gradient
from lnln.models.missing_text import one_text, text_counts_as_missing
from lnln.models.output import Output
from lnln.models.padding import by_length, can_ask, concatenate, fit, leave_out, resize, seen_first, steps, take
from lnln.models.sizes import Sizes, max_text_length


class Embedding(nn.Module):
    """Eq. 1: features of one modality, of any length, to K tokens."""

    def __init__(self, feature_dim: int, dim: int, sizes: BlockSizes, num_read: int, **options: float) -> None:
        super().__init__()
        self.num_read = num_read
        self.project = nn.Linear(feature_dim, dim)
        self.transformer = Transformer(dim, sizes, **options)

    def forward(
        self,
        x: Float[Tensor, "B T F"],
        mask: Bool[Tensor, "B T"] | None,
        places: Int64[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B K D"]:
        """places: where each step stood before others were left out; None: where it stands."""
        tokens: Tensor = self.transformer(self.project(x), mask, self.num_read, places)
        return tokens


class FeatureReconstructor(nn.Module):
    """Eq. 11 to the letter: every step of one modality's features, from the projected corrupted ones.

    A learnable token goes in front, so that an utterance without the modality has something to attend to.
    """

    def __init__(self, feature_dim: int, dim: int, sizes: BlockSizes, max_length: int, **options: float) -> None:
        super().__init__()
        self.transformer = Transformer(dim, replace(sizes, num_tokens=1, max_length=max_length), **options)
        self.out = nn.Linear(dim, feature_dim)

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T F"]:
        rebuilt: Tensor = self.out(self.transformer(x, mask)[:, 1:])
        return rebuilt


@dataclass(frozen=True)
class Reading:
    """One modality as read: its K tokens, and the features they are of where those are wanted."""

    tokens: Float[Tensor, "B K D"]
    features: Float[Tensor, "B T F"] | None


class LNLN(SentimentModel, paper_url="https://arxiv.org/abs/2409.20012"):
    """The network. Arguments as `SentimentModel` has them, and

    sizes: a Sizes as a dict, where a published checkpoint's blocks differ from what `model` can say.
    """

    def __init__(
        self,
        model: dict[str, Any],
        spec: dict[str, Any],
        encoder: dict[str, Any] | None,
        sizes: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(model, spec, encoder)
        self._add_statistics("audio", self.spec.audio_dim)
        self._add_statistics("vision", self.spec.vision_dim)
        config = self.config
        self.sizes = (
            Sizes.from_config(config, self.spec, self.longest_text) if sizes is None else Sizes.from_dict(sizes)
        )
        size, dim, num_tokens = self.sizes, self.sizes.dim, self.sizes.num_tokens
        assert config.position_std is not None, "set by the mode"
        options = {"position_std": config.position_std, "dropout": config.dropout}
        widths = {"text": self.text_dim, "audio": self.spec.audio_dim, "vision": self.spec.vision_dim}
        blocks = {"text": size.text, "audio": size.audio, "vision": size.vision}
        self.limits = {modality: block.max_length for modality, block in blocks.items()}
        if config.reads_simulated_text:
            self._check_simulated_text()
            self.limits["simulated_text"] = size.text.max_length
            self.limits["text"] = min(size.text.max_length, max_text_length(config, self.spec, self.longest_text))
        self.embeddings = nn.ModuleDict(
            {m: Embedding(widths[m], dim, blocks[m], num_tokens, **options) for m in MODALITIES}
        )
        if config.correction:
            self.completeness_encoder = Transformer(dim, size.completeness, **options)
            self.completeness_head = _head(dim, size.completeness_hidden, 1)
            self.proxy_tokens = nn.Parameter(torch.ones(1, num_tokens, dim))
            self.proxy_encoder = Transformer(dim, size.proxy, **options)
            self.discriminator = _head(dim, size.discriminator_hidden, 2)
        if config.fusion == "dominant":
            self.dominant_encoder = Transformer(dim, size.dominant, **options)
            self.hyper_tokens = nn.Parameter(torch.ones(1, num_tokens, dim))
            self.hyper_layers = nn.ModuleList(
                HyperModalityLayer(dim, size.hyper.num_heads, size.hyper.head_dim, str(config.residual))
                for _ in range(size.hyper.depth)
            )
            self.fusion = CrossTransformer(dim, size.fusion, **options)
        self.sentiment_head = nn.Linear(dim if config.fusion == "dominant" else 3 * dim, 1)
        # False: to look at what passes between the parts of the published model, row by row.
        self.reads_pairs_once = True
        # What the losses need of the complete input: nothing, its language, or all of it.
        self.complete_modalities: tuple[Modality, ...] = ("text",) if config.correction else ()
        if config.reconstruction and config.reconstruct == "tokens":
            self.complete_modalities = MODALITIES
            self.reconstructors = nn.ModuleDict(
                {m: Transformer(dim, size.reconstructor, **options) for m in MODALITIES}
            )
        elif config.reconstruction:
            self.complete_modalities = ("text",)
            self.reconstructors = nn.ModuleDict(
                {
                    m: FeatureReconstructor(widths[m], dim, size.reconstructor, self.limits[m], **options)
                    for m in MODALITIES
                }
            )

    def forward(self, corrupted: Inputs, complete: Inputs | None = None) -> Output:
        """Predictions for `corrupted`; with `complete`, the same utterances before corruption, what losses need."""
        config = self.config
        corrupted = self._fit(corrupted)
        complete = None if complete is None or not self.complete_modalities else self._fit(complete)
        read, targets = self._read_both(corrupted, complete)
        language, audio, vision = (read[modality].tokens for modality in MODALITIES)
        dominant, proxy, completeness = language, None, None
        if config.correction:
            completeness = self.estimate_completeness(language)
            proxy = self.make_proxy(audio, vision)
            dominant = _mix(proxy, language, completeness)
        output = Output(self.predict(dominant, audio, vision), completeness)
        if complete is None:
            return output
        if proxy is not None:
            seen = torch.cat([self._stand_in(dominant, proxy, language, completeness), targets["text"].tokens], dim=1)
            if config.normalise_discriminated:
                seen = functional.layer_norm(seen, seen.shape[-1:])
            output = replace(output, discriminator_logits=self.discriminator(seen))
        if config.reconstruction and config.reconstruct == "tokens":
            # Eq. 11, on tokens instead of raw features, as published (D17).
            rebuilt = [self.reconstructors[modality](read[modality].tokens) for modality in MODALITIES]
            target = torch.cat([targets[modality].tokens for modality in MODALITIES], dim=1)
            output = replace(output, reconstructed=torch.cat(rebuilt, dim=1), reconstruction_target=target)
        elif config.reconstruction:
            error = self._reconstruction_error(corrupted, complete, read, targets["text"])
            output = replace(output, reconstruction_error=error)
        return output

    def estimate_completeness(self, language: Float[Tensor, "B K D"]) -> Float[Tensor, " B"]:
        """Eq. 5."""
        summary = self.completeness_encoder(language, num_read=1)[:, 0]
        return torch.sigmoid(self.completeness_head(summary)).squeeze(-1)

    def make_proxy(self, audio: Float[Tensor, "B K D"], vision: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        """Eq. 7: what language might have been, from audio and vision."""
        context = torch.cat([self.proxy_tokens.expand(len(audio), -1, -1), audio, vision], dim=1)
        # Published: read at the Transformer's own tokens, so that H_p^0 behind them is mere context (D20).
        start = self.sizes.proxy.num_tokens if self.config.proxy_read == "proxy_tokens" else 0
        proxy: Tensor = self.proxy_encoder(context, num_read=start + self.sizes.num_tokens)[:, start:]
        return reverse_gradient(proxy, self.config.reversal_strength) if self.config.reverse_before_mixing else proxy

    def _stand_in(
        self,
        dominant: Float[Tensor, "B K D"],
        proxy: Float[Tensor, "B K D"],
        language: Float[Tensor, "B K D"],
        completeness: Float[Tensor, " B"] | None,
    ) -> Float[Tensor, "B K D"]:
        """What the discriminator tells from complete language (eq. 9).

        Reversed here, its gradient reaches the proxy generator alone: what else is in the mixture is detached (D15).
        """
        mixed = self.config.discriminate == "mixture"
        if self.config.reverse_before_mixing:
            return dominant if mixed else proxy
        reversed_proxy = reverse_gradient(proxy, self.config.reversal_strength)
        if not mixed:
            return reversed_proxy
        assert completeness is not None, "a proxy comes with a completeness check"
        return _mix(reversed_proxy, language.detach(), completeness.detach())

    def predict(
        self,
        dominant: Float[Tensor, "B K D"],
        audio: Float[Tensor, "B K D"],
        vision: Float[Tensor, "B K D"],
    ) -> Float[Tensor, " B"]:
        """Eq. 2 to 4: sentiment from the dominant feature H_d^1 and what it finds in audio and vision.

        Without them (`fusion: concat`): from the means of the three modalities' tokens, side by side.
        """
        if self.config.fusion == "concat":
            means = [tokens.mean(dim=1) for tokens in (dominant, audio, vision)]
            beside: Tensor = self.sentiment_head(torch.cat(means, dim=-1)).squeeze(-1)
            return beside
        states = self.dominant_encoder.states(dominant)
        hyper = self.hyper_tokens.expand(len(dominant), -1, -1)
        for state, layer in zip(states, self.hyper_layers, strict=False):
            hyper = layer(state, audio, vision, hyper)
        fused = self.fusion(states[-1], hyper)
        sentiment: Tensor = self.sentiment_head(fused[:, 1:].mean(dim=1)).squeeze(-1)
        return sentiment

    def _fit(self, inputs: Inputs) -> Inputs:
        """`inputs` at the lengths they are computed at, without the modalities that are left out; with one of text and
        simulated text for each utterance, where the latter is read."""
        inputs = leave_out(inputs, self.config.modalities)
        if self.config.reads_simulated_text:
            share, unknown_id = self.config.text_missing_share, self.spec.unknown_id
            inputs = one_text(inputs, text_counts_as_missing(inputs, share, unknown_id))
        return fit(inputs, self.limits, trim=self._is_masked)

    def _check_simulated_text(self) -> None:
        """RefusedError where simulated text cannot be the language input of this network."""
        found, wanted = self.spec.simulated_text_dim, self.text_dim
        if found != wanted:
            raise RefusedError(
                f"model.simulated_text stands in for text features of width {wanted}, got "
                f"{f'width {found}' if found else 'none'}; run `lnln simulate CORPUS` for this text encoder"
            )
        if not self.config.mask_padding or self.config.reconstruct == "features":
            wrong = "model.mask_padding=false" if not self.config.mask_padding else "model.reconstruct=features"
            raise RefusedError(f"model.simulated_text goes with neither mode reference nor {wrong}; leave one out")

    @property
    def _is_masked(self) -> bool:
        return bool(self.config.mask_padding)

    def _key_mask(self, seen: Bool[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"] | None:
        """Which steps an embedding attends to: `seen`, and as published the padding behind `mask`."""
        if self._is_masked:
            return seen
        return seen | ~mask if self.config.mask_erased else None

    def _read_both(
        self, corrupted: Inputs, complete: Inputs | None
    ) -> tuple[dict[Modality, Reading], dict[Modality, Reading]]:
        """The corrupted input, and of the complete one what losses need; features with it where they are a target."""
        if complete is None:
            return self._read(corrupted, MODALITIES), {}
        wanted, with_features = self.complete_modalities, self.config.reconstruct == "features"
        if self.config.detach_targets:
            # No backward pass for the targets: a third less to compute. Second, because autocast keeps the weights
            # it has cast, and those cast without gradients would be of no use to the first.
            read = self._read(corrupted, MODALITIES, with_features)
            with torch.no_grad():
                return read, self._read(complete, wanted, with_features)
        both, num = concatenate(corrupted, complete), len(corrupted.text)
        pairs = {modality: self._read_pairs(both, modality, with_features) for modality in wanted}
        first = {modality: _rows(reading, slice(None, num)) for modality, reading in pairs.items()}
        rest: tuple[Modality, ...] = tuple(modality for modality in MODALITIES if modality not in wanted)
        return (
            first | self._read(corrupted, rest, with_features),
            {modality: _rows(reading, slice(num, None)) for modality, reading in pairs.items()},
        )

    def _read(
        self, inputs: Inputs, modalities: tuple[Modality, ...], with_features: bool = False
    ) -> dict[Modality, Reading]:
        """Eq. 1 for each of `modalities`."""
        readings: dict[Modality, Reading] = {}
        for modality in modalities:
            x, mask = steps(inputs, modality)
            if modality == "text" and self.config.reads_simulated_text:
                readings[modality] = Reading(self._read_one_text(inputs), None)
                continue
            if not with_features and self._leaves_out_erased(modality, x):
                readings[modality] = Reading(self._read_what_is_seen(modality, x, mask), None)
                continue

            def read(mask: Tensor, x: Tensor, modality: Modality = modality, length: int = x.shape[1]) -> Any:
                seen = self.attended(x, mask)
                features = self.read_text(x, seen) if modality == "text" else self.standardize(x, modality)
                tokens = self.embeddings[modality](features, self._key_mask(seen, mask))
                return (tokens, resize(features, length)) if with_features else (tokens,)

            found = self._by_length(read, mask, x)
            readings[modality] = Reading(found[0], found[1] if with_features else None)
        return readings

    def _read_pairs(self, both: Inputs, modality: Modality, with_features: bool) -> Reading:
        """Eq. 1 for utterances and, behind them, the same ones before corruption: once where nothing was erased."""
        # Dropout would make two of one, and equal texts may have unequal simulated ones.
        is_simulated = modality == "text" and self.config.reads_simulated_text
        if not self.reads_pairs_once or self._drops_out(modality) or is_simulated or not can_ask(both.text):
            return self._read(both, (modality,), with_features)[modality]
        x, _ = steps(both, modality)
        corrupted, complete = x.chunk(2)
        differs = (corrupted != complete).flatten(1).any(dim=1)
        num, num_differing = len(differs), int(differs.sum())
        computed = torch.cat([differs.nonzero()[:, 0], torch.arange(num, 2 * num)])
        place = torch.where(differs, differs.cumsum(0) - 1, torch.arange(num) + num_differing)
        reading = self._read(take(both, computed), (modality,), with_features)[modality]
        return _rows(reading, torch.cat([place, torch.arange(num) + num_differing]))

    def _drops_out(self, modality: Modality) -> bool:
        """Whether reading a modality twice gives two results."""
        if not self.training:
            return False
        return self.config.dropout > 0 or (modality == "text" and self.text_drops_out)

    def _read_one_text(self, inputs: Inputs) -> Float[Tensor, "B K D"]:
        """Eq. 1 of the text, or of the simulated text where that has no real step; both are computed only where nobody
        may ask which."""
        x, mask = steps(inputs, "text")
        simulated, simulated_mask = inputs.simulated_text, inputs.simulated_text_mask
        assert simulated is not None and simulated_mask is not None, "as `one_text` gives it"
        length = self.limits["simulated_text"]
        simulated, simulated_mask = simulated[:, :length], simulated_mask[:, :length]
        is_missing = ~mask.any(dim=1)
        if not can_ask(x):
            tokens = self._read_own_text(x, mask)
            return torch.where(is_missing[:, None, None], self._read_simulated(simulated, simulated_mask), tokens)
        own, missing = (~is_missing).nonzero()[:, 0], is_missing.nonzero()[:, 0]
        if not len(missing):
            return self._read_own_text(x, mask)
        read = self._read_simulated(simulated[missing], simulated_mask[missing])
        if not len(own):
            return read
        tokens = torch.cat([self._read_own_text(x[own], mask[own]), read])
        return tokens[torch.cat([own, missing]).argsort()]

    def _read_own_text(self, x: Tensor, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B K D"]:
        if self._leaves_out_erased("text", x):
            return self._read_what_is_seen("text", x, mask)

        def read(mask: Tensor, x: Tensor) -> tuple[Tensor]:
            seen = self.attended(x, mask)
            return (self.embeddings["text"](self.read_text(x, seen), self._key_mask(seen, mask)),)

        return self._by_length(read, mask, x)[0]

    def _read_simulated(self, x: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B K D"]:
        """What is judged by erased audio is erased itself, and not seen."""

        def read(seen: Tensor, x: Tensor, places: Tensor) -> tuple[Tensor]:
            features = x if self.text_encoder is not None else self.standardize(x, "text")
            return (self.embeddings["text"](features, seen, places),)

        return self._by_length(read, *seen_first(self.attended(x, mask), x))[0]

    def _read_what_is_seen(self, modality: Modality, x: Tensor, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B K D"]:
        """Eq. 1 without what attention does not see, and of equal texts once."""
        read = partial(by_length, partial(self._read_seen, modality))
        sequences = seen_first(self.attended(x, mask), x)
        is_repeated = x.dim() == 2 and not self._drops_out(modality)
        tokens: Tensor = (by_distinct(read, *sequences) if is_repeated else read(*sequences))[0]
        return tokens

    def _read_seen(
        self, modality: Modality, seen: Bool[Tensor, "B T"], x: Tensor, places: Int64[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B K D"]]:
        """Eq. 1 of the steps that attention sees alone: nobody reads what the others would become."""
        features = self.read_text(x, seen, places) if modality == "text" else self.standardize(x, modality)
        return (self.embeddings[modality](features, seen, places),)

    def _leaves_out_erased(self, modality: Modality, x: Tensor) -> bool:
        is_unseen = self._is_masked and bool(self.config.mask_erased)
        return is_unseen and can_ask(x) and x.shape[1] > 0 and self.can_leave_out(modality)

    def _reconstruction_error(
        self, corrupted: Inputs, complete: Inputs, read: dict[Modality, Reading], language: Reading
    ) -> Float[Tensor, " B"]:
        """Eq. 11 and 12: squared error of the rebuilt features at erased steps, the mean over steps, columns and the
        three modalities; 0 for a modality of which nothing is erased. No gradient into what is rebuilt.

        language: of the complete input. An erased step is one at which the two inputs differ.
        """
        errors: list[Tensor] = []
        for modality in MODALITIES:
            x, mask = steps(corrupted, modality)
            whole, _ = steps(complete, modality)
            differs = x != whole
            erased = mask & (differs if differs.dim() == 2 else differs.any(dim=-1))
            features, target = read[modality].features, language.features
            assert features is not None and target is not None, "read with features"
            target = target.detach() if modality == "text" else self.standardize(whole, modality)
            rebuild = partial(self._squared_error, modality)
            errors += self._by_length(rebuild, mask, erased, features, target)
        return torch.stack(errors).mean(dim=0)

    def _squared_error(
        self,
        modality: Modality,
        mask: Bool[Tensor, "B T"],
        erased: Bool[Tensor, "B T"],
        features: Float[Tensor, "B T F"],
        target: Float[Tensor, "B T F"],
    ) -> tuple[Float[Tensor, " B"]]:
        projected = self.embeddings[modality].get_submodule("project")(features)
        rebuilt = self.reconstructors[modality](projected, mask if self._is_masked else None)
        squared = ((rebuilt.float() - target.float()) ** 2).mean(dim=-1)
        return (torch.where(erased, squared, 0.0).sum(dim=1) / erased.sum(dim=1).clamp(min=1),)

    def _by_length(self, read: Any, mask: Tensor, *sequences: Tensor) -> tuple[Tensor, ...]:
        """`read(mask, *sequences)`, without padding where that is left out anyway."""
        found: tuple[Tensor, ...] = by_length(read, mask, *sequences) if self._is_masked else read(mask, *sequences)
        return found


def _mix(
    proxy: Float[Tensor, "B K D"], language: Float[Tensor, "B K D"], completeness: Float[Tensor, " B"]
) -> Float[Tensor, "B K D"]:
    """Eq. 8."""
    return (1 - completeness[:, None, None]) * proxy + completeness[:, None, None] * language


def _rows(reading: Reading, rows: slice | Tensor) -> Reading:
    return Reading(reading.tokens[rows], None if reading.features is None else reading.features[rows])


def _head(dim: int, hidden: int, num_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, num_out))
