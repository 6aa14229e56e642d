"""Mistyped words: against the definition tried on every pair of a vocabulary, and on real words."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.corruption.typos import Typos, typos_of
from lnln.data.wordpiece import UNCASED, encode, read_vocabulary


def is_one_slip(one: str, other: str) -> bool:
    """One replaced, missing, added or swapped letter lies between the two."""
    if len(one) == len(other):
        places = [i for i in range(len(one)) if one[i] != other[i]]
        swapped = (
            len(places) == 2
            and places[1] == places[0] + 1
            and one[places[0]] == other[places[1]]
            and one[places[1]] == other[places[0]]
        )
        return len(places) == 1 or swapped
    short, long = sorted((one, other), key=len)
    return len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


def split(entry: str) -> tuple[bool, str]:
    return (True, entry[2:]) if entry.startswith("##") and len(entry) > 2 else (False, entry)


ENTRIES = st.builds("{}{}".format, st.sampled_from(["", "##"]), st.text("abc", min_size=1, max_size=4))


@given(st.lists(ENTRIES, unique=True, max_size=40))
@settings(max_examples=100, deadline=None)
def test_neighbours_are_those_of_the_definition(words: list[str]) -> None:
    vocabulary = ["[UNK]", "[CLS]", *words]
    typos = Typos(vocabulary, unknown_id=0)
    for number, word in enumerate(vocabulary):
        mark, letters = split(word)
        expected = [
            other
            for other, entry in enumerate(vocabulary)
            if number > 1 and other > 1 and split(entry)[0] == mark and is_one_slip(letters, split(entry)[1])
        ]
        assert typos.neighbours(number).tolist() == expected
        assert number not in expected


def test_letters_come_of_the_kinds_that_the_word_has() -> None:
    vocabulary = [
        "a",
        "b",
        "1",
        "2",
        "é",
        "声",
        "音",
        "mp3",
        "mp4",
        "mpa",
        "mpé",
        ".",
        ",",
        "#",
        "##",
        "##a",
        "##b",
        "[]",
    ]
    typos = Typos(vocabulary, unknown_id=0)

    def names(entry: str) -> list[str]:
        return [vocabulary[number] for number in typos.neighbours(vocabulary.index(entry))]

    assert names("a") == ["b"] and names("1") == ["2"] and names("声") == ["音"] and names("é") == []
    assert names("mp3") == ["mp4", "mpa"] and names("mp4") == ["mp3", "mpa"] and names(".") == names(",") == []
    assert names("##a") == ["##b"] and names("#") == ["##"] and names("##") == ["#"]
    assert typos.neighbours(99).tolist() == typos.neighbours(-1).tolist() == []


def test_of_real_words() -> None:
    vocabulary = read_vocabulary(UNCASED)
    assert len(vocabulary) == UNCASED.vocabulary_size and vocabulary[UNCASED.unknown_id] == "[UNK]"
    typos = typos_of(UNCASED)
    assert typos_of(UNCASED) is typos

    def names(entry: str) -> list[str]:
        return [vocabulary[number] for number in typos.neighbours(vocabulary.index(entry))]

    assert names("good") == ["god", "gold", "food", "wood", "goods", "mood", "hood", "goo"]
    assert names("movie") == ["move", "movies"] and names("really") == ["rally", "reilly"]
    assert names("[CLS]") == names("[unused5]") == names(".") == []
    ids = encode(["it was a really good movie and i would see it again"])[0]
    assert all(len(typos.neighbours(int(token))) for token in ids[1:-1] if vocabulary[token] != "would")


def test_every_neighbour_is_drawn_equally_often() -> None:
    vocabulary = ["[UNK]", "aa", "ab", "ac", "a", "z"]
    typos = Typos(vocabulary, unknown_id=0)
    bits = np.random.default_rng(0).integers(0, 2**64, 30_000, np.uint64)
    tokens = np.tile(np.array([1, 5, 99], np.int32), 10_000)
    found = typos.mistype(tokens, bits).reshape(-1, 3)
    counts = Counter(found[:, 0].tolist())
    assert set(counts) == {2, 3, 4} and all(abs(count - 10_000 / 3) < 250 for count in counts.values())
    assert (found[:, 1:] == np.array([4, 0])).all()  # "z" may become "a", an unknown id [UNK]
    assert typos.mistype(np.zeros(0, np.int32), np.zeros(0, np.uint64)).tolist() == []
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert typos.mistype(np.array([1, 1]), ends).tolist() == [2, 4]
