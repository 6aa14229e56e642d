"""Stops a run whose loss or gradient is no finite number, and says where it began.

Looked at every few steps, because looking makes a GPU wait; the steps in between are remembered until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lnln.errors import RefusedError
from lnln.train.ranks import Ranks

CHECK_EVERY = 20
# Utterances that a refusal names.
NUM_NAMED = 5


class DivergedError(RefusedError):
    """A loss, a gradient or a prediction is no finite number: with these settings the training leads nowhere."""


@dataclass(frozen=True)
class _Step:
    number: int
    utterance_ids: list[str]
    names: list[str]
    terms: Tensor  # (terms, B)
    norm: Tensor


@dataclass
class FiniteWatch:
    """Remembers the steps of one epoch; every worker calls `add` equally often and `check` at the end."""

    ranks: Ranks
    epoch: int
    _steps: list[_Step] = field(default_factory=list)

    def add(self, number: int, utterance_ids: list[str], terms: Mapping[str, Tensor], norm: Tensor) -> None:
        """Note step `number` (from 0): loss terms per utterance, `total` among them, and the norm of the gradient."""
        values = torch.stack([term.detach() for term in terms.values()])
        self._steps.append(_Step(number, utterance_ids, list(terms), values, norm.detach()))
        if len(self._steps) == CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """DivergedError on all workers where one of them has met a number that is not finite."""
        if not self._steps:
            return
        finite = torch.stack([step.terms.isfinite().all() & step.norm.isfinite() for step in self._steps])
        broken = self.ranks.sum((~finite).int())
        if not bool(broken.any()):
            self._steps.clear()
            return
        first = self._steps[int(broken.nonzero()[0])]
        found = [entry for entry in self.ranks.gather(_broken_terms(first)) if entry]
        where = f"step {first.number + 1} of epoch {self.epoch + 1}"
        advice = "the last checkpoint stays; lower train.learning_rate or look at these utterances"
        if not found:
            names = {name for ids in self.ranks.gather(first.utterance_ids) for name in ids}
            raise DivergedError(
                f"the gradient of {where} is not finite though its losses are, those of {_shown(names)}; {advice}"
            )
        terms = {name for entry in found for name in entry}
        names = {name for entry in found for ids in entry.values() for name in ids}
        # The total is no news where a term of it is not finite; alone it means a weight that is too large.
        shown = ", ".join(sorted(terms - {"total"} or terms))
        raise DivergedError(f"the loss is not finite in {where}: {shown} of {_shown(names)}; {advice}")


def _shown(utterance_ids: set[str]) -> str:
    first = ", ".join(sorted(utterance_ids)[:NUM_NAMED])
    return f"{first} and {len(utterance_ids) - NUM_NAMED} more" if len(utterance_ids) > NUM_NAMED else first


def _broken_terms(step: _Step) -> dict[str, list[str]]:
    """The utterances of each term that is not finite."""
    broken: dict[str, list[str]] = {}
    for name, term in zip(step.names, step.terms, strict=True):
        rows = (~term.isfinite()).nonzero().flatten().tolist()
        if rows:
            broken[name] = [step.utterance_ids[row] for row in rows]
    return broken
