"""The model of one worker among several: the gradient of a step is averaged over them, and sent once.

forward = distributed(model, config.train, device, ranks)
for part in parts:
    with sending(forward, is_last=part is parts[-1]):
        loss(forward(part)).backward()
"""

# No postponed annotations here: DDP compares those of a hook with its own types.

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.distributed import GradBucket, ProcessGroup  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from lnln.config import TrainConfig
from lnln.train.ranks import Ranks


def distributed(model: nn.Module, train: TrainConfig, device: torch.device, ranks: Ranks) -> nn.Module:
    """`model` with gradients averaged over the workers; `model` itself where there is one.

    What is frozen has to be so before: it is not sent. find_unused_parameters keeps the order in which gradients are
    summed from changing after the first step: a run that is continued begins with a first step of its own, and has to
    round as the uninterrupted one does. It also marks as used what any part of a step used, not only the last.
    """
    if ranks.world == 1:
        return model
    forward = DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        find_unused_parameters=True,
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
    if train.gradient_compression == "bfloat16":
        forward.register_comm_hook(None, send_in_bfloat16)
    return forward


def sending(forward: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """For the forward and backward pass of one part of a step: the last sends the gradient, the others add to it."""
    if is_last or not isinstance(forward, DistributedDataParallel):
        return nullcontext()
    waiting: AbstractContextManager[None] = forward.no_sync()
    return waiting


def send_in_bfloat16(group: ProcessGroup | None, bucket: GradBucket) -> Future[Tensor]:
    """torch's hook, under a name of our own: DDP refuses that one without NCCL, though gloo sends bfloat16 too."""
    return bf16_compress_hook(group, bucket)  # type: ignore[arg-type]
