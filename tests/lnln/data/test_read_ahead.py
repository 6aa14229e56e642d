from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.data.read_ahead import NUM_READERS, read_ahead


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=15))
def test_results_come_in_order_whoever_is_first(delays: list[int]) -> None:
    def read(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 1000)
        return item[0]

    assert list(read_ahead(read, enumerate(delays))) == list(range(len(delays)))


def test_no_more_are_begun_than_are_read_ahead() -> None:
    begun: list[int] = []
    results = read_ahead(lambda item: begun.append(item) or item, range(100))  # type: ignore[func-returns-value]
    for taken in range(1, 20):
        next(results)
        time.sleep(0.001)
        assert len(begun) <= taken + NUM_READERS
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 30


def test_several_are_read_at_once() -> None:
    together = threading.Barrier(NUM_READERS, timeout=10)
    assert len(list(read_ahead(lambda _: together.wait(), range(2 * NUM_READERS)))) == 2 * NUM_READERS


def test_a_failure_comes_in_its_place_and_ends_it() -> None:
    begun = []

    def read(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise OSError("gone")
        return item

    results = read_ahead(read, range(1000))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(results)
    assert list(results) == [] and len(begun) < 20
