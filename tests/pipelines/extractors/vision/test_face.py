from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.clips.decode import open_clip
from pipelines.clips.drawn_faces import DrawnFace
from pipelines.extractors import choose, load
from pipelines.extractors.base import Features
from pipelines.extractors.vision.face import COLUMNS, REGIONS, Config, Extractor
from tests.pipelines.extractors.vision.picture_clip import Image, PictureClip, drawn, noise, real_clip, speaking


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(Config())


def column(features: Features, name: str) -> NDArray[np.float32]:
    return features.values[:, COLUMNS.index(name)]


def test_every_column_has_a_name(extractor: Extractor) -> None:
    features = extractor.extract(PictureClip(speaking(4)))
    assert features.values.shape == (4, len(COLUMNS)) == (4, 165)
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert features.times.tolist() == [0.0, 0.1, 0.2, 0.3]
    assert np.isfinite(features.values).all()
    record = choose("vision", "face").record(extractor)
    assert record["columns"] == list(COLUMNS)
    assert record["rate_hz"] == 10 and record["packages"]["opencv-python-headless"]


def test_equal_clips_give_equal_bytes(extractor: Extractor) -> None:
    first = extractor.extract(PictureClip(speaking(6)))
    again = load("vision", "face").extract(PictureClip(speaking(6)))
    assert first.values.tobytes() == again.values.tobytes()


# --- what is where -------------------------------------------------------------------------------------------------


def test_place_and_move(extractor: Extractor) -> None:
    images = [drawn(DrawnFace(110 + 8 * index, 120, 120)) for index in range(6)]
    features = extractor.extract(PictureClip(images))
    assert column(features, "face").tolist() == [1] * 6
    assert column(features, "box_x") == pytest.approx([(110 + 8 * index) / 320 for index in range(6)], abs=0.02)
    assert column(features, "box_y") == pytest.approx([0.5] * 6, abs=0.07)
    # 8 pixels ten times a second, of a box of about 0.8 heads.
    height = column(features, "box_height").mean() * 240
    assert column(features, "move_x")[1:].mean() == pytest.approx(80 / height, rel=0.2)
    assert abs(column(features, "move_y")[1:].mean()) < 0.1
    assert column(features, "move_x")[0] == 0


def test_growth(extractor: Extractor) -> None:
    images = [drawn(DrawnFace(160, 120, 90 * 1.1**index)) for index in range(7)]
    features = extractor.extract(PictureClip(images))
    assert column(features, "growth")[1:].mean() == pytest.approx(np.log(1.1) * 10, rel=0.25)


def test_brightness_is_apart_from_all_that_is_normalised(extractor: Extractor) -> None:
    image = drawn(DrawnFace(160, 120, 150))
    dark = (image // 2 + 10).astype(np.uint8)
    bright, dim = (extractor.extract(PictureClip([each])) for each in (image, dark))
    assert column(dim, "brightness")[0] == pytest.approx(column(bright, "brightness")[0] / 2 + 10 / 255, abs=0.02)
    assert column(dim, "contrast")[0] == pytest.approx(column(bright, "contrast")[0] / 2, rel=0.1)
    light = [COLUMNS.index(f"light_{region}") for region in REGIONS]
    assert dim.values[0, light] == pytest.approx(bright.values[0, light], abs=0.15)


def test_light_of_the_mouth_falls_as_it_opens(extractor: Extractor) -> None:
    shut, agape = (
        extractor.extract(PictureClip([drawn(DrawnFace(160, 120, 150, mouth_open=wide))])) for wide in (0.0, 1.0)
    )
    assert column(agape, "light_mouth")[0] < column(shut, "light_mouth")[0] - 0.3
    assert abs(column(agape, "light_brows")[0] - column(shut, "light_brows")[0]) < 0.2


def test_edges_stand_in_the_cell_and_the_orientation_that_they_are_called_by(extractor: Extractor) -> None:
    """One dot or line in one cell of an even crop, for every cell."""
    upright, level = np.full((64, 64), 90, np.uint8), np.full((64, 64), 90, np.uint8)
    for row in range(4):
        for place in range(4):
            for crop, orientations in ((upright, (10, 170)), (level, (70, 90, 110))):
                shown = crop.copy()
                middle = slice(16 * row + 5, 16 * row + 11), slice(16 * place + 5, 16 * place + 11)
                if crop is upright:
                    shown[middle[0], 16 * place + 7 : 16 * place + 9] = 250
                else:
                    shown[16 * row + 7 : 16 * row + 9, middle[1]] = 250
                edges = dict(zip(COLUMNS[-144:], extractor._edges(shown), strict=True))
                in_cell = {key: value for key, value in edges.items() if key.startswith(f"hog_r{row}_c{place}_")}
                cells: dict[str, float] = {}
                for key, value in edges.items():
                    cells[key.rpartition("_")[0]] = cells.get(key.rpartition("_")[0], 0.0) + float(value)
                assert max(cells, key=cells.__getitem__) == f"hog_r{row}_c{place}"
                assert max(in_cell, key=in_cell.__getitem__) in {f"hog_r{row}_c{place}_o{o}" for o in orientations}


def test_an_even_crop_has_no_edges(extractor: Extractor) -> None:
    assert not extractor._edges(np.full((64, 64), 77, np.uint8)).any()


# --- motion --------------------------------------------------------------------------------------------------------


def test_a_speaking_mouth_moves_and_the_brows_do_not(extractor: Extractor) -> None:
    features = extractor.extract(PictureClip(speaking(10)))
    assert column(features, "motion_mouth")[1:].mean() > 5 * column(features, "motion_brows")[1:].mean()
    assert not features.values[0, COLUMNS.index("move_x") : COLUMNS.index("light_brows")].any()


def test_a_still_picture_has_no_motion(extractor: Extractor) -> None:
    features = extractor.extract(PictureClip(speaking(1) * 5))
    motion = [index for index, name in enumerate(COLUMNS) if name.startswith(("motion_", "move_", "growth"))]
    assert np.abs(features.values[:, motion]).max() < 1e-6


def test_a_head_that_moves_as_a_whole_is_not_speaking(extractor: Extractor) -> None:
    walking = [drawn(DrawnFace(120 + 6 * index, 120, 150)) for index in range(10)]
    moved = column(extractor.extract(PictureClip(walking)), "motion_mouth")[1:].mean()
    assert moved < 0.3 * column(extractor.extract(PictureClip(speaking(10))), "motion_mouth")[1:].mean()


def test_after_a_gap_there_is_no_motion(extractor: Extractor) -> None:
    images = [*speaking(3), *noise(2), *speaking(3)]
    features = extractor.extract(PictureClip(images))
    assert column(features, "motion_mouth")[5] == 0 < column(features, "motion_mouth")[6]


# --- faces that are not there --------------------------------------------------------------------------------------


def test_frames_without_a_face_are_zeros_and_counted(extractor: Extractor) -> None:
    features = extractor.extract(PictureClip([*speaking(3), *noise(4), *speaking(2)]))
    assert column(features, "face").tolist() == [1, 1, 1, 0, 0, 0, 0, 1, 1]
    assert not features.values[3:7].any()
    assert features.counts == {"frames_without_face": 4, "frames_with_several_faces": 0, "clips_without_face": 0}


def test_a_clip_without_a_face_has_no_vision(extractor: Extractor) -> None:
    features = extractor.extract(PictureClip(noise(5)))
    assert features.values.shape == (0, 165)
    assert features.counts == {"frames_without_face": 0, "frames_with_several_faces": 0, "clips_without_face": 1}


def test_a_clip_without_pictures(extractor: Extractor) -> None:
    features = extractor.extract(PictureClip([]))
    assert features.values.shape == (0, 165)
    assert set(features.counts.values()) == {0} and len(features.counts) == 3


def test_of_two_faces_the_one_that_was_larger_at_first_is_followed(extractor: Extractor) -> None:
    """They cross sizes on the way."""
    images = [
        drawn(DrawnFace(85, 120, 130 - 5 * index), DrawnFace(235, 120, 85 + 6 * index), size=(320, 240))
        for index in range(10)
    ]
    features = extractor.extract(PictureClip(images))
    assert column(features, "box_x") == pytest.approx([85 / 320] * 10, abs=0.03)
    assert features.counts["frames_with_several_faces"] == 10
    assert np.diff(column(features, "box_height")).mean() < 0


def test_one_picture(extractor: Extractor) -> None:
    assert extractor.extract(PictureClip(speaking(1))).values.shape == (1, 165)


@settings(max_examples=25, deadline=None)
@given(
    width=st.one_of(st.integers(1, 30), st.integers(30, 320)),
    height=st.one_of(st.integers(1, 30), st.integers(30, 320)),
    num=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_any_size_of_picture(extractor: Extractor, width: int, height: int, num: int, seed: int) -> None:
    face = DrawnFace(width / 2, height / 2, min(width, height) * 0.8)
    images: list[Image] = [drawn(face, size=(width, height), seed=seed) for _ in range(num)]
    features = extractor.extract(PictureClip(images))
    assert features.values.shape in {(0, 165), (num, 165)}
    assert np.isfinite(features.values).all()


@pytest.mark.parametrize(
    "knobs",
    [{"rate_hz": 0.0}, {"rate_hz": float("nan")}, {"rate_hz": float("inf")}, {"longest_side": 0},
     {"faces": {"min_size": 2.0}}, {"faces": {"eyes": 2}}, {"no_such_knob": 1}],
)  # fmt: skip
def test_knobs_out_of_range(knobs: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="vision"):
        choose("vision", "face", knobs)


# --- real clips ----------------------------------------------------------------------------------------------------


def extracted(extractor: Extractor, path: Path) -> Features:
    with open_clip(path.read_bytes(), path.name, max_seconds=60) as clip:
        return extractor.extract(clip)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Oz06ZWiO20M/6.mp4", "ravdess_actor01/1.mp4", "interview/1.mp4"])
def test_real_speakers(extractor: Extractor, name: str) -> None:
    features = extracted(extractor, real_clip(name))
    assert column(features, "face").mean() >= 0.95
    assert features.counts["frames_with_several_faces"] <= 1
    is_face = column(features, "face") == 1
    still = extractor.extract(PictureClip(speaking(1) * 5))
    assert column(features, "motion_mouth")[is_face].mean() > 0.02 > column(still, "motion_mouth").mean()
    assert 0.2 < column(features, "box_height")[is_face].mean() < 0.8


@pytest.mark.slow
def test_a_real_mouth_moves_more_while_it_speaks(extractor: Extractor) -> None:
    """RAVDESS's actors begin and end in silence."""
    features = extracted(extractor, real_clip("ravdess_actor01/1.mp4"))
    mouth = column(features, "motion_mouth")
    speech = (features.times > 1.0) & (features.times < 2.3)
    assert mouth[speech].mean() > 1.5 * mouth[~speech].mean()
