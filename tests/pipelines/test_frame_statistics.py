"""Mean and deviation do not depend, in any bit, on how the frames are cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import frame_statistics as module
from pipelines.frame_statistics import frame_statistics


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(0, 300),
    columns=st.sampled_from([1, 2, 3, 33]),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    piece=st.sampled_from([1, 7, 64, 1 << 19]),
    seed=st.integers(0, 999),
)
def test_cuts_change_nothing(num: int, columns: int, cuts: list[int], piece: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(seed, 10.0 ** (seed % 7 - 3), (num, columns)).astype(np.float32)
    whole = frame_statistics(lambda: [values], columns)
    bounds = sorted({0, num, *(cut for cut in cuts if cut <= num)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE", piece)
        assert frame_statistics(lambda: (values[first:last] for first, last in pairwise(bounds)), columns) == whole
    if num:
        np.testing.assert_allclose(whole["mean"], values.mean(axis=0, dtype=np.float64), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(whole["std"], values.std(axis=0, dtype=np.float64), rtol=1e-6, atol=1e-9)


def test_a_long_column_is_not_added_in_pairs() -> None:
    """The sum of 200,000 numbers, in one part and in two, before it is rounded."""
    values = np.random.default_rng(0).normal(size=(200_000, 1)).astype(np.float32)
    sums = []
    for cut in (0, 77_777):
        total = module._Sum(1)
        for part in (values[:cut], values[cut:]):
            total.add(part, lambda piece: piece.astype(np.float64))
        sums.append(total.value[0])
    assert sums[0] == sums[1]


def test_no_frames() -> None:
    assert frame_statistics(list, 2) == {"mean": [0.0, 0.0], "std": [0.0, 0.0]}
