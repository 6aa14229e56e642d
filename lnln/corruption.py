"""What is erased from an utterance: view specs, and the masks they stand for. Pure NumPy; the same on any machine.

A mask depends on (seed, draw, utterance_id, modality, position) and on nothing else. The generator, in full, so that
anyone can draw the same masks (64-bit unsigned arithmetic that wraps, hashes read as little-endian integers):

    hash(text)           blake2b(text in UTF-8, digest_size=8)
    mix(z)               SplitMix64's finaliser: z ^= z >> 30; z *= 0xBF58476D1CE4E5B9;
                                                 z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31
    key(purpose)         mix(hash(utterance_id) ^ hash(f"{purpose}/{seed}/{draw}/{modality}"))
                         for "frame", draw is `position_draw` where a view states one, and with `shared_uniforms`
                         vision's modality is "audio"
    bits(purpose, n)     mix(key(purpose) + (n + 1) * 0x9E3779B97F4A7C15): output n of SplitMix64 seeded with the key
    uniform(position)    (bits("frame", position) >> 11) * 2**-53
    dropped(position)    uniform(position) < r; the first and the last of token ids, [CLS] and [SEP], never are

For a training draw r is itself drawn, for each utterance and modality: 0 if (bits("rate", 0) >> 11) * 2**-53 is below
`complete_share`, else (bits("rate", 1) >> 40) * 2**-24, a number that float32 holds exactly.

Uniforms do not depend on the rate: what is kept at 0.5 is kept at 0.1, and curves over rates are paired. r = 0 keeps
all and r = 1 erases all, exactly. Ready-made language features (`keep_ends=False`) have no end that is kept: they are
contextual, so that the feature of [CLS] alone would tell what the erased words said. Even so, each step that is kept
tells of its neighbours, which erasing token ids in front of the encoder does not allow.

    masks = make_masks(ViewSpec.evaluation(0.5, seed=0), utterances.utterance_id, utterances.lengths())
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.config import CorruptionConfig, fingerprint
from lnln.data.schema import MODALITIES, Modality, Ragged
from lnln.errors import RefusedError

Lengths = Mapping[Modality, Sequence[int] | NDArray[np.integer]]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
# Positions worked on at a time: the scratch arrays stay in a core's second-level cache.
_BLOCK = 16_384


@dataclass(frozen=True)
class ViewSpec:
    """Which corrupted copy of a corpus, independent of the corpus.

    rates: missing rate of text, audio, vision; None for a training draw, whose rates are drawn (paper, section 4.1).
    draw: which random copy; a training draw's is its epoch. complete_share: chance that a training draw leaves a
    modality of an utterance whole. position_draw: the copy whose uniforms decide what falls out at the rates of this
    one; None: its own. shared_uniforms: one stream for audio and vision, so that frame t of both has the same uniform,
    as published where the two are padded to one width (MOSEI; reference.md D5); rates stay per modality.
    """

    seed: int
    draw: int = 0
    rates: tuple[float, float, float] | None = None
    protocol: str = "frame"
    complete_share: float = 0.5
    position_draw: int | None = None
    shared_uniforms: bool = False

    def __post_init__(self) -> None:
        if self.protocol != "frame":
            raise RefusedError(f"a view's protocol must be 'frame', got {self.protocol!r}")
        if self.seed < 0 or self.draw < 0:
            raise RefusedError(f"a view's seed and draw must be 0 or more, got {self.seed} and {self.draw}")
        if self.position_draw is not None and self.position_draw < 0:
            raise RefusedError(f"a view's position_draw must be 0 or more, got {self.position_draw}")
        if not 0 <= self.complete_share <= 1:
            raise RefusedError(f"a view's complete_share must lie within [0, 1], got {self.complete_share}")
        if self.rates is not None:
            if len(self.rates) != len(MODALITIES) or not all(0 <= rate <= 1 for rate in self.rates):
                raise RefusedError(f"a view's rates must be three numbers within [0, 1], got {self.rates}")
            text, audio, vision = (abs(float(rate)) for rate in self.rates)  # abs: -0.0 is 0.0
            object.__setattr__(self, "rates", (text, audio, vision))
            if self.position_draw is not None:  # nothing else of such a view is drawn
                object.__setattr__(self, "draw", self.position_draw)
        if self.position_draw == self.draw:  # one way to say one thing, since equal views have equal ids
            object.__setattr__(self, "position_draw", None)

    @classmethod
    def evaluation(cls, rate: float, seed: int, protocol: str = "frame", *, shared_uniforms: bool = False) -> ViewSpec:
        """The view in which every modality has the missing rate `rate`."""
        return cls(seed=seed, rates=(rate, rate, rate), protocol=protocol, shared_uniforms=shared_uniforms)

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
    ) -> ViewSpec:
        """Random copy number `draw`: every utterance and modality with a rate of its own."""
        return cls(
            seed=seed,
            draw=draw,
            complete_share=complete_share,
            protocol=protocol,
            position_draw=position_draw,
            shared_uniforms=shared_uniforms,
        )

    @property
    def is_training(self) -> bool:
        return self.rates is None

    def to_dict(self) -> dict[str, object]:
        """What the masks depend on, as JSON values. What came later is left out where it says nothing new, so that the
        ids of earlier views stand."""
        identity: dict[str, object] = {"protocol": self.protocol, "seed": int(self.seed), "draw": int(self.draw)}
        if self.position_draw is not None:
            identity["position_draw"] = int(self.position_draw)
        if self.shared_uniforms:
            identity["shared_uniforms"] = True
        if self.rates is None:
            return {**identity, "rates": None, "complete_share": float(self.complete_share)}
        return {**identity, "rates": list(self.rates)}

    @property
    def view_id(self) -> str:
        """Fingerprint of `to_dict()`."""
        return fingerprint(self.to_dict())


@dataclass(frozen=True)
class Masks:
    """What N utterances keep of each modality.

    missing_rates: (N, 3) float32 of text, audio, vision. kept: per modality N sequences of bool, True where kept.
    keep_ends: the first and the last text position cannot fall out.
    """

    missing_rates: NDArray[np.float32]
    kept: dict[Modality, Ragged]
    keep_ends: bool = True

    def count_erased(self) -> dict[Modality, tuple[int, int]]:
        """Per modality: positions erased, and positions that could have been ([CLS] and [SEP] cannot)."""
        return {
            modality: (len(kept.values) - int(np.count_nonzero(kept.values)), int(self._num_erasable(modality).sum()))
            for modality, kept in self.kept.items()
        }

    def realised_rates(self, modality: Modality) -> NDArray[np.float32]:
        """(N,) share of the positions that were erased, of those that could have been; 0 where there were none."""
        kept = self.kept[modality]
        num_kept = np.diff(np.concatenate([[0], np.cumsum(kept.values)])[kept.offsets])
        return ((kept.lengths - num_kept) / np.maximum(self._num_erasable(modality), 1)).astype(np.float32)

    def take(self, rows: NDArray[np.integer[Any]]) -> Masks:
        """Those of the utterances `rows`, in that order."""
        return Masks(self.missing_rates[rows], {m: kept.take(rows) for m, kept in self.kept.items()}, self.keep_ends)

    def _num_erasable(self, modality: Modality) -> NDArray[np.int64]:
        lengths = self.kept[modality].lengths
        return np.maximum(lengths - 2, 0) if modality == "text" and self.keep_ends else lengths


def evaluation_views(config: CorruptionConfig, rates: Sequence[float] | None = None) -> list[ViewSpec]:
    """One view for each of `rates` (default: `config.rates`), by `config.mask_seed`."""
    chosen = config.rates if rates is None else rates
    return [
        ViewSpec.evaluation(rate, config.mask_seed, config.protocol, shared_uniforms=config.shared_uniforms)
        for rate in chosen
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
    )


def training_views(config: CorruptionConfig, seed: int, epochs: int) -> list[ViewSpec]:
    """The different views that a run of so many epochs trains on."""
    num_draws = min(epochs, 1) if config.draws == "fixed" else epochs
    return [training_view(config, seed, epoch) for epoch in range(num_draws)]


def make_masks(spec: ViewSpec, utterance_ids: Sequence[str], lengths: Lengths, *, keep_ends: bool = True) -> Masks:
    """The masks of one view for N utterances.

    lengths: per modality (N,) steps before padding. keep_ends: text is token ids, whose [CLS] and [SEP] stay; False
    for language features, any step of which may fall out.
    """
    return make_many_masks([spec], utterance_ids, lengths, keep_ends=keep_ends)[0]


def make_many_masks(
    specs: Sequence[ViewSpec], utterance_ids: Sequence[str], lengths: Lengths, *, keep_ends: bool = True
) -> list[Masks]:
    """`make_masks` for each of `specs`; those of equal uniforms share their cost."""
    hashes = np.array([_hash(name) for name in utterance_ids], np.uint64)
    sizes = {modality: np.asarray(lengths[modality], np.int64) for modality in MODALITIES}
    for modality, size in sizes.items():
        assert size.shape == hashes.shape and size.min(initial=0) >= 0, f"{modality} lengths do not fit the utterances"
    rates = [_missing_rates(spec, hashes) for spec in specs]
    kept = [
        {m: Ragged.from_lengths(np.empty(int(size.sum()), np.bool_), size) for m, size in sizes.items()} for _ in specs
    ]
    streams: dict[tuple[int, int, bool], list[int]] = {}
    for index, spec in enumerate(specs):
        draw = spec.draw if spec.position_draw is None else spec.position_draw
        streams.setdefault((spec.seed, draw, spec.shared_uniforms), []).append(index)
    for (seed, draw, is_shared), members in streams.items():
        for column, modality in enumerate(MODALITIES):
            keys = _keys(f"frame/{seed}/{draw}/{'audio' if is_shared and modality == 'vision' else modality}", hashes)
            thresholds = [np.ceil(rates[index][:, column] * 2.0**53).astype(np.uint64) for index in members]
            is_uniform = [specs[index].rates is not None for index in members]
            outputs = [kept[index][modality].values for index in members]
            _fill(keys, kept[members[0]][modality].offsets, thresholds, is_uniform, outputs)
    for masks in kept if keep_ends else []:
        text = masks["text"]
        spoken = text.lengths > 0
        text.values[text.offsets[:-1][spoken]] = True
        text.values[text.offsets[1:][spoken] - 1] = True
    return [Masks(rate.astype(np.float32), masks, keep_ends) for rate, masks in zip(rates, kept, strict=True)]


def _fill(
    keys: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    thresholds: list[NDArray[np.uint64]],
    is_uniform: list[bool],
    outputs: list[NDArray[np.bool_]],
) -> None:
    """Writes `uniform >= rate` for every position to each of `outputs`: one per view, with its (N,) thresholds.

    A threshold is ceil(rate * 2**53), so comparing the 53 bits with it is comparing the uniform with the rate.
    """
    # Position p of utterance i is the flat index offsets[i] + p, so key + (p + 1) * golden is
    # (key - offsets[i] * golden) + (flat index + 1) * golden: one repeat and one ramp.
    starts = keys - offsets[:-1].astype(np.uint64) * _GOLDEN
    for first, last in _blocks(offsets):
        begin, end = int(offsets[first]), int(offsets[last])
        sizes = np.diff(offsets[first : last + 1])
        bits = np.arange(begin + 1, end + 1, dtype=np.uint64)
        bits *= _GOLDEN
        bits += np.repeat(starts[first:last], sizes)
        _mix(bits)
        bits >>= np.uint64(11)
        for threshold, uniform, output in zip(thresholds, is_uniform, outputs, strict=True):
            limit = threshold[0] if uniform else np.repeat(threshold[first:last], sizes)
            np.greater_equal(bits, limit, out=output[begin:end])


def _blocks(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of whole utterances with about `_BLOCK` positions each."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _missing_rates(spec: ViewSpec, hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(N, 3) missing rates of text, audio, vision: as stated, or drawn."""
    if spec.rates is not None:
        return np.tile(np.array(spec.rates, np.float64), (len(hashes), 1))
    limit = np.uint64(math.ceil(spec.complete_share * 2**53))
    columns = []
    for modality in MODALITIES:
        keys = _keys(f"rate/{spec.seed}/{spec.draw}/{modality}", hashes)
        is_complete = _mix(keys + _GOLDEN) >> np.uint64(11) < limit
        drawn = (_mix(keys + _GOLDEN + _GOLDEN) >> np.uint64(40)) * 2.0**-24
        columns.append(np.where(is_complete, 0.0, drawn))
    return np.stack(columns, axis=1)


def _keys(stream: str, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _mix(hashes ^ np.uint64(_hash(stream)))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, in place."""
    bits ^= bits >> _SHIFTS[0]
    bits *= _MULTIPLIERS[0]
    bits ^= bits >> _SHIFTS[1]
    bits *= _MULTIPLIERS[1]
    bits ^= bits >> _SHIFTS[2]
    return bits
