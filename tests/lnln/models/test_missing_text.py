from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnln.batches import Inputs
from lnln.models.missing_text import one_text, text_counts_as_missing
from tests.lnln.models.random_inputs import FEATURE_SPEC, SPEC, random_inputs

UNKNOWN, CLS, SEP = SPEC.unknown_id, 101, 102


def texts(*content: list[int], padded_to: int = 12) -> Inputs:
    inputs = random_inputs([(len(each), 2, 2) for each in content], padded_to=(padded_to, 2, 2))
    for row, each in enumerate(content):
        inputs.text[row, : len(each)] = torch.tensor(each, dtype=torch.long)
    return inputs


def test_ends_are_not_counted_and_a_text_without_words_is_missing() -> None:
    inputs = texts(
        [CLS, UNKNOWN, UNKNOWN, SEP],
        [CLS, UNKNOWN, 7, SEP],
        [CLS, SEP],
        [],
        [CLS],
        [CLS, 7, SEP],
        [CLS, UNKNOWN, SEP],
    )
    assert text_counts_as_missing(inputs, 1.0, UNKNOWN).tolist() == [True, False, True, True, True, False, True]
    assert text_counts_as_missing(inputs, 0.5, UNKNOWN).tolist() == [True, True, True, True, True, False, True]
    without_ends = texts([UNKNOWN, 7], [UNKNOWN, UNKNOWN], [7], [])
    found = text_counts_as_missing(without_ends, 1.0, UNKNOWN, ids_have_ends=False)
    assert found.tolist() == [False, True, False, True]


def test_unknown_ids_in_the_padding_say_nothing() -> None:
    inputs = texts([CLS, 7, SEP], [CLS, UNKNOWN, SEP])
    inputs.text[:, 3:] = UNKNOWN
    assert text_counts_as_missing(inputs, 0.1, UNKNOWN).tolist() == [False, True]


def test_every_step_of_language_features_counts() -> None:
    inputs = random_inputs([(3, 2, 2), (3, 2, 2), (0, 2, 2), (1, 2, 2)], FEATURE_SPEC, padded_to=(5, 2, 2))
    inputs.text[0, :3] = 0
    inputs.text[1, 0] = 0
    assert text_counts_as_missing(inputs, 1.0, 0).tolist() == [True, False, True, False]
    assert text_counts_as_missing(inputs, 1 / 3, 0).tolist() == [True, True, True, False]


def test_no_utterance_and_no_step() -> None:
    inputs = random_inputs([(4, 1, 1)])
    none = dataclasses.replace(inputs, text=inputs.text[:, :0], text_mask=inputs.text_mask[:, :0])
    assert text_counts_as_missing(none, 1.0, UNKNOWN).tolist() == [True]
    empty = dataclasses.replace(inputs, text=inputs.text[:0], text_mask=inputs.text_mask[:0])
    assert text_counts_as_missing(empty, 1.0, UNKNOWN).shape == (0,)


@given(num=st.integers(1, 40), erased=st.integers(0, 40), tenths=st.integers(1, 100))
def test_a_share_is_met_exactly(num: int, erased: int, tenths: int) -> None:
    """As whole numbers have it: p of q words are the share p / q however it is written."""
    erased = min(erased, num)
    words = [UNKNOWN] * erased + [7] * (num - erased)
    found = text_counts_as_missing(texts([CLS, *words, SEP], padded_to=num + 5), tenths / 100, UNKNOWN)
    assert bool(found[0]) == (erased * 100 >= tenths * num)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_row_does_not_hang_on_its_batch(share: float) -> None:
    content = [[CLS, UNKNOWN, SEP], [CLS, 5, UNKNOWN, 6, 8, 9, SEP], [], [CLS, 3, SEP]]
    together = text_counts_as_missing(texts(*content), share, UNKNOWN)
    alone = [
        bool(text_counts_as_missing(texts(each, padded_to=max(1, len(each))), share, UNKNOWN)[0]) for each in content
    ]
    assert together.tolist() == alone


def test_each_utterance_has_one_text() -> None:
    inputs = texts([CLS, 7, SEP], [CLS, UNKNOWN, SEP], [])
    inputs = dataclasses.replace(
        inputs,
        simulated_text=torch.ones(3, 4, 2),
        simulated_text_mask=torch.tensor([[True] * 4, [True, True, False, False], [False] * 4]),
    )
    chosen = one_text(inputs, text_counts_as_missing(inputs, 1.0, UNKNOWN))
    assert chosen.simulated_text_mask is not None
    assert chosen.text_mask.sum(dim=1).tolist() == [3, 0, 0]
    assert chosen.simulated_text_mask.sum(dim=1).tolist() == [0, 2, 0]
    assert chosen.text is inputs.text and chosen.simulated_text is inputs.simulated_text
