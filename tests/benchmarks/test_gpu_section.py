"""Section `gpu` of `make bench` where there is no GPU: the whole of it on the CPU, and by hand what only a GPU says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from benchmarks.performance import plain_lnln, sections
from benchmarks.performance.gpu import (
    Activity,
    OurSteps,
    PlainSteps,
    Sizes,
    activity_of,
    count_operations,
    describe,
    measure_gpu,
    padded,
    peak_of,
    what_is_missing,
)
from benchmarks.performance.measure import Timing
from benchmarks.performance.sections import choose_sections
from benchmarks.performance.training import make_utterances, plain_step
from lnln.batches import TrainBatches
from lnln.config import Config, TrainConfig
from lnln.errors import RefusedError
from lnln.views import Views
from tests.benchmarks.test_training_section import TINY

CPU = torch.device("cpu")
SIZES = Sizes({"tiny": TINY}, compile=("none",), batch_size=4, num_steps=1)


def test_the_whole_section_on_a_tiny_model(tmp_path: Path) -> None:
    precision = torch.get_float32_matmul_precision()
    comparisons = measure_gpu(tmp_path, 2, SIZES, CPU)
    assert torch.get_float32_matmul_precision() == precision and not list(tmp_path.iterdir())
    assert [(c.name.split(", ")[2:], c.amount) for c in comparisons] == [
        ([precision, f"`{mode}`", "eager"], 4) for precision in SIZES.precisions for mode in ("reference", "clean")
    ]
    for comparison in comparisons:
        (baseline,) = comparison.baselines
        for timing in (comparison.ours, baseline):
            assert len(timing.seconds) == 2 and min(timing.seconds) > 0
            assert "ms a step" in timing.note and "GFLOP" in timing.note and "launches" not in timing.note
    assert comparisons[0].baselines == comparisons[1].baselines != comparisons[2].baselines


def test_steps_train() -> None:
    """Both have the weights that as many steps of AdamW leave, and ours asks for fewer operations."""
    utterances = make_utterances(TINY, 8)
    works: dict[str, OurSteps | PlainSteps] = {
        mode: OurSteps(TINY, mode, TrainConfig(batch_size=4), utterances, CPU) for mode in ("reference", "clean")
    }
    works["plain"] = PlainSteps(TINY, utterances, 4, "float32", CPU)
    operations = {name: count_operations(work) for name, work in works.items()}
    assert 0 < max(operations["clean"], operations["reference"]) < operations["plain"]
    for work in works.values():
        assert all(float(state["step"]) == 2 for state in work._optimizer.state.values())


def test_the_published_computation_runs_on_any_one_device() -> None:
    """Nothing of it is left on the CPU: torch's `meta` device takes no other tensor for its own."""
    meta = torch.device("meta")
    utterances = make_utterances(TINY, 4)
    batches = TrainBatches(
        utterances, Views(utterances, "train"), Config(train=TrainConfig(batch_size=4)), 100, device=meta
    )
    weights = {name: value.to(meta).requires_grad_() for name, value in plain_lnln.make_weights(TINY).items()}
    plain_step(weights, TINY, padded(next(batches.epoch(0)), TINY))
    assert {value.grad.device for value in weights.values() if value.grad is not None} == {meta}


def event(name: str, device: DeviceType, start: float, end: float, *, marked: bool = False) -> SimpleNamespace:
    span = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(name=name, device_type=device, time_range=span, is_user_annotation=marked)


def test_time_in_kernels_counts_overlaps_once_and_nothing_that_is_only_marked() -> None:
    events = [
        event("gemm", DeviceType.CUDA, 30, 40),
        event("norm", DeviceType.CUDA, 0, 10),
        event("Memcpy HtoD", DeviceType.CUDA, 5, 15),
        event("inside", DeviceType.CUDA, 31, 35),
        event("AdamW.step", DeviceType.CUDA, 0, 1000, marked=True),
        event("aten::mm", DeviceType.CPU, 0, 500),
        event("cudaLaunchKernel", DeviceType.CPU, 0, 1),
        event("cuLaunchKernelEx", DeviceType.CPU, 1, 2),
        event("cudaGraphLaunch", DeviceType.CPU, 2, 3),
        event("cudaDeviceSynchronize", DeviceType.CPU, 3, 400),
    ]
    assert activity_of(events) == Activity(25e-6, 3)
    assert activity_of([]) == Activity(0.0, 0)


@pytest.mark.parametrize(
    ("name", "in_bfloat16", "in_tf32"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12, 494e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA H200", 989e12, 494e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA L4", 121e12, 60e12),
        ("NVIDIA L40", None, None),
        ("NVIDIA GeForce RTX 3060", None, None),
    ],
)
def test_peaks_go_by_the_cards_name(name: str, in_bfloat16: float | None, in_tf32: float | None) -> None:
    assert (peak_of(name, "bfloat16"), peak_of(name, "float32")) == (in_bfloat16, in_tf32)


def test_a_note_says_what_is_known() -> None:
    timing = Timing("ours", [0.08, 0.1, 0.4])  # ten steps of 10 ms
    operations = int(2e12)
    assert describe(operations, timing, 10, None, None, 0) == "10.0 ms a step, 200 GFLOP"
    said = describe(operations, timing, 10, Activity(0.05, 4000), 100e12, 3_500_000_000)
    assert said == "10.0 ms a step, 200 GFLOP, 20 % of the peak, 50 % in kernels, 400 launches, 3.5 GB"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_section_is_left_out_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "torch sees no GPU" in what_is_missing()
    assert "gpu" not in choose_sections(None) and set(choose_sections(None)) == set(sections.SECTIONS) - {"gpu"}
    assert "section gpu is left out: torch sees no GPU" in capsys.readouterr().err
    with pytest.raises(RefusedError, match=r"section gpu cannot be measured here: torch sees no GPU.*ONLY=gpu"):
        choose_sections("gpu")
    assert choose_sections("data") == ["data"]


def test_the_encoders_have_the_published_sizes() -> None:
    for name, millions in (("MiniLM", 22.7), ("bert-base", 109.5)):
        weights = plain_lnln.make_weights(Sizes().encoders[name])
        numbers = [value.numel() for key, value in weights.items() if key.startswith("bertmodel.")]
        assert sum(numbers) / 1e6 == pytest.approx(millions, rel=0.01)
