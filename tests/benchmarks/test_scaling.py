"""The arithmetic of docs/performance.md about several machines: counts by hand, and that its conclusions follow."""

from __future__ import annotations

import pytest

from benchmarks.performance.scaling import (
    GIGABITS,
    STEP_SECONDS,
    Gradient,
    gradients,
    least_seconds,
    note,
    num_trained,
)


@pytest.mark.parametrize(("encoder", "width", "depth"), [("MiniLM", 384, 6), ("bert-base", 768, 12)])
def test_parameters_are_those_of_the_encoder_and_few_more(encoder: str, width: int, depth: int) -> None:
    hidden = 4 * width
    embeddings = (30_522 + 512 + 2 + 2) * width
    layer = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
    whole, upper = num_trained(encoder, "none"), num_trained(encoder, "embeddings")
    assert whole - upper == embeddings
    assert 5_000_000 < upper - depth * layer < 8_000_000  # LNLN's own


def test_a_ring_sends_all_but_its_own_share_twice() -> None:
    assert least_seconds(100, 2, 8e-9) == pytest.approx(100)  # at one byte a second: half, and half again
    assert least_seconds(100, 4, 8e-9) == pytest.approx(150)
    assert least_seconds(100, 1, 8e-9) == 0
    assert least_seconds(125_000_000, 2, 1) == pytest.approx(1)


def test_the_note_says_what_follows() -> None:
    text = note()
    assert text.startswith("Arithmetic, not a measurement") and text.count("\n| ") == len(gradients()) + 2
    whole, least = Gradient("bert-base", "none", "float32"), Gradient("bert-base", "embeddings", "bfloat16")
    assert f"{whole.num_bytes / 1e6:.0f} MB" in text and whole.num_bytes == 4 * num_trained("bert-base", "none")
    # All together slower than one alone: a step takes more times as long than there are nodes to share in it.
    for nodes in (2, 8):
        assert least_seconds(whole.num_bytes, nodes, 100) / max(STEP_SECONDS) > nodes
    # Eight nodes do about the work of two.
    for seconds in STEP_SECONDS:
        assert 1.5 < 8 / (least_seconds(least.num_bytes, 8, 100) / seconds) < 2.5
    # And at the fastest network sending hides behind the step.
    assert least_seconds(least.num_bytes, 8, max(GIGABITS)) < max(STEP_SECONDS)
