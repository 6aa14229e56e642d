"""View specs: which corrupted copy of a corpus, and which of them a config asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lnln.config import CorruptionConfig, Protocol, Rate, fingerprint
from lnln.data.schema import MODALITIES
from lnln.errors import RefusedError

PROTOCOLS: tuple[str, ...] = get_args(Protocol)


@dataclass(frozen=True)
class ViewSpec:
    """Which corrupted copy of a corpus, independent of the corpus.

    rates: missing rate of text, audio, vision; None for a training draw, whose rates are drawn (paper, section 4.1).
    draw: which random copy; a training draw's is its epoch. complete_share: chance that a training draw leaves a
    modality of an utterance whole. position_draw: the copy whose uniforms decide what falls out at the rates of this
    one; None: its own. shared_uniforms: one stream for audio and vision, so that frame t of both has the same uniform,
    as published where the two are padded to one width (MOSEI; reference.md D5); rates stay per modality. noise_scale:
    of protocol `noise`, in deviations of the training split; it is 1 for any other.
    """

    seed: int
    draw: int = 0
    rates: tuple[float, float, float] | None = None
    protocol: str = "frame"
    complete_share: float = 0.5
    position_draw: int | None = None
    shared_uniforms: bool = False
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise RefusedError(f"a view's protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        if self.seed < 0 or self.draw < 0:
            raise RefusedError(f"a view's seed and draw must be 0 or more, got {self.seed} and {self.draw}")
        if self.position_draw is not None and self.position_draw < 0:
            raise RefusedError(f"a view's position_draw must be 0 or more, got {self.position_draw}")
        if not 0 <= self.complete_share <= 1:
            raise RefusedError(f"a view's complete_share must lie within [0, 1], got {self.complete_share}")
        if not (self.noise_scale >= 0 and math.isfinite(self.noise_scale)):
            raise RefusedError(f"a view's noise_scale must be a finite number of 0 or more, got {self.noise_scale}")
        if self.rates is not None:
            if len(self.rates) != len(MODALITIES) or not all(0 <= rate <= 1 for rate in self.rates):
                raise RefusedError(f"a view's rates must be three numbers within [0, 1], got {self.rates}")
            text, audio, vision = (abs(float(rate)) for rate in self.rates)  # abs: -0.0 is 0.0
            object.__setattr__(self, "rates", (text, audio, vision))
            if self.position_draw is not None:  # nothing else of such a view is drawn
                object.__setattr__(self, "draw", self.position_draw)
        # One way to say one thing, since equal views have equal ids.
        if self.position_draw == self.draw:
            object.__setattr__(self, "position_draw", None)
        object.__setattr__(self, "noise_scale", abs(float(self.noise_scale)) if self.protocol == "noise" else 1.0)

    @classmethod
    def evaluation(
        cls,
        rate: Rate,
        seed: int,
        protocol: str = "frame",
        *,
        shared_uniforms: bool = False,
        noise_scale: float = 1.0,
    ) -> ViewSpec:
        """The view in which every modality has the missing rate `rate`, or text, audio and vision the three of it."""
        return cls(
            seed=seed,
            rates=rate_by_modality(rate),
            protocol=protocol,
            shared_uniforms=shared_uniforms,
            noise_scale=noise_scale,
        )

    @classmethod
    def training(
        cls,
        seed: int,
        draw: int,
        complete_share: float = 0.5,
        protocol: str = "frame",
        *,
        position_draw: int | None = None,
        shared_uniforms: bool = False,
        noise_scale: float = 1.0,
    ) -> ViewSpec:
        """Random copy number `draw`: every utterance and modality with a rate of its own."""
        return cls(
            seed=seed,
            draw=draw,
            complete_share=complete_share,
            protocol=protocol,
            position_draw=position_draw,
            shared_uniforms=shared_uniforms,
            noise_scale=noise_scale,
        )

    @property
    def is_training(self) -> bool:
        return self.rates is None

    @property
    def rate(self) -> Rate:
        """Of an evaluation view: the missing rate that all modalities share, else the three."""
        assert self.rates is not None, "a training draw has no stated rate"
        return self.rates[0] if len(set(self.rates)) == 1 else self.rates

    def to_dict(self) -> dict[str, object]:
        """What the view depends on, as JSON values. What came later is left out where it says nothing new, so that the
        ids of earlier views stand."""
        identity: dict[str, object] = {"protocol": self.protocol, "seed": int(self.seed), "draw": int(self.draw)}
        if self.position_draw is not None:
            identity["position_draw"] = int(self.position_draw)
        if self.shared_uniforms:
            identity["shared_uniforms"] = True
        if self.protocol == "noise":
            identity["noise_scale"] = self.noise_scale
        if self.rates is None:
            return {**identity, "rates": None, "complete_share": float(self.complete_share)}
        return {**identity, "rates": list(self.rates)}

    @property
    def view_id(self) -> str:
        """Fingerprint of `to_dict()`."""
        return fingerprint(self.to_dict())


def evaluation_views(config: CorruptionConfig, rates: Sequence[Rate] | None = None) -> list[ViewSpec]:
    """One view for each of `rates` (default: `config.rates`), by `config.mask_seed`."""
    return [
        ViewSpec.evaluation(
            rate,
            config.mask_seed,
            config.protocol,
            shared_uniforms=config.shared_uniforms,
            noise_scale=config.noise_scale,
        )
        for rate in (config.rates if rates is None else rates)
    ]


def training_view(config: CorruptionConfig, seed: int, epoch: int) -> ViewSpec:
    """What a run with `seed` trains on in `epoch`, counted from 0. A fixed draw is the same for every `seed`."""
    is_fixed = config.draws == "fixed"
    return ViewSpec.training(
        config.mask_seed if is_fixed else seed,
        0 if is_fixed else epoch,
        config.complete_share,
        config.protocol,
        position_draw=0 if config.draws == "fixed_positions" else None,
        shared_uniforms=config.shared_uniforms,
        noise_scale=config.noise_scale,
    )


def training_views(config: CorruptionConfig, seed: int, epochs: int) -> list[ViewSpec]:
    """The different views that a run of so many epochs trains on."""
    num_draws = min(epochs, 1) if config.draws == "fixed" else epochs
    return [training_view(config, seed, epoch) for epoch in range(num_draws)]


def rate_by_modality(rate: Rate) -> tuple[float, float, float]:
    """Of text, audio, vision: the one rate of all, or the three."""
    return rate if isinstance(rate, tuple) else (rate, rate, rate)


def format_rate(rate: Rate | Sequence[float]) -> str:
    """`0.5`, or `1/0/0` for text, audio, vision: what `lnln evaluate --rates` takes. The three may come as a list."""
    if isinstance(rate, Sequence):
        return "/".join(format_rate(value) for value in rate)
    short = f"{rate:g}"
    return short if float(short) == rate else repr(float(rate))
