from __future__ import annotations

import pytest
import torch

from lnln.errors import RefusedError
from lnln.train.finite import CHECK_EVERY, FiniteWatch
from lnln.train.ranks import Ranks


def note(watch: FiniteWatch, number: int, sentiment: list[float], norm: float = 1.0) -> None:
    terms = {"completeness": torch.ones(len(sentiment)), "sentiment": torch.tensor(sentiment)}
    watch.add(number, [f"u{number}-{row}" for row in range(len(sentiment))], terms, torch.tensor(norm))


def test_finite_steps_pass() -> None:
    watch = FiniteWatch(Ranks(), 0)
    for number in range(3 * CHECK_EVERY + 1):
        note(watch, number, [1.0, 2.0])
    watch.check()
    watch.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_broken_step_is_named(value: float) -> None:
    watch = FiniteWatch(Ranks(), 4)
    note(watch, 0, [1.0, 1.0])
    note(watch, 1, [1.0, value])
    note(watch, 2, [value, value], norm=value)
    with pytest.raises(RefusedError, match=r"not finite in step 2 of epoch 5: sentiment of u1-1;"):
        watch.check()


def test_it_is_noticed_within_a_few_steps() -> None:
    watch = FiniteWatch(Ranks(), 0)
    with pytest.raises(RefusedError, match="step 1 of epoch 1"):
        for number in range(CHECK_EVERY):
            note(watch, number, [float("nan") if number == 0 else 1.0])


def test_a_broken_gradient_is_named_as_such_and_long_lists_are_cut() -> None:
    watch = FiniteWatch(Ranks(), 0)
    note(watch, 0, [1.0], norm=float("inf"))
    with pytest.raises(RefusedError, match=r"the gradient of step 1 of epoch 1 .* those of u0-0; the last checkpoint"):
        watch.check()
    watch = FiniteWatch(Ranks(), 0)
    note(watch, 0, [float("nan")] * 9)
    with pytest.raises(RefusedError, match="u0-4 and 4 more;"):
        watch.check()


def test_the_total_is_named_where_no_term_of_it_is_broken() -> None:
    for sentiment, expected in (([1.0, 2.0], "total of u0;"), ([1.0, float("inf")], "sentiment of u0, u1;")):
        watch = FiniteWatch(Ranks(), 0)
        terms = {"total": torch.tensor([float("inf"), sentiment[1]]), "sentiment": torch.tensor(sentiment)}
        watch.add(0, ["u0", "u1"], terms, torch.tensor(float("inf")))
        with pytest.raises(RefusedError, match=f"not finite in step 1 of epoch 1: {expected}"):
            watch.check()
