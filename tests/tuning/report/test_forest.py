"""The forest: its averages are those of a fine grid, its shares are Optuna's, and pairs have what formulas give."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from tuning.report.forest import Array, Forest

SINGLES = [(0,), (1,), (2,)]
PAIRS = [(0, 1), (0, 2), (1, 2)]


def points(num: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((num, 3))


def predicted(forest: Forest, places: Array) -> Array:
    """By looking for the box of each place, as a tree does."""
    found = np.zeros(len(places))
    for tree in forest.trees:
        inside = (tree.low[None] <= places[:, None]) & (places[:, None] < tree.high[None])
        assert (inside.all(axis=2).sum(axis=1) == 1).all(), "boxes must cover the cube once"
        found += tree.values[inside.all(axis=2).argmax(axis=1)]
    return found / len(forest.trees)


@pytest.mark.parametrize("held", [(0,), (2,), (0, 1), (1, 2)])
def test_a_mean_over_the_others_is_that_of_many_places(held: tuple[int, ...]) -> None:
    x = points(30)
    forest = Forest.fit(x, x[:, 0] + 3 * x[:, 1] * x[:, 2], seed=1, num_trees=4)
    at = [np.array([0.07, 0.5, 0.93])] * len(held)
    means = forest.mean_at(held, at)
    rest = points(20_000, seed=7)
    for index in np.ndindex(*means.shape):
        for axis, place in enumerate(index):
            rest[:, held[axis]] = at[axis][place]
        assert means[index] == pytest.approx(predicted(forest, rest).mean(), abs=0.02)


@pytest.mark.parametrize("num", [8, 24, 100])
def test_shares_of_single_parameters_are_optunas(num: int) -> None:
    x = points(num)
    values = x[:, 0] ** 2 + x[:, 1] * x[:, 2] + 0.1 * np.random.default_rng(1).normal(size=num)
    names = ["p0", "p1", "p2"]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(0, 1) for name in names
    }
    study = optuna.create_study()
    for row, value in zip(x.tolist(), values.tolist(), strict=True):
        params = dict(zip(names, row, strict=True))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    theirs = optuna.importance.FanovaImportanceEvaluator(seed=5).evaluate(study)
    ours = Forest.fit(x, values, seed=5).shares(SINGLES)
    assert ours == pytest.approx([theirs[name] for name in names], abs=1e-6)


def test_shares_of_known_functions() -> None:
    x = points(1500)
    a, b = x[:, 0] - 0.5, x[:, 1] - 0.5
    alone = Forest.fit(x, a + b, seed=0, num_trees=16).shares([*SINGLES, *PAIRS])
    assert alone[:2] == pytest.approx([0.5, 0.5], abs=0.06)
    assert alone[2:] == pytest.approx([0, 0, 0, 0], abs=0.03)
    # a * b has no part that either explains alone.
    together = Forest.fit(x, a * b, seed=0, num_trees=16).shares([*SINGLES, *PAIRS])
    assert together[3] > 0.8 and max(np.delete(together, 3)) < 0.06


def test_shares_do_not_hang_on_unit_or_sign_of_the_score() -> None:
    # Not to the last digit: rounding decides between splits that are equally good.
    x = points(40)
    values = x[:, 0] + x[:, 1] ** 3
    shares = Forest.fit(x, values, seed=0).shares([*SINGLES, *PAIRS])
    assert Forest.fit(x, 1000 - 50 * values, seed=0).shares([*SINGLES, *PAIRS]) == pytest.approx(shares, abs=0.02)
    assert (shares >= 0).all() and shares.sum() <= 1 + 1e-9


def test_a_score_that_never_changes_has_no_shares() -> None:
    forest = Forest.fit(points(12), np.full(12, 0.7), seed=0)
    assert forest.shares([*SINGLES, *PAIRS]).tolist() == [0.0] * 6
    assert forest.mean_at([0], [np.array([0.0, 1.0])]) == pytest.approx([0.7, 0.7])


def test_places_at_the_ends_of_the_cube_belong_to_its_outer_boxes() -> None:
    x = points(20)
    forest = Forest.fit(x, x[:, 0], seed=0)
    ends, inner = forest.mean_at([0], [np.array([0.0, 1.0])]), forest.mean_at([0], [np.array([1e-6, 1 - 1e-6])])
    assert ends.tolist() == inner.tolist()
