"""Suggestions: reproducible, continued rather than repeated, and none lost to a killed driver; what is refused."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Literal

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from lnln.errors import RefusedError
from tuning.samplers import SeededSampler, distributions, is_interrupted, require_sampler
from tuning.search import mark_interrupted
from tuning.space import DEFAULT_SPACE, Range, Space

CONFIGURED = {"completeness": 0.9, "adversarial": 0.8, "reconstruction": 0.1}
# Those that a killed driver changes nothing for, and how many trials it takes until they have a plan.
STATELESS = [("tpe", 10), ("random", 1), ("GPSampler", 10), ("NSGAIISampler", 1)]


def open_study(storage: optuna.storages.BaseStorage, name: str = "tpe", seed: int = 0) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name="study", sampler=SeededSampler(name, seed), load_if_exists=True
    )


def ask(study: optuna.Study) -> optuna.Trial:
    return study.ask(distributions(DEFAULT_SPACE))


def score(drawn: dict[str, float]) -> float:
    return sum(abs(math.log(value)) for value in drawn.values())


def complete(study: optuna.Study, num: int) -> None:
    for _ in range(num):
        trial = ask(study)
        study.tell(trial, score(trial.params))


def suggested(study: optuna.Study) -> list[dict[str, float]]:
    return [trial.params for trial in study.trials if trial.state == TrialState.COMPLETE]


@pytest.mark.parametrize(("name", "num_startup"), STATELESS)
def test_a_continued_study_suggests_what_an_uninterrupted_one_would(name: str, num_startup: int) -> None:
    num = num_startup + 3
    whole = open_study(optuna.storages.InMemoryStorage(), name)
    whole.enqueue_trial(CONFIGURED)
    complete(whole, num)
    storage = optuna.storages.InMemoryStorage()
    open_study(storage, name).enqueue_trial(CONFIGURED)
    for part in (1, 1, num - 2):
        complete(open_study(storage, name), part)
    assert suggested(open_study(storage, name)) == suggested(whole)
    assert suggested(whole)[0] == CONFIGURED
    assert len({tuple(drawn.values()) for drawn in suggested(whole)}) == num


@pytest.mark.parametrize(
    ("name", "killed_at"), [("tpe", 0), ("tpe", 3), ("tpe", 12), *((n, s + 1) for n, s in STATELESS)]
)
def test_a_killed_driver_changes_no_suggestion(name: str, killed_at: int) -> None:
    whole = open_study(optuna.storages.InMemoryStorage(), name)
    whole.enqueue_trial(CONFIGURED)
    complete(whole, killed_at + 2)
    storage = optuna.storages.InMemoryStorage()
    study = open_study(storage, name)
    study.enqueue_trial(CONFIGURED)
    complete(study, killed_at)
    for _ in range(2):  # killed twice in the same trial
        ask(study)
        study = open_study(storage, name)
        mark_interrupted(study)
    complete(study, 2)
    assert suggested(study) == suggested(whole)
    assert sum(is_interrupted(trial) for trial in study.trials) == 2
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_another_seed_suggests_other_parameters() -> None:
    one, other = (open_study(optuna.storages.InMemoryStorage(), seed=seed) for seed in (0, 1))
    complete(one, 3)
    complete(other, 3)
    assert suggested(one) != suggested(other)


def test_a_sequence_goes_on_where_it_ended() -> None:
    """Points of one scrambled Sobol sequence: of eight, one in each eighth of every parameter's range."""
    storage = optuna.storages.InMemoryStorage()
    for num in (1, 3, 4):  # the first draws at random
        complete(open_study(storage, "QMCSampler"), num)
    complete(open_study(storage, "QMCSampler"), 1)
    spans = distributions(DEFAULT_SPACE)
    for name, span in spans.items():
        assert isinstance(span, optuna.distributions.FloatDistribution)
        drawn = np.array([parameters[name] for parameters in suggested(open_study(storage))[1:]])
        places = np.log(drawn / span.low) / math.log(span.high / span.low)
        assert sorted(np.floor(8 * places)) == list(range(8))


@given(
    low=st.floats(1e-6, 1e3),
    factor=st.floats(1.01, 1e6),
    zero=st.one_of(st.just(0.0), st.floats(0.01, 0.5)),
    name=st.sampled_from(["tpe", "random"]),
)
@settings(max_examples=25, deadline=None)
def test_suggestions_stay_within_the_space(low: float, factor: float, zero: float, name: str) -> None:
    space = Space({"adversarial": Range(low, low * factor, zero=zero), "reconstruction": Range(0, 0.5, "linear")})
    study = optuna.create_study(sampler=SeededSampler(name, 0))
    for _ in range(12):
        trial = study.ask(distributions(space))
        values = space.values(trial.params)
        assert values.keys() == space.ranges.keys()
        assert all(space.ranges[name].contains(value) for name, value in values.items())
        study.tell(trial, trial.params["adversarial"])


def test_a_share_of_the_draws_switches_a_term_off() -> None:
    space = Space({"adversarial": Range(0.05, 3.0, zero=0.2)})
    study = optuna.create_study(sampler=SeededSampler("random", 0))
    values = [space.values(study.ask(distributions(space)).params)["adversarial"] for _ in range(1000)]
    # Four standard deviations of a binomial count.
    assert abs(values.count(0.0) - 200) < 4 * math.sqrt(1000 * 0.2 * 0.8)
    assert min(value for value in values if value) < 0.06 and max(values) > 2.5


def test_samplers_describe_themselves() -> None:
    assert SeededSampler("tpe", 3).describe() == {
        "name": "TPESampler",
        "seed": 3,
        "n_startup_trials": 10,
        "multivariate": True,
        "constant_liar": True,
    }
    assert SeededSampler("random", 0).describe() == {"name": "RandomSampler", "seed": 0}
    assert SeededSampler("TPESampler", 3).describe() == SeededSampler("tpe", 3).describe()


@pytest.mark.parametrize("name", ["tpe", "random", "NSGAIISampler", "GPSampler", "QMCSampler"])
@pytest.mark.parametrize("num_objectives", [1, 2])
def test_what_works_is_not_refused(name: str, num_objectives: int) -> None:
    directions: list[Literal["minimize", "maximize"]] = ["minimize", "maximize"]
    require_sampler(SeededSampler(name, 0), DEFAULT_SPACE, directions[:num_objectives])


@pytest.mark.parametrize(
    ("name", "num_objectives", "reason"),
    [
        ("bayes", 1, r"must be tpe, random or one of .*NSGAIISampler.*, got 'bayes'"),
        ("", 1, "got ''"),
        ("BaseSampler", 1, "got 'BaseSampler'"),
        ("nsgaii", 1, "got 'nsgaii'"),
        ("GridSampler", 1, "cannot be made by its name alone"),
        ("BruteForceSampler", 1, "does not work for 1 objective over completeness, adversarial, reconstruction"),
        ("CmaEsSampler", 2, "does not work for 2 objectives"),
        pytest.param(
            "CmaEsSampler",
            1,
            "needs the package cmaes, which is not installed: pip install cmaes",
            marks=pytest.mark.skipif(find_spec("cmaes") is not None, reason="cmaes is installed"),
        ),
    ],
)
def test_what_does_not_work_is_refused_in_a_line(name: str, num_objectives: int, reason: str) -> None:
    directions: list[Literal["minimize", "maximize"]] = ["minimize", "maximize"]
    with pytest.raises(RefusedError, match=reason) as refusal:
        require_sampler(SeededSampler(name, 0), DEFAULT_SPACE, directions[:num_objectives])
    assert "\n" not in str(refusal.value)
    assert "GridSampler" not in str(refusal.value) or name == "GridSampler"
