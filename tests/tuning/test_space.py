"""The space: what it takes, what it refuses, what a drawn number means, and that it is data."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.config import SDUMC_TERMS, Config, config_for, config_names, load_config
from lnln.errors import RefusedError
from tuning.space import (
    DEFAULT_SPACE,
    PARAMETERS,
    SDUMC_SPACE,
    Range,
    Space,
    default_space,
    load_space,
    with_parameters,
)

TERMS = ("completeness", "adversarial", "reconstruction")
# Highest values that each parameter may have.
MOST = {name: 0.9 if name == "dropout" else 1e3 for name in PARAMETERS}
NEVER_ZERO = ("learning_rate", "encoder_learning_rate")


def spaces() -> st.SearchStrategy[Space]:
    """Any that is taken."""

    @st.composite
    def one(draw: st.DrawFn) -> Space:
        ranges = {}
        for name in draw(st.sets(st.sampled_from(list(PARAMETERS)), min_size=1)):
            low = draw(st.floats(1e-6, 0.1))
            high = draw(st.floats(low * 1.01, MOST[name]))
            if draw(st.booleans()):
                zero = 0.0 if name in NEVER_ZERO else draw(st.just(0.0) | st.floats(0.01, 0.5))
                ranges[name] = Range(low, high, "log", zero)
            else:
                ranges[name] = Range(low if name in NEVER_ZERO else draw(st.sampled_from([0.0, low])), high, "linear")
        return Space(ranges)

    return one()


def test_the_default_space_varies_all_weights_but_sentiment() -> None:
    assert tuple(DEFAULT_SPACE.ranges) == TERMS
    assert all(span.zero == 0.1 and span.scale == "log" for span in DEFAULT_SPACE.ranges.values())


def test_that_of_sdumc_varies_all_weights_but_full_sentiment() -> None:
    assert ("full_sentiment", *SDUMC_SPACE.ranges) == SDUMC_TERMS
    assert all(span.zero == 0.1 and span.scale == "log" for span in SDUMC_SPACE.ranges.values())
    config = load_config(None, ["model.name=sdumc"])
    assert default_space(config) == SDUMC_SPACE == load_space(None, default_space(config))
    assert SDUMC_SPACE.configured(config)["text_query"] == 0.7
    with pytest.raises(RefusedError, match="must not vary full_sentiment"):
        Space({"full_sentiment": Range(0.1, 1)})


@pytest.mark.parametrize("name", config_names())
def test_every_config_lies_within_the_default_space(name: str) -> None:
    default_space(config_for(name)).require(config_for(name))


def test_the_page_shows_the_default_space_and_every_parameter() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    shown = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    assert [Space.from_dict(yaml.safe_load(each)) for each in shown[:2]] == [DEFAULT_SPACE, SDUMC_SPACE]
    table = page.partition("| parameter |")[2].partition("\n\n")[0]
    told = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert sorted(told) == sorted(PARAMETERS)


def test_a_space_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "dropout: {low: 0, high: 0.5, scale: linear}\nadversarial: {low: 1e-2, high: 1, zero: 0.2}\n", encoding="utf-8"
    )
    space = load_space(path)
    assert space.ranges == {"adversarial": Range(0.01, 1.0, zero=0.2), "dropout": Range(0.0, 0.5, "linear")}
    assert list(space.ranges) == ["adversarial", "dropout"]  # the order of tables, not of the file
    assert load_space() == DEFAULT_SPACE


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "space is empty"),
        (None, "space is empty"),
        ([1, 2], "must give each parameter a range"),
        ("adversarial", "must give each parameter a range"),
        ({"adversary": {"low": 0.1, "high": 1}}, "unknown parameter 'adversary'; known are completeness"),
        ({"loss.adversarial": {"low": 0.1, "high": 1}}, "unknown parameter 'loss.adversarial'"),
        ({"sentiment": {"low": 0.1, "high": 1}}, "must not vary sentiment: it is the unit"),
        ({7: {"low": 0.1, "high": 1}}, "unknown parameter '7'"),
        ({"adversarial": {"low": -0.1, "high": 1}}, "must not be negative"),
        ({"adversarial": {"low": -2, "high": -1, "scale": "linear"}}, "must not be negative"),
        ({"adversarial": {"low": 0, "high": 1}}, "above 0 on a log scale"),
        ({"adversarial": {"low": 0, "high": 1, "zero": 0.1}}, "above 0 on a log scale"),
        ({"adversarial": {"low": 1, "high": 1}}, "low below high"),
        ({"adversarial": {"low": 2, "high": 1}}, "low below high"),
        ({"adversarial": {"low": 0.1, "high": math.inf}}, "finite"),
        ({"adversarial": {"low": math.nan, "high": 1}}, "finite"),
        ({"adversarial": {"low": 0.1, "high": 1, "zero": math.nan}}, "finite"),
        ({"adversarial": {"low": "a", "high": 1}}, "adversarial.low"),
        ({"adversarial": {"low": True, "high": 2}}, "adversarial.low"),
        ({"adversarial": {"low": 0.1, "high": 1, "scale": "cubic"}}, "adversarial.scale must be one of log, linear"),
        ({"adversarial": {"low": 0.1, "high": 1, "step": 2}}, "adversarial.step"),
        ({"adversarial": {"low": 0.1}}, "must be a range"),
        ({"adversarial": 0.5}, "must be a range"),
        ({"adversarial": None}, "must be a range"),
        ({"adversarial": {"low": 0.1, "high": 1, "zero": 0.6}}, "share of zeros from 0 to 0.5, got 0.6"),
        ({"adversarial": {"low": 0.1, "high": 1, "zero": -0.1}}, "share of zeros from 0 to 0.5, got -0.1"),
        ({"adversarial": {"low": 0, "high": 1, "scale": "linear", "zero": 0.1}}, "on a log scale to have a share"),
        ({"adversarial": {"low": 0.1, "high": 1, "zero": 1e-18}}, "there are no numbers that could stand for them"),
        ({"adversarial": {"low": 1e-200, "high": 1e200, "zero": 0.5}}, "there are no numbers that could stand"),
        ({"dropout": {"low": 0, "high": 1.5, "scale": "linear"}}, "dropout holds values that cannot be"),
        ({"dropout": {"low": 0, "high": 1, "scale": "linear"}}, "dropout holds values that cannot be"),
        ({"learning_rate": {"low": 0, "high": 1, "scale": "linear"}}, "learning_rate holds values that cannot be"),
        ({"learning_rate": {"low": 1e-5, "high": 1, "zero": 0.1}}, "train.learning_rate must be above 0"),
        ({"encoder_learning_rate": {"low": 1e-5, "high": 1, "zero": 0.1}}, "must be above 0"),
    ],
)
def test_what_is_no_space_is_refused_in_one_line(values: Any, reason: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        Space.from_dict(values)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("span", [Range(math.nan, 1), Range(0.1, math.inf), Range(0.1, 1, zero=math.nan)])
def test_no_number_is_refused_from_python_too(span: Range) -> None:
    with pytest.raises(RefusedError, match="the space's adversarial must have"):
        Space({"adversarial": span})


def test_a_file_that_holds_no_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot read the space"):
        load_space(tmp_path / "absent.yaml")
    with pytest.raises(RefusedError, match="cannot read the space"):
        load_space(tmp_path)
    for content, reason in (
        (b"adversarial: {low: [", "not YAML"),
        (b"\xff\xfe\x00\x81", "not YAML"),
        (b"adversarial: 2026-99-99", "not YAML"),
        (b"adversarial: " + b"[" * 5000 + b"]" * 5000, "not YAML"),
        (b"", "empty"),
        (b"{}", "empty"),
        (b"- adversarial\n", "must give each parameter a range"),
        (b"adversarial: {low: 0.1, high: 1}\nadversarial: {low: 0.2, high: 1}\n", "adversarial twice"),
    ):
        path = tmp_path / "space.yaml"
        path.write_bytes(content)
        with pytest.raises(RefusedError, match=reason) as refusal:
            load_space(path)
        assert "\n" not in str(refusal.value)


def test_a_config_outside_the_space_is_refused() -> None:
    space = Space({"adversarial": Range(0.1, 1.0)})
    space.require(Config())
    space.require(with_parameters(Config(), {"adversarial": 1.0, "completeness": 0.0}))
    for value in (0.0, 0.09, 1.01):
        with pytest.raises(RefusedError, match=rf"loss\.adversarial is {value:g} and must lie within .* 0\.1 to 1"):
            space.require(with_parameters(Config(), {"adversarial": value}))
    with_zero = Space({"adversarial": Range(0.1, 1.0, zero=0.1)})
    with_zero.require(with_parameters(Config(), {"adversarial": 0.0}))
    with pytest.raises(RefusedError, match=r"adversarial is 0\.09"):
        with_zero.require(with_parameters(Config(), {"adversarial": 0.09}))
    with pytest.raises(RefusedError, match=r"model\.dropout is 0 and must lie within .* 0\.5 to 0\.6"):
        Space({"dropout": Range(0.5, 0.6, "linear")}).require(Config())


def test_every_parameter_stands_for_a_key_of_the_config() -> None:
    config = with_parameters(Config(), dict.fromkeys(PARAMETERS, 0.25))
    values = config.to_dict()
    for key in PARAMETERS.values():
        section, name = key.split(".")
        assert values[section].pop(name) == 0.25
    rest = Config().to_dict()
    for key in PARAMETERS.values():
        section, name = key.split(".")
        del rest[section][name]
    assert values == rest, "nothing else changes"
    with pytest.raises(RefusedError, match=r"train\.learning_rate"):
        with_parameters(Config(), {"learning_rate": 0.0})


@settings(deadline=None)
@given(space=spaces())
def test_spaces_survive_json(space: Space) -> None:
    assert Space.from_dict(space.to_dict()) == space
    assert space.configured(Config()).keys() == space.ranges.keys()


@settings(deadline=None)
@given(space=spaces(), shares=st.lists(st.floats(0, 1), min_size=len(PARAMETERS), max_size=len(PARAMETERS)))
def test_a_drawn_number_and_its_meaning(space: Space, shares: list[float]) -> None:
    """Whatever a sampler may draw is a value of the space, which a config takes; and back to a number that may be drawn
    and means the same."""
    drawn = {}
    for (name, span), share in zip(space.ranges.items(), shares, strict=False):
        low, high = (math.log(b) if span.scale == "log" else b for b in (span.draw_low, span.high))
        number = low + share * (high - low)
        drawn[name] = min(max(math.exp(number) if span.scale == "log" else number, span.draw_low), span.high)
    values = space.values(drawn)
    assert values.keys() == space.ranges.keys()
    config = with_parameters(Config(), values)
    assert space.configured(config) == values
    space.require(config)
    again = space.drawn(values)
    assert space.values(again) == values
    for name, span in space.ranges.items():
        assert span.draw_low <= again[name] <= span.high
        assert again[name] == drawn[name] or values[name] == 0
        distribution = optuna.distributions.FloatDistribution(span.draw_low, span.high, log=span.scale == "log")
        assert distribution._contains(again[name])


@pytest.mark.parametrize("zero", [0.01, 0.1, 0.3, 0.5])
def test_the_share_of_zeros_is_what_was_asked_for(zero: float) -> None:
    span = Range(0.05, 3.0, zero=zero)
    numbers = np.exp(np.random.default_rng(0).uniform(np.log(span.draw_low), np.log(span.high), 100_000))
    values = np.array([span.value(number) for number in numbers])
    assert abs((values == 0).mean() - zero) < 5 * math.sqrt(zero * (1 - zero) / len(values))
    others = values[values > 0]
    assert others.min() >= 0.05
    middle = math.sqrt(0.05 * 3.0)
    assert abs((others < middle).mean() - 0.5) < 0.01, "what is not 0 is spread over the range as without zeros"


def test_what_is_drawn_below_a_range_by_rounding_is_its_end() -> None:
    below = math.nextafter(0.1, 0)
    assert Range(0.1, 1.0).value(below) == 0.1
    assert Range(0.1, 1.0, zero=0.1).value(below) == 0


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "NSGAIISampler"])
def test_samplers_of_optuna_stay_within_a_space(sampler: str) -> None:
    space = Space({"adversarial": Range(0.05, 3.0, zero=0.5), "learning_rate": Range(1e-5, 1e-2)})
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=0))
    seen = []
    for _ in range(60):
        trial = study.ask(
            {
                name: optuna.distributions.FloatDistribution(span.draw_low, span.high, log=True)
                for name, span in space.ranges.items()
            }
        )
        values = space.values(trial.params)
        space.require(with_parameters(Config(), values))
        seen.append(values["adversarial"])
        study.tell(trial, values["adversarial"])
    assert 0 in seen and any(seen)
