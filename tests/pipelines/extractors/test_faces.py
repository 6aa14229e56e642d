from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.clips.decode import open_clip
from pipelines.clips.drawn_faces import DrawnFace
from pipelines.extractors.base import Picture
from pipelines.extractors.faces import SAME_FACE, Box, FaceConfig, FaceFinder, Sighting, follow
from tests.pipelines.extractors.vision.picture_clip import Image, drawn, noise, real_clip


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(FaceConfig())


def test_drawn_faces_are_found_where_they_are(finder: FaceFinder) -> None:
    rng = np.random.default_rng(1)
    num_found = 0
    for seed in range(60):
        x, y, height = rng.uniform(120, 200), rng.uniform(100, 140), rng.uniform(100, 180)
        face = DrawnFace(
            x, y, height, rng.uniform(0, 1), rng.uniform(-1, 1), float(seed % 8 > 0), 150 + seed, 30 + seed
        )
        [*found] = finder.find(drawn(face, seed=seed))
        if len(found) == 1:
            middle = found[0].middle
            num_found += abs(middle[0] - x) < 0.1 * height and abs(middle[1] - y) < 0.2 * height
    assert num_found >= 54


@pytest.mark.parametrize("blurred", [0, 2, 8])
def test_no_face_is_found_in_noise(finder: FaceFinder, blurred: int) -> None:
    import cv2

    pictures = noise(12, seed=blurred)
    if blurred:
        soft = [cv2.GaussianBlur(picture.astype(np.float32), (0, 0), blurred) for picture in pictures]
        pictures = [np.clip((p - p.mean()) / p.std() * 60 + 128, 0, 255).astype(np.uint8) for p in soft]
    assert sum(len(finder.find(picture)) for picture in pictures) == 0


def test_of_several_faces_the_largest_comes_first(finder: FaceFinder) -> None:
    small, large = DrawnFace(80, 120, 90), DrawnFace(230, 120, 140)
    boxes = finder.find(drawn(small, large))
    assert [round(box.middle[0], -1) for box in boxes] == [230, 80]
    assert boxes[0].area > boxes[1].area


def test_a_face_has_the_same_place_in_a_larger_picture(finder: FaceFinder) -> None:
    import cv2

    picture = drawn(DrawnFace(160, 120, 150))
    [small] = finder.find(picture)
    [large] = finder.find(cv2.resize(picture, (960, 720)))
    assert large.overlap(Box(3 * small.left, 3 * small.top, 3 * small.width, 3 * small.height)) > 0.9


def test_grey_and_read_only_pictures(finder: FaceFinder) -> None:
    picture = drawn(DrawnFace(160, 120, 150))
    grey = picture[..., 1].copy()
    picture.flags.writeable = grey.flags.writeable = False
    assert finder.find(picture)[0].overlap(finder.find(grey)[0]) > 0.8


def test_faces_below_the_smallest_are_left_out() -> None:
    picture = drawn(DrawnFace(160, 120, 100))
    assert FaceFinder(FaceConfig(min_size=0.2)).find(picture)
    assert not FaceFinder(FaceConfig(min_size=0.7)).find(picture)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 500), height=st.integers(1, 500), seed=st.integers(0, 99))
def test_any_size_of_picture(finder: FaceFinder, width: int, height: int, seed: int) -> None:
    face = DrawnFace(width / 2, height / 2, min(width, height) * 0.7)
    for box in finder.find(drawn(face, size=(width, height), seed=seed)):
        assert box.left >= 0 and box.left + box.width <= width and box.width > 0
        assert box.top >= 0 and box.top + box.height <= height and box.height > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (19, 19), (3, 3)])
def test_pictures_too_small_for_a_face(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert finder.find(np.zeros((size[1], size[0], 3), np.uint8)) == []


def test_profiles_are_told_apart_by_the_way_they_look(finder: FaceFinder) -> None:
    """With a cascade for number plates in place of the frontal one, so that all faces are left to the profile one."""
    path = real_clip("ravdess_actor01/1.mp4")
    blind = FaceFinder(FaceConfig())
    blind._ahead = blind._cascade("haarcascade_russian_plate_number.xml")
    with open_clip(path.read_bytes(), path.name, max_seconds=60) as clip:
        pictures = [picture.image for picture in clip.pictures(2, 480)]
    assert all(finder.find(picture)[0].turned == 0 for picture in pictures)
    num_turned = 0
    for picture in pictures:
        boxes, mirrored = blind.find(picture), blind.find(np.ascontiguousarray(picture[:, ::-1]))
        num_turned += len(boxes)
        turned = {(480 - box.left - box.width, box.top, -box.turned) for box in boxes}
        # A pixel aside by rounding, and of two boxes about one face either may be the one that is kept.
        assert {box.turned for box in boxes} <= {-1, 1}
        for box in mirrored:
            assert any(abs(box.left - left) <= 8 and abs(box.top - top) <= 8 for left, top, _ in turned)
    assert num_turned >= len(pictures) / 2


# --- following -----------------------------------------------------------------------------------------------------


def sightings(script: list[list[Box]], rate_hz: float = 10.0, patience_seconds: float = 0.5) -> list[Sighting]:
    """What is followed where picture i has the faces `script[i]`, found by the first pixel of each picture."""
    images = [np.full((1, 1, 3), index, np.uint8) for index in range(len(script))]

    def find(image: Image) -> list[Box]:
        return script[int(image[0, 0, 0])]

    pictures = (Picture(index / rate_hz, image) for index, image in enumerate(images))
    return list(follow(pictures, find, patience_seconds))


def faces(script: list[list[Box]], **options: float) -> list[Box | None]:
    return [sighting.face for sighting in sightings(script, **options)]


LEFT, RIGHT = Box(0, 0, 40, 40), Box(100, 0, 50, 50)
AHEAD = Box(100, 0, 50, 50)


def test_a_face_in_one_picture_only_is_none() -> None:
    assert faces([[], [LEFT], []]) == [None] * 3
    assert faces([[LEFT], [], []]) == [None] * 3
    assert faces([[], [LEFT], [LEFT]]) == [None, LEFT, LEFT]
    assert faces([[RIGHT], [LEFT, RIGHT], [RIGHT]]) == [RIGHT] * 3
    assert sightings([[RIGHT], [LEFT, RIGHT], [RIGHT]])[1].num_faces == 1


def test_a_picture_without_neighbours_is_believed() -> None:
    assert faces([[LEFT]]) == [LEFT]
    assert faces([[LEFT], []], rate_hz=1) == [LEFT, None]
    assert faces([]) == []


def test_the_largest_is_followed_when_another_outgrows_it() -> None:
    growing = [Box(0, 0, 30 + 6 * index, 30 + 6 * index) for index in range(8)]
    steady = Box(200, 0, 45, 45)
    script = [sorted([box, steady], key=lambda each: -each.area) for box in growing]
    assert faces(script) == [steady] * 8
    assert [sighting.num_faces for sighting in sightings(script)] == [2] * 8


def test_a_face_lost_among_several_is_waited_for() -> None:
    both, other = [RIGHT, LEFT], [LEFT]
    assert faces([both, both, other, other, both, both]) == [RIGHT, RIGHT, None, None, RIGHT, RIGHT]
    lost = faces([both, both, *[other] * 8])
    assert lost == [RIGHT, RIGHT, *[None] * 5, *[LEFT] * 3]
    assert faces([both, both, *[other] * 3], patience_seconds=0)[2:] == [LEFT] * 3


def test_after_a_cut_the_only_face_is_taken_at_once() -> None:
    assert faces([[LEFT], [LEFT], [RIGHT], [RIGHT]]) == [LEFT, LEFT, RIGHT, RIGHT]


boxes = st.builds(Box, st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(boxes, max_size=3), max_size=12), st.sampled_from([1.0, 4.0, 10.0, 30.0]))
def test_every_picture_comes_once_with_a_face_that_was_found(script: list[list[Box]], rate_hz: float) -> None:
    for found in script:
        found.sort(key=lambda box: -box.area)
    followed = sightings(script, rate_hz)
    assert [round(sighting.picture.time * rate_hz) for sighting in followed] == list(range(len(script)))
    for sighting, found in zip(followed, script, strict=True):
        assert sighting.face is None or sighting.face in found
        assert sighting.num_faces <= len(found)
        assert sighting.face is None or sighting.num_faces >= 1


@given(boxes, boxes)
def test_overlap(a: Box, b: Box) -> None:
    covered = np.zeros((2, 130, 130), bool)
    for plane, box in zip(covered, (a, b), strict=True):
        plane[box.top : box.top + box.height, box.left : box.left + box.width] = True
    expected = (covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum()
    assert a.overlap(b) == pytest.approx(expected)
    assert a.overlap(a) == 1 > SAME_FACE


def test_a_box_beyond_an_edge_is_moved_inside() -> None:
    image = np.arange(20, dtype=np.uint8).reshape(4, 5)
    assert Box(-2, -2, 2, 2).cut(image).tolist() == [[0, 1], [5, 6]]
    assert Box(9, 9, 2, 2).cut(image).tolist() == [[13, 14], [18, 19]]
    assert Box(-1, -1, 99, 99).cut(image).shape == (4, 5)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knobs",
    [{"search_side": 5}, {"min_size": 0.0}, {"min_size": 1.5}, {"min_size": float("nan")}, {"num_agreeing": 0},
     {"patience_seconds": -1.0}, {"patience_seconds": float("nan")}],
)  # fmt: skip
def test_knobs_out_of_range(knobs: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=f"vision.faces.{next(iter(knobs))} must be"):
        FaceConfig(**knobs)


def test_without_opencv_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(RefusedError, match=r'pip install "lnln\[media\]"'):
        FaceFinder(FaceConfig())


def test_an_opencv_without_cascades_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(RefusedError, match="has no face cascades"):
        FaceFinder(FaceConfig())
