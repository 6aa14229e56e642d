"""Section `ranking` of `make bench`: on tiny batches, and that it would notice comparing two different things."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.performance import ranking
from benchmarks.performance.ranking import check_equal, gradient, make_features, measure_ranking, ours, theirs
from benchmarks.performance.sections import SECTIONS


def test_both_sides_compute_the_same() -> None:
    features, label = make_features(9)
    assert features.shape == (2, 9, 64) and len(label.unique()) < len(label)
    found = gradient(ours, features, label)
    assert found.shape == (1 + features.numel(),)
    check_equal(found, gradient(theirs, features, label))


def test_another_loss_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ranking, "theirs", lambda features, label: 1.01 * theirs(features, label))
    with pytest.raises(ValueError, match="expected rounding"):
        measure_ranking(tmp_path, 5, (4,))
    with pytest.raises(ValueError, match="expected rounding"):
        check_equal(torch.tensor([float("nan")]), torch.ones(1))


def test_what_is_measured(tmp_path: Path) -> None:
    num_threads = torch.get_num_threads()
    small, large = measure_ranking(tmp_path, 5, (2, 5), num_steps=2)
    assert torch.get_num_threads() == num_threads and not list(tmp_path.iterdir())
    assert "of 2 utterances" in small.name and "of 5 utterances" in large.name
    for comparison in (small, large):
        assert comparison.clock == "core" and comparison.amount == 2 and comparison.num_repetitions == 5
        assert [each.title for each in comparison.baselines] == ["published loop over columns"]
    assert "ranking" in SECTIONS and not SECTIONS["ranking"].needs()
