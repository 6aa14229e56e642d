from __future__ import annotations

import threading

import torch
from threadpoolctl import threadpool_info

from pipelines.simulators.base import one_thread


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_threads_are_one_until_the_last_has_left() -> None:
    before, blas_before = torch.get_num_threads(), blas_threads()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with one_thread():
            entered.set()
            leave.wait(10)

    other = threading.Thread(target=stay, daemon=True)
    try:
        with one_thread():
            other.start()
            assert entered.wait(10)
            assert torch.get_num_threads() == 1 and blas_threads() == {1}
        assert torch.get_num_threads() == before and blas_threads() == {1}
    finally:
        leave.set()
        other.join(10)
    assert blas_threads() == blas_before
    with one_thread(), one_thread():
        assert torch.get_num_threads() == 1 and blas_threads() == {1}
    assert torch.get_num_threads() == before and blas_threads() == blas_before
