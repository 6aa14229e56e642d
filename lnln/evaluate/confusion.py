"""Which classes a system takes for which, and how many it still names when much is missing.

for made in confusions(store, system):
    print(made.rate, made.classes, made.shares(), made.collapse_share)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnln.config import Rate
from lnln.data.store import Store
from lnln.evaluate.estimates import suite_rates, view_order
from lnln.evaluate.systems import System
from lnln.metrics import accuracy_names, class_titles, classify

# Those of the paper's figures.
RATES: tuple[float, ...] = (0.0, 0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Confusion:
    """counts: (C, C) labels by predictions, summed over trainings and mask seeds, so that each labelled utterance
    counts `num_answers` times. classes: of the finest accuracy, lowest first."""

    rate: Rate
    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    num_answers: int

    def shares(self) -> NDArray[np.float64]:
        """(C, C): of the utterances of each class, the share that got each prediction; 0 for a class without any."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.asarray(self.counts / np.maximum(totals, 1))

    @property
    def collapse_share(self) -> float:
        """Share of all predictions in the most frequent predicted class."""
        return float(self.counts.sum(axis=0).max() / self.counts.sum())


def confusions(
    store: Store, system: System, rates: Sequence[Rate] = RATES, suite: str = "ten_rates"
) -> tuple[Confusion, ...]:
    """Of `system` at those of `rates` that `suite` has; RefusedError where its predictions are gone.

    Of a system whose metrics have weights of their own (`published` selection) those of the finest accuracy answer.
    """
    evaluations = system.evaluations[suite]
    label_range = evaluations[0].label_range
    finest = accuracy_names(label_range)[0]
    titles = class_titles(label_range)
    first = min(titles)
    found = [rate for rate in rates if rate in suite_rates(evaluations[0], suite)]
    said = system.predictions(store, suite, finest)
    made = []
    for place, rate in enumerate(found):
        counts = np.zeros((len(titles), len(titles)), np.int64)
        num_answers = 0
        for evaluation, each in zip(evaluations, said, strict=True):
            views = view_order(evaluation, found)[:, place]
            truth = classify(finest, each.label, label_range) - first
            for guess in classify(finest, each.sentiment[views], label_range) - first:
                np.add.at(counts, (truth, guess), 1)
            num_answers += len(views)
        made.append(Confusion(rate, tuple(titles.values()), counts, num_answers))
    return tuple(made)
