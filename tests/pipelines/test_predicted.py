"""A part of many predictions: what it holds, and that no damage goes for something else."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.data.schema import Ragged, Utterances
from lnln.predict import Columns
from pipelines.predicted import encode_part, whole_rows

MADE_OF: dict[str, Any] = {"weights_sha256": "ab", "view": None, "source": "test"}
NAMES = ["a", "b$_$1", "c|<script>\u202e"]


def utterances(num: int = 3) -> Utterances:
    return Utterances(
        utterance_id=NAMES[:num],
        raw_text=[None] * num,
        label=np.array([0.5, np.nan, -3.0][:num], np.float32),
        text=Ragged.from_lengths(np.empty(0, np.int32), [0] * num),
        audio=Ragged.from_lengths(np.empty((0, 4), np.float32), [0] * num),
        vision=Ragged.from_lengths(np.empty((0, 3), np.float32), [0] * num),
    )


def columns(num: int = 3, *, completeness: bool = True) -> Columns:
    return Columns(
        sentiment=np.array([-2.75, 0.25, 1.5][:num], np.float32),
        completeness=np.array([0.5, np.nan, 1.0][:num], np.float32) if completeness else None,
        missing=np.array([[0, 1, 0.25], [1, 1, 1], [0, 0, 0]][:num], np.float32),
        notes=[(), ("text cut", "audio | cut"), ("\n",)][:num],
    )


def read(data: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows


PART = encode_part("test", utterances(), columns(), (-3, 3), MADE_OF)


def test_what_a_part_says() -> None:
    first, second, third = read(PART)
    assert first == {
        "source": "test",
        "utterance_id": "a",
        "sentiment": -2.75,
        "label_text": "strongly negative",
        "completeness": 0.5,
        "missing_text": 0,
        "missing_audio": 1,
        "missing_vision": 0.25,
        "notes": [],
        "label": 0.5,
    }
    assert second["label"] is None and second["completeness"] is None and second["notes"] == ["text cut", "audio | cut"]
    assert third["utterance_id"] == NAMES[2] and third["notes"] == ["\n"]
    assert whole_rows(PART, MADE_OF) == 3
    assert whole_rows(PART, dict(reversed(MADE_OF.items()))) == 3


def test_the_words_are_those_of_the_models_labels() -> None:
    said = read(encode_part("test", utterances(1), columns(1), (-1, 1), MADE_OF))
    assert said[0]["label_text"] == "negative"


def test_a_model_without_completeness() -> None:
    made = encode_part("test", utterances(), columns(completeness=False), (-3, 3), MADE_OF)
    assert [row["completeness"] for row in read(made)] == [None] * 3
    assert whole_rows(made, MADE_OF) == 3


@pytest.mark.parametrize("changed", [{"weights_sha256": "ac"}, {"view": {"seed": 0}}, {"source": "train"}, {"more": 1}])
def test_what_was_made_of_something_else_does_not_count(changed: dict[str, Any]) -> None:
    assert whole_rows(PART, {**MADE_OF, **changed}) is None


@pytest.mark.parametrize("data", [b"", b"PAR1", PART[:-1], PART[1:], PART[: len(PART) // 2], PART + PART, PART + b"x"])
def test_what_is_cut_or_glued_is_not_whole(data: bytes) -> None:
    assert whole_rows(data, MADE_OF) is None


@settings(max_examples=400, deadline=None)
@given(place=st.integers(0, len(PART) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(place: int, bit: int) -> None:
    data = bytearray(PART)
    data[place] ^= 1 << bit
    assert whole_rows(bytes(data), MADE_OF) is None


def test_parts_of_many_rows_are_whole_too() -> None:
    """More than one page and one batch of a reader."""
    num = 150_000
    random = np.random.default_rng(0)
    many = Utterances(
        utterance_id=[f"clip {i}" for i in range(num)],
        raw_text=[None] * num,
        label=np.where(random.random(num) < 0.5, np.nan, 1.0).astype(np.float32),
        text=Ragged.from_lengths(np.empty(0, np.int32), np.zeros(num, np.int64)),
        audio=Ragged.from_lengths(np.empty((0, 4), np.float32), np.zeros(num, np.int64)),
        vision=Ragged.from_lengths(np.empty((0, 3), np.float32), np.zeros(num, np.int64)),
    )
    said = Columns(
        sentiment=random.normal(size=num).astype(np.float32),
        completeness=None,
        missing=random.random((num, 3)).astype(np.float32),
        notes=[("a",) * (i % 3) for i in range(num)],
    )
    made = encode_part("test", many, said, (-3, 3), MADE_OF)
    assert whole_rows(made, MADE_OF) == num
    data = bytearray(made)
    data[len(data) // 2] ^= 1
    assert whole_rows(bytes(data), MADE_OF) is None
