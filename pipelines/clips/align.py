"""Audio and vision at the pace of the words: one step per word piece, as the aligned files of MMSA have it.

ids, word_of_piece = text.encode_words([word.word for word in words])
audio = align_to_words(audio_features, words, word_of_piece)          # (len(ids), D)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.clips.word_times import Word
from pipelines.extractors.base import Features


def align_to_words(
    features: Features, words: Sequence[Word], word_of_piece: NDArray[np.int64]
) -> tuple[NDArray[np.float32], int]:
    """(L, D) features of L word pieces, and how many of `words` have no frame.

    word_of_piece: (L,) index into `words`, -1 for [CLS] and [SEP]. A piece has the mean of the frames whose middle lies
    from its word's start to before its end; zeros where there are none, and for -1. Where the clip lacks the modality,
    (0, D): it is absent, and not silent.
    """
    num_columns = features.values.shape[1]
    if not len(features.values):
        return np.empty((0, num_columns), np.float32), 0
    means = np.zeros((len(words) + 1, num_columns), np.float64)  # the last, which -1 means, stays zero
    begins, ends = (
        np.searchsorted(features.times, [getattr(word, which) for word in words]) for which in ("start", "end")
    )
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin < end:
            means[row] = features.values[begin:end].mean(axis=0, dtype=np.float64)
    return means[word_of_piece].astype(np.float32), int((begins >= ends).sum())
