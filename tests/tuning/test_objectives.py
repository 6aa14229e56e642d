"""Objectives: what their names mean, what they score, and which names are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.config import Rate
from lnln.corruption import format_rate
from lnln.errors import RefusedError
from lnln.metrics import TITLES, higher_is_better, metric_names
from tuning.objectives import Objective, objective, read_objectives

MOSI, SIMS = (-3.0, 3.0), (-1.0, 1.0)
RATES: tuple[Rate, ...] = (0.0, 0.5, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0))


def name_of(rate: Rate) -> str:
    """The key of a rate in a run's history."""
    return format_rate(rate) if isinstance(rate, tuple) else str(rate)


def validation(*scores: float) -> dict[str, dict[str, float]]:
    """As a run's history has it, for `RATES`."""
    return {name_of(rate): {"mae": score, "acc7": -score} for rate, score in zip(RATES, scores, strict=True)}


def test_an_objective_is_a_mean_over_the_rates_of_its_part() -> None:
    scores = validation(1.0, 2.0, 4.0, 3.0)
    assert objective("mae").of(scores) == 2.5
    assert objective("mae@clean").of(scores) == 2.0
    assert objective("mae@corrupted").of(scores) == 3.0
    assert objective("acc7@clean").of(scores) == -2.0


def test_directions_are_those_of_the_metric() -> None:
    assert objective("mae@clean").direction == "minimize" and objective("corr").direction == "maximize"
    assert objective("mae").better(0.9, 1.0) and not objective("mae").better(1.0, 1.0)
    assert objective("acc7").better(0.4, 0.3) and not objective("acc7").better(0.3, 0.3)


def test_titles_are_for_tables() -> None:
    assert [objective(name).title for name in ("mae", "acc2_np@clean")] == ["MAE", "Acc-2 np, clean"]


def test_names_are_read_for_the_corpus() -> None:
    read = read_objectives(["mae@clean", "acc7"], MOSI, RATES)
    assert read == (Objective("mae", "clean"), Objective("acc7"))
    for name in metric_names(SIMS):
        assert read_objectives([name], SIMS, RATES) == (Objective(name),)


@pytest.mark.parametrize(
    ("names", "rates", "reason"),
    [
        ([], RATES, "one or more different ones, got none"),
        (["mae", "mae"], RATES, "different ones, got mae, mae"),
        (["rmse"], RATES, r"'rmse'; expected a metric of this corpus \(mae, corr, acc7, "),
        (["acc3"], RATES, "'acc3'; expected a metric of this corpus"),
        (["mae@"], RATES, "'mae@'; .* with @clean or @corrupted"),
        (["mae@all"], RATES, "'mae@all'"),
        (["mae@clean@clean"], RATES, "'mae@clean@clean'"),
        (["@clean"], RATES, "'@clean'"),
        (["MAE"], RATES, "'MAE'"),
        ([""], RATES, "has ''"),
        (["mae@clean"], (0.5, (1.0, 0.0, 0.0)), "validation_rates has no rate 0: 0.5"),
        (["mae", "corr@corrupted"], (0.0, (0.0, 0.0, 0.0)), "has no rate above 0: 0.0"),
    ],
)
def test_what_is_no_objective_is_refused_in_one_line(names: list[str], rates: tuple[Rate, ...], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as refusal:
        read_objectives(names, MOSI, rates)
    assert "\n" not in str(refusal.value)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1) | st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, unique=True),
    st.sampled_from(sorted(TITLES)),
)
def test_the_parts_make_up_the_whole(rates: list[Rate], metric: str) -> None:
    """For any missing rates: each belongs to one part, and the parts' means weigh up to that of all."""
    scores = {name_of(rate): {metric: float(i)} for i, rate in enumerate(rates)}
    clean = [i for i, rate in enumerate(rates) if rate in (0, (0, 0, 0))]
    total = 0.0
    for part, num in (("clean", len(clean)), ("corrupted", len(rates) - len(clean))):
        made = objective(f"{metric}@{part}")
        assert made.name == f"{metric}@{part}" and (made.direction == "maximize") == higher_is_better(metric)
        total += num * made.of(scores) if num else 0
    assert objective(metric).of(scores) * len(scores) == pytest.approx(total)
