"""The space: what it takes, what it refuses, and that it is data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.config import Config, LossConfig, config_for, config_names
from lnln.errors import RefusedError
from tuning.space import DEFAULT_SPACE, WEIGHTS, Range, Space, load_space


def test_the_default_space_varies_all_weights_but_sentiment() -> None:
    assert tuple(DEFAULT_SPACE.ranges) == WEIGHTS
    assert "sentiment" not in DEFAULT_SPACE.ranges


@pytest.mark.parametrize("name", config_names())
def test_every_config_lies_within_the_default_space(name: str) -> None:
    DEFAULT_SPACE.require(config_for(name).loss)


def test_a_space_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "reconstruction: {low: 0, high: 0.5, scale: linear}\nadversarial: {low: 1e-2, high: 1}\n", encoding="utf-8"
    )
    space = load_space(path)
    assert space.ranges == {"adversarial": Range(0.01, 1.0), "reconstruction": Range(0.0, 0.5, "linear")}
    assert list(space.ranges) == ["adversarial", "reconstruction"]  # the order of tables, not of the file
    assert Space.from_dict(space.to_dict()) == space
    assert load_space() == DEFAULT_SPACE


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "space is empty"),
        (None, "space is empty"),
        ([1, 2], "must give each loss weight a range"),
        ("adversarial", "must give each loss weight a range"),
        ({"adversary": {"low": 0.1, "high": 1}}, "unknown loss weight 'adversary'"),
        ({"sentiment": {"low": 0.1, "high": 1}}, "unknown loss weight 'sentiment'"),
        ({7: {"low": 0.1, "high": 1}}, "unknown loss weight '7'"),
        ({"adversarial": {"low": -0.1, "high": 1}}, "must not be negative"),
        ({"adversarial": {"low": -2, "high": -1, "scale": "linear"}}, "must not be negative"),
        ({"adversarial": {"low": 0, "high": 1}}, "above 0 on a log scale"),
        ({"adversarial": {"low": 1, "high": 1}}, "low below high"),
        ({"adversarial": {"low": 2, "high": 1}}, "low below high"),
        ({"adversarial": {"low": 0.1, "high": math.inf}}, "finite"),
        ({"adversarial": {"low": math.nan, "high": 1}}, "finite"),
        ({"adversarial": {"low": "a", "high": 1}}, "adversarial.low"),
        ({"adversarial": {"low": True, "high": 2}}, "adversarial.low"),
        ({"adversarial": {"low": 0.1, "high": 1, "scale": "cubic"}}, "adversarial.scale"),
        ({"adversarial": {"low": 0.1, "high": 1, "step": 2}}, "adversarial.step"),
        ({"adversarial": {"low": 0.1}}, "must be a range"),
        ({"adversarial": 0.5}, "must be a range"),
        ({"adversarial": None}, "must be a range"),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(values: Any, reason: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        Space.from_dict(values)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_holds_no_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot read the space"):
        load_space(tmp_path / "absent.yaml")
    with pytest.raises(RefusedError, match="cannot read the space"):
        load_space(tmp_path)
    damaged = tmp_path / "damaged.yaml"
    damaged.write_text("adversarial: {low: [", encoding="utf-8")
    with pytest.raises(RefusedError, match="not YAML") as refusal:
        load_space(damaged)
    assert "\n" not in str(refusal.value)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RefusedError, match="not YAML"):
        load_space(binary)
    empty = tmp_path / "empty.yaml"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(RefusedError, match="empty"):
        load_space(empty)


def test_configured_weights_outside_the_space_are_refused() -> None:
    space = Space({"adversarial": Range(0.1, 1.0)})
    space.require(Config().loss)
    space.require(LossConfig(adversarial=1.0, completeness=0.0))
    with pytest.raises(RefusedError, match=r"loss.adversarial is 0 and must lie within .* 0.1 to 1"):
        space.require(LossConfig(adversarial=0.0))


@given(low=st.floats(1e-6, 1e3), factor=st.floats(1.001, 1e6), names=st.sets(st.sampled_from(WEIGHTS), min_size=1))
def test_spaces_survive_json(low: float, factor: float, names: set[str]) -> None:
    space = Space({name: Range(low, low * factor) for name in names})
    assert Space.from_dict(space.to_dict()) == space
    assert space.weights(Config().loss).keys() == names
