"""Import of MMSA pickles: MOSI, MOSEI, CH-SIMS and any corpus of that layout.

    corpus = read_mmsa(Path("unaligned_50.pkl"))
    corpus.splits["train"].audio          # float32 frames without padding

Layout: {"train" | "valid" | "test": {raw_text, audio (N, T, D), vision (N, T, D), id ("video$_$clip"), text_bert
(N, 3, T) = ids, mask, segments, audio_lengths, vision_lengths, regression_labels, and on SIMS regression_labels_T, _A,
_V}}. The large `text` array (N, T, D) holds language features of any width. It is read where a file has neither
`text_bert` nor transcripts, or where asked for; else it is not touched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lnln.data.digest import digest_file
from lnln.data.manifest import NO_TOKENIZER, Tokenizer
from lnln.data.mmsa_columns import Rows, read_frames, read_text_features, read_text_ids, real_ids
from lnln.data.schema import MODALITIES, SPLITS, Modality, Ragged, Split, Utterances
from lnln.data.unpickle import load_pickle
from lnln.data.wordpiece import CHINESE, UNCASED, are_chinese, recognise
from lnln.errors import RefusedError

log = logging.getLogger(__name__)

# What text is imported as: token ids, for an encoder that is trained along, or ready-made language features.
TextForm = Literal["ids", "features"]

# What token ids may be of, by name.
TokenizerName = Literal["bert-base-uncased", "bert-base-chinese"]
_TOKENIZERS: dict[str, Tokenizer] = {tokenizer.name: tokenizer for tokenizer in (UNCASED, CHINESE)}

# Values that are looked at in one piece: what is noted of them weighs far less than the features.
_CLEANING_BLOCK = 1 << 20

# SHA-256 sums that MMSA publishes.
PUBLISHED = {
    "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524": "MOSI/Processed/unaligned_50.pkl",
    "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9": "MOSI/Processed/aligned_50.pkl",
    "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f": "MOSEI/Processed/unaligned_50.pkl",
    "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791": "MOSEI/Processed/aligned_50.pkl",
    "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f": "SIMS/Processed/unaligned_39.pkl",
}

# CH-SIMS labels each modality by itself; the suffix says which.
_MODALITY_LABELS: dict[Modality, str] = {
    "text": "regression_labels_T",
    "audio": "regression_labels_A",
    "vision": "regression_labels_V",
}


@dataclass(frozen=True)
class MmsaCorpus:
    """A corpus in memory, as an MMSA pickle has it: what `features` are made of.

    dims: of audio and vision, and of text where that is features; then tokenizer is NO_TOKENIZER. extractors: by
    modality, what is known of how the features were made. cleaned: by the modalities of `dims`, `num_nan` and
    `num_infinite` values set to 0. source: name, sha256, num_bytes, published_as (or None), synthetic.
    """

    splits: Mapping[Split, Utterances]
    dims: Mapping[Modality, int]
    label_range: tuple[float, float]
    tokenizer: Tokenizer
    extractors: Mapping[Modality, Mapping[str, Any]]
    cleaned: Mapping[Modality, Mapping[str, int]]
    source: Mapping[str, Any]


@dataclass
class _Cleaning:
    """Values of one modality that were set to 0. The published audio holds -inf, which is expected; all else is odd.

    Odd values that stand alone are dirt; where they are half of an utterance, or of a dimension in a split, something
    is damaged.
    """

    num_nan: int = 0
    num_infinite: int = 0
    num_odd: int = 0
    first_odd: str = ""

    def clean(self, rows: Rows, modality: Modality, frames: Ragged) -> None:
        """Set what is not finite in `frames` to 0; RefusedError where odd values are half of an utterance or more, or
        half of a dimension."""
        num_steps, dim = frames.values.shape
        by_step, by_dimension = np.zeros(num_steps, np.int64), np.zeros(dim, np.int64)
        block_steps = max(1, _CLEANING_BLOCK // dim)
        for begin in range(0, num_steps, block_steps):
            block = frames.values[begin : begin + block_steps]
            is_wrong = ~np.isfinite(block)
            if not is_wrong.any():
                continue
            num_nan = int(np.isnan(block).sum())
            self.num_nan += num_nan
            self.num_infinite += int(is_wrong.sum()) - num_nan
            is_odd = is_wrong & ~np.isneginf(block) if modality == "audio" else is_wrong
            by_step[begin : begin + len(block)] = is_odd.sum(axis=1)
            by_dimension += is_odd.sum(axis=0)
            block[is_wrong] = 0
        ends = np.concatenate([[0], np.cumsum(by_step)])[frames.offsets]
        by_utterance = np.diff(ends)
        if not by_utterance.any():
            return
        _refuse_damage(rows, modality, by_utterance, frames.lengths * dim)
        _refuse_dimensions(rows, modality, by_dimension, num_steps)
        self.num_odd += int(by_utterance.sum())
        first = rows.utterance_ids[int((by_utterance > 0).argmax())]
        self.first_odd = self.first_odd or f"split {rows.split}, utterance {first}"


def read_mmsa(path: Path, text: TextForm | None = None, tokenizer: TokenizerName | None = None) -> MmsaCorpus:
    """The corpus in an MMSA pickle, padding dropped.

    text: `ids` or `features`; None takes ids where the file has them or transcripts to make them of. tokenizer: what
    made the ids; None finds it out, and warns where it cannot. What is not finite in audio, vision and text features is
    set to 0 and counted; but for -inf in audio, which the published files are known for, a warning names the first of
    it. RefusedError, naming split and utterance, where the file is no such pickle, has no text of that form,
    contradicts itself, or has utterances or dimensions that are half NaN or infinite (but for -inf in audio).
    """
    raw = load_pickle(path)
    if not isinstance(raw, dict):
        raise RefusedError(f"{path} holds a {type(raw).__name__}, expected an MMSA dict with train, valid and test")
    for split in SPLITS:
        if not isinstance(raw.get(split), dict):
            there = ", ".join(str(key)[:40] for key in list(raw)[:10]) or "nothing"
            raise RefusedError(f"{path} has no split {split!r}, expected train, valid and test; it has {there}")
    rows = {split: Rows.of(path, split, raw[split]) for split in SPLITS}
    _refuse_repetition(path, rows)

    is_sims = any(_has_modality_labels(rows[split]) for split in SPLITS)
    is_ids = _text_form(path, rows, text) == "ids"
    if tokenizer is not None and not is_ids:
        raise RefusedError(f"{path} is imported as language features, which have no tokenizer; leave `--tokenizer` out")
    made_by = _tokenizer(path, rows, is_sims, tokenizer) if is_ids else NO_TOKENIZER
    is_chinese = made_by == CHINESE or _has_chinese_transcripts(rows)
    label_range = (-1.0, 1.0) if is_sims or (is_chinese and _are_within_one(rows)) else (-3.0, 3.0)
    cleaned = {modality: _Cleaning() for modality in MODALITIES if modality != "text" or not is_ids}
    splits: dict[Split, Utterances] = {}
    for split in SPLITS:
        splits[split] = _read_split(rows[split], made_by, label_range, is_sims, cleaned)
    for modality in cleaned:
        dims = {split: splits[split].sequences(modality).values.shape[1] for split in SPLITS}
        if len(set(dims.values())) > 1:
            stated = ", ".join(f"{split} {dim}" for split, dim in dims.items())
            raise RefusedError(f"{path}: {modality} must have the same dimensions in every split, got {stated}")
    for modality, counts in cleaned.items():
        if counts.num_odd:
            said = f"{counts.num_odd:,} NaN or infinite values of {modality} were set to 0"
            log.warning("%s: %s, the first in %s", path, said, counts.first_odd)

    source = _source(path)
    origin = source["published_as"] or "MMSA layout"
    return MmsaCorpus(
        splits=splits,
        dims={m: splits["train"].sequences(m).values.shape[1] for m in cleaned},
        label_range=label_range,
        tokenizer=made_by,
        extractors={
            "text": {"name": "WordPiece", "vocabulary": made_by.name} if is_ids else {"name": origin},
            "audio": {"name": origin},
            "vision": {"name": origin},
        },
        cleaned={m: {"num_nan": c.num_nan, "num_infinite": c.num_infinite} for m, c in cleaned.items()},
        source=source,
    )


def _read_split(
    rows: Rows,
    tokenizer: Tokenizer,
    label_range: tuple[float, float],
    is_sims: bool,
    cleaned: dict[Modality, _Cleaning],
) -> Utterances:
    text, padded_length = read_text_ids(rows, tokenizer) if "text" not in cleaned else read_text_features(rows)
    sequences: dict[Modality, Ragged] = {"text": text}
    for modality, counts in cleaned.items():
        if modality != "text":
            sequences[modality] = read_frames(rows, modality, text.lengths, padded_length)
        counts.clean(rows, modality, sequences[modality])
    labels = {m: _labels(rows, key, label_range) for m, key in _MODALITY_LABELS.items()} if is_sims else {}
    return Utterances(
        utterance_id=rows.utterance_ids,
        raw_text=rows.texts() or [None] * len(rows),
        label=_labels(rows, "regression_labels", label_range),
        text=text,
        audio=sequences["audio"],
        vision=sequences["vision"],
        modality_labels=labels,
    )


def _refuse_damage(rows: Rows, modality: Modality, num_odd: NDArray[np.int64], num_values: NDArray[np.int64]) -> None:
    """RefusedError where half of the values of an utterance or more are odd."""
    is_damaged = (num_odd > 0) & (2 * num_odd >= num_values)
    if not is_damaged.any():
        return
    row, num_more = int(is_damaged.argmax()), int(is_damaged.sum()) - 1
    aside = " (-inf aside)" if modality == "audio" else ""
    more = f"; so have {num_more:,} more utterances of the split" if num_more else ""
    raise RefusedError(
        f"{rows.where(row)} has {num_odd[row]:,} NaN or infinite values among the {num_values[row]:,} of its "
        f"{modality}{aside}, expected less than half{more}; repair the utterance in the pickle or drop it, and import "
        "again"
    )


def _refuse_dimensions(rows: Rows, modality: Modality, num_odd: NDArray[np.int64], num_steps: int) -> None:
    """RefusedError where a dimension is odd in half of the frames of a split or more."""
    is_damaged = 2 * num_odd >= num_steps
    if not is_damaged.any():
        return
    column, num_more = int(is_damaged.argmax()), int(is_damaged.sum()) - 1
    aside = " (-inf aside)" if modality == "audio" else ""
    more = f"; so has {num_more:,} more of its dimensions" if num_more else ""
    raise RefusedError(
        f"{rows.path}: split {rows.split}: dimension {column} of {modality} is NaN or infinite{aside} in "
        f"{num_odd[column]:,} of {num_steps:,} frames, expected less than half{more}; repair the dimension in the "
        "pickle or drop it from every split, and import again"
    )


def _labels(rows: Rows, key: str, label_range: tuple[float, float]) -> NDArray[np.float32]:
    labels = rows.numbers(key)
    low, high = label_range
    wrong = np.flatnonzero(~_is_within(labels, label_range))
    if len(wrong):
        row = int(wrong[0])
        raise RefusedError(f"{rows.where(row)} has {key} {labels[row]}, expected {low} to {high}")
    return labels.astype(np.float32)


def _is_within(labels: NDArray[np.float64], label_range: tuple[float, float]) -> NDArray[np.bool_]:
    """(N,) False for NaN too."""
    low, high = label_range
    # Labels are means of a few annotators, kept in float32: a rounding above the end of the scale is no mistake.
    return np.asarray((labels >= low - 1e-4) & (labels <= high + 1e-4))


def _are_within_one(rows: Mapping[Split, Rows]) -> bool:
    """Every label lies where those of CH-SIMS do: Chinese corpora of its scale need not have its modality labels."""
    return all(bool(_is_within(rows[split].numbers("regression_labels"), (-1.0, 1.0)).all()) for split in SPLITS)


def _has_modality_labels(rows: Rows) -> bool:
    return any(rows.has(key) for key in _MODALITY_LABELS.values())


def no_ids(path: Path) -> RefusedError:
    """What is said of a file without token ids when they are asked for."""
    return RefusedError(
        f"{path} has neither 'text_bert' nor transcripts to make token ids of; import it without `--text ids`"
    )


def _text_form(path: Path, rows: Mapping[Split, Rows], wanted: TextForm | None) -> TextForm:
    """The form that text is read in: the one that is wanted, else ids where there are any."""
    has_ids = any(
        rows[split].has("text_bert") or any(text and text.strip() for text in rows[split].texts() or [])
        for split in SPLITS
    )
    has_features = any(rows[split].has("text") for split in SPLITS)
    if wanted == "ids" and not has_ids:
        raise no_ids(path)
    if wanted == "features" and not has_features:
        raise RefusedError(f"{path} has no 'text' array of language features; import it without `--text features`")
    return wanted or ("features" if has_features and not has_ids else "ids")


def _tokenizer(path: Path, rows: Mapping[Split, Rows], is_sims: bool, stated: TokenizerName | None = None) -> Tokenizer:
    """What made `text_bert`: MMSA took bert-base-chinese for Chinese transcripts and bert-base-uncased for the rest.

    Without transcripts the ids themselves say it, or CH-SIMS's labels; else UNCASED is assumed, and that is said.
    Where there is no `text_bert`, ids are made here, with UNCASED.
    """
    with_ids = [split for split in SPLITS if rows[split].has("text_bert")]
    if not with_ids:
        if stated not in (None, UNCASED.name):
            raise RefusedError(
                f"{path} has no 'text_bert', and ids of its transcripts can be made of {UNCASED.name} only, not of "
                f"{stated}; leave `--tokenizer` out"
            )
        return UNCASED
    if len(with_ids) < len(SPLITS):
        raise RefusedError(f"{path} has 'text_bert' in {', '.join(with_ids)} only, expected in every split or in none")
    if stated is not None:
        return _TOKENIZERS[stated]
    if _transcripts(rows):
        return CHINESE if _has_chinese_transcripts(rows) else UNCASED
    found = recognise(np.concatenate([real_ids(rows[split]) for split in SPLITS]))
    if found is not None or is_sims:
        return found or CHINESE
    log.warning(
        "%s has no transcripts, and its ids do not show what made them: taken for %s; if that is wrong, import with "
        "`--tokenizer %s`",
        path,
        UNCASED.name,
        CHINESE.name,
    )
    return UNCASED


def _transcripts(rows: Mapping[Split, Rows]) -> list[str]:
    return [text for split in SPLITS for text in rows[split].texts() or [] if text and text.strip()]


def _has_chinese_transcripts(rows: Mapping[Split, Rows]) -> bool:
    return are_chinese(_transcripts(rows))


def _refuse_repetition(path: Path, rows: Mapping[Split, Rows]) -> None:
    seen: dict[str, Split] = {}
    for split in SPLITS:
        for name in rows[split].utterance_ids:
            if name in seen:
                raise RefusedError(
                    f"{path} has utterance {name} twice, in {seen[name]} and {split}; ids must be unique"
                )
            seen[name] = split


def _source(path: Path) -> dict[str, Any]:
    num_bytes, sha256 = digest_file(path)
    return {
        "name": path.name,
        "sha256": sha256,
        "num_bytes": num_bytes,
        "published_as": PUBLISHED.get(sha256),
        "synthetic": False,
    }
