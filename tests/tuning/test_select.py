"""Choosing from a study: the best, those that nothing beats, the config that uses them, the table."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.config import Config, load_config, to_dict
from lnln.errors import RefusedError
from tests.made_study import OTHER, PAPER, complete, failed, interrupted, made_study, pruned
from tuning.objectives import objective
from tuning.record import Study
from tuning.select import best_config, best_trial, configured_trial, fresh_seeds, pareto_front, ranked_trials, table

OBJECTIVES = {name: str(objective(name).direction) for name in ("mae@clean", "acc7")}


def of_two(*values: tuple[float, float]) -> Study:
    """Trials with these MAE at rate 0 and Acc-7, of which the one wants to be low, the other high."""
    trials = []
    for number, (mae, acc7) in enumerate(values):
        made = complete(number, mae, parameters=PAPER if number == 0 else OTHER)
        trials.append(dataclasses.replace(made, values={"mae@clean": mae, "acc7": acc7}))
    return made_study(*trials, directions=OBJECTIVES)


def test_the_best_trial_has_the_smallest_error_and_the_earlier_of_equals_wins() -> None:
    made = made_study(complete(0, 0.9, parameters=PAPER), complete(1, 0.7), complete(2, 0.7), failed(3), pruned(4, 0.1))
    assert best_trial(made).number == 1
    assert [trial.number for trial in ranked_trials(made)] == [1, 2, 0]


def test_a_trial_counts_by_the_mean_of_its_seeds() -> None:
    made = made_study(complete(0, 0.7, 0.75), complete(1, 0.6, 0.9))
    assert best_trial(made).number == 0 and best_trial(made).valid_mae == pytest.approx(0.725)


def test_the_first_objective_decides_in_its_own_direction() -> None:
    made = of_two((0.9, 0.3), (0.8, 0.2), (1.0, 0.4))
    assert best_trial(made).number == 1
    reverse = dataclasses.replace(made, directions=dict(reversed(OBJECTIVES.items())))
    assert best_trial(reverse).number == 2


def test_only_complete_trials_can_be_best() -> None:
    made = made_study(failed(0), interrupted(1), pruned(2, 0.1), complete(3, 1.4))
    assert best_trial(made).number == 3
    for none in (made_study(), made_study(failed(0)), made_study(pruned(0, 0.1))):
        with pytest.raises(RefusedError, match=r"has no complete trial; `lnln tune sample --trials N`"):
            best_trial(none)
        with pytest.raises(RefusedError, match="has no complete trial"):
            best_config(Config(), none)
        assert ranked_trials(none) == pareto_front(none) == [] and configured_trial(none) is None


def test_the_configured_trial_is_the_one_that_ended() -> None:
    made = made_study(failed(0, parameters=PAPER), complete(1, 0.9), complete(2, 0.8, parameters=PAPER))
    chosen = configured_trial(made)
    assert made.trials[0].is_configured and chosen is not None and chosen.number == 2
    assert configured_trial(made_study(failed(0, parameters=PAPER), complete(1, 0.9))) is None


def test_the_best_config_differs_in_the_parameters_alone() -> None:
    config = load_config("sample", ["loss.sentiment=2", "loss.sentiment_distance=huber", "train.epochs=7"])
    found = {**OTHER, "learning_rate": 3e-4, "dropout": 0.2, "reversal_strength": 0.5}
    chosen = best_config(config, made_study(complete(0, 0.9, parameters=PAPER), complete(1, 0.7, parameters=found)))
    assert to_dict(chosen.loss) == {**to_dict(config.loss), **OTHER}
    assert chosen.train == dataclasses.replace(config.train, learning_rate=3e-4)
    assert chosen.model == dataclasses.replace(config.model, dropout=0.2, reversal_strength=0.5)
    assert (chosen.corruption, chosen.tune) == (config.corruption, config.tune)
    assert best_config(config, made_study(complete(0, 0.5, parameters=PAPER), complete(1, 0.7))) == config


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.7, 0.8, 0.9]), st.sampled_from([0.2, 0.3, 0.4])), max_size=12))
def test_the_front_is_what_nothing_beats(values: list[tuple[float, float]]) -> None:
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    made = of_two(*values)
    front = [(trial.values["mae@clean"], trial.values["acc7"]) for trial in pareto_front(made)]
    assert set(front) == {one for one in values if not any(beats(other, one) for other in values)}
    assert [trial.number for trial in pareto_front(made)] == [i for i, value in enumerate(values) if value in front]
    if values:
        lowest = min(value[0] for value in values)
        assert best_trial(made).values["mae@clean"] == lowest, "the best of the first objective"


def test_the_front_of_one_objective_is_its_best() -> None:
    made = made_study(complete(0, 0.9, parameters=PAPER), complete(1, 0.7), complete(2, 0.7), pruned(3, 0.1))
    assert [trial.number for trial in pareto_front(made)] == [1, 2]


def test_fresh_seeds_are_none_of_the_studys() -> None:
    assert fresh_seeds(made_study()) == [2111, 2112, 2113]
    assert fresh_seeds(made_study(seeds=(2112, 2111, 2**63 - 1)), 2) == [2113, 2114]


def test_the_table_ranks_and_marks_the_configured_setting() -> None:
    rows = table(
        made_study(complete(0, 0.9, 0.8, parameters=PAPER), failed(1), complete(2, 0.7), interrupted(3), pruned(4, 0.1))
    )
    assert [row["trial"] for row in rows] == ["2", "0 (configured)", "1", "3", "4"]
    assert [row["validation MAE"] for row in rows] == ["0.7000", "0.8500", "failed", "interrupted", "pruned"]
    assert [row["best epoch"] for row in rows] == ["2", "2, 2", "", "", ""]
    assert [row["reconstruction"] for row in rows] == ["0", "0.1", "0", "", "0"]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert table(made_study()) == []


def test_the_table_of_several_objectives_has_a_column_for_each() -> None:
    (row,) = table(of_two((0.9, 0.3)))
    assert row["validation MAE, clean"] == "0.9000" and row["validation Acc-7"] == "0.3000"


def test_what_a_trial_and_a_study_say_of_themselves() -> None:
    made = made_study(complete(0, 0.9, 0.7), pruned(1, 0.5), failed(2))
    first, stopped, broken = made.trials
    assert first.valid_mae == pytest.approx(0.8) and first.collapse_share == pytest.approx(0.4)
    assert stopped.valid_mae is None and stopped.collapse_share == 0.4
    assert broken.valid_mae is None and broken.collapse_share is None
    assert made.of_state("pruned") == [stopped] and made.first_objective == "mae"
    assert made.trained_config() == Config()
    said = json.loads(json.dumps(first.to_dict()))
    assert said["values"] == first.values and [seed["seed"] for seed in said["seeds"]] == [1111, 1112]
