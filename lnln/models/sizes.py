"""How large each block of LNLN is: from the config, or as a published checkpoint has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lnln.config import ModelConfig, from_dict
from lnln.data.schema import FeatureSpec
from lnln.models.layers import BlockSizes


@dataclass(frozen=True)
class HyperSizes:
    """Shape of the hyper-modality layers: one for each dominant feature H_d^1 .. H_d^n."""

    depth: int
    num_heads: int
    head_dim: int


@dataclass(frozen=True)
class Sizes:
    """Every size of the network. `num_tokens` are read from each embedding, whatever tokens that has of its own."""

    dim: int
    num_tokens: int
    text: BlockSizes
    audio: BlockSizes
    vision: BlockSizes
    completeness: BlockSizes
    completeness_hidden: int
    proxy: BlockSizes
    discriminator_hidden: int
    dominant: BlockSizes
    hyper: HyperSizes
    fusion: BlockSizes
    reconstructor: BlockSizes

    @classmethod
    def from_config(cls, config: ModelConfig, spec: FeatureSpec, longest_text: int | None) -> Sizes:
        """As the paper has it: one width and one number of heads for all (Table 1, section 3).

        longest_text: what the text encoder can take, None for any length. The embedding of text takes simulated text
        too, where that is read.
        """
        dim, num_tokens = config.hidden_dim, config.num_tokens
        text_length = max_text_length(config, spec, longest_text)
        if config.reads_simulated_text:
            text_length = max(text_length, spec.simulated_text_length)

        def block(depth: int, own_tokens: int, max_length: int) -> BlockSizes:
            return BlockSizes(depth, config.num_heads, config.head_dim, dim, own_tokens, max_length)

        return cls(
            dim=dim,
            num_tokens=num_tokens,
            text=block(config.embedding_depth, num_tokens, text_length),
            audio=block(config.embedding_depth, num_tokens, config.max_audio_length or spec.audio_length),
            vision=block(config.embedding_depth, num_tokens, config.max_vision_length or spec.vision_length),
            completeness=block(config.completeness_depth, 1, num_tokens),
            completeness_hidden=max(1, dim // 2),
            proxy=block(config.proxy_depth, num_tokens, 3 * num_tokens),
            discriminator_hidden=max(1, dim // 2),
            dominant=block(config.dominant_depth, 0, num_tokens),
            hyper=HyperSizes(config.dominant_depth + 1, config.num_heads, dim // config.num_heads),
            fusion=block(config.fusion_depth, 1, num_tokens),
            reconstructor=block(config.reconstructor_depth, 0, num_tokens),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sizes:
        return from_dict(cls, values, where="sizes.")


def max_text_length(config: ModelConfig, spec: FeatureSpec, longest_text: int | None) -> int:
    """Steps that text is cut at: one or more, since the text encoder needs one, and no more than it takes."""
    length = config.max_text_length or spec.text_length
    return max(1, length if longest_text is None else min(length, longest_text))
