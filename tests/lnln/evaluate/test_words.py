"""Marked sentences are the sentences, letter for letter, and mark what fell out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lnln.data.manifest import Tokenizer
from lnln.data.wordpiece import CHINESE, UNCASED, encode
from lnln.evaluate.words import (
    CUT,
    NO_TRANSCRIPT,
    NO_WORDS,
    OTHER_TRANSCRIPT,
    UNKNOWN_WORDS,
    MarkedText,
    WordMarker,
    mark_features,
)

MARKER = WordMarker(UNCASED)


def kept(num: int, *erased: int) -> NDArray[np.bool_]:
    return ~np.isin(np.arange(num), erased)


def shown(marked: MarkedText) -> str:
    return "".join(f"[{span.text}]" if span.is_erased else span.text for span in marked.spans)


def test_pieces_of_words_are_marked_in_the_transcript() -> None:
    text = "Unbelievably GOOD,  isn't it?"
    (ids,) = encode([text])
    assert shown(MARKER.mark(text, ids, kept(len(ids), 2, 3, 6))) == "Un[belie]vably [GOOD],  isn't it?"
    assert shown(MARKER.mark(text, ids, kept(len(ids)))) == text
    everything = MARKER.mark(text, ids, kept(len(ids), *range(1, len(ids) - 1)))
    assert shown(everything) == "[Unbelievably] [GOOD,]  [isn't] [it?]" and everything.note == ""


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=40), chance=st.integers(0, 2**16))
@example(text="한국 half ½ \u202eabc na\u0308ive <script> \x00 a|b", chance=1)
def test_nothing_is_lost_or_added(text: str, chance: int) -> None:
    (ids,) = encode([text])
    masks = np.random.default_rng(chance).random(len(ids)) < 0.5
    masks[[0, -1] if len(ids) else []] = True
    marked = MARKER.mark(text, ids, masks)
    assert "".join(span.text for span in marked.spans) == text
    assert all(span.text for span in marked.spans)
    assert all(a.is_erased != b.is_erased for a, b in zip(marked.spans, marked.spans[1:], strict=False))
    if masks.all():
        assert not any(span.is_erased for span in marked.spans)
    elif len(ids) > 2 and not masks[1:-1].any():
        assert not any(span.text.isalpha() for span in marked.spans if not span.is_erased and span.text.isascii())


def test_a_transcript_that_the_corpus_cuts() -> None:
    (ids,) = encode(["one two three four"])
    cut = np.concatenate([ids[:3], ids[-1:]])
    marked = MARKER.mark("one two three four", cut, kept(4, 2))
    assert shown(marked) == "one [two] three four" and marked.note == CUT


@pytest.mark.parametrize(("text", "note"), [(None, NO_TRANSCRIPT), ("  ", NO_TRANSCRIPT), ("else", OTHER_TRANSCRIPT)])
def test_without_the_right_transcript_the_vocabulary_speaks(text: str | None, note: str) -> None:
    (ids,) = encode(["Unbelievably good"])
    marked = MARKER.mark(text, ids, kept(len(ids), 2, 6))
    assert (shown(marked), marked.note) == ("un[bel]ievably [good]", note)


def test_ids_beyond_the_vocabulary_and_no_text() -> None:
    ids = np.array([101, 2204, 99_999, -4, 102])
    assert shown(MARKER.mark(None, ids, kept(5, 1))) == "[good] [?] [?]"
    empty = MARKER.mark(None, np.array([], np.int32), kept(0))
    assert empty == MarkedText((), NO_WORDS)
    assert shown(MARKER.mark("…", np.array([101, 102]), kept(2))) == "…"


def test_chinese_characters_need_no_vocabulary() -> None:
    marker = WordMarker(CHINESE)
    text = "我觉得 很好。"
    assert shown(marker.mark(text, np.arange(8), kept(8, 1, 3, 4, 6))) == "[我]觉[得] [很]好[。]"
    unknown = marker.mark(text, np.arange(9), kept(9, 1))
    assert (shown(unknown), unknown.note) == (text, UNKNOWN_WORDS)


def test_an_unknown_vocabulary_marks_nothing() -> None:
    marker = WordMarker(Tokenizer("", 10, 0, 1, 2, 3))
    assert marker.mark(None, np.arange(5), kept(5, 2)) == MarkedText((), UNKNOWN_WORDS)
    assert shown(marker.mark("one two three", np.arange(5), kept(5, 2))) == "one [two] three"


def test_features_are_no_words() -> None:
    assert shown(mark_features("good")) == "good" and "features" in mark_features("good").note
    assert mark_features(None) == MarkedText((), NO_WORDS)
