"""Sets of views that answer one question each, the same for every model: `lnln evaluate NAME --suite ten_rates,absent`.

    for name, suite in SUITES.items():
        print(name, suite.question, len(suite.rates))

A suite states its views in full, so models that were trained with other corruptions are compared on the same masks.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lnln.config import CorruptionConfig, Protocol, Rate
from lnln.corruption import format_rate, rate_by_modality
from lnln.data.schema import MODALITIES
from lnln.errors import RefusedError

# Of every suite whose views are random, where no others are asked for.
MASK_SEEDS = (0, 1, 2)
TEN_RATES = tuple(tenth / 10 for tenth in range(10))
LETTERS = {"text": "L", "audio": "A", "vision": "V"}


@dataclass(frozen=True)
class Suite:
    """rates: missing rate of all modalities, or of text, audio, vision."""

    title: str
    question: str
    protocol: Protocol
    rates: tuple[Rate, ...]

    @property
    def is_random(self) -> bool:
        """Whether a mask seed changes anything: at rates of 0 and 1 alone none does."""
        return any(rate not in (0, 1) for rates in self.rates for rate in rate_by_modality(rates))

    def corruption(self) -> CorruptionConfig:
        """What `evaluate` takes; nothing of a model's own."""
        return CorruptionConfig(protocol=self.protocol, rates=self.rates)

    def mask_seeds(self, wanted: Sequence[int] | None = None) -> tuple[int, ...]:
        """`wanted`, default MASK_SEEDS; the first of them where none changes anything."""
        seeds = tuple(wanted or MASK_SEEDS)
        return seeds if self.is_random else seeds[:1]

    def name_rate(self, rate: Rate) -> str:
        """How tables call one of `rates`: `0.5`; `L+A` for what is there where the rest is absent; `0.5/0/1`."""
        if self.protocol == "modality":
            return "+".join(present_letters(rate)) or "nothing"
        return format_rate(rate)


def present_letters(rate: Rate) -> tuple[str, ...]:
    """L, A, V (the paper's letters) of what has a missing rate below 1."""
    return tuple(
        LETTERS[modality] for modality, value in zip(MODALITIES, rate_by_modality(rate), strict=True) if value < 1
    )


def _only(*present: str) -> Rate:
    text, audio, vision = (0.0 if letter in present else 1.0 for letter in LETTERS.values())
    return (text, audio, vision)


SUITES: dict[str, Suite] = {
    "ten_rates": Suite(
        "Ten missing rates",
        "what the model is worth when the same share of every modality is lost (paper, Tables 2, 3, 9 to 12)",
        "frame",
        TEN_RATES,
    ),
    "absent": Suite(
        "Absent modalities",
        "what it makes of one or two modalities, the others being absent (paper, Tables 13 and 14)",
        "modality",
        (_only("L"), _only("A"), _only("V"), _only("L", "A"), _only("L", "V"), _only("A", "V")),
    ),
    "text_missing": Suite(
        "Missing text",
        "what it is worth complete, and what is left of that without any text: SDUMC's two settings",
        "modality",
        (0.0, _only("A", "V")),
    ),
    "block": Suite(
        "Lost stretches",
        "what it is worth when what is lost is one stretch of each modality instead of single steps",
        "block",
        TEN_RATES,
    ),
    "noise": Suite(
        "Noise",
        "what it is worth when steps are disturbed instead of lost: noise on frames, typing errors in words",
        "noise",
        TEN_RATES,
    ),
    "grid": Suite(
        "Rates by modality",
        "which modality it lives on: all combinations of nothing, half and everything missing of each",
        "frame",
        tuple(
            rates[0] if len(set(rates)) == 1 else (rates[0], rates[1], rates[2])
            for rates in itertools.product((0.0, 0.5, 1.0), repeat=3)
        ),
    ),
}


def choose_suites(names: Sequence[str]) -> dict[str, Suite]:
    """The suites called `names`, in this order, each once; `all` is all of them. RefusedError for another name."""
    wanted = [known for name in names for known in (SUITES if name == "all" else [name])]
    for name in wanted:
        if name not in SUITES:
            raise RefusedError(f"a suite of views is one of {', '.join(SUITES)} or all, got {name!r}")
    return {name: SUITES[name] for name in dict.fromkeys(wanted)}
