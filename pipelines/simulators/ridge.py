"""Ridge regression in closed form, from sums over rows: a corpus is gone through once, shard by shard.

    moments = Moments.zero(num_columns, num_targets)
    moments = moments.plus(x, y)                           # as many rows as memory likes, as often as wanted
    path = Path.of(moments)                                # all penalties at once
    weights, intercept = path.solve(penalty)
    other.squared_error(weights, intercept)

The map of all rows but some is that of the difference of two sums, so a fold that is held out costs no second pass.
Minimised is (the mean square of what remains) + penalty * (the squared weights), of columns in deviations.

n rows, F columns, D targets; all of it float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# By half decades. The last ones leave nothing but the mean.
PENALTIES = tuple(float(f"{10 ** (power / 2):.3g}") for power in range(-8, 9))
# A column that varies less than this, of its mean square, is constant but for rounding.
_CONSTANT = 1e-12


@dataclass(frozen=True)
class Moments:
    """Sums over n rows: of x (F,), y (D,), their products xx (F, F), xy (F, D), and of y squared, over all targets."""

    num_rows: int
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: float

    @classmethod
    def zero(cls, num_columns: int, num_targets: int) -> Moments:
        square = np.zeros((num_columns, num_columns))
        return cls(0, np.zeros(num_columns), np.zeros(num_targets), square, np.zeros((num_columns, num_targets)), 0.0)

    def plus(self, x: Array, y: Array) -> Moments:
        """With (n, F) rows and their (n, D) targets; the sums are changed in place."""
        np.add(self.xx, x.T @ x, out=self.xx)
        np.add(self.xy, x.T @ y, out=self.xy)
        return Moments(
            self.num_rows + len(x),
            self.x + x.sum(axis=0),
            self.y + y.sum(axis=0),
            self.xx,
            self.xy,
            self.yy + float(np.square(y).sum()),
        )

    def __add__(self, other: Moments) -> Moments:
        return self._combined(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        return self._combined(other, -1)

    def _combined(self, other: Moments, sign: int) -> Moments:
        return Moments(
            self.num_rows + sign * other.num_rows,
            self.x + sign * other.x,
            self.y + sign * other.y,
            self.xx + sign * other.xx,
            self.xy + sign * other.xy,
            self.yy + sign * other.yy,
        )

    def squared_error(self, weights: Array, intercept: Array) -> float:
        """Summed over rows and targets: what the map leaves of y."""
        fitted = float(np.vdot(weights, self.xx @ weights)) + 2 * float(self.x @ weights @ intercept)
        fitted += self.num_rows * float(intercept @ intercept)
        met = float(np.vdot(weights, self.xy)) + float(intercept @ self.y)
        return max(0.0, self.yy - 2 * met + fitted)


@dataclass(frozen=True)
class Path:
    """The maps of one set of rows, one per penalty: the eigenvectors of what the columns have in common."""

    mean_x: Array
    mean_y: Array
    scale: Array
    values: Array
    vectors: Array
    projected: Array

    @classmethod
    def of(cls, moments: Moments) -> Path:
        """Of one row or more. Constant columns have no weight."""
        assert moments.num_rows, "nothing to learn from"
        mean_x, mean_y = moments.x / moments.num_rows, moments.y / moments.num_rows
        common = moments.xx / moments.num_rows - np.outer(mean_x, mean_x)
        variance = common.diagonal()
        is_alive = variance > _CONSTANT * np.maximum(moments.xx.diagonal() / moments.num_rows, _CONSTANT)
        scale = np.where(is_alive, 1 / np.sqrt(np.where(is_alive, variance, 1)), 0)
        values, vectors = np.linalg.eigh(common * np.outer(scale, scale))
        target = (moments.xy / moments.num_rows - np.outer(mean_x, mean_y)) * scale[:, None]
        return cls(mean_x, mean_y, scale, np.maximum(values, 0), vectors, vectors.T @ target)

    def solve(self, penalty: float) -> tuple[Array, Array]:
        """(F, D) weights and (D,) intercept."""
        assert penalty > 0
        standard = self.vectors @ (self.projected / (self.values + penalty)[:, None])
        weights = standard * self.scale[:, None]
        return weights, self.mean_y - self.mean_x @ weights


def best_penalty(pairs: list[tuple[Path, Moments]]) -> float:
    """Of `PENALTIES` the one whose maps leave least of the rows beside them; of equals the largest."""
    errors = [sum(rows.squared_error(*path.solve(penalty)) for path, rows in pairs) for penalty in PENALTIES]
    return max(penalty for penalty, error in zip(PENALTIES, errors, strict=True) if error <= min(errors))
