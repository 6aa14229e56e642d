"""What the utterances of one split lose under a view: masks, read or drawn, and noise. NumPy; batches.py applies it.

views = Views(utterances, "train", store, manifest)
masks = views.masks(ViewSpec.evaluation(0.5, seed=0), rows)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lnln.corruption import Masks, ViewSpec, make_masks
from lnln.corruption.noise import Noise, NoiseSource
from lnln.data.manifest import FeatureManifest, read_view
from lnln.data.schema import MODALITIES, Modality, Ragged, Split, Utterances
from lnln.data.store import Store
from lnln.data.view_shards import read_view_shard
from lnln.errors import RefusedError

Rows = NDArray[np.int64]


class Views:
    """The masks of one split's utterances: read from the store where a view is stored, else computed, to equal effect.

    Without a store all are computed. One stored training draw is kept in memory, and every stored evaluation view.
    Noise is always computed, and needs a manifest.
    """

    def __init__(
        self,
        utterances: Utterances,
        split: Split,
        store: Store | None = None,
        manifest: FeatureManifest | None = None,
    ) -> None:
        assert (store is None) == (manifest is None), "a stored view belongs to a manifest"
        self._utterances = utterances
        self._ids = utterances.utterance_id
        self._lengths = utterances.lengths()
        self._keep_ends = not utterances.text_dim
        self._split = split
        self._source = None if store is None or manifest is None else (store, manifest)
        self._stored: dict[ViewSpec, Masks | None] = {}

    def masks(self, spec: ViewSpec, rows: Rows | None = None) -> Masks:
        """The masks of the utterances `rows` (default: all), in that order. RefusedError where a shard is damaged."""
        stored = self._read(spec)
        if stored is not None:
            return stored if rows is None else stored.take(rows)
        if rows is None:
            return make_masks(spec, self._ids, self._lengths, keep_ends=self._keep_ends)
        ids, lengths = [self._ids[row] for row in rows], {m: self._lengths[m][rows] for m in MODALITIES}
        return make_masks(spec, ids, lengths, keep_ends=self._keep_ends)

    def noise(self, spec: ViewSpec, rows: Rows, kept: Mapping[Modality, Ragged]) -> dict[Modality, Noise]:
        """What a view of protocol `noise` makes of the steps of `rows` that are not `kept`.

        RefusedError where there is no manifest, or the vocabulary of token ids is not at hand.
        """
        ids = [self._ids[row] for row in rows]
        return {
            modality: self._noise_source.draw(
                spec, modality, ids, self._utterances.sequences(modality).take(rows), kept[modality]
            )
            for modality in MODALITIES
        }

    def _read(self, spec: ViewSpec) -> Masks | None:
        if self._source is None:
            return None
        if spec not in self._stored:
            # The draw of an earlier epoch is not wanted again.
            self._stored = {kept: masks for kept, masks in self._stored.items() if not kept.is_training}
            masks = _read_view(*self._source, spec, self._split, self._ids, self._lengths)
            self._stored[spec] = masks if masks is None else replace(masks, keep_ends=self._keep_ends)
        return self._stored[spec]

    @cached_property
    def _noise_source(self) -> NoiseSource:
        if self._source is None:
            raise RefusedError(
                "a view of protocol noise needs the statistics of the features, and these utterances came without a "
                "manifest; give Views the store and manifest that they were read from"
            )
        return NoiseSource.of(self._source[1])


def _read_view(
    store: Store,
    manifest: FeatureManifest,
    spec: ViewSpec,
    split: Split,
    utterance_ids: list[str],
    lengths: Mapping[Modality, NDArray[np.int64]],
) -> Masks | None:
    """The stored masks of a split, or None where the view, or this split of it, was not made."""
    view = read_view(store, manifest.corpus, manifest.feature_id, spec.view_id)
    if view is None or split not in view.splits:
        return None
    shards = [read_view_shard(store, entry) for entry in view.splits[split].shards]
    masks = Masks(
        missing_rates=np.concatenate([shard.missing_rates for shard in shards]),
        kept={m: Ragged.concatenate([shard.kept[m] for shard in shards]) for m in MODALITIES},
    )
    fits = [name for shard in shards for name in shard.utterance_id] == utterance_ids and all(
        np.array_equal(masks.kept[m].lengths, lengths[m]) for m in MODALITIES
    )
    if not fits:
        raise RefusedError(
            f"{store.url}/{view.folder} does not fit split {split} of its features; "
            f"remove its manifest.json and run `lnln corrupt {manifest.corpus}` again"
        )
    return masks
