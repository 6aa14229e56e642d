"""The published SDUMC as papers.md has it, written out in formulas over its weights by their published names: what the
model is compared with at sizes of which there are no published numbers, and cases in the format of the oracle.

B utterances, T steps, D width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.performance.plain_rank_contrast import plain_rank_contrast

Weights = Mapping[str, Tensor]
LETTERS = {"audio": 0, "text": 1, "video": 2}
LOSS_WEIGHTS = {
    "sentiment_full": 0.5,
    "sentiment_missing": 0.5,
    "text_hidden": 0.1,
    "text_query": 0.7,
    "fused": 0.13,
    "rnc": 0.5,
}
UNREAD = {"fc_out_e.weight": (1, 3), "fc_out_ev.bias": (1,), "prelu.weight": (6,), "layer_normali.weight": (4,)}


@dataclass(frozen=True)
class Sizes:
    audio: int = 5
    text: int = 7
    vision: int = 4
    model: int = 8
    query: int = 6
    rank: int = 10


def make_weights(sizes: Sizes, imagination: bool, seed: int = 0) -> dict[str, Tensor]:
    dim, query = sizes.model, sizes.query
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, num_in: int, num_out: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (num_out, num_in), (num_out,)

    widths = {"audio": sizes.audio, "text": sizes.text, "video": sizes.vision}
    for modality, number in LETTERS.items():
        linear(f"frame_dim_reshape_{number}", widths[modality], dim)
        linear(f"fra2utt_{number}.input_proj", dim, dim)
        shapes[f"fra2utt_{number}.attention_context_vector"] = (1, dim)
        linear(f"cross_att_fra2utt_{number}.input_proj", dim, dim)
        linear(f"cross_att_fra2utt_{number}.query_proj", dim, dim)
        for name, num_out in ((f"{modality}_mlp", dim), (f"cross_{modality}_mlp", query)):
            linear(f"{name}.0", dim, dim)
            linear(f"{name}.3", dim, num_out)
    for view in ("fused", "at", "tv", "av", *LETTERS):
        linear(f"cross_{view}_query_mlp.0", dim, dim)
    for name, num_in, num_out in (("attention_mlp", 3 * dim, dim), ("cross_attention_mlp", 7 * query, query)):
        linear(f"{name}.0", num_in, dim)
        linear(f"{name}.3", dim, num_out)
    linear("fc_att", dim, 3)
    linear("cross_fc_att", query, 7)
    linear("fc_out_v", query, 1)
    linear("orgin_linear_change.0", query, sizes.rank)
    linear("orgin_linear_change.2", sizes.rank, sizes.rank)
    places = (("missing_text_imagination_mlp", dim), ("missing_cross_text_query_imagination_mlp", query))
    for place, width in places:
        linear(f"{place}.transition.0", 3 * width, width)
        linear(f"{place}.transition.2", width, width)
        linear(f"{place}.encoder_0.0", width, max(1, width // 2))
        linear(f"{place}.decoder_0.0", max(1, width // 2), width)
    shapes |= UNREAD
    if imagination:
        shapes |= {"normali.weight": (7,), "normali.running_mean": (7,)}
    generator = torch.Generator().manual_seed(seed)
    # Small enough that the differences of two floats are rounding, and biases that leave no ReLU dead.
    return {
        name: 0.7 * shape[-1] ** -0.5 * torch.randn(shape, generator=generator) + (0.3 if len(shape) == 1 else 0.0)
        for name, shape in shapes.items()
    }


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def mlp(w: Weights, name: str, x: Tensor) -> Tensor:
    return linear(w, f"{name}.3", linear(w, f"{name}.0", x).relu()).relu()


def imagine(w: Weights, name: str, audio: Tensor, text: Tensor, vision: Tensor) -> Tensor:
    x = linear(w, f"{name}.transition.0", torch.cat([audio, text, vision], dim=-1)).relu()
    x = linear(w, f"{name}.transition.2", x)
    return linear(w, f"{name}.decoder_0.0", linear(w, f"{name}.encoder_0.0", x)) + x


def flow(w: Weights, audio: Tensor, text: Tensor, vision: Tensor, imagines: bool) -> dict[str, Tensor]:
    """Steps 1 to 8; every step of every utterance is looked at."""
    frames, hidden = {}, {}
    for (modality, number), x in zip(LETTERS.items(), (audio, text, vision), strict=True):
        x = linear(w, f"frame_dim_reshape_{number}", x)
        keys = torch.tanh(linear(w, f"fra2utt_{number}.input_proj", x))
        scores = (0.3 * (keys * w[f"fra2utt_{number}.attention_context_vector"]).sum(dim=-1)).softmax(dim=1)
        frames[modality] = x
        hidden[modality] = mlp(w, f"{modality}_mlp", torch.einsum("bt,btd->bd", scores, x))
    if imagines:
        hidden["text"] = imagine(w, "missing_text_imagination_mlp", *hidden.values())
    g = linear(w, "fc_att", mlp(w, "attention_mlp", torch.cat(list(hidden.values()), dim=1)))
    weighted = dict(zip(LETTERS, g.T[:, :, None], strict=True))
    part = {modality: weighted[modality] * hidden[modality] for modality in LETTERS}
    made_of = {
        "fused": part["audio"] + part["text"] + part["video"],
        "at": part["audio"] + part["text"],
        "tv": part["text"] + part["video"],
        "av": part["audio"] + part["video"],
        **hidden,
    }
    asked = {name: linear(w, f"cross_{name}_query_mlp.0", x).relu() for name, x in made_of.items()}
    queries = torch.stack(list(asked.values()), dim=1)
    found = {}
    for modality, number in LETTERS.items():
        keys = torch.tanh(linear(w, f"cross_att_fra2utt_{number}.input_proj", frames[modality]))
        q = linear(w, f"cross_att_fra2utt_{number}.query_proj", queries)
        scores = (0.3 * torch.einsum("btd,bqd->btq", keys, q)).softmax(dim=1)
        found[modality] = mlp(w, f"cross_{modality}_mlp", torch.einsum("btq,btd->bqd", scores, frames[modality]))
    if imagines:
        found["text"] = imagine(w, "missing_cross_text_query_imagination_mlp", *found.values())
    z = sum((weighted[m][:, :, None] * found[m] for m in LETTERS), torch.zeros(()))
    q = linear(w, "cross_fc_att", mlp(w, "cross_attention_mlp", z.flatten(1)))
    fused = (q[:, :, None] * z).sum(dim=1)
    rank = linear(w, "orgin_linear_change.2", linear(w, "orgin_linear_change.0", fused).relu())
    return {
        "prediction": linear(w, "fc_out_v", fused),
        "text_hidden": asked["text"],
        "text_query": found["text"],
        "fused": fused,
        "rnc_feature": rank,
    }


def losses(full: Weights, missing: Weights, label: Tensor) -> dict[str, Tensor]:
    def root(x: Tensor) -> Tensor:
        return (x**2).mean().sqrt()

    features, labels = torch.cat([full["rnc_feature"], missing["rnc_feature"]]), torch.cat([label, label])
    return {
        "sentiment_full": ((full["prediction"][:, 0] - label) ** 2).mean(),
        "sentiment_missing": ((missing["prediction"][:, 0] - label) ** 2).mean(),
        "text_hidden": root(missing["text_hidden"] - full["text_hidden"].detach()),
        "text_query": root(missing["text_query"] - full["text_query"].detach()),
        "fused": root(missing["fused"] - full["fused"]),
        "rnc": plain_rank_contrast(features, labels, temperature=2.0),
    }


def write_case(
    folder: Path,
    name: str,
    sizes: Sizes,
    *,
    imagination: bool,
    num_utterances: int = 4,
    lengths: tuple[int, int, int, int] = (9, 7, 8, 5),
    weights: Mapping[str, float] | None = None,
) -> None:
    """One case. lengths: of audio, text, vision, simulated text. weights: changes to those of the loss."""
    w = {key: value.requires_grad_() for key, value in make_weights(sizes, imagination).items()}
    generator = torch.Generator().manual_seed(1)
    dims = {"audio": sizes.audio, "text": sizes.text, "vision": sizes.vision, "text_simulated": sizes.text}
    inputs = {
        key: torch.randn(num_utterances, length, dim, generator=generator)
        for (key, dim), length in zip(dims.items(), lengths, strict=True)
    }
    label = torch.randn(num_utterances, generator=generator)
    full = flow(w, inputs["audio"], inputs["text"], inputs["vision"], imagines=False)
    missing = flow(w, inputs["audio"], inputs["text_simulated"], inputs["vision"], imagines=imagination)
    terms, chosen = losses(full, missing, label), LOSS_WEIGHTS | dict(weights or {})
    total = sum((chosen[key] * term for key, term in terms.items()), torch.zeros(()))
    total.backward()
    record: dict[str, Any] = {
        "case": name,
        "weights": chosen,
        "losses": {key: term.item() for key, term in terms.items()},
        "total": total.item(),
        "no_gradient": [key for key, value in w.items() if value.grad is None],
    }
    flat = {f"sd.{key}": value for key, value in w.items()}
    flat |= {f"grad.{key}": value.grad for key, value in w.items() if value.grad is not None}
    flat |= {f"in.{key}": value for key, value in {**inputs, "label": label}.items()}
    for prefix, out in (("full", full), ("missing", missing)):
        flat |= {f"out.{prefix}.{key}": value for key, value in out.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.detach().clone() for key, value in flat.items()}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(record))
