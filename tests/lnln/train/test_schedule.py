from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.config import TrainConfig
from lnln.train.schedule import rate_factor


@pytest.mark.parametrize(
    ("epoch", "rate"), [(1, 0), (2, 5e-6), (12, 5.5e-5), (21, 1e-4), (22, 1e-4), (110, 5.2e-5), (200, 3.0e-8)]
)
def test_published_schedule_is_the_one_realised_by_the_published_code(epoch: int, rate: float) -> None:
    train = TrainConfig(schedule="published", epochs=200, learning_rate=1e-4)
    assert 1e-4 * rate_factor(train, 21, epoch - 1, 13) == pytest.approx(rate, rel=0.02, abs=1e-12)


def test_one_step_schedule_climbs_and_falls() -> None:
    train = TrainConfig(epochs=4, warmup_share=0.25)
    factors = [rate_factor(train, 10, epoch, step) for epoch in range(4) for step in range(10)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1 and factors[25] == pytest.approx(0.5) and 0 < factors[39] < 0.01
    assert factors[10:] == sorted(factors[10:], reverse=True)


@given(
    schedule=st.sampled_from(["step", "published"]),
    epochs=st.integers(1, 60),
    num_steps=st.integers(1, 50),
    warmup_share=st.floats(0, 0.99),
)
def test_factors_stay_within_0_and_1_and_every_run_learns(
    schedule: str, epochs: int, num_steps: int, warmup_share: float
) -> None:
    train = TrainConfig(schedule=schedule, epochs=epochs, warmup_share=warmup_share)  # type: ignore[arg-type]
    factors = [rate_factor(train, num_steps, epoch, step) for epoch in range(epochs) for step in range(num_steps)]
    assert all(0 <= factor <= 1 for factor in factors) and max(factors) > 0
