"""View specs: what their ids say, what is refused, and which of them a config asks for."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.config import Config, CorruptionConfig, load_config
from lnln.corruption import ViewSpec, evaluation_views, format_rate, training_view, training_views
from lnln.errors import RefusedError
from tests.lnln.corruption.plain import PROTOCOLS, SPECS


def test_a_view_id_says_all_that_the_view_depends_on_and_no_more() -> None:
    base = ViewSpec.evaluation(0.5, 0)
    assert base.view_id == ViewSpec(seed=0, rates=(0.5, 0.5, 0.5), complete_share=0.3).view_id
    assert ViewSpec.evaluation(0, 0).view_id == ViewSpec.evaluation(-0.0, 0).view_id
    assert ViewSpec.evaluation(1, 0).view_id == ViewSpec.evaluation(np.float64(1.0), 0).view_id
    assert ViewSpec.evaluation((0.5, 0.5, 0.5), 0) == base
    specs = [base, ViewSpec.evaluation(0.4, 0), ViewSpec.evaluation(0.5, 1), ViewSpec(0, 1, (0.5, 0.5, 0.5))]
    specs += [ViewSpec.training(0, 0), ViewSpec.training(0, 1), ViewSpec.training(1, 0), ViewSpec.training(0, 0, 0.4)]
    specs += [ViewSpec.training(0, 1, position_draw=0), ViewSpec.training(0, 2, position_draw=0)]
    specs += [ViewSpec.training(0, 1, shared_uniforms=True), ViewSpec.evaluation(0.5, 0, shared_uniforms=True)]
    specs += [ViewSpec.evaluation(rates, 0) for rates in ((0.5, 0.5, 0.4), (0.5, 0.4, 0.5), (0.4, 0.5, 0.5))]
    specs += [ViewSpec.evaluation(0.5, 0, protocol) for protocol in PROTOCOLS[1:]]
    specs += [ViewSpec.training(0, 0, protocol=protocol) for protocol in PROTOCOLS[1:]]
    specs += [ViewSpec.evaluation(0.5, 0, "noise", noise_scale=scale) for scale in (0.0, 0.5, 2.0)]
    assert len({spec.view_id for spec in specs}) == len(specs)
    # One way to say one thing: a draw at its own positions, and an evaluation view, which draws nothing else.
    assert ViewSpec.training(0, 1, position_draw=1) == ViewSpec.training(0, 1)
    assert ViewSpec(0, 5, (0.5, 0.5, 0.5), position_draw=1) == ViewSpec(0, 1, (0.5, 0.5, 0.5))
    assert set(ViewSpec.training(0, 1, position_draw=1).to_dict()) == set(ViewSpec.training(0, 1).to_dict())
    # Without noise its scale says nothing.
    for protocol in ("frame", "block", "modality"):
        assert ViewSpec.evaluation(0.5, 0, protocol, noise_scale=3) == ViewSpec.evaluation(0.5, 0, protocol)
        assert "noise_scale" not in ViewSpec.evaluation(0.5, 0, protocol).to_dict()
    assert ViewSpec.evaluation(0.5, 0, "noise", noise_scale=1) == ViewSpec.evaluation(0.5, 0, "noise")
    json.dumps(base.to_dict())


@given(st.lists(SPECS, max_size=8))
def test_equal_specs_have_equal_ids_and_others_others(specs: list[ViewSpec]) -> None:
    for one in specs:
        for other in specs:
            same = one == dataclasses.replace(other, complete_share=one.complete_share if one.rates else 0.5)
            if one.rates is None:
                same = one == other
            assert (one.view_id == other.view_id) == same


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 0, "rates": (0.1, 0.2, 1.1)},
        {"seed": 0, "rates": (0.1, 0.2, float("nan"))},
        {"seed": 0, "rates": (-0.1, 0.2, 0.3)},
        {"seed": 0, "rates": (0.1, 0.2)},
        {"seed": -1},
        {"seed": 0, "draw": -1},
        {"seed": 0, "position_draw": -1},
        {"seed": 0, "complete_share": 1.5},
        {"seed": 0, "protocol": "blocks"},
        {"seed": 0, "protocol": "noise", "noise_scale": -0.1},
        {"seed": 0, "protocol": "noise", "noise_scale": float("nan")},
        {"seed": 0, "protocol": "noise", "noise_scale": float("inf")},
    ],
)
def test_a_wrong_view_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="view's"):
        ViewSpec(**values)


def test_views_of_a_config() -> None:
    config = CorruptionConfig()
    assert [spec.rates for spec in evaluation_views(config)] == [(rate,) * 3 for rate in config.rates]
    assert [spec.rates for spec in evaluation_views(config, (0.25,))] == [(0.25,) * 3]
    assert training_views(config, 5, 3) == [ViewSpec.training(5, draw, 0.5) for draw in range(3)]
    # Fixed draws are by the mask seed, so that every training seed has the same (D4, D8).
    fixed = dataclasses.replace(config, draws="fixed", mask_seed=1111)
    assert training_views(fixed, 5, 3) == [ViewSpec.training(1111, 0, 0.5)]
    assert training_views(fixed, 5, 0) == training_views(config, 5, 0) == []
    assert training_view(fixed, 5, 9) == training_view(fixed, 6, 0) == ViewSpec.training(1111, 0, 0.5)
    positions = dataclasses.replace(config, draws="fixed_positions")
    assert training_views(positions, 5, 3) == [
        ViewSpec.training(5, 0),
        ViewSpec.training(5, 1, position_draw=0),
        ViewSpec.training(5, 2, position_draw=0),
    ]
    shared = dataclasses.replace(fixed, shared_uniforms=True)
    assert all(spec.shared_uniforms for spec in [*evaluation_views(shared), training_view(shared, 5, 9)])
    noisy = dataclasses.replace(config, protocol="noise", noise_scale=0.5)
    assert evaluation_views(noisy, [0.5]) == [ViewSpec.evaluation(0.5, 0, "noise", noise_scale=0.5)]
    assert training_view(noisy, 5, 9) == ViewSpec.training(5, 9, protocol="noise", noise_scale=0.5)


def test_a_config_states_rates_of_all_modalities_or_of_each() -> None:
    given_rates = "corruption.rates=[0, 0.5, [1, 0, 0], [0.3, 0.3, 0.3]]"
    config = load_config(None, ["corruption.protocol=modality", given_rates, "corruption.validation_rates=[[0, 1, 1]]"])
    assert config.corruption.rates == (0.0, 0.5, (1.0, 0.0, 0.0), 0.3)
    assert [spec.rates for spec in evaluation_views(config.corruption)] == [
        (0.0, 0.0, 0.0),
        (0.5, 0.5, 0.5),
        (1.0, 0.0, 0.0),
        (0.3, 0.3, 0.3),
    ]
    assert {spec.protocol for spec in evaluation_views(config.corruption)} == {"modality"}
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    # A single one needs no list around it, three numbers are three rates.
    assert load_config(None, ["corruption.rates=0.5"]).corruption.rates == (0.5,)
    assert load_config(None, ["corruption.rates=[1, 0, 0.5]"]).corruption.rates == (1.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("corruption.rates=[[0.1, 0.2]]", "numbers, or lists of three (text, audio, vision), got (0.1, 0.2)"),
        ("corruption.rates=[[0.1, 0.2, 0.3, 0.4]]", "lists of three"),
        ("corruption.rates=[[]]", "lists of three"),
        ("corruption.rates=[[0.1, 0.2, 1.3]]", "within [0, 1], got (0.1, 0.2, 1.3)"),
        ("corruption.validation_rates=[0.5, [0.5, 0.5, 0.5]]", "without repetition"),
        ("corruption.rates=[[0.1, 0.2, [0.3]]]", "of type float"),
        ("corruption.rates=[much]", "of type float"),
        ("corruption.rates=[{text: 1}]", "of type float"),
        ("corruption.protocol=blok", "one of frame, block, modality, noise, got 'blok'"),
        ("corruption.noise_scale=-1", "0 or more"),
    ],
)
def test_wrong_rates_are_refused_in_one_line(override: str, expected: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        load_config(None, [override])
    assert expected in str(refusal.value) and "\n" not in str(refusal.value)


def test_rates_are_written_short_and_told_apart() -> None:
    assert [format_rate(rate) for rate in (0.0, 0.5, 1.0, 1 / 3)] == ["0", "0.5", "1", "0.3333333333333333"]
    assert format_rate((1.0, 0.0, 0.25)) == format_rate([1.0, 0.0, 0.25]) == "1/0/0.25"
    assert ViewSpec.evaluation(0.5, 0).rate == 0.5 and ViewSpec.evaluation((0.5, 0.5, 0.4), 0).rate == (0.5, 0.5, 0.4)
