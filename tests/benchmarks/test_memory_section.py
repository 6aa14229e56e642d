"""Section `memory` of `make bench`: that it sees what a step holds, and only that."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.performance import memory
from benchmarks.performance.memory import OURS, PLAIN, in_new_process, measure_memory, peak_bytes, what_is_missing
from benchmarks.performance.training import Sizes
from tests.benchmarks.test_training_section import TINY

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())
MB = 10**6


def hold(num_bytes: int) -> None:
    """Write to that many for a moment."""
    np.ones(num_bytes, np.uint8)


def test_the_peak_is_that_of_the_work_and_not_of_what_was_before() -> None:
    hold(300 * MB)
    before, highest = peak_bytes(partial(hold, 100 * MB))
    assert 95 * MB < highest - before < 130 * MB and before > 10 * MB
    before, highest = peak_bytes(partial(hold, 0))
    assert highest - before < 10 * MB


def test_a_process_that_fails_is_not_a_measurement() -> None:
    with pytest.raises(MemoryError):
        in_new_process(partial(peak_bytes, partial(hold, 10**15)))


def test_what_a_machine_without_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent")
    assert "only Linux" in what_is_missing()


@pytest.mark.slow
def test_the_whole_section_on_a_tiny_model(tmp_path: Path) -> None:
    comparisons = measure_memory(tmp_path, 1, Sizes(TINY, batch_size=4))
    assert [comparison.ours.title for comparison in comparisons] == list(OURS)
    for comparison in comparisons:
        (baseline,) = comparison.baselines
        assert baseline.title == PLAIN and comparison.num_repetitions == 1
        for peak in (comparison.ours, baseline):
            assert 100 * MB < peak.before[0] <= peak.num_bytes[0]
    assert not list(tmp_path.iterdir())
