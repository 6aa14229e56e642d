"""The generator and the protocols once more, in plain integers and one position at a time, as they are stated."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from hypothesis import strategies as st

from lnln.corruption import Masks, ViewSpec
from lnln.data.schema import MODALITIES, Modality

WORD = 2**64 - 1
PROTOCOLS = ("frame", "block", "modality", "noise")
IDS = ["03bSnISJMiM$_$11", "a", "", "声音", "b\n"]
LENGTHS: dict[Modality, list[int]] = {"text": [9, 1, 0, 2, 40], "audio": [3, 0, 50, 1, 7], "vision": [0, 0, 5, 33, 2]}


def plain_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def plain_mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def plain_output(key: int, n: int) -> int:
    return plain_mix((key + (n + 1) * 0x9E3779B97F4A7C15) & WORD)


def plain_bits(stream: str, name: str, n: int) -> int:
    return plain_output(plain_mix(plain_hash(name) ^ plain_hash(stream)), n)


def plain_uniform(bits: int) -> float:
    return (bits >> 11) * 2.0**-53


def plain_rate(spec: ViewSpec, modality: Modality, name: str) -> float:
    if spec.rates is not None:
        return spec.rates[MODALITIES.index(modality)]
    stream = f"rate/{spec.seed}/{spec.draw}/{modality}"
    if plain_uniform(plain_bits(stream, name, 0)) < spec.complete_share:
        return 0.0
    return (plain_bits(stream, name, 1) >> 40) * 2.0**-24


def plain_kept(spec: ViewSpec, modality: Modality, name: str, length: int, *, keep_ends: bool = True) -> list[bool]:
    rate = plain_rate(spec, modality, name)
    purpose = "frame" if spec.protocol == "noise" else spec.protocol
    stream = f"{purpose}/{spec.seed}/{spec.draw if spec.position_draw is None else spec.position_draw}"
    stream += "/audio" if spec.shared_uniforms and modality == "vision" else f"/{modality}"
    first, last = (1, length - 1) if modality == "text" and keep_ends else (0, length)
    may_fall = [first <= position < last for position in range(length)]
    if purpose == "frame":
        falls = [plain_uniform(plain_bits(stream, name, position)) < rate for position in range(length)]
    elif purpose == "modality":
        falls = [plain_uniform(plain_bits(stream, name, 0)) < rate] * length
    else:
        num = max(last - first, 0)
        size = math.floor(rate * num)
        if plain_uniform(plain_bits(stream, name, 0)) < rate * num - size:
            size += 1
        start = first + ((plain_bits(stream, name, 1) >> 32) * (num - size + 1) >> 32)
        falls = [start <= position < start + size for position in range(length)]
    return [not (may and fall) for may, fall in zip(may_fall, falls, strict=True)]


def plain_normal(spec: ViewSpec, modality: Modality, name: str, position: int, dim: int) -> float:
    seed = plain_bits(f"noise/{spec.seed}/{spec.draw}/{modality}", name, position)
    even = dim - dim % 2
    radius = math.sqrt(-2 * math.log(1 - plain_uniform(plain_output(seed, even))))
    angle = 2 * math.pi * plain_uniform(plain_output(seed, even + 1))
    return radius * (math.sin(angle) if dim % 2 else math.cos(angle))


def plain_typo(spec: ViewSpec, name: str, position: int, options: Sequence[int], unknown_id: int) -> int:
    """options: sorted."""
    if not options:
        return unknown_id
    return options[(plain_bits(f"typo/{spec.seed}/{spec.draw}/text", name, position) >> 32) * len(options) >> 32]


def as_text(masks: Masks, modality: Modality, index: int) -> str:
    return "".join("01"[int(kept)] for kept in masks.kept[modality][index])


# One utterance: id, steps of text, audio, vision.
Row = tuple[str, int, int, int]
RATES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 1 / 3]))
SPECS = st.one_of(
    st.builds(
        ViewSpec,
        st.integers(0, 3),
        st.integers(0, 3),
        st.tuples(RATES, RATES, RATES),
        st.sampled_from(PROTOCOLS),
        shared_uniforms=st.booleans(),
    ),
    st.builds(
        ViewSpec.training,
        st.integers(0, 3),
        st.integers(0, 3),
        st.floats(0, 1),
        st.sampled_from(PROTOCOLS),
        position_draw=st.none() | st.integers(0, 3),
        shared_uniforms=st.booleans(),
    ),
)
CORPORA = st.lists(
    st.tuples(st.text(max_size=5), st.integers(0, 6), st.integers(0, 80), st.integers(0, 3)),
    max_size=12,
    unique_by=lambda row: row[0],
)


def columns(rows: list[Row]) -> tuple[list[str], dict[Modality, list[int]]]:
    ids, *sizes = zip(*rows, strict=True) if rows else ((), (), (), ())
    return list(ids), {m: list(sizes[i]) for i, m in enumerate(MODALITIES)}
