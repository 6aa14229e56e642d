"""SplitMix64 as a counter generator: number n of a stream by itself, for many utterances at once.

The streams and their names are stated in `lnln.corruption`. All arrays are uint64, and arithmetic wraps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def hash_texts(texts: Iterable[str]) -> Bits:
    """(N,) hashes, what `stream_keys` wants of utterance ids."""
    return np.array([_hash(text) for text in texts], np.uint64)


def stream_keys(stream: str, hashes: Bits) -> Bits:
    """(N,) keys of the utterances with these hashes in one stream."""
    return mix(hashes ^ np.uint64(_hash(stream)))


def output(keys: Bits, number: int | NDArray[np.integer]) -> Bits:
    """Output `number`, from 0, of each key; the two are broadcast."""
    # An array even of one number: NumPy warns where the product of scalars wraps.
    return mix(keys + (np.array(number, np.uint64, ndmin=1) + np.uint64(1)) * GOLDEN)


def to_uniform(bits: Bits) -> NDArray[np.float64]:
    """Uniform in [0, 1), with 53 bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def to_below(bits: Bits, limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """A whole number from 0 to limit - 1 for each of `limits` (0: 0), which are below 2**32."""
    return (((bits >> np.uint64(32)) * limits.astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def mix(bits: Bits) -> Bits:
    """SplitMix64's finaliser, in place."""
    bits ^= bits >> _SHIFTS[0]
    bits *= _MULTIPLIERS[0]
    bits ^= bits >> _SHIFTS[1]
    bits *= _MULTIPLIERS[1]
    bits ^= bits >> _SHIFTS[2]
    return bits


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
