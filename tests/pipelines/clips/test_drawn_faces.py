from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.clips.drawn_faces import DrawnFace, backdrop, draw_face

SIZE = (320, 240)


def even(grey: int = 120) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), grey, np.uint8)


def test_a_face_covers_its_head_and_nothing_else() -> None:
    picture = even()
    draw_face(picture, DrawnFace(100, 120, 100))
    changed = (picture != 120).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (rows[0], rows[-1]) == (pytest.approx(66, abs=3), pytest.approx(170, abs=3))
    assert (columns[0], columns[-1]) == (pytest.approx(62, abs=3), pytest.approx(138, abs=3))


@pytest.mark.parametrize(
    ("one", "other", "rows"),
    [(DrawnFace(160, 120, 200, mouth_open=0), DrawnFace(160, 120, 200, mouth_open=1), (0.65, 0.92)),
     (DrawnFace(160, 120, 200, eyes_open=0), DrawnFace(160, 120, 200, eyes_open=1), (0.38, 0.54)),
     (DrawnFace(160, 120, 200, smile=-1), DrawnFace(160, 120, 200, smile=1), (0.28, 0.92))],
)  # fmt: skip
def test_only_what_is_told_to_move_moves(one: DrawnFace, other: DrawnFace, rows: tuple[float, float]) -> None:
    pictures = [even(), even()]
    for picture, face in zip(pictures, (one, other), strict=True):
        draw_face(picture, face)
    changed = np.flatnonzero((pictures[0] != pictures[1]).any(axis=(1, 2)))
    top = 120 - 100
    assert len(changed) > 3
    assert top + 200 * rows[0] < changed[0] and changed[-1] < top + 200 * rows[1]


@settings(max_examples=50, deadline=None)
@given(
    x=st.floats(-500, 800), y=st.floats(-500, 800), height=st.floats(0.1, 500), wide=st.floats(0, 1),
    smile=st.floats(-1, 1), eyes=st.floats(0, 1), width=st.integers(1, 64), rows=st.integers(1, 64),
)  # fmt: skip
def test_any_face_in_any_picture(
    x: float, y: float, height: float, wide: float, smile: float, eyes: float, width: int, rows: int
) -> None:
    picture = np.full((rows, width, 3), 120, np.uint8)
    draw_face(picture, DrawnFace(x, y, height, wide, smile, eyes))
    assert picture.shape == (rows, width, 3) and picture.dtype == np.uint8
    if x < -400 or y < -400:
        assert (picture == 120).all()


def test_backdrops_depend_on_the_seed_alone() -> None:
    first, again, other = (backdrop(np.random.default_rng(seed), SIZE) for seed in (3, 3, 4))
    assert first.shape == (240, 320, 3)
    assert (first == again).all() and (first != other).any()
