"""Section `gpu`: whole training steps on one GPU, beside the published computation on the same one.

Everything but the numbers that only a GPU has runs on any device, so that it is tested where there is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.performance import plain_lnln
from benchmarks.performance.measure import Comparison, Contender, Timing, compare
from benchmarks.performance.plain_lnln import Shape
from benchmarks.performance.training import MOSI, check_gradients, make_utterances, models, plain_step, step
from lnln.batches import Batch, TrainBatches
from lnln.config import Config, ModelConfig, TrainConfig
from lnln.data.schema import MODALITIES, Utterances
from lnln.losses import loss_terms, total_loss
from lnln.models.lnln import LNLN
from lnln.models.padding import resize
from lnln.progress import line
from lnln.train.compiled import compile_model
from lnln.views import Views

Precision = Literal["float32", "bfloat16"]
Compile = Literal["none", "default", "reduce-overhead"]

BERT_BASE = replace(MOSI, bert_heads=12, bert_dim=768, bert_hidden=3072, bert_layers=12)
MODES = ("reference", "clean")
_UNKNOWN = 100
# A graph is recorded in the second run of a shape and replayed from the third on.
_WARM_UPS = 3

# Dense peak in 10**12 operations a second, bfloat16 and TF32, by words of a card's name; the first that fits counts.
# From NVIDIA's data sheets, A100 1758950-r4, H100 tensor-core-gpu, H200 sc23, L4 and L40S; where those give figures
# with sparsity (Hopper, Ada), half of them.
PEAKS: dict[str, tuple[float, float]] = {
    "H200": (989, 494),
    "H100 PCIe": (756, 378),
    "H100 NVL": (835, 417),
    "H100": (989, 494),
    "A100": (312, 156),
    "L40S": (362, 183),
    "L4": (121, 60),
}

EXPLANATION = """\
Whole training steps of 64 utterances on one GPU: a batch gathered from the split that lies on it, forward, losses, \
backward, clipping and AdamW. Utterances and sizes are those of the section on training, with MiniLM or bert-base as \
the text encoder, at random weights. *float32* computes products in TF32. *compiled* and *CUDA graphs* are \
`train.compile: default` and `reduce-overhead`; what compilation itself takes, a minute or so for each shape, is not \
counted. The baseline is the transcription of the published computation, in the same precision, its padded batches on \
the GPU from the start; its gradients are compared with those of `reference` before anything is measured. *Of the \
peak* is the share of what the card can do at most, by the matrix products that are asked for; *in kernels* the share \
of the time in which it computes; launches are what the host asks of it in a step, a graph being one; memory is what \
is taken from the card."""


@dataclass(frozen=True)
class Sizes:
    """What is measured; the defaults are the published sizes. num_steps: of one repetition."""

    encoders: dict[str, Shape] = field(default_factory=lambda: {"MiniLM": MOSI, "bert-base": BERT_BASE})
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    # `none` is the first: by it operations are counted.
    compile: tuple[Compile, ...] = ("none", "default", "reduce-overhead")
    batch_size: int = 64
    num_steps: int = 10


@dataclass(frozen=True)
class Activity:
    """Of one repetition on the GPU. seconds: in which it computed."""

    seconds: float
    num_launches: int


def what_is_missing() -> str:
    """Why this cannot be measured here; "" where it can."""
    return "" if torch.cuda.is_available() else "torch sees no GPU; run `make bench ONLY=gpu` on a machine with one"


def card() -> str:
    return torch.cuda.get_device_name()


def measure_gpu(
    folder: Path, repetitions: int, sizes: Sizes | None = None, device: torch.device | str = "cuda"
) -> list[Comparison]:
    """All comparisons of the section; nothing is written to `folder`."""
    sizes, device = sizes or Sizes(), torch.device(device)
    comparisons: list[Comparison] = []
    for encoder, shape in sizes.encoders.items():
        utterances = make_utterances(shape, sizes.batch_size * sizes.num_steps)
        check_same_function(shape, utterances, device)
        for precision in sizes.precisions:
            name = f"a step of {sizes.batch_size} utterances, {encoder}, {precision}"
            comparisons += _measure_steps(name, shape, utterances, precision, repetitions, sizes, device)
    return comparisons


def _measure_steps(
    name: str,
    shape: Shape,
    utterances: Utterances,
    precision: Precision,
    repetitions: int,
    sizes: Sizes,
    device: torch.device,
) -> list[Comparison]:
    """One for each mode and way to compile, beside one run of the published computation."""
    with _tf32():
        operations: dict[str, int] = {}
        found: dict[str, tuple[Work, int]] = {}
        for mode in MODES:
            for compile in sizes.compile:
                train = TrainConfig(batch_size=sizes.batch_size, precision=precision, compile=compile)
                title = f"`{mode}`, {_COMPILED[compile]}"
                line(f"{name}, {title}: prepare")
                found[title] = _prepare(partial(OurSteps, shape, mode, train, utterances, device), device)
                if compile == "none":
                    operations[mode] = count_operations(found[title][0])
                operations[title] = operations[mode]
        theirs = "published computation"
        found[theirs] = _prepare(partial(PlainSteps, shape, utterances, sizes.batch_size, precision, device), device)
        operations[theirs] = count_operations(found[theirs][0])
        first, *others = [Contender(title, work) for title, (work, _) in found.items()]
        amount = float(sizes.batch_size * sizes.num_steps)
        measured = compare(name, first, others, repetitions=repetitions, unit="utterances", amount=amount)
        noted = []
        for timing in (measured.ours, *measured.baselines):
            work, num_bytes = found[timing.title]
            activity = look_at(work) if device.type == "cuda" else None
            peak = peak_of(card(), precision) if device.type == "cuda" else None
            said = describe(operations[timing.title], timing, sizes.num_steps, activity, peak, num_bytes)
            noted.append(replace(timing, note=said))
    *ours, plain = noted
    return [replace(measured, name=f"{name}, {each.title}", ours=each, baselines=[plain]) for each in ours]


_COMPILED: dict[Compile, str] = {"none": "eager", "default": "compiled", "reduce-overhead": "CUDA graphs"}


def _prepare(make: Callable[[], Work], device: torch.device) -> tuple[Work, int]:
    """What `make` makes, run until nothing is compiled any more; and the bytes that it takes from the device."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved()
    work = make()
    for _ in range(_WARM_UPS):
        work()
    if not on_gpu:
        return work, 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    return work, torch.cuda.max_memory_reserved() - before


class OurSteps:
    """An epoch of training steps as `lnln.train.loop` takes them; called, it has ended when it returns."""

    def __init__(
        self, shape: Shape, mode: str, train: TrainConfig, utterances: Utterances, device: torch.device
    ) -> None:
        reference, clean = models(plain_lnln.make_weights(shape), shape)
        self._model: LNLN = (reference if mode == "reference" else clean).to(device)
        config = Config(model=ModelConfig(mode="reference" if mode == "reference" else "clean"), train=train)
        self._batches = TrainBatches(
            utterances, Views(utterances, "train"), config, _UNKNOWN, device=device, resident=True
        )
        self._config, self._device = config, device
        compile_model(self._model, train)
        self._optimizer = torch.optim.AdamW(self._model.parameter_groups(train), fused=device.type in ("cpu", "cuda"))

    def __call__(self) -> None:
        for batch in self._batches.epoch(0):
            self._step(batch)
        wait(self._device)

    def _step(self, batch: Batch) -> None:
        train, loss = self._config.train, self._config.loss
        with torch.autocast(self._device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            output = self._model(batch.corrupted, batch.complete)
        total_loss(loss_terms(output, batch, loss), batch.weight, loss, len(batch.label)).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), train.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class PlainSteps:
    """The same utterances by the published computation: padded batches, AdamW as it comes."""

    def __init__(
        self, shape: Shape, utterances: Utterances, batch_size: int, precision: Precision, device: torch.device
    ) -> None:
        self._shape, self._precision, self._device = shape, precision, device
        self._weights = {
            name: value.to(device).requires_grad_() for name, value in plain_lnln.make_weights(shape).items()
        }
        self._batches = [
            padded(batch, shape)
            for batch in TrainBatches(
                utterances,
                Views(utterances, "train"),
                Config(train=TrainConfig(batch_size=batch_size)),
                _UNKNOWN,
                device=device,
                resident=True,
            ).epoch(0)
        ]
        self._optimizer = torch.optim.AdamW(self._weights.values())

    def __call__(self) -> None:
        for batch in self._batches:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "bfloat16"):
                plain_step(self._weights, self._shape, batch)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        wait(self._device)


Work = OurSteps | PlainSteps


def padded(batch: Batch, shape: Shape) -> Batch:
    """`batch` padded as the published data set is."""
    text, vision, audio = shape.lengths
    longest = {"text": text, "audio": audio, "vision": vision}
    complete, corrupted = (
        replace(
            inputs,
            **{
                name: resize(getattr(inputs, name), longest[modality])
                for modality in MODALITIES
                for name in (modality, f"{modality}_mask")
            },
        )
        for inputs in (batch.complete, batch.corrupted)
    )
    return replace(batch, complete=complete, corrupted=corrupted)


def check_same_function(shape: Shape, utterances: Utterances, device: torch.device) -> None:
    """An assertion that `reference` and the published computation have the same gradients on `device`."""
    weights = {name: value.to(device).requires_grad_() for name, value in plain_lnln.make_weights(shape).items()}
    reference, _ = models(plain_lnln.make_weights(shape), shape)
    views, config = Views(utterances, "train"), Config(train=TrainConfig(batch_size=16))
    batch = padded(next(TrainBatches(utterances, views, config, _UNKNOWN, device=device).epoch(0)), shape)
    plain_step(weights, shape, batch)
    theirs = {name: value.grad for name, value in weights.items() if value.grad is not None}
    check_gradients(theirs, step(reference.to(device), batch))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _tf32() -> Iterator[None]:
    """float32 products in TF32, where the device has that."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def count_operations(work: Work) -> int:
    """Of the matrix products of one repetition."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def look_at(work: Work) -> Activity:
    """One more repetition of `work`, watched."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        work()
    return activity_of(watched.events() or [])


def activity_of(events: Iterable[Any]) -> Activity:
    """What the profiler's events say: launches by the host, and the time in which anything was computed, overlaps once.

    Ranges that a program marks on the device are no work of it.
    """
    num_launches, spans = 0, []
    for event in events:
        if event.device_type.name == "CUDA":
            if not getattr(event, "is_user_annotation", False):
                spans.append((event.time_range.start, event.time_range.end))
        elif event.name.startswith(("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")):
            num_launches += 1
    microseconds, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        microseconds += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return Activity(microseconds / 1e6, num_launches)


def peak_of(name: str, precision: Precision) -> float | None:
    """Operations a second that the card called `name` can do at most; None where that is not known."""
    for part, (in_bfloat16, in_tf32) in PEAKS.items():
        if re.search(rf"\b{part}\b", name):
            return 1e12 * (in_bfloat16 if precision == "bfloat16" else in_tf32)
    return None


def describe(
    operations: int, timing: Timing, num_steps: int, activity: Activity | None, peak: float | None, num_bytes: int
) -> str:
    """What the note of one contender says, of what is known."""
    seconds = timing.median()
    said = [f"{1e3 * seconds / num_steps:.1f} ms a step", f"{operations / num_steps / 1e9:,.0f} GFLOP"]
    if peak is not None:
        said.append(f"{100 * operations / seconds / peak:.0f} % of the peak")
    if activity is not None:
        said.append(f"{100 * min(1.0, activity.seconds / seconds):.0f} % in kernels")
        said.append(f"{activity.num_launches / num_steps:,.0f} launches")
    if num_bytes:
        said.append(f"{num_bytes / 1e9:.1f} GB")
    return ", ".join(said)
