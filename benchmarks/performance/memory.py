"""Section `memory`: the most memory that one training step takes, beside a plain transcription of what is published."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.performance import plain_lnln
from benchmarks.performance.measure import Peak, PeakComparison
from benchmarks.performance.training import Sizes, make_batch, models, plain_step, step
from lnln.progress import line

PLAIN = "published computation, float32"
OURS = ("`reference`, float32", "`clean`, float32", "`clean`, bfloat16")
# What the peak of the published code is to be divided by.
ASKED = 3.0
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

EXPLANATION = """\
The step of the section above, forward and backward of 64 utterances, each time in a new process with one thread. The \
figure is the peak of that process's resident memory during the step, all of it: Python, the libraries, weights and \
batch are in it on both sides; what they take before the step begins stands in brackets. The ratio says how many times \
as much the baseline takes. Dropout and the optimizer's moments are left out on both sides."""


def what_is_missing() -> str:
    """Why this cannot be measured here; "" where it can."""
    return "" if _CLEAR.exists() else f"the peak of a process stands in {_STATUS}, which only Linux has"


def measure_memory(folder: Path, repetitions: int, sizes: Sizes | None = None) -> list[PeakComparison]:
    """All comparisons of the section; nothing is written to `folder`."""
    sizes = sizes or Sizes()
    line("memory of a step")
    peaks = {title: Peak(title, [], []) for title in (PLAIN, *OURS)}
    for _ in range(repetitions):
        for title, peak in peaks.items():
            before, highest = in_new_process(partial(measure_step, title, sizes))
            peak.before.append(before)
            peak.num_bytes.append(highest)
    return [
        PeakComparison(f"a step of {sizes.batch_size} utterances, {title}", peaks[title], [peaks[PLAIN]], ASKED)
        for title in OURS
    ]


def measure_step(title: str, sizes: Sizes) -> tuple[int, int]:
    """Resident bytes before a step, and at their peak during it; of the whole process."""
    torch.set_num_threads(1)
    work = _step(title, sizes)
    gc.collect()
    return peak_bytes(work)


def peak_bytes(work: Callable[[], object]) -> tuple[int, int]:
    """Resident bytes of this process before `work`, and the most while it runs."""
    _CLEAR.write_text("5")  # the peak counts from here
    before = _read("VmRSS")
    made = work()
    highest = _read("VmHWM")
    del made  # held until now, as a training step holds its gradients
    return before, highest


def in_new_process(work: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work).result()


def _step(title: str, sizes: Sizes) -> Callable[[], object]:
    weights = plain_lnln.make_weights(sizes.shape)
    batch = make_batch(sizes.shape, sizes.batch_size)
    if title == PLAIN:
        return partial(plain_step, {n: value.requires_grad_() for n, value in weights.items()}, sizes.shape, batch)
    reference, clean = models(weights, sizes.shape)
    del weights
    chosen = reference if title.startswith("`reference`") else clean
    return partial(step, chosen, batch, "bfloat16" if title.endswith("bfloat16") else "float32")


def _read(key: str) -> int:
    """Of /proc/self/status, which says kilobytes."""
    return next(int(each.split()[1]) * 1024 for each in _STATUS.read_text().splitlines() if each.startswith(key))
