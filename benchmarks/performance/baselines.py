"""What ours is compared with: the shortest code that a user would write, and what published code does.

The masks are transcribed from a description of the published implementation, not from its source: the same seed again
before each modality, uniforms for all N utterances times the padded length, compared with the missing rate; [CLS] and
[SEP] are kept.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lnln.data.schema import MODALITIES, Modality, Ragged, Utterances

MASK_SEED = 1111
Rates = float | Mapping[Modality, NDArray[np.float64]]


def load_pickle(path: Path) -> dict[str, dict[str, Any]]:
    with path.open("rb") as file:
        content: dict[str, dict[str, Any]] = pickle.load(file)
    return content


def convert_pickle(path: Path, folder: Path) -> None:
    """The columns that ours imports, padded as they are, as one Parquet file per split, by pyarrow's defaults."""
    for split, columns in load_pickle(path).items():
        table = {
            "id": pa.array(columns["id"]),
            "raw_text": pa.array(columns["raw_text"]),
            "label": pa.array(columns["regression_labels"]),
            "audio_length": pa.array(columns["audio_lengths"]),
            "vision_length": pa.array(columns["vision_lengths"]),
        }
        for key in ("text_bert", "audio", "vision"):
            array = columns[key]
            table[key] = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(array.shape[1:])))
        pq.write_table(pa.table(table), folder / f"{split}.parquet")


def write_by_defaults(path: Path, utterances: Utterances) -> None:
    """The columns of our shards in one Parquet file, by pyarrow's defaults: dictionary and snappy."""
    columns = {
        "utterance_id": pa.array(utterances.utterance_id),
        "raw_text": pa.array(utterances.raw_text),
        "label": pa.array(utterances.label),
    }
    for modality in MODALITIES:
        sequences = utterances.sequences(modality)
        width = int(np.prod(sequences.values.shape[1:], dtype=int))
        offsets = pa.array((sequences.offsets * width).astype(np.int32))
        columns[modality] = pa.ListArray.from_arrays(offsets, pa.array(sequences.values.reshape(-1)))
        columns[f"{modality}_length"] = pa.array(sequences.lengths.astype(np.int32))
    pq.write_table(pa.table(columns), path)


def read_by_defaults(path: Path, dims: Mapping[Modality, int]) -> Utterances:
    """What `write_by_defaults` wrote. dims: of audio and vision."""
    table = pq.read_table(path)
    sequences = {}
    for modality in MODALITIES:
        values = table[modality].combine_chunks().flatten().to_numpy()
        values = values.reshape(-1, dims[modality]) if modality in dims else values
        sequences[modality] = Ragged.from_lengths(values, table[f"{modality}_length"].to_numpy())
    return Utterances(
        utterance_id=table["utterance_id"].to_pylist(),
        raw_text=table["raw_text"].to_pylist(),
        label=table["label"].to_numpy(),
        text=sequences["text"],
        audio=sequences["audio"],
        vision=sequences["vision"],
    )


def draw_masks(
    lengths: Mapping[Modality, NDArray[np.int64]], padded: Mapping[Modality, int], rates: Rates
) -> dict[Modality, NDArray[np.bool_]]:
    """Per modality (N, padded length), True where a step is kept. rates: one for all, or (N,) by modality."""
    masks = {}
    for modality in MODALITIES:
        num = len(lengths[modality])
        rate = rates if isinstance(rates, float) else rates[modality][:, None]
        np.random.seed(MASK_SEED)  # again for each modality: part of what is published
        kept = np.random.uniform(size=(num, padded[modality])) > rate
        kept &= np.arange(padded[modality]) < lengths[modality][:, None]
        if modality == "text":
            kept[:, 0] = True
            kept[np.arange(num), lengths[modality] - 1] = True
        masks[modality] = kept
    return masks


def draw_rates(random: np.random.Generator, num: int) -> dict[Modality, NDArray[np.float64]]:
    """(num,) missing rates by modality for training: a half of them 0, the others uniform in [0, 1)."""
    return {m: np.where(random.random(num) < 0.5, 0.0, random.random(num)) for m in MODALITIES}


def save_masks(folder: Path, name: str, masks: Mapping[Modality, NDArray[np.bool_]]) -> None:
    """One .npy file of bool per modality."""
    for modality, kept in masks.items():
        np.save(folder / f"{name}-{modality}.npy", kept)
