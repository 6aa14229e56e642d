"""What tells two extractors apart, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest

from lnln.data.extractors import find_difference, identity_of
from lnln.data.schema import Modality

FACE: dict[str, Any] = {"name": "face", "version": 1, "config": {"rate_hz": 5.0, "box": (1, 2)}, "packages": {"cv": 4}}


def records(**changes: Any) -> dict[Modality, dict[str, Any]]:
    return {"text": {"name": "wordpiece"}, "vision": {**FACE, **changes}}


def test_packages_and_columns_are_no_part_of_it() -> None:
    mine = identity_of(records())
    face = {"name": "face", "version": 1, "config": {"rate_hz": 5.0, "box": [1, 2]}}
    assert mine == {"text": {"name": "wordpiece"}, "vision": face}
    assert find_difference(mine, identity_of(records(packages={"cv": "5"}, columns=["x"]))) is None


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({"version": 2}, "face version 1", "face version 2"),
        (
            {"sha256": {"a": "0f"}},
            "face version 1 with no SHA-256 stated",
            "face version 1 with SHA-256 0f… of a",
        ),
        ({"name": "openface", "version": 7}, "face version 1", "openface version 7"),
        (
            {"config": {"rate_hz": 10.0, "box": (1, 2)}},
            "face version 1 with rate_hz 5.0",
            "face version 1 with rate_hz 10.0",
        ),
        (
            {"config": {"box": (1, 2), "side": 3}},
            "face version 1 with rate_hz 5.0, no side",
            "face version 1 with no rate_hz, side 3",
        ),
    ],
)
def test_both_sides_are_said(changes: dict[str, Any], first: str, second: str) -> None:
    difference = find_difference(identity_of(records()), identity_of(records(**changes)))
    assert difference is not None
    assert (difference.modality, difference.first, difference.second) == ("vision", first, second)


def test_an_extractor_that_one_side_does_not_have() -> None:
    difference = find_difference(identity_of(records()), identity_of({"text": {"name": "wordpiece"}}))
    assert difference is not None and (difference.first, difference.second) == ("face version 1", "none")


def test_the_same_weights_in_another_folder_are_the_same() -> None:
    here = {"name": "speech_encoder", "version": 1, "config": {"model": "/a", "hidden_state": -5}, "sha256": {"w": "1"}}
    moved = {**here, "config": {"model": "/b", "hidden_state": -5}}
    assert find_difference({"audio": here}, {"audio": moved}) is None
    assert find_difference({"audio": here}, {"audio": {**moved, "sha256": {"w": "2"}}}) is not None
    assert (
        find_difference({"audio": here}, {"audio": {**here, "config": {"model": "/a", "hidden_state": -4}}}) is not None
    )
    unknown = {key: value for key, value in here.items() if key != "sha256"}
    assert find_difference({"audio": unknown}, {"audio": {**unknown, "config": moved["config"]}}) is not None
