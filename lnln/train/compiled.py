"""The training step of a model as compiled graphs (`train.compile`): few large kernels instead of many small ones.

    compile_model(model, config.train)       # in place, before `distributed`
    output = model(corrupted, complete)      # compiled while it trains, as it is otherwise

A graph is made for each shape that comes, which takes a minute or so; `TrainBatches` therefore pads to few of them.
Validation and prediction are not compiled: they have a shape for every batch, and what is scored is to be what
`lnln evaluate` computes.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lnln.batches import NUM_SHAPES
from lnln.config import TrainConfig
from lnln.errors import RefusedError

# Whole and last batches, and of each whole and last parts (`train.accumulation_steps`), in every shape; twice that, for
# what else may change. Beyond it torch says so and computes without graphs.
MAX_GRAPHS = 2 * 2 * 2 * NUM_SHAPES


def compile_model(model: nn.Module, train: TrainConfig, backend: str = "inductor") -> None:
    """Compile `model`'s forward and backward pass in training mode, in place, as `train.compile` says.

    backend: torch's, of which `eager` and `aot_eager` need no compiler. RefusedError where one is needed and absent.
    """
    if train.compile == "none":
        return
    if backend == "inductor":
        _check_compiler({parameter.device.type for parameter in model.parameters()})
    torch._dynamo.config.recompile_limit = MAX_GRAPHS
    # Graphs would be cut where DDP's buckets end, which neither CUDA graphs nor the reversed gradient survive.
    torch._dynamo.config.optimize_ddp = False
    mode: Any = {"mode": train.compile} if backend == "inductor" else {}
    as_it_is: Callable[..., Any] = model.forward
    compiled: Callable[..., Any] = torch.compile(as_it_is, dynamic=False, backend=backend, **mode)

    def forward(*args: Any, **options: Any) -> Any:
        return (compiled if model.training else as_it_is)(*args, **options)

    model.forward = forward


def _check_compiler(devices: set[str]) -> None:
    """RefusedError where torch could not compile for `devices`: it would say so in the first step only, at length."""
    compiler = os.environ.get("CXX", "g++")
    lacking = []
    if shutil.which(compiler) is None:
        lacking.append(f"a C++ compiler ({compiler})")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        lacking.append("Python's headers (Python.h)")
    if "cuda" in devices and importlib.util.find_spec("triton") is None:
        lacking.append("the package triton")
    if lacking:
        raise RefusedError(
            f"train.compile needs {', '.join(lacking)}, which this machine lacks; install what is named "
            "(Debian: apt install g++ python3-dev, and pip install triton), or set train.compile=none"
        )
