"""Masks and ids that are published constants: whoever changes one changes every stored view."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lnln.corruption import ViewSpec, make_masks
from lnln.data.schema import MODALITIES
from tests.lnln.corruption.plain import IDS, LENGTHS, as_text

# Made once by the functions of plain.py.
KNOWN = {
    "text": "1100110010111100000000111010110001110011",
    "audio": "10110010011110011010101110010101101110100101000011",
    "vision": "000001000010101101110100010101010",
}
KNOWN_RATES = [
    [0.18169033527374268, 0.11527645587921143, 0.0],
    [0.7953975200653076, 0.167552649974823, 0.0],
    [0.9204928278923035, 0.0, 0.0],
    [0.1663990616798401, 0.8767637610435486, 0.0],
    [0.5601213574409485, 0.5393150448799133, 0.10854500532150269],
]
KNOWN_TRAINING = {"text": "1000001000000011110100110110011001101001", "audio": "1110000"}
KNOWN_IDS = ["73477296d537", "aa5f944e9987"]
# Of `position_draw` and of `shared_uniforms`.
KNOWN_POSITIONS = {"text": "1111101001000000011001011111100010110111", "audio": "0111111"}
KNOWN_SHARED = {"text": "1100110010111100000000111010110001110011", "audio": "0001111", "vision": "00"}
KNOWN_NEW_IDS = ["6a8380f1776e", "e04d8b951427", "d435127da049"]

# By protocol, at rates 0.5, 0.3 and 0.8: text of the last utterance, audio of the third, vision of the fourth.
KNOWN_PROTOCOLS = {
    "block": [
        "1111111111000000000000000000011111111111",
        "11111111111111111111111111111111000000000000000111",
        "111100000000000000000000000000011",
    ],
    "modality": [
        "1000000000000000000000000000000000000001",
        "00000000000000000000000000000000000000000000000000",
        "111111111111111111111111111111111",
    ],
    "noise": [
        "1100110010111100000000111010110001110011",
        "10110110111111011011101111111111111111110101010011",
        "000001000000000001100100010101010",
    ],
}
# The same view; a training draw; a view at rate 0.5 with noise_scale 0.5 and shared uniforms.
KNOWN_PROTOCOL_IDS = {
    "block": ["00d591cd89c3", "e0261eeaa0d7", "8df51eb295a6"],
    "modality": ["5d40c8ce0938", "7de63221db19", "b8aac17db0a5"],
    "noise": ["f778031a7a6c", "e8ff2546572f", "e849d8fe19a3"],
}


def test_known_answers_of_an_evaluation_view() -> None:
    masks = make_masks(ViewSpec.evaluation(0.5, seed=0), IDS, LENGTHS)
    assert as_text(masks, "text", 4) == KNOWN["text"]
    assert as_text(masks, "audio", 2) == KNOWN["audio"]
    assert as_text(masks, "vision", 3) == KNOWN["vision"]


def test_known_answers_of_a_training_draw() -> None:
    masks = make_masks(ViewSpec.training(seed=1111, draw=3), IDS, LENGTHS)
    np.testing.assert_array_equal(masks.missing_rates, np.array(KNOWN_RATES, np.float32))
    assert as_text(masks, "text", 4) == KNOWN_TRAINING["text"]
    assert as_text(masks, "audio", 4) == KNOWN_TRAINING["audio"]


def test_known_view_ids() -> None:
    assert ViewSpec.evaluation(0.5, seed=0).view_id == KNOWN_IDS[0]
    assert ViewSpec.training(seed=1111, draw=3).view_id == KNOWN_IDS[1]


def test_known_answers_of_fixed_positions_and_shared_uniforms() -> None:
    positions = ViewSpec.training(seed=1111, draw=3, position_draw=0)
    masks = make_masks(positions, IDS, LENGTHS)
    np.testing.assert_array_equal(masks.missing_rates, np.array(KNOWN_RATES, np.float32))  # those of draw 3
    assert {m: as_text(masks, m, 4) for m in KNOWN_POSITIONS} == KNOWN_POSITIONS  # type: ignore[arg-type]
    shared = ViewSpec.evaluation(0.5, seed=0, shared_uniforms=True)
    found = make_masks(shared, IDS, LENGTHS)
    assert {m: as_text(found, m, 4) for m in MODALITIES} == KNOWN_SHARED
    both = ViewSpec.training(seed=1111, draw=3, position_draw=0, shared_uniforms=True)
    assert [positions.view_id, shared.view_id, both.view_id] == KNOWN_NEW_IDS


@pytest.mark.parametrize("protocol", KNOWN_PROTOCOLS)
def test_known_answers_of_the_other_protocols(protocol: str) -> None:
    spec = ViewSpec(seed=0, rates=(0.5, 0.3, 0.8), protocol=protocol)
    masks = make_masks(spec, IDS, LENGTHS)
    found = [as_text(masks, "text", 4), as_text(masks, "audio", 2), as_text(masks, "vision", 3)]
    assert found == KNOWN_PROTOCOLS[protocol]
    drawn = ViewSpec.training(seed=1111, draw=3, protocol=protocol)
    np.testing.assert_array_equal(make_masks(drawn, IDS, LENGTHS).missing_rates, np.array(KNOWN_RATES, np.float32))
    other = ViewSpec.evaluation(0.5, 0, protocol, shared_uniforms=True, noise_scale=0.5)
    assert [spec.view_id, drawn.view_id, other.view_id] == KNOWN_PROTOCOL_IDS[protocol]


def test_the_same_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from lnln.corruption import *; "
        "m = make_masks(ViewSpec.evaluation(0.5, 0), ['声音'], {'text': [0], 'audio': [0], 'vision': [33]}); "
        "print(''.join(str(int(k)) for k in m.kept['vision'].values), 'torch' in __import__('sys').modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert answer.stdout.split() == [KNOWN["vision"], "False"]
