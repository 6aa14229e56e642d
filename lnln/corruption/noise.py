"""Noise: what stands where a view of protocol `noise` hits. Pure NumPy; nothing of it is stored.

The steps that are hit are those that `frame` erases, with the same uniforms. What they become (`output`, `bits` and
`uniform` as stated in `lnln.corruption`):

    frames      x + noise_scale * std * normal in each dimension, where std is that of the frames of the training split
                (the manifest's statistics) and language features are frames. With z_d = output(bits("noise", p), d):
                normal_2k, normal_2k+1 = sqrt(-2 ln(1 - uniform(z_2k))) times cos, sin of 2 pi uniform(z_2k+1)
                (Box and Muller), in float64; the product is rounded to float32 and added.
    token ids   a word that one slip of the finger makes of it (`lnln.corruption.typos`): of its n neighbours, sorted by
                id, number ((bits("typo", p) >> 32) n) >> 32; [UNK] where it has none.

The streams "noise" and "typo" have seed and draw of the view, and a modality's own name even with `shared_uniforms`. So
a value depends on (seed, draw, utterance_id, modality, position, dimension) and on the features themselves. Two
machines have the same masks and words to the bit; logarithm, sine and cosine may differ in their last digit of
float64, and so may, once in a hundred million numbers or so, the float32 that is added.

    source = NoiseSource.of(manifest)
    noise = source.draw(spec, "audio", utterances.utterance_id, utterances.audio, masks.kept["audio"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.corruption.generator import Bits, hash_texts, output, stream_keys, to_uniform
from lnln.corruption.spec import ViewSpec
from lnln.corruption.typos import Typos, typos_of
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import Modality, Ragged

# Numbers drawn at a time: the scratch arrays stay in a core's cache.
_BLOCK = 32_768


@dataclass(frozen=True)
class Noise:
    """K steps of a batch, and what they become.

    row, step: (K,). value: (K, D) float32 frames, or (K,) int64 token ids.
    """

    row: NDArray[np.int64]
    step: NDArray[np.int64]
    value: NDArray[Any]


@dataclass(frozen=True)
class NoiseSource:
    """What the noise of one corpus is made of.

    deviations: (D,) float64 by modality, of what consists of frames. typos: where text is token ids.
    """

    deviations: Mapping[Modality, NDArray[np.float64]]
    typos: Typos | None

    @classmethod
    def of(cls, manifest: FeatureManifest) -> NoiseSource:
        """RefusedError where the vocabulary of its token ids is not at hand."""
        return cls(
            {modality: np.array(made["std"], np.float64) for modality, made in manifest.statistics.items()},
            None if manifest.text_dim else typos_of(manifest.tokenizer),
        )

    def draw(
        self, spec: ViewSpec, modality: Modality, utterance_ids: Sequence[str], sequences: Ragged, kept: Ragged
    ) -> Noise:
        """Of every step that is not kept. sequences, kept: of the utterances `utterance_ids`, which are the rows."""
        hit = np.flatnonzero(~kept.values)
        row = np.repeat(np.arange(len(kept)), kept.lengths)[hit]
        step = hit - kept.offsets[row]
        hashes = hash_texts(utterance_ids)
        before = sequences.values[sequences.offsets[row] + step]
        if sequences.values.ndim == 1:
            assert self.typos is not None, "token ids have a vocabulary"
            keys = stream_keys(f"typo/{spec.seed}/{spec.draw}/{modality}", hashes)
            return Noise(row, step, self.typos.mistype(before, output(keys[row], step)))
        keys = stream_keys(f"noise/{spec.seed}/{spec.draw}/{modality}", hashes)
        scale = spec.noise_scale * self.deviations[modality]
        assert len(scale) == before.shape[1], "statistics are of these features"
        size = max(1, _BLOCK // len(scale))
        for first in range(0, len(row), size):
            part = slice(first, first + size)
            seeds = output(keys[row[part]], step[part])
            before[part] += (normals(seeds, len(scale)) * scale).astype(np.float32)
        return Noise(row, step, before)


def normals(seeds: Bits, dim: int) -> NDArray[np.float64]:
    """(K, dim) normal numbers for (K,) seeds."""
    num_pairs = (dim + 1) // 2
    uniform = to_uniform(output(seeds[:, None], np.arange(2 * num_pairs)))
    radius = np.sqrt(-2 * np.log1p(-uniform[:, 0::2]))
    angle = 2 * np.pi * uniform[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return pairs.reshape(len(seeds), 2 * num_pairs)[:, :dim]
