"""Cases of any size in the format of the oracle: sizes of which there are no published numbers are checked too."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.performance import plain_lnln
from benchmarks.performance.plain_lnln import Shape, losses, make_args, make_inputs, run


def write_case(
    folder: Path,
    name: str,
    shape: Shape,
    *,
    num_utterances: int,
    is_training: bool = True,
    with_weights: bool = True,
    lengths: tuple[int, int, int] | None = None,
    base: Mapping[str, float] | None = None,
) -> None:
    """One case in the format of the oracle. base: changes to the loss weights and the optimizer's options."""
    weights = {key: value.requires_grad_() for key, value in plain_lnln.make_weights(shape).items()}
    inputs, args = make_inputs(shape, num_utterances, lengths=lengths), make_args(shape)
    args["base"] |= base or {}
    out, mid = run(weights, shape, inputs, is_training)
    tensors = {"in": inputs, "mid": mid, "out": out, "sd": copy.deepcopy(weights) if with_weights else {}}
    record: dict[str, Any] = {"case": name, "args": args, "losses": {}, "gradnorm": {}, "nograd": []}
    if is_training:
        terms = losses(out, inputs, args["base"])
        terms["loss"].backward()
        record["losses"] = {key: term.item() for key, term in terms.items()}
        tensors["grad"] = {key: value.grad for key, value in weights.items() if value.grad is not None}
        record["gradnorm"] = {key: gradient.norm().item() for key, gradient in tensors["grad"].items()}
        record["nograd"] = [key for key, value in weights.items() if value.grad is None]
        options = {"lr": args["base"]["lr"], "weight_decay": args["base"]["weight_decay"]}
        torch.optim.AdamW(list(weights.values()), **options).step()
        after = losses(run(weights, shape, inputs, True)[0], inputs, args["base"])
        record["losses_after_1_step"] = {key: term.item() for key, term in after.items()}
    flat = {
        f"{prefix}.{key}": value.detach().clone() for prefix, part in tensors.items() for key, value in part.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(flat, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(record))
