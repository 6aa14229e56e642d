"""Mistyped words: for each entry of a WordPiece vocabulary those that one slip of the finger makes of it.

A slip replaces a letter, leaves one out, adds one, or swaps two neighbours (Damerau). Letters come in only of the kinds
that the word has (Latin, digits, Chinese characters, ..., by the first word of their Unicode names; those of ASCII are
kinds of their own) and only such as stand in the vocabulary. A piece that continues a word (`##`) becomes another such
piece, the beginning of a word another beginning. [CLS], [UNK] and their like are no words: they have no neighbours and
are nobody's.

    typos = typos_of(manifest.tokenizer)
    typos.neighbours(2204)          # of "good": the ids of "food", "goods", "wood", "god", ...
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.corruption.generator import Bits, to_below
from lnln.data.manifest import Tokenizer
from lnln.data.wordpiece import read_vocabulary


class Typos:
    """The neighbours of the entries of one vocabulary, found when they are first asked for.

    vocabulary: the entry of every id. unknown_id: of [UNK].
    """

    def __init__(self, vocabulary: Sequence[str], unknown_id: int) -> None:
        self._unknown_id = unknown_id
        self._vocabulary = vocabulary
        self._ids = {entry: number for number, entry in enumerate(vocabulary) if not _is_special(entry)}
        self._alphabets: dict[str, list[str]] = {}
        for letter in sorted({letter for entry in self._ids for letter in _split(entry)[1]}):
            self._alphabets.setdefault(_kind(letter), []).append(letter)
        self._neighbours: dict[int, NDArray[np.int64]] = {}

    def neighbours(self, token: int) -> NDArray[np.int64]:
        """The ids of the words that a slip makes of `token`, sorted; none of an id beyond the vocabulary."""
        if token not in self._neighbours:
            self._neighbours[token] = np.array(sorted(self._find(token)), np.int64)
        return self._neighbours[token]

    def mistype(self, tokens: NDArray[np.integer[Any]], bits: Bits) -> NDArray[np.int64]:
        """(K,) one neighbour of each of (K,) tokens, chosen by `bits`; [UNK] where there is none."""
        unique, which = np.unique(tokens, return_inverse=True)
        options = [self.neighbours(int(token)) for token in unique]
        # [UNK] at the end, so that there is something to take for every token.
        table = np.concatenate([*options, np.array([self._unknown_id])])
        sizes = np.array([len(each) for each in options], np.int64)
        starts = np.cumsum(sizes) - sizes
        chosen = starts[which] + to_below(bits, sizes[which])
        return table[np.where(sizes[which] > 0, chosen, len(table) - 1)]

    def _find(self, token: int) -> set[int]:
        entry = self._vocabulary[token] if 0 <= token < len(self._vocabulary) else ""
        if entry not in self._ids:
            return set()
        mark, word = _split(entry)
        letters = [letter for kind in sorted({_kind(each) for each in word}) for letter in self._alphabets[kind]]
        cuts = [(word[:place], word[place:]) for place in range(len(word) + 1)]
        slips = {left + right[1:] for left, right in cuts if right}
        slips |= {left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1}
        slips |= {left + letter + right[1:] for left, right in cuts if right for letter in letters}
        slips |= {left + letter + right for left, right in cuts for letter in letters}
        # Looked up with its mark, and none where nothing but the mark is left.
        return {self._ids[mark + slip] for slip in slips - {word, ""} if mark + slip in self._ids}


@lru_cache(maxsize=2)
def typos_of(tokenizer: Tokenizer) -> Typos:
    """RefusedError where its vocabulary is not at hand."""
    return Typos(read_vocabulary(tokenizer), tokenizer.unknown_id)


def _split(entry: str) -> tuple[str, str]:
    """(`##` or nothing, the letters)."""
    return ("##", entry[2:]) if entry.startswith("##") and len(entry) > 2 else ("", entry)


def _is_special(entry: str) -> bool:
    return not entry or (entry.startswith("[") and entry.endswith("]") and len(entry) > 2)


@cache
def _kind(letter: str) -> str:
    return f"{'ASCII ' if letter.isascii() else ''}{unicodedata.name(letter, '').partition(' ')[0]}"
