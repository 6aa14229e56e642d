"""The published LNLN once more, in plain tensor operations on the published weight names: two passes, all queries,
every padded step, attention as an einsum with a written-out softmax.

It shares no line with `lnln.models`, and sizes are what the weights have: what `make bench` measures training against,
and, in `tests/lnln/models/oracle_cases.py`, what cases of any size come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a case; heads and depths block by block."""

    dim: int = 12
    hidden: int = 10  # of feed-forward networks
    tokens: int = 5
    kept: int = 5
    lengths: tuple[int, int, int] = (9, 11, 7)  # text, vision, audio
    feature_dims: tuple[int, int] = (4, 3)  # vision, audio
    head_dim: int = 64
    heads: dict[str, int] = field(
        default_factory=lambda: {"embed": 2, "cc": 1, "proxy": 3, "rec": 2, "dominant": 1, "hyper": 3, "fusion": 2}
    )
    depths: dict[str, int] = field(
        default_factory=lambda: {"embed": 1, "cc": 3, "proxy": 2, "rec": 1, "dominant": 2, "fusion": 4}
    )
    num_hyper: int | None = None  # hyper-modality layers; default: one more than the dominant encoder has layers
    bert_heads: int = 2
    bert_dim: int = 8
    bert_hidden: int = 6
    bert_layers: int = 3
    vocabulary: int = 130
    max_positions: int = 16


def make_weights(shape: Shape, seed: int = 0) -> Weights:
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def add(name: str, *size: int, scale: float = 0.3) -> None:
        offset = 1.0 if name.endswith(("norm.weight", "LayerNorm.weight")) or ".norm" in name else 0.0
        weights[name] = offset + scale * torch.randn(*size, generator=generator)

    def linear(name: str, out: int, inner: int, bias: bool = True) -> None:
        add(f"{name}.weight", out, inner, scale=0.6 * inner**-0.5)
        if bias:
            add(f"{name}.bias", out)

    def norm(name: str, dim: int) -> None:
        add(f"{name}.weight", dim)
        add(f"{name}.bias", dim)

    def layers(place: str, depth: int, heads: int) -> None:
        inner = heads * shape.head_dim
        for i in range(depth):
            for part in "qkv":
                norm(f"{place}.layers.{i}.0.norm_{part}", shape.dim)
                linear(f"{place}.layers.{i}.0.fn.to_{part}", inner, shape.dim, bias=False)
            linear(f"{place}.layers.{i}.0.fn.to_out.0", shape.dim, inner)
            norm(f"{place}.layers.{i}.1.norm", shape.dim)
            linear(f"{place}.layers.{i}.1.fn.net.0", shape.hidden, shape.dim)
            linear(f"{place}.layers.{i}.1.fn.net.3", shape.dim, shape.hidden)

    def transformer(place: str, block: str, tokens: int, length: int) -> None:
        if tokens:
            add(f"{place}.extra_token", 1, tokens, shape.dim)
        add(f"{place}.pos_embedding", 1, tokens + length, shape.dim)
        layers(f"{place}.encoder", shape.depths[block], shape.heads[block])

    bert, width = "bertmodel.model", shape.bert_dim
    add(f"{bert}.embeddings.word_embeddings.weight", shape.vocabulary, width)
    add(f"{bert}.embeddings.position_embeddings.weight", shape.max_positions, width)
    add(f"{bert}.embeddings.token_type_embeddings.weight", 2, width)
    norm(f"{bert}.embeddings.LayerNorm", width)
    for i in range(shape.bert_layers):
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            linear(f"{bert}.encoder.layer.{i}.{part}", width, width)
        norm(f"{bert}.encoder.layer.{i}.attention.output.LayerNorm", width)
        linear(f"{bert}.encoder.layer.{i}.intermediate.dense", shape.bert_hidden, width)
        linear(f"{bert}.encoder.layer.{i}.output.dense", width, shape.bert_hidden)
        norm(f"{bert}.encoder.layer.{i}.output.LayerNorm", width)
    linear(f"{bert}.pooler.dense", width, width)

    text_length, vision_length, audio_length = shape.lengths
    vision_dim, audio_dim = shape.feature_dims
    inputs = (("l", width, text_length), ("v", vision_dim, vision_length), ("a", audio_dim, audio_length))
    for letter, feature_dim, length in inputs:
        linear(f"proj_{letter}.0", shape.dim, feature_dim)
        transformer(f"proj_{letter}.1", "embed", shape.tokens, length)
    add("h_p", 1, shape.kept, shape.dim)
    add("h_hyper", 1, shape.kept, shape.dim)
    transformer("proxy_dominate_modality_generator", "proxy", shape.tokens, 3 * shape.kept)
    transformer("completeness_check.0", "cc", 1, shape.kept)
    linear("completeness_check.1.0", 7, shape.dim)
    linear("completeness_check.1.2", 1, 7)
    linear("effective_discriminator.0", 9, shape.dim)
    linear("effective_discriminator.2", 2, 9)
    for i in range(3):
        transformer(f"reconstructor.{i}", "rec", 0, shape.kept)
    transformer("dmml.0", "dominant", 0, shape.kept)
    for i in range(shape.num_hyper or shape.depths["dominant"] + 1):
        place = f"dmml.1.layers.{i}.0"
        for number in (1, 2, 3, 4):
            norm(f"{place}.norm{number}", shape.dim)
        inner = shape.heads["hyper"] * (shape.dim // shape.heads["hyper"])
        for name in ("to_q", "to_k_ta", "to_k_tv", "to_v_ta", "to_v_tv"):
            linear(f"{place}.fn.{name}", inner, shape.dim, bias=False)
        linear(f"{place}.fn.to_out.0", shape.dim, inner)
    add("dmml.2.extra_token", 1, 1, shape.dim)
    add("dmml.2.pos_embedding_s", 1, shape.kept + 1, shape.dim)
    add("dmml.2.pos_embedding_t", 1, shape.kept + 1, shape.dim)
    layers("dmml.2.CrossTransformerEncoder", shape.depths["fusion"], shape.heads["fusion"])
    linear("dmml.3", 1, shape.dim)
    return weights


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", x.new_zeros(()))


def _norm(w: Weights, name: str, x: Tensor, epsilon: float = 1e-5) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + epsilon).sqrt()
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in (q, k, v))
    scores = torch.einsum("bshd,bchd->bhsc", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None].bool(), -1e30)
    return torch.einsum("bhsc,bchd->bshd", scores.softmax(-1), v).flatten(2)


def _layers(w: Weights, place: str, depth: int, heads: int, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
    states = [x]
    for i in range(depth):
        at, source = f"{place}.layers.{i}", x if context is None else context
        q, k, v = (
            _linear(w, f"{at}.0.fn.to_{part}", _norm(w, f"{at}.0.norm_{part}", y))
            for part, y in (("q", x), ("k", source), ("v", source))
        )
        x = x + _linear(w, f"{at}.0.fn.to_out.0", _attend(q, k, v, heads))
        hidden = functional.gelu(_linear(w, f"{at}.1.fn.net.0", _norm(w, f"{at}.1.norm", x)))
        x = x + _linear(w, f"{at}.1.fn.net.3", hidden)
        states.append(x)
    return states


def _transformer(w: Weights, shape: Shape, place: str, block: str, x: Tensor) -> list[Tensor]:
    if f"{place}.extra_token" in w:
        x = torch.cat([w[f"{place}.extra_token"].expand(len(x), -1, -1), x], 1)
    x = x + w[f"{place}.pos_embedding"][:, : x.shape[1]]
    return _layers(w, f"{place}.encoder", shape.depths[block], shape.heads[block], x)


def _bert(w: Weights, shape: Shape, text: Tensor) -> Tensor:
    ids, mask, segments = text.long().unbind(1)
    at = "bertmodel.model"
    # BERT's padding id learns nothing.
    x = functional.embedding(ids, w[f"{at}.embeddings.word_embeddings.weight"], padding_idx=0)
    x = x + w[f"{at}.embeddings.token_type_embeddings.weight"][segments]
    x = x + w[f"{at}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = _norm(w, f"{at}.embeddings.LayerNorm", x, 1e-12)
    for i in range(shape.bert_layers):
        layer = f"{at}.encoder.layer.{i}"
        q, k, v = (_linear(w, f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value"))
        attended = _linear(w, f"{layer}.attention.output.dense", _attend(q, k, v, shape.bert_heads, mask))
        x = _norm(w, f"{layer}.attention.output.LayerNorm", x + attended, 1e-12)
        hidden = functional.gelu(_linear(w, f"{layer}.intermediate.dense", x))
        x = _norm(w, f"{layer}.output.LayerNorm", x + _linear(w, f"{layer}.output.dense", hidden), 1e-12)
    return x


def _head(w: Weights, place: str, x: Tensor) -> Tensor:
    return _linear(w, f"{place}.2", functional.leaky_relu(_linear(w, f"{place}.0", x), 0.1))


def _reversed(x: Tensor) -> Tensor:
    return 2 * x.detach() - x  # the value of x, minus its gradient


def run(w: Weights, shape: Shape, inputs: Weights, is_training: bool) -> tuple[Weights, Weights]:
    """Outputs and intermediates of the published forward pass."""
    mid: Weights = {}
    kept: dict[str, Tensor] = {}
    for suffix, mark in (("_m", ""), ("", "@1")) if is_training else (("_m", ""),):
        mid[f"bert_out{mark}"] = _bert(w, shape, inputs[f"text{suffix}"])
        sources = {"l": mid[f"bert_out{mark}"], "v": inputs[f"vision{suffix}"], "a": inputs[f"audio{suffix}"]}
        for letter, x in sources.items():
            full = _transformer(w, shape, f"proj_{letter}.1", "embed", _linear(w, f"proj_{letter}.0", x))[-1]
            mid[f"proj_{letter}_full{mark}"] = full
            kept[f"{letter}{mark}"] = full[:, : shape.kept]
    for letter in "lva":
        mid[f"h_1_{letter}"] = kept[letter]
    mid["cc_full"] = _transformer(w, shape, "completeness_check.0", "cc", kept["l"])[-1]
    mid["w"] = torch.sigmoid(_head(w, "completeness_check.1", mid["cc_full"][:, 0]))
    context = torch.cat([w["h_p"].expand(len(mid["w"]), -1, -1), kept["a"], kept["v"]], 1)
    mid["proxy_full"] = _transformer(w, shape, "proxy_dominate_modality_generator", "proxy", context)[-1]
    mid["h_1_p"] = _reversed(mid["proxy_full"][:, : shape.kept])
    weight = mid["w"][:, :, None]
    mid["h_1_d"] = (1 - weight) * mid["h_1_p"] + weight * kept["l"]
    states = _transformer(w, shape, "dmml.0", "dominant", mid["h_1_d"])
    hyper = w["h_hyper"].expand(len(weight), -1, -1)
    for i, state in enumerate(states):
        mid[f"h_d_list.{i}"] = state
    for i, state in enumerate(states[: shape.num_hyper]):
        at = f"dmml.1.layers.{i}.0"
        query = _linear(w, f"{at}.fn.to_q", _norm(w, f"{at}.norm1", state))
        answers = []
        for letter, number in (("a", 2), ("v", 3)):
            source = _norm(w, f"{at}.norm{number}", kept[letter])
            key, value = (_linear(w, f"{at}.fn.to_{part}_t{letter}", source) for part in "kv")
            answers.append(_attend(query, key, value, shape.heads["hyper"]))
        hyper = _norm(w, f"{at}.norm4", hyper) + _linear(w, f"{at}.fn.to_out.0", answers[0] + answers[1])
        mid[f"hyper.{i}"], mid["h_hyper_out"] = hyper, hyper
    token = w["dmml.2.extra_token"].expand(len(weight), -1, -1)
    target = torch.cat([token, states[-1]], 1) + w["dmml.2.pos_embedding_t"]
    source = torch.cat([token, hyper], 1) + w["dmml.2.pos_embedding_s"]
    place = "dmml.2.CrossTransformerEncoder"
    mid["feat"] = _layers(w, place, shape.depths["fusion"], shape.heads["fusion"], target, source)[-1]
    out = {"sentiment_preds": _linear(w, "dmml.3", mid["feat"][:, 1:].mean(1)), "w": mid["w"]}
    if is_training:
        pair = torch.cat([mid["h_1_d"], kept["l@1"]])
        out["effectiveness_discriminator_out"] = _head(w, "effective_discriminator", pair).flatten(0, 1)
        for i, letter in enumerate("avl"):
            mid[f"rec_{letter}"] = _transformer(w, shape, f"reconstructor.{i}", "rec", kept[letter])[-1]
        out["rec_feats"] = torch.cat([mid[f"rec_{letter}"] for letter in "avl"], 1)
        out["complete_feats"] = torch.cat([kept[f"{letter}@1"] for letter in "avl"], 1)
    return out, mid


def losses(out: Weights, inputs: Weights, base: dict[str, Any]) -> Weights:
    logits = out["effectiveness_discriminator_out"]
    classes = torch.arange(len(logits), device=logits.device) < len(logits) // 2
    terms = {
        "l_sp": (out["sentiment_preds"] - inputs["label"]).square().mean(),
        "l_cc": (out["w"] - (1 - inputs["missing_rate_l"])).square().mean(),
        "l_adv": functional.cross_entropy(logits, classes.long()),
        "l_rec": (out["rec_feats"] - out["complete_feats"]).square().mean(),
    }
    weights = {"l_cc": base["alpha"], "l_adv": base["beta"], "l_rec": base["gamma"], "l_sp": base["sigma"]}
    return {"loss": torch.stack([weights[name] * term for name, term in terms.items()]).sum()} | terms


def make_inputs(
    shape: Shape, num_utterances: int, seed: int = 0, lengths: tuple[int, int, int] | None = None
) -> Weights:
    """A batch as the published data set gives it: texts of two segments, zeros after the end of audio and vision.

    lengths: of text, vision, audio, where they are shorter than the positions.
    """
    generator = torch.Generator().manual_seed(seed)
    text_length, vision_length, audio_length = lengths or shape.lengths
    ids = torch.randint(103, shape.vocabulary, (num_utterances, text_length), generator=generator)
    text_lengths = torch.randint(3, text_length + 1, (num_utterances, 1), generator=generator)
    mask = (torch.arange(text_length) < text_lengths).long()
    segments = (torch.arange(text_length) >= 2).long() * mask
    keep = torch.rand(ids.shape, generator=generator) > 0.5
    inputs = {
        "text": torch.stack([ids * mask, mask, segments], 1).float(),
        "text_m": torch.stack([torch.where(keep, ids, 100) * mask, mask, segments], 1).float(),
        "label": torch.randn(num_utterances, 1, generator=generator),
    }
    for name, length, dim in (
        ("vision", vision_length, shape.feature_dims[0]),
        ("audio", audio_length, shape.feature_dims[1]),
    ):
        frames = torch.randn(num_utterances, length, dim, generator=generator)
        frames[:, length // 2 :] = 0
        inputs[name] = frames
        inputs[f"{name}_m"] = frames * (torch.rand(num_utterances, length, 1, generator=generator) > 0.5)
    for letter in "lav":
        inputs[f"missing_rate_{letter}"] = torch.rand(num_utterances, 1, generator=generator)
    return inputs


def make_args(shape: Shape) -> dict[str, Any]:
    """The published configuration of a model of this shape, as its YAML has it."""

    def section(block: str) -> dict[str, Any]:
        return {"heads": shape.heads[block]}

    return {
        "base": {"lr": 1e-4, "weight_decay": 1e-4, "alpha": 0.9, "beta": 0.6, "gamma": 0.3, "sigma": 1.1},
        "model": {
            "feature_extractor": {"bert_pretrained": f"{shape.bert_heads} heads, dropout 0", **section("embed")},
            "dmc": {"proxy_dominant_feature_generator": section("proxy"), "completeness_check": section("cc")},
            "reconstructor": section("rec"),
            "dmml": {
                "language_encoder": section("dominant"),
                "hyper_modality_learning": section("hyper"),
                "fuison_transformer": section("fusion"),
            },
        },
    }
