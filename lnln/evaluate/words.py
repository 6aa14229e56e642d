"""What a view erases of a sentence, shown in its own words.

    marked = WordMarker(manifest.tokenizer).mark("Unbelievably good", ids, kept)
    "".join(f"[{span.text}]" if span.is_erased else span.text for span in marked.spans)      # "Un[bel]ievably [good]"

Token ids are pieces of words, and each falls out by itself. Where the transcript is there and gives these ids, its own
letters are marked; else the pieces of the vocabulary stand for it, and a note says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.data.manifest import Tokenizer
from lnln.data.wordpiece import UNCASED, read_vocabulary, tokenizer_bytes
from lnln.errors import RefusedError

NO_TRANSCRIPT = "the corpus has no transcript, so the words are those of the tokenizer"
OTHER_TRANSCRIPT = "the transcript does not give these token ids, so the words are those of the tokenizer"
UNKNOWN_WORDS = "which words are erased cannot be shown: token ids and transcript do not fit together"
NO_WORDS = "the utterance has no text"
CUT = "the corpus cuts this transcript; its end is not seen by any model"
FEATURES = "which words are erased cannot be shown: text is ready-made features"


@dataclass(frozen=True)
class Span:
    """A stretch of a sentence."""

    text: str
    is_erased: bool


@dataclass(frozen=True)
class MarkedText:
    """Spans that make up the whole sentence, end to end. note: what must be said of them, else empty."""

    spans: tuple[Span, ...]
    note: str


class WordMarker:
    """Marks sentences of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def mark(self, raw_text: str | None, ids: NDArray[np.integer[Any]], kept: NDArray[np.bool_]) -> MarkedText:
        """ids: with [CLS] and [SEP], which are never erased. kept: as long, False where a view erases."""
        assert len(ids) == len(kept), (len(ids), len(kept))
        erased = [not each for each in kept[1:-1].tolist()]
        if not erased:
            return MarkedText((Span(raw_text, False),) if raw_text else (), "" if raw_text else NO_WORDS)
        has_words = raw_text is not None and bool(raw_text.strip())
        places = self._find(raw_text, ids[1:-1].tolist()) if raw_text is not None and has_words else None
        if raw_text is not None and places is not None:
            is_cut = bool(raw_text[max(end for _, end in places) :].strip())
            return MarkedText(_spans(raw_text, places, erased), CUT if is_cut else "")
        if self._vocabulary is None:
            return MarkedText((Span(raw_text, False),) if raw_text else (), UNKNOWN_WORDS)
        text, places = self._join(ids[1:-1].tolist())
        return MarkedText(_spans(text, places, erased), OTHER_TRANSCRIPT if has_words else NO_TRANSCRIPT)

    def _find(self, text: str, ids: Sequence[int]) -> list[tuple[int, int]] | None:
        """Where each of `ids` stands in `text`; None where the text does not begin with these."""
        if self.tokenizer.name == UNCASED.name:
            encoded = self._fast.encode(text)
            found, places = encoded.ids[1:-1], encoded.offsets[1:-1]
            return places[: len(ids)] if found[: len(ids)] == list(ids) else None
        # Without the vocabulary words are known, not their pieces: enough where every word is one piece, as in Chinese.
        words = _split_words(text)
        return words if len(words) == len(ids) else None

    def _join(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The pieces of `ids` as a text, and where each stands in it."""
        text, places = "", []
        for token in ids:
            piece = self._vocabulary[token] if self._vocabulary and 0 <= token < len(self._vocabulary) else "[?]"
            is_rest = piece.startswith("##") and len(piece) > 2
            start = f"{text}{'' if is_rest or not text else ' '}"
            text = start + (piece[2:] if is_rest else piece)
            places.append((len(start), len(text)))
        return text, places

    @cached_property
    def _vocabulary(self) -> list[str] | None:
        try:
            return read_vocabulary(self.tokenizer)
        except RefusedError:
            return None

    @cached_property
    def _fast(self) -> Any:
        from tokenizers import Tokenizer as Fast

        made = Fast.from_buffer(tokenizer_bytes())
        made.no_padding()
        made.no_truncation()
        return made


def mark_features(raw_text: str | None) -> MarkedText:
    """A sentence whose text is ready-made features, no step of which is a word."""
    return MarkedText((Span(raw_text, False),) if raw_text else (), FEATURES if raw_text else NO_WORDS)


def _split_words(text: str) -> list[tuple[int, int]]:
    """Where the words that BERT splits into pieces stand: a Chinese character and a punctuation mark are one each."""
    from tokenizers import PreTokenizedString
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    split = PreTokenizedString(text)
    split.normalize(BertNormalizer(lowercase=False).normalize)
    BertPreTokenizer().pre_tokenize(split)
    return [place for _, place, _ in split.get_splits(offset_referential="original", offset_type="char")]


def _spans(text: str, places: Iterable[tuple[int, int]], erased: Iterable[bool]) -> tuple[Span, ...]:
    """`text` in stretches that are kept or erased; a letter of several tokens is erased if the first of them is."""
    marks, position = [False] * len(text), 0
    for (start, end), is_erased in zip(places, erased, strict=True):
        for place in range(max(start, position), end):
            marks[place] = is_erased
        position = max(position, end)
    ends = [place for place in range(1, len(text)) if marks[place] != marks[place - 1]]
    bounds = [0, *ends, len(text)] if text else []
    return tuple(Span(text[a:b], marks[a]) for a, b in itertools.pairwise(bounds))
