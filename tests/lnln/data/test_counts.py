"""Counts in plain words: parts of a whole say of how many, and nothing is said of what was not met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.data.counts import say_counts, say_frames

COUNTS = {
    "vision_frames_without_face": 3,
    "vision_frames": 1200,
    "vision_frames_with_several_faces": 1,
    "clips_without_audio": 0,
    "clips_without_face": 2,
    "clips": 40,
    "rows_repeated": 1,
}


def test_parts_are_said_of_their_whole_and_clips_come_first() -> None:
    assert say_counts(COUNTS) == [
        ("clips", "40"),
        ("clips without face", "2 of 40"),
        ("rows repeated", "1"),
        ("vision frames", "1,200"),
        ("vision frames with several faces", "1 of 1,200"),
        ("vision frames without face", "3 of 1,200"),
    ]
    assert say_counts({}) == []


def test_of_one_clip_its_frames_are_said() -> None:
    assert say_frames(COUNTS) == ["several faces in 1 of 1,200 vision frames", "no face in 3 of 1,200 vision frames"]
    assert say_frames({"vision_frames": 4, "vision_frames_without_face": 0}) == []
    assert say_frames({"clips": 1, "clips_without_audio": 1}) == []


@pytest.mark.parametrize("name", ["visions", "vision_framesx", "vision"])
def test_a_name_that_only_begins_alike_is_no_part(name: str) -> None:
    assert (name.replace("_", " "), "5") in say_counts({"vision_frames": 9, name: 5})


@given(st.dictionaries(st.text("abc_", max_size=6), st.integers(0, 10**9)))
def test_any_names_are_said_once_each(counts: dict[str, int]) -> None:
    assert len(say_counts(counts)) == sum(1 for number in counts.values() if number)
    assert all(" of " in note for note in say_frames(counts))
