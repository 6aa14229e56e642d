"""When a trial may start: not after Ctrl-C, of which Tune says nothing while it waits."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tuning.gate import Gate


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_is_known_by_the_handler_that_tune_puts_back() -> None:
    gate, before = Gate(None, None), signal.getsignal(signal.SIGINT)
    assert not gate.is_interrupted()  # nor is it ever where Tune replaces none, as in a thread
    signal.signal(signal.SIGINT, lambda *_: None)  # as Tune does at its start
    assert not gate.is_interrupted()
    signal.signal(signal.SIGINT, before)  # as it does at the first Ctrl-C
    assert gate.is_interrupted()
