"""Mean and standard deviation of every dimension over the frames of a corpus, which may be more than memory holds.

statistics = frame_statistics(lambda: [features], num_columns=33)        # {"mean": [...], "std": [...]}
manifest = measured(store, manifest)                                     # of shards that are written
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import FeatureManifest, LengthSummary, SplitEntry
from lnln.data.read_ahead import read_ahead
from lnln.data.schema import MODALITIES, Modality, Split
from lnln.data.shards import iterate_shards, read_lengths
from lnln.data.store import Store

# Values that are held in float64 at one time.
_PIECE = 1 << 19


def measured(store: Store, manifest: FeatureManifest) -> FeatureManifest:
    """`manifest` with lengths and statistics, read back from the shards that it names: they need not fit into memory.

    Statistics are of the training split, and of all splits where there is none.
    """

    def lengths(entry: SplitEntry) -> dict[Modality, LengthSummary]:
        parts = [part for _, part in read_ahead(lambda shard: read_lengths(store, shard), entry.shards)]
        return {
            modality: LengthSummary.of(np.concatenate([part[modality] for part in parts])) for modality in MODALITIES
        }

    def frames(modality: Modality) -> Iterator[NDArray[np.float32]]:
        learned_from: Iterable[Split] = ["train"] if "train" in manifest.splits else manifest.splits
        for split in learned_from:
            for utterances in iterate_shards(store, manifest, split):
                yield utterances.sequences(modality).values

    return replace(
        manifest,
        lengths={split: lengths(entry) for split, entry in manifest.splits.items()},
        statistics={
            modality: frame_statistics(lambda modality=modality: frames(modality), dim)  # type: ignore[misc]
            for modality, dim in manifest.dims.items()
        },
    )


def frame_statistics(parts: Callable[[], Iterable[NDArray[np.float32]]], num_columns: int) -> dict[str, list[float]]:
    """`mean` and `std` of each column, over all frames of all parts; zeros where there are none.

    parts: gives the (T, num_columns) arrays, each time in the same order; asked for twice. How the frames are cut into
    parts changes no bit, and nine significant digits are kept, what float32 can tell apart.
    """
    total, num_frames = _Sum(num_columns), 0
    for part in parts():
        num_frames += len(part)
        total.add(part, lambda piece: piece.astype(np.float64))
    mean = total.value / max(num_frames, 1)
    squares = _Sum(num_columns)
    if num_frames:
        for part in parts():
            squares.add(part, lambda piece: np.square(piece - mean))
    return {"mean": _rounded(mean), "std": _rounded(np.sqrt(squares.value / max(num_frames, 1)))}


class _Sum:
    """A sum over frames that adds one after the other, however they come."""

    def __init__(self, num_columns: int) -> None:
        self.value = np.zeros(num_columns, np.float64)
        # A row is added to the one before it, but for a single column, whose neighbours NumPy would add in pairs.
        self._width = max(num_columns, 2)

    def add(self, values: NDArray[np.float32], change: Callable[[NDArray[np.float32]], NDArray[np.float64]]) -> None:
        """The rows of `change(values)`, which goes over a piece of them at a time."""
        num_columns = len(self.value)
        num_rows = max(1, _PIECE // self._width)
        for begin in range(0, len(values), num_rows):
            changed = change(values[begin : begin + num_rows])
            rows = np.zeros((len(changed) + 1, self._width), np.float64)
            rows[0, :num_columns], rows[1:, :num_columns] = self.value, changed
            self.value = rows.sum(axis=0)[:num_columns]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.9g}") for value in values]
