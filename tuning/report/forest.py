"""A forest of regression trees over the unit cube, and what its mean is when only some parameters are held.

    forest = Forest.fit(positions, values, seed=0)
    forest.shares([(0,), (1,), (0, 1)])                 # fANOVA: of the variance over the cube
    forest.mean_at((0,), [np.linspace(0, 1, 50)])        # the other parameters averaged out

A tree is constant in boxes, so the averages are exact (Hutter, Hoos, Leyton-Brown 2014). Optuna's fANOVA does the same
for single parameters; this one does it for pairs too, and fast enough to be repeated for every resample.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# As many as Optuna's.
NUM_TREES = 64


@dataclass(frozen=True)
class Boxes:
    """The leaves of one tree. low, high: (leaves, parameters); values: what each predicts."""

    low: Array
    high: Array
    values: Array

    def marginal(self, held: Sequence[int]) -> tuple[list[Array], Array]:
        """The mean over all other parameters: edges of its cells along each held one, and its value in each cell."""
        sizes = self.high - self.low
        sizes[:, held] = 1
        weights = self.values * sizes.prod(axis=1)
        edges = [np.unique([self.low[:, index], self.high[:, index]]) for index in held]
        # Each box adds its weight from its lower corner on and takes it back beyond its upper one.
        steps = np.zeros([len(along) for along in edges])
        for corner in itertools.product((self.low, self.high), repeat=len(held)):
            sign = (-1) ** sum(side is self.high for side in corner)
            sides = zip(edges, corner, held, strict=True)
            cells = tuple(np.searchsorted(along, side[:, index]) for along, side, index in sides)
            np.add.at(steps, cells, sign * weights)
        for axis in range(len(held)):
            steps = steps.cumsum(axis=axis)
        return edges, steps[(slice(-1),) * len(held)]

    def effects(self, held: Sequence[tuple[int, ...]]) -> Array:
        """For each of `held`, single parameters before pairs: the share of the variance over the cube that it explains,
        a pair beyond its two; all 0 for a tree of one leaf."""
        volumes = np.prod(self.high - self.low, axis=1)
        mean = float(volumes @ self.values)
        variance = float(volumes @ (self.values - mean) ** 2)
        explained: dict[tuple[int, ...], float] = {}
        for each in held:
            edges, means = self.marginal(each)
            sizes = np.diff(edges[0]) if len(each) == 1 else np.outer(*map(np.diff, edges))
            alone = sum(explained[(index,)] for index in each) if len(each) > 1 else 0.0
            explained[each] = max(float(np.sum(sizes * (means - mean) ** 2)) - alone, 0.0)
        return np.array([explained[each] for each in held]) / variance if variance > 0 else np.zeros(len(held))


@dataclass(frozen=True)
class Forest:
    """Trees that were each fitted to another resample."""

    trees: list[Boxes]

    @classmethod
    def fit(cls, positions: Array, values: Array, *, seed: int, num_trees: int = NUM_TREES) -> Forest:
        """positions: (trials, parameters), within [0, 1]; values: (trials,)."""
        from sklearn.ensemble import RandomForestRegressor

        fitted = RandomForestRegressor(n_estimators=num_trees, random_state=seed).fit(positions, values)
        return cls(_boxes([each.tree_ for each in fitted.estimators_], positions.shape[1]))

    def shares(self, held: Sequence[tuple[int, ...]]) -> Array:
        """For each of `held`, single parameters before pairs: the mean over trees of the share that it explains."""
        found = np.array([tree.effects(held) for tree in self.trees])
        varies = np.array([len(tree.values) > 1 for tree in self.trees])
        return np.asarray(found[varies].mean(axis=0)) if varies.any() else np.zeros(len(held))

    def mean_at(self, held: Sequence[int], places: Sequence[Array]) -> Array:
        """The forest's mean with the held parameters at each of `places` along their axes: a grid of their lengths."""
        means = np.zeros([len(along) for along in places])
        for tree in self.trees:
            edges, cells = tree.marginal(held)
            found = [
                np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(along) - 2)
                for along, at in zip(edges, places, strict=True)
            ]
            means += cells[np.ix_(*found)]
        return np.asarray(means / len(self.trees))


def _boxes(trees: Sequence[Any], num_parameters: int) -> list[Boxes]:
    """trees: scikit-learn's, whose nodes have -1 for children that they lack. All at once, level by level."""
    counts = np.array([tree.node_count for tree in trees])
    roots = np.cumsum(counts) - counts
    left, right, feature, threshold, values = (
        np.concatenate([getattr(tree, name) for tree in trees])
        for name in ("children_left", "children_right", "feature", "threshold", "value")
    )
    is_leaf, offsets = left < 0, np.repeat(roots, counts)
    left, right = left + offsets, right + offsets
    low, high = np.zeros((len(left), num_parameters)), np.ones((len(left), num_parameters))
    nodes = roots
    while nodes.size:
        nodes = nodes[~is_leaf[nodes]]
        lower, upper = left[nodes], right[nodes]
        low[lower], high[lower], low[upper], high[upper] = low[nodes], high[nodes], low[nodes], high[nodes]
        high[lower, feature[nodes]] = low[upper, feature[nodes]] = threshold[nodes]
        nodes = np.concatenate([lower, upper])
    ends = [np.flatnonzero(is_leaf[start : start + num]) + start for start, num in zip(roots, counts, strict=True)]
    return [Boxes(low[leaves], high[leaves], values[leaves, 0, 0]) for leaves in ends]
