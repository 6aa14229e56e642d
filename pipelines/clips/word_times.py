"""Who says what when: `words.csv` of a clip folder, for features that are aligned to words.

words = read_words(Store("./clips"))
words.of("video$_$1")          # (Word("hello", 0.1, 0.45), ...)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.clips.label_csv import CsvRow, parse_label, read_csv
from pipelines.extractors.base import ClipError

WORDS = "words.csv"


@dataclass(frozen=True)
class Word:
    """A word, and from when to when it is said, in seconds after the clip's start."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class WordTimes:
    """The rows of words.csv by utterance_id, in the order of the file."""

    rows: Mapping[str, Sequence[CsvRow]]

    def of(self, utterance_id: str) -> tuple[Word, ...]:
        """What is said in one clip; ClipError where nothing is known of it, or it cannot be true."""
        rows = self.rows.get(utterance_id)
        if not rows:
            raise ClipError("table", f"{WORDS} has no words of it, and clips.align is words")
        words = tuple(_word(row) for row in rows)
        for before, word, row in zip(words, words[1:], rows[1:], strict=False):
            if word.start < before.start:
                raise ClipError("table", f"{WORDS} line {row.line}: {word.word!r} begins before the word above it")
        return words

    def num_rows_but_of(self, utterance_ids: Container[str]) -> int:
        """How many rows are of other clips."""
        return sum(len(rows) for name, rows in self.rows.items() if name not in utterance_ids)


def read_words(source: Store) -> WordTimes:
    """RefusedError where words.csv is missing, no CSV in UTF-8, or lacks a column."""
    if not source.exists(WORDS):
        raise RefusedError(
            f"clips.align=words needs {source.url}/{WORDS} with columns video_id, clip_id, word, start and end "
            "(seconds in the clip), and it is not there; without word times leave clips.align at none"
        )
    _, listed = read_csv(source, WORDS, ("video_id", "clip_id", "word", "start", "end"))
    rows: dict[str, list[CsvRow]] = defaultdict(list)
    for row in listed:
        rows[row.utterance_id].append(row)
    return WordTimes(rows)


def _word(row: CsvRow) -> Word:
    where = f"{WORDS} line {row.line}"
    row.require_whole()
    if not row["word"]:
        raise ClipError("table", f"{where} has no word")
    start, end = (parse_label(row[column], f"{where}: {column}") for column in ("start", "end"))
    if start is None or end is None or not 0 <= start <= end:
        raise ClipError("table", f"{where}: {row['word']!r} must have a start and a later end, both 0 s or more")
    return Word(row["word"], start, end)
