"""The columns of one split of an MMSA pickle, checked: each as long as the others, each of the type it should be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.file_array import FileArray, row_blocks
from lnln.data.manifest import Tokenizer
from lnln.data.schema import Modality, Ragged, Split
from lnln.data.wordpiece import encode
from lnln.errors import RefusedError


@dataclass(frozen=True)
class Rows:
    """N utterances of one split: `column` and its like give the N values of a key, or a refusal that names it."""

    path: Path
    split: Split
    utterance_ids: list[str]
    columns: dict[str, Any]

    @classmethod
    def of(cls, path: Path, split: Split, columns: dict[str, Any]) -> Rows:
        ids = _in_memory(columns.get("id"))
        if isinstance(ids, np.ndarray):
            ids = ids.reshape(-1).tolist()
        if not isinstance(ids, (list, tuple)) or not ids:
            raise RefusedError(f"{path}: split {split} must have a list of utterance ids under 'id'")
        return cls(path, split, [_text(value) or "" for value in ids], columns)._checked()

    def _checked(self) -> Rows:
        if not all(self.utterance_ids):
            raise RefusedError(f"{self.where(self.utterance_ids.index(''))} has no id, expected video$_$clip")
        return self

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def where(self, row: int) -> str:
        """How a refusal calls one utterance."""
        return f"{self.path}: split {self.split}, utterance {self.utterance_ids[row] or f'number {row}'}"

    def has(self, key: str) -> bool:
        return self.columns.get(key) is not None

    def column(self, key: str) -> Any:
        """The values under `key`, as many as there are utterances."""
        return _in_memory(self._checked_column(key))

    def _checked_column(self, key: str) -> Any:
        if not self.has(key):
            raise RefusedError(f"{self.path}: split {self.split} has no {key!r}, which an MMSA pickle has")
        values = self.columns[key]
        is_array = isinstance(values, (np.ndarray, FileArray))
        if not isinstance(values, (list, tuple)) and not (is_array and values.ndim):
            raise RefusedError(f"{self.path}: split {self.split}: {key!r} must be a list or an array")
        if len(values) != len(self):
            raise RefusedError(
                f"{self.path}: split {self.split} has {len(values)} rows of {key!r} for {len(self)} utterances"
            )
        return values

    def texts(self) -> list[str | None] | None:
        """The transcripts, None for an utterance without; None altogether where the file has none."""
        if not self.has("raw_text"):
            return None
        values = self.column("raw_text")
        return [_text(value) for value in (values.reshape(-1) if isinstance(values, np.ndarray) else values)]

    def numbers(self, key: str) -> NDArray[np.float64]:
        """(N,) one number per utterance."""
        values = self.column(key)
        try:
            array = np.asarray(values).reshape(len(self))
            if array.dtype.kind == "c":
                raise TypeError("complex numbers")
            numbers = array.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            raise RefusedError(f"{self.path}: split {self.split}: {key!r} must hold one number per utterance") from None
        return numbers

    def array(self, key: str, num_axes: int) -> NDArray[Any] | FileArray:
        """A numeric array of N rows, which may have been left in the file."""
        values = self._checked_column(key)
        is_array = isinstance(values, (np.ndarray, FileArray))
        if not is_array or values.dtype.kind not in "biuf" or values.ndim != num_axes:
            shape = f"{values.dtype} {values.shape}" if is_array else type(values).__name__
            raise RefusedError(
                f"{self.path}: split {self.split}: {key!r} must be a numeric array with {num_axes} axes, got {shape}"
            )
        checked: NDArray[Any] | FileArray = values
        return checked


def read_frames(rows: Rows, modality: Modality, text_lengths: NDArray[np.int64], padded_text_length: int) -> Ragged:
    """Audio or vision as float32, padding dropped. Padding is at the end of each row, by the stated lengths.

    A file without lengths is word-aligned: where its rows are as wide as the text's, the text's length is taken, and
    the whole row otherwise or where there is no text.
    """
    array = _features(rows, modality)
    num_steps = array.shape[1]
    if rows.has(f"{modality}_lengths"):
        lengths = _stated_lengths(rows, f"{modality}_lengths", modality, num_steps)
    elif num_steps == padded_text_length:
        lengths = np.where(text_lengths > 0, np.minimum(text_lengths, num_steps), num_steps)
    else:
        lengths = np.full(len(rows), num_steps, np.int64)
    return _without_padding(array, lengths)


def read_text_features(rows: Rows) -> tuple[Ragged, int]:
    """(language features as float32 without padding, width of the padded rows), from the array `text`.

    Lengths are `text_lengths` where the file has them, else those of the mask of `text_bert`, else what is left without
    the steps at the end of a row that are all zeros.
    """
    array = _features(rows, "text")
    num_steps = array.shape[1]
    if rows.has("text_lengths"):
        lengths = _stated_lengths(rows, "text_lengths", "text", num_steps)
    elif rows.has("text_bert"):
        lengths = _bert_lengths(rows, _bert(rows))
        too_long = lengths > num_steps
        _refuse_rows(rows, too_long, f"has more steps in its text_bert mask than its text array has, {num_steps}")
    else:
        is_filled = np.concatenate([block.any(axis=2) for block in row_blocks(array)])  # NaN counts as a value
        lengths = np.max(is_filled * np.arange(1, num_steps + 1), axis=1, initial=0)
    return _without_padding(array, lengths), num_steps


def read_text_ids(rows: Rows, tokenizer: Tokenizer) -> tuple[Ragged, int]:
    """(WordPiece ids as int32 without padding, width of the padded rows or 0).

    From `text_bert` by its mask; without it, the transcripts by the vocabulary of UNCASED.
    """
    if not rows.has("text_bert"):
        texts = rows.texts()
        if texts is None:
            raise RefusedError(
                f"{rows.path}: split {rows.split} has neither 'text_bert' nor 'raw_text', and no numeric 'text' array "
                "of language features in their place"
            )
        encoded = encode(texts)
        # An empty array in front, for a split without utterances.
        values = np.concatenate([np.zeros(0, np.int32), *encoded])
        return Ragged.from_lengths(values, [len(ids) for ids in encoded]), 0
    array = _bert(rows)
    ids, lengths = array[:, 0], _bert_lengths(rows, array)
    is_real = np.arange(array.shape[2]) < lengths[:, None]
    known = (ids >= 0) & (ids < tokenizer.vocabulary_size) & (ids == np.floor(ids))
    _refuse_rows(
        rows,
        (is_real & ~known).any(axis=1),
        f"has text_bert ids that are not in the vocabulary of {tokenizer.name} (0 to {tokenizer.vocabulary_size - 1})",
    )
    return Ragged.from_lengths(ids[is_real].astype(np.int32), lengths), array.shape[2]


def real_ids(rows: Rows) -> NDArray[Any]:
    """The ids of `text_bert` without padding, of all utterances end to end."""
    array = _bert(rows)
    return np.asarray(array[:, 0][array[:, 1] != 0])


def _features(rows: Rows, modality: Modality) -> NDArray[Any] | FileArray:
    """The array (N, T, D) of one modality, D at least 1."""
    array = rows.array(modality, num_axes=3)
    if array.shape[2] == 0:
        raise RefusedError(f"{rows.path}: split {rows.split}: {modality!r} has no dimensions, got shape {array.shape}")
    return array


def _without_padding(array: NDArray[Any] | FileArray, lengths: NDArray[np.int64]) -> Ragged:
    """The first `lengths` steps of each row of `array` (N, T, D), as float32; padding is never in memory at once."""
    frames = np.empty((int(lengths.sum()), array.shape[2]), np.float32)
    steps = np.arange(array.shape[1])
    first, end = 0, 0
    for block in row_blocks(array):
        kept = block[steps < lengths[first : first + len(block), None]]
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is counted and cleaned
            frames[end : end + len(kept)] = kept
        first, end = first + len(block), end + len(kept)
    return Ragged.from_lengths(frames, lengths)


def _bert(rows: Rows) -> NDArray[Any]:
    """`text_bert`, (N, 3, T): ids, mask, segments."""
    array: NDArray[Any] = _in_memory(rows.array("text_bert", num_axes=3))
    if array.shape[1] != 3:
        raise RefusedError(
            f"{rows.path}: split {rows.split}: 'text_bert' must be (utterances, 3, steps) of ids, mask and segments, "
            f"got shape {array.shape}"
        )
    return array


def _bert_lengths(rows: Rows, array: NDArray[Any]) -> NDArray[np.int64]:
    """(N,) steps by the mask of `text_bert`."""
    mask = array[:, 1]
    lengths: NDArray[np.int64] = (mask != 0).sum(axis=1).astype(np.int64)
    is_real = np.arange(array.shape[2]) < lengths[:, None]
    _refuse_rows(rows, (mask != is_real).any(axis=1), "has a text_bert mask that is not ones followed by zeros")
    return lengths


def _stated_lengths(rows: Rows, key: str, modality: Modality, num_steps: int) -> NDArray[np.int64]:
    stated = rows.numbers(key)
    wrong = np.flatnonzero(~((stated >= 0) & (stated <= num_steps) & (stated == np.floor(stated))))
    if len(wrong):
        row = int(wrong[0])
        raise RefusedError(
            f"{rows.where(row)} has {key} {stated[row]:g}, but its {modality} array has {num_steps} steps"
        )
    return stated.astype(np.int64)


def _refuse_rows(rows: Rows, is_wrong: NDArray[np.bool_], what: str) -> None:
    if is_wrong.any():
        raise RefusedError(f"{rows.where(int(is_wrong.argmax()))} {what}")


def _in_memory(values: Any) -> Any:
    return values.read() if isinstance(values, FileArray) else values


def _text(value: Any) -> str | None:
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    # Half of a surrogate pair is a Python string, but no text that anything can store.
    return str(value).encode("utf-8", "replace").decode("utf-8")
