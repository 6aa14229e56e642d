"""Masks: which steps of which utterance a view leaves as they are. How they are drawn is stated in `lnln.corruption`.

N utterances; a flat index counts the steps of one modality of all of them, end to end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.corruption.generator import GOLDEN, Bits, hash_texts, mix, output, stream_keys, to_below, to_uniform
from lnln.corruption.spec import ViewSpec
from lnln.data.schema import MODALITIES, Modality, Ragged

Lengths = Mapping[Modality, Sequence[int] | NDArray[np.integer]]
Rates = NDArray[np.float64]
Kept = NDArray[np.bool_]

# Positions worked on at a time: the scratch arrays stay in a core's second-level cache.
_BLOCK = 16_384


@dataclass(frozen=True)
class Masks:
    """What N utterances keep of each modality.

    missing_rates: (N, 3) float32 of text, audio, vision. kept: per modality N sequences of bool, True where kept; of
    protocol `noise`, False where it hits. keep_ends: the first and the last text position cannot fall out.
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
        return _num_erasable(self.kept[modality].lengths, modality == "text" and self.keep_ends)


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
    hashes = hash_texts(utterance_ids)
    offsets = {}
    for modality in MODALITIES:
        size = np.asarray(lengths[modality], np.int64)
        assert size.shape == hashes.shape and size.min(initial=0) >= 0, f"{modality} lengths do not fit the utterances"
        offsets[modality] = np.concatenate([[0], np.cumsum(size)])
    rates = [_missing_rates(spec, hashes) for spec in specs]
    kept: list[dict[Modality, Ragged]] = [{} for _ in specs]
    streams: dict[tuple[str, int, int, bool], list[int]] = {}
    for index, spec in enumerate(specs):
        purpose = "frame" if spec.protocol == "noise" else spec.protocol
        draw = spec.draw if spec.position_draw is None else spec.position_draw
        streams.setdefault((purpose, spec.seed, draw, spec.shared_uniforms), []).append(index)
    for (purpose, seed, draw, is_shared), members in streams.items():
        for column, modality in enumerate(MODALITIES):
            name = "audio" if is_shared and modality == "vision" else modality
            keys = stream_keys(f"{purpose}/{seed}/{draw}/{name}", hashes)
            has_ends = modality == "text" and keep_ends
            drawn = _PROTOCOLS[purpose](keys, offsets[modality], [rates[i][:, column] for i in members], has_ends)
            for index, values in zip(members, drawn, strict=True):
                kept[index][modality] = Ragged(values, offsets[modality])
    return [Masks(rate.astype(np.float32), masks, keep_ends) for rate, masks in zip(rates, kept, strict=True)]


def _missing_rates(spec: ViewSpec, hashes: Bits) -> Rates:
    """(N, 3) missing rates of text, audio, vision: as stated, or drawn."""
    if spec.rates is not None:
        return np.broadcast_to(np.array(spec.rates, np.float64), (len(hashes), len(MODALITIES)))
    limit = np.uint64(math.ceil(spec.complete_share * 2**53))
    columns = []
    for modality in MODALITIES:
        keys = stream_keys(f"rate/{spec.seed}/{spec.draw}/{modality}", hashes)
        is_complete = output(keys, 0) >> np.uint64(11) < limit
        drawn = (output(keys, 1) >> np.uint64(40)) * 2.0**-24
        columns.append(np.where(is_complete, 0.0, drawn))
    return np.stack(columns, axis=1)


def _erase_steps(keys: Bits, offsets: NDArray[np.int64], rates: Sequence[Rates], has_ends: bool) -> list[Kept]:
    """Protocol `frame`: for each (N,) of `rates` what is kept, by flat index, `uniform >= rate`."""
    kept = [np.empty(int(offsets[-1]), np.bool_) for _ in rates]
    # A threshold is ceil(rate * 2**53), so comparing the 53 bits with it is comparing the uniform with the rate.
    thresholds = [np.ceil(rate * 2.0**53).astype(np.uint64) for rate in rates]
    is_uniform = [len(rate) > 0 and bool((rate == rate[0]).all()) for rate in rates]
    # Position p of utterance i is the flat index offsets[i] + p, so key + (p + 1) * golden is
    # (key - offsets[i] * golden) + (flat index + 1) * golden: one repeat and one ramp.
    starts = keys - offsets[:-1].astype(np.uint64) * GOLDEN
    for first, last in _blocks(offsets):
        begin, end = int(offsets[first]), int(offsets[last])
        sizes = np.diff(offsets[first : last + 1])
        bits = np.arange(begin + 1, end + 1, dtype=np.uint64)
        bits *= GOLDEN
        bits += np.repeat(starts[first:last], sizes)
        mix(bits)
        bits >>= np.uint64(11)
        for threshold, uniform, values in zip(thresholds, is_uniform, kept, strict=True):
            limit = threshold[0] if uniform else np.repeat(threshold[first:last], sizes)
            np.greater_equal(bits, limit, out=values[begin:end])
    if has_ends:
        for values in kept:
            _keep_ends(values, offsets)
    return kept


def _erase_stretch(keys: Bits, offsets: NDArray[np.int64], rates: Sequence[Rates], has_ends: bool) -> list[Kept]:
    """Protocol `block`."""
    lengths = np.diff(offsets)
    num_erasable = _num_erasable(lengths, has_ends)
    uniform, place = to_uniform(output(keys, 0)), output(keys, 1)
    kept = []
    for rate in rates:
        expected = rate * num_erasable
        whole = np.floor(expected)
        size = whole.astype(np.int64) + (uniform < expected - whole)
        start = np.where(size > 0, to_below(place, num_erasable - size + 1) + has_ends, 0)
        runs = np.stack([start, size, lengths - start - size], axis=1)
        kept.append(np.repeat(np.tile([True, False, True], len(keys)), runs.ravel()))
    return kept


def _erase_all(keys: Bits, offsets: NDArray[np.int64], rates: Sequence[Rates], has_ends: bool) -> list[Kept]:
    """Protocol `modality`."""
    uniform = to_uniform(output(keys, 0))
    kept = [np.repeat(uniform >= rate, np.diff(offsets)) for rate in rates]
    if has_ends:
        for values in kept:
            _keep_ends(values, offsets)
    return kept


# What draws the masks of a protocol, by the purpose of its stream: `noise` hits what `frame` erases.
_PROTOCOLS = {"frame": _erase_steps, "block": _erase_stretch, "modality": _erase_all}


def _keep_ends(kept: Kept, offsets: NDArray[np.int64]) -> None:
    """The first and the last step of every utterance."""
    is_there = np.diff(offsets) > 0
    kept[offsets[:-1][is_there]] = True
    kept[offsets[1:][is_there] - 1] = True


def _num_erasable(lengths: NDArray[np.int64], has_ends: bool) -> NDArray[np.int64]:
    return np.maximum(lengths - 2, 0) if has_ends else lengths


def _blocks(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of whole utterances with about `_BLOCK` positions each."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last
