"""Alignment to words: a mean per word, at every piece of it, and zeros where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.clips.align import align_to_words
from pipelines.clips.word_times import Word
from pipelines.extractors.base import Features


def features(times: list[float], num_columns: int = 2) -> Features:
    """Frame i is (i + 1, 10 * (i + 1), ...)."""
    values = np.outer(np.arange(1, len(times) + 1), 10.0 ** np.arange(num_columns))
    return Features(values.astype(np.float32), np.array(times, np.float64))


def test_pieces_have_the_mean_of_their_word() -> None:
    words = [Word("hel lo", 0.0, 0.25), Word("you", 0.25, 0.4), Word("silent", 0.5, 0.5), Word("late", 9.0, 10.0)]
    pieces = np.array([-1, 0, 0, 1, 2, 3, -1])
    aligned, num_empty = align_to_words(features([0.05, 0.15, 0.25, 0.35]), words, pieces)
    assert aligned.dtype == np.float32 and num_empty == 2
    expected = [[0, 0], [1.5, 15], [1.5, 15], [3.5, 35], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_array_equal(aligned, expected)


def test_a_frame_belongs_to_the_word_that_begins_at_it() -> None:
    aligned, _ = align_to_words(features([0.5], 1), [Word("a", 0, 0.5), Word("b", 0.5, 1)], np.array([0, 1]))
    np.testing.assert_array_equal(aligned, [[0], [1]])


def test_words_may_overlap() -> None:
    aligned, _ = align_to_words(features([0.1, 0.2], 1), [Word("a", 0, 1), Word("b", 0.15, 0.3)], np.array([0, 1]))
    np.testing.assert_array_equal(aligned, [[1.5], [2]])


def test_an_absent_modality_stays_absent() -> None:
    aligned, num_empty = align_to_words(features([], 3), [Word("a", 0, 1)], np.array([-1, 0, -1]))
    assert aligned.shape == (0, 3) and aligned.dtype == np.float32 and num_empty == 0


def test_no_pieces() -> None:
    """Words of control characters only."""
    aligned, num_empty = align_to_words(features([0.1]), [Word("\x07", 0, 1)], np.empty(0, np.int64))
    assert aligned.shape == (0, 2) and num_empty == 0


def test_large_values_keep_their_digits() -> None:
    made = Features(np.full((4000, 1), 16_777_215, np.float32), np.arange(4000) / 100)
    aligned, _ = align_to_words(made, [Word("a", 0, 40)], np.array([0]))
    assert aligned[0, 0] == 16_777_215


times = st.floats(0, 5, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(
    frames=st.lists(times, min_size=1, max_size=20, unique=True).map(sorted),
    spans=st.lists(st.tuples(times, times).map(sorted), min_size=1, max_size=8).map(sorted),
    data=st.data(),
)
def test_as_a_plain_loop_has_it(frames: list[float], spans: list[list[float]], data: st.DataObject) -> None:
    words = [Word("x", start, end) for start, end in spans]
    pieces = data.draw(st.lists(st.integers(-1, len(words) - 1), max_size=12))
    made = features(frames)
    aligned, num_empty = align_to_words(made, words, np.array(pieces, np.int64))
    plain = []
    for word in words:
        own = [value for value, time in zip(made.values, frames, strict=True) if word.start <= time < word.end]
        plain.append(np.mean(own, axis=0) if own else None)
    assert num_empty == sum(mean is None for mean in plain)
    for row, piece in zip(aligned, pieces, strict=True):
        expected = plain[piece] if piece >= 0 else None
        np.testing.assert_allclose(row, np.zeros(2) if expected is None else expected, rtol=1e-6)


def test_pieces_and_words_of_a_real_tokenizer() -> None:
    pytest.importorskip("tokenizers")
    from pipelines.extractors import load

    ids, which = load("text", "wordpiece").encode_words(["unbelievably", "good"])
    aligned, _ = align_to_words(features([0.1, 0.6], 1), [Word("unbelievably", 0, 0.5), Word("good", 0.5, 1)], which)
    assert len(aligned) == len(ids) > 4 and aligned[0] == aligned[-1] == 0
    assert set(aligned[1:-2, 0]) == {1} and aligned[-2, 0] == 2
