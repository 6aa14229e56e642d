"""Weights under the names of the published implementation, so that its checkpoints load here.

    state = torch.load("mosi.pth", weights_only=True)["state_dict"]
    model = from_published(state)                            # LNLN in `reference` mode

Names may begin with `module.`, as torch.nn.DataParallel writes them.

The sizes come from the shapes of the weights. Numbers of heads are not in them: `args` has them (the published YAML
as a dict), and without it they are the published ones, 64 numbers a head (16 in the hyper-modality layers).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lnln.config import ModelConfig, to_dict
from lnln.data.schema import FeatureSpec
from lnln.errors import RefusedError
from lnln.models.layers import BlockSizes
from lnln.models.lnln import LNLN
from lnln.models.sizes import HyperSizes, Sizes

# What torch.nn.DataParallel puts before every name.
WRAPPER = "module."

# Published name to ours, as regular expressions, the first match of each part.
_MODULES = {
    r"bertmodel\.model\.": "text_encoder.model.",
    r"proj_l\.0\.": "embeddings.text.project.",
    r"proj_a\.0\.": "embeddings.audio.project.",
    r"proj_v\.0\.": "embeddings.vision.project.",
    r"proj_l\.1\.": "embeddings.text.transformer.",
    r"proj_a\.1\.": "embeddings.audio.transformer.",
    r"proj_v\.1\.": "embeddings.vision.transformer.",
    r"completeness_check\.0\.": "completeness_encoder.",
    r"completeness_check\.1\.": "completeness_head.",
    r"proxy_dominate_modality_generator\.": "proxy_encoder.",
    r"effective_discriminator\.": "discriminator.",
    r"reconstructor\.0\.": "reconstructors.audio.",
    r"reconstructor\.1\.": "reconstructors.vision.",
    r"reconstructor\.2\.": "reconstructors.text.",
    r"dmml\.0\.": "dominant_encoder.",
    r"dmml\.1\.layers\.(\d+)\.0\.": r"hyper_layers.\1.",
    r"dmml\.2\.": "fusion.",
    r"dmml\.3\.": "sentiment_head.",
    r"h_p$": "proxy_tokens",
    r"h_hyper$": "hyper_tokens",
}
_PARTS = {
    r"^fusion\.extra_token$": "fusion.token",
    r"^fusion\.pos_embedding_s$": "fusion.context_positions",
    r"^fusion\.pos_embedding_t$": "fusion.positions",
    r"\.extra_token$": ".tokens",
    r"\.pos_embedding$": ".positions",
    r"\.(?:encoder|CrossTransformerEncoder)\.layers\.": ".layers.",
    r"(\.layers\.\d+)\.0\.(?:fn\.)?": r"\1.attention.",
    r"(\.layers\.\d+)\.1\.norm\.": r"\1.feed_forward.0.",
    r"(\.layers\.\d+)\.1\.fn\.net\.0\.": r"\1.feed_forward.1.",
    r"(\.layers\.\d+)\.1\.fn\.net\.3\.": r"\1.feed_forward.3.",
    r"^(hyper_layers\.\d+)\.fn\.": r"\1.",
    r"\.norm1\.": ".norm_dominant.",
    r"\.norm2\.": ".norm_audio.",
    r"\.norm3\.": ".norm_vision.",
    r"\.norm4\.": ".norm_hyper.",
    r"\.norm_q\.": ".norm_query.",
    r"\.norm_k\.": ".norm_key.",
    r"\.norm_v\.": ".norm_value.",
    r"\.to_q\.": ".query.",
    r"\.to_k\.": ".key.",
    r"\.to_v\.": ".value.",
    r"\.to_k_ta\.": ".key_audio.",
    r"\.to_k_tv\.": ".key_vision.",
    r"\.to_v_ta\.": ".value_audio.",
    r"\.to_v_tv\.": ".value_vision.",
    r"\.to_out\.0\.": ".out.",
}

# Where each block lies in the weights, and where its number of heads in the published configuration.
_BLOCKS = {
    "text": ("proj_l.1", ("feature_extractor",)),
    "audio": ("proj_a.1", ("feature_extractor",)),
    "vision": ("proj_v.1", ("feature_extractor",)),
    "completeness": ("completeness_check.0", ("dmc", "completeness_check")),
    "proxy": ("proxy_dominate_modality_generator", ("dmc", "proxy_dominant_feature_generator")),
    "dominant": ("dmml.0", ("dmml", "language_encoder")),
    "reconstructor": ("reconstructor.0", ("reconstructor",)),
}
_HEAD_DIM, _HYPER_HEAD_DIM, _BERT_HEAD_DIM = 64, 16, 64


def our_name(published: str) -> str | None:
    """Our name of a published weight; None for those of BERT that nothing reads (its pooler, stored position ids).

    Raises RefusedError for any other name.
    """
    published = published.removeprefix(WRAPPER)
    if re.match(r"bertmodel\.model\.(pooler\.|embeddings\.(position_ids|token_type_ids)$)", published):
        return None
    for pattern, module in _MODULES.items():
        name, found = re.subn(f"^{pattern}", module, published)
        if not found:
            continue
        if not name.startswith("text_encoder."):
            for part, ours in _PARTS.items():
                name = re.sub(part, ours, name)
        return name
    raise RefusedError(f"{published!r} is no weight of a published LNLN checkpoint")


def published_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` under our names, without the weights that nothing reads."""
    named = {our_name(name): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in named.items() if name is not None}


def from_published(
    state: Mapping[str, Tensor],
    args: Mapping[str, Any] | None = None,
    *,
    label_range: tuple[float, float] = (-3.0, 3.0),
    unknown_id: int = 100,
) -> LNLN:
    """The model that a published state dict belongs to, in `reference` mode and eval mode.

    args: the published configuration; its `model` section gives the numbers of heads.
    Raises RefusedError when weights are missing or do not fit together.
    """
    state = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    try:
        sizes = _sizes(state, args)
        spec = FeatureSpec(
            audio_dim=state["proj_a.0.weight"].shape[1],
            vision_dim=state["proj_v.0.weight"].shape[1],
            text_length=sizes.text.max_length,
            audio_length=sizes.audio.max_length,
            vision_length=sizes.vision.max_length,
            vocabulary_size=state["bertmodel.model.embeddings.word_embeddings.weight"].shape[0],
            unknown_id=unknown_id,
            label_range=label_range,
        )
        config = ModelConfig(
            mode="reference",
            text_encoder="published",
            hidden_dim=sizes.dim,
            num_tokens=sizes.num_tokens,
            num_heads=math.gcd(sizes.dim, sizes.dominant.num_heads),
            head_dim=sizes.dominant.head_dim,
            embedding_depth=sizes.text.depth,
            completeness_depth=sizes.completeness.depth,
            proxy_depth=sizes.proxy.depth,
            reconstructor_depth=sizes.reconstructor.depth,
            dominant_depth=sizes.dominant.depth,
            fusion_depth=sizes.fusion.depth,
        )
        model = LNLN(model=to_dict(config), spec=to_dict(spec), encoder=_encoder(state, args), sizes=to_dict(sizes))
        missing, unknown = model.load_state_dict(published_state_dict(state), strict=False)
    except KeyError as error:
        raise RefusedError(f"a published LNLN checkpoint has a weight called {error}, this one has not") from error
    except RuntimeError as error:
        raise RefusedError(f"these weights are no published LNLN checkpoint: {' '.join(str(error).split())}") from error
    missing = [name for name in missing if name not in dict(model.named_buffers())]  # statistics, unused here
    if missing or unknown:
        raise RefusedError(f"these weights are no published LNLN checkpoint: missing {missing}, unknown {unknown}")
    return model.eval()


def _sizes(state: Mapping[str, Tensor], args: Mapping[str, Any] | None) -> Sizes:
    blocks = {
        name: _block(state, f"{place}.encoder.layers", f"{place}.pos_embedding", f"{place}.extra_token", args, section)
        for name, (place, section) in _BLOCKS.items()
    }
    place = "dmml.2"
    fusion = _block(
        state,
        f"{place}.CrossTransformerEncoder.layers",
        f"{place}.pos_embedding_t",
        f"{place}.extra_token",
        args,
        ("dmml", "fuison_transformer"),  # spelt so in the published configuration
    )
    inner = state["dmml.1.layers.0.0.fn.to_q.weight"].shape[0]
    hyper_heads = _heads(args, ("dmml", "hyper_modality_learning"), inner) or max(1, inner // _HYPER_HEAD_DIM)
    return Sizes(
        dim=state["h_hyper"].shape[2],
        num_tokens=state["h_hyper"].shape[1],
        completeness_hidden=state["completeness_check.1.0.weight"].shape[0],
        discriminator_hidden=state["effective_discriminator.0.weight"].shape[0],
        hyper=HyperSizes(_depth(state, "dmml.1.layers"), hyper_heads, inner // hyper_heads),
        fusion=fusion,
        **blocks,
    )


def _block(
    state: Mapping[str, Tensor],
    layers: str,
    positions: str,
    token: str,
    args: Mapping[str, Any] | None,
    section: tuple[str, ...],
) -> BlockSizes:
    inner = state[f"{layers}.0.0.fn.to_q.weight"].shape[0]
    num_heads = _heads(args, section, inner) or max(1, inner // _HEAD_DIM)
    num_tokens = state[token].shape[1] if token in state else 0
    return BlockSizes(
        depth=_depth(state, layers),
        num_heads=num_heads,
        head_dim=inner // num_heads,
        feed_forward_dim=state[f"{layers}.0.1.fn.net.0.weight"].shape[0],
        num_tokens=num_tokens,
        max_length=state[positions].shape[1] - num_tokens,
    )


def _depth(state: Mapping[str, Tensor], layers: str) -> int:
    numbers = [re.match(rf"{re.escape(layers)}\.(\d+)\.", name) for name in state]
    return 1 + max((int(number[1]) for number in numbers if number), default=-1)


def _heads(args: Mapping[str, Any] | None, section: tuple[str, ...], inner: int) -> int | None:
    """The number of heads that `args` states, None where it does not; RefusedError where `inner` is no multiple."""
    values: Any = (args or {}).get("model", {})
    for key in section:
        values = values.get(key, {})
    heads = values.get("heads")
    if heads is None:
        return None
    if not isinstance(heads, int) or heads < 1 or inner % heads:
        raise RefusedError(
            f"args.model.{'.'.join(section)}.heads must be a whole number that divides the {inner} columns of the "
            f"queries, got {heads!r}"
        )
    return heads


def _encoder(state: Mapping[str, Tensor], args: Mapping[str, Any] | None) -> dict[str, Any]:
    """The BERT that the weights are of. `args` may say "4 heads" and "dropout 0" where it names it."""
    place = "bertmodel.model"
    vocabulary, dim = state[f"{place}.embeddings.word_embeddings.weight"].shape
    name = str((args or {}).get("model", {}).get("feature_extractor", {}).get("bert_pretrained", ""))
    heads = re.search(r"(\d+)\s*heads", name)
    if heads is None and dim % _BERT_HEAD_DIM:
        raise RefusedError(
            f"a text encoder of width {dim} says nothing of its number of heads; state it in args.model."
            "feature_extractor.bert_pretrained, as in '4 heads'"
        )
    dropout = re.search(r"dropout\s*([\d.]+)", name)
    probability = float(dropout[1]) if dropout else 0.1
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": dim,
        "num_hidden_layers": _depth(state, f"{place}.encoder.layer"),
        "num_attention_heads": int(heads[1]) if heads else dim // _BERT_HEAD_DIM,
        "intermediate_size": state[f"{place}.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state[f"{place}.embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state[f"{place}.embeddings.token_type_embeddings.weight"].shape[0],
        "hidden_dropout_prob": probability,
        "attention_probs_dropout_prob": probability,
    }
