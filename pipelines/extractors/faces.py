"""Faces in pictures, and the one that a clip is about: for the extractors of vision that look at faces.

finder = FaceFinder(FaceConfig())
for sighting in follow(clip.pictures(10, 480), finder.find):
    sighting.face                                 # a Box in the picture, or None

Found by OpenCV's cascades of Haar features (Viola and Jones, CVPR 2001), which come in its wheel: frontal faces, and
profiles either way where no face looks ahead. With several faces the largest is followed from where it first shows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors.base import Picture

OPENCV = "opencv-python-headless"

_Found = tuple[Picture, list["Box"]]

# A face of one picture and one of the next are the same where they share this much of what both cover.
SAME_FACE = 0.25
# Pictures further apart say nothing of each other: a head has moved, or the scene has changed.
_NEAR_SECONDS = 0.26
# The cascades look at windows of 20 pixels or more.
_SMALLEST_WINDOW = 20


@dataclass(frozen=True)
class FaceConfig:
    """How faces are looked for. On three real clips of one speaker each, 277 of 278 pictures have a face with these."""

    # Faces are looked for in a copy that is shrunk until no side is above this: 10 to 18 ms a picture on one core. 240
    # found as many in those clips in two thirds of the time, but loses small faces.
    search_side: int = 320
    # Smallest face, as a share of the picture's shorter side.
    min_size: float = 0.15
    # Windows that must agree on a face; more of them, and fewer things that are no face are taken for one.
    num_agreeing: int = 4
    # Seconds for which a face that is lost among several is waited for, before the largest of the others is taken.
    patience_seconds: float = 0.5

    def __post_init__(self) -> None:
        if self.search_side < _SMALLEST_WINDOW:
            raise RefusedError(f"vision.faces.search_side must be {_SMALLEST_WINDOW} or more, got {self.search_side}")
        if not 0 < self.min_size <= 1:
            raise RefusedError(f"vision.faces.min_size must be above 0 and at most 1, got {self.min_size:g}")
        if self.num_agreeing < 1:
            raise RefusedError(f"vision.faces.num_agreeing must be 1 or more, got {self.num_agreeing}")
        if not self.patience_seconds >= 0:
            raise RefusedError(f"vision.faces.patience_seconds must be 0 or more, got {self.patience_seconds:g}")


@dataclass(frozen=True)
class Box:
    """Where a face is, in pixels of the picture. turned: 0 looks ahead, -1 and 1 to the picture's left and right."""

    left: int
    top: int
    width: int
    height: int
    turned: int = 0

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    def overlap(self, other: Box) -> float:
        """What both cover as a share of what either covers."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        down = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        both = max(across, 0) * max(down, 0)
        return both / (self.area + other.area - both)

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the box shows of `image`, a view; a box beyond an edge is moved inside."""
        left = min(max(self.left, 0), max(image.shape[1] - self.width, 0))
        top = min(max(self.top, 0), max(image.shape[0] - self.height, 0))
        return image[top : top + self.height, left : left + self.width]


@dataclass(frozen=True)
class Sighting:
    """A picture, the face that the clip is about, if it shows, and how many faces show."""

    picture: Picture
    face: Box | None
    num_faces: int


def load_opencv() -> Any:
    """The module `cv2`, on one thread and without OpenCL, so that equal pictures give equal faces. RefusedError where
    it is not there, or has no cascades."""
    try:
        import cv2

        metadata.version(OPENCV)
    except (ImportError, metadata.PackageNotFoundError) as error:
        raise RefusedError(
            f'faces are found with {OPENCV}, which is not installed here ({error}); pip install "lnln[media]"'
        ) from None
    if not hasattr(cv2, "CascadeClassifier"):
        raise RefusedError(f'OpenCV {cv2.__version__} has no face cascades; pip install "lnln[media]" brings 4.14')
    cv2.setNumThreads(1)
    cv2.ocl.setUseOpenCL(False)
    return cv2


class FaceFinder:
    """All faces of a picture."""

    def __init__(self, config: FaceConfig) -> None:
        self.config = config
        self._cv2 = load_opencv()
        self._ahead = self._cascade("haarcascade_frontalface_alt2.xml")
        self._profile = self._cascade("haarcascade_profileface.xml")  # of faces that look to the picture's left

    def find(self, image: NDArray[np.uint8]) -> list[Box]:
        """The faces of a (H, W) or (H, W, 3) picture, the largest first. None of them covers the middle of another."""
        scale = min(1.0, self.config.search_side / max(image.shape[:2]))
        height, width = (round(side * scale) for side in image.shape[:2])
        if min(height, width) < _SMALLEST_WINDOW:
            return []
        small = self._cv2.resize(image, (width, height), interpolation=self._cv2.INTER_AREA)
        grey = small if small.ndim == 2 else self._cv2.cvtColor(small, self._cv2.COLOR_RGB2GRAY)
        found = self._windows(self._ahead, grey, 0)
        if not found:
            found = self._windows(self._profile, grey, -1)
            mirrored = self._windows(self._profile, np.ascontiguousarray(grey[:, ::-1]), 1)
            found += [Box(width - box.left - box.width, box.top, box.width, box.height, 1) for box in mirrored]
        found.sort(key=lambda box: (-box.area, box.left, box.top, box.turned))
        apart: list[Box] = []
        for box in found:
            if not any(_covers_middle(kept, box) for kept in apart):
                apart.append(box)
        return [_enlarged(box, image.shape[1] / width, image.shape[0] / height, image.shape) for box in apart]

    def _windows(self, cascade: Any, grey: NDArray[np.uint8], turned: int) -> list[Box]:
        smallest = max(_SMALLEST_WINDOW, round(self.config.min_size * min(grey.shape)))
        found = cascade.detectMultiScale(
            grey, scaleFactor=1.1, minNeighbors=self.config.num_agreeing, minSize=(smallest, smallest)
        )
        return [Box(int(left), int(top), int(width), int(height), turned) for left, top, width, height in found]

    def _cascade(self, name: str) -> Any:
        path = Path(self._cv2.data.haarcascades) / name
        if not os.access(path, os.R_OK):
            raise RefusedError(f'{OPENCV} should have brought {name}, which is not there; pip install "lnln[media]"')
        return self._cv2.CascadeClassifier(str(path))


def follow(
    pictures: Iterable[Picture], find: Callable[[NDArray[np.uint8]], list[Box]], patience_seconds: float = 0.5
) -> Iterator[Sighting]:
    """Every picture with the face that the clip is about: the largest at first, then the one that overlaps it.

    A face that overlaps none in the picture before or after is taken for none: what cascades take for a face by chance
    seldom lasts (not in the first of pictures further apart than a quarter of a second, nor in a single picture). Where
    the face is lost and several were there, it is waited for; where it was alone, whatever is largest is the face.
    """
    last: tuple[float, Box, int] | None = None
    for picture, faces in _confirmed(pictures, find):
        face = _same_face(last, picture.time, faces, patience_seconds)
        if face is not None:
            last = picture.time, face, len(faces)
        yield Sighting(picture, face, len(faces))


def _same_face(
    last: tuple[float, Box, int] | None, time: float, faces: list[Box], patience_seconds: float
) -> Box | None:
    if not faces:
        return None
    if last is None:
        return faces[0]
    seen, before, num_faces = last
    nearest = max(faces, key=before.overlap)
    if before.overlap(nearest) >= SAME_FACE:
        return nearest
    waits = max(num_faces, len(faces)) > 1 and time - seen <= patience_seconds
    return None if waits else faces[0]


def _confirmed(pictures: Iterable[Picture], find: Callable[[NDArray[np.uint8]], list[Box]]) -> Iterator[_Found]:
    """Each picture with those of its faces that show in a neighbour as well; one picture behind what is read."""
    before: _Found | None = None
    current: _Found | None = None
    for picture in pictures:
        after = picture, find(picture.image)
        if current is not None:
            yield current[0], _seen_again(before, current, after)
        before, current = current, after
    if current is not None:
        yield current[0], _seen_again(before, current, None)


def _seen_again(
    before: tuple[Picture, list[Box]] | None,
    current: tuple[Picture, list[Box]],
    after: tuple[Picture, list[Box]] | None,
) -> list[Box]:
    picture, faces = current
    near = [other for other in (before, after) if other and abs(other[0].time - picture.time) <= _NEAR_SECONDS]
    if not near:
        return faces
    beside = [face for _, others in near for face in others]
    return [face for face in faces if any(face.overlap(other) >= SAME_FACE for other in beside)]


def _covers_middle(box: Box, other: Box) -> bool:
    x, y = other.middle
    return box.left <= x <= box.left + box.width and box.top <= y <= box.top + box.height


def _enlarged(box: Box, across: float, down: float, shape: tuple[int, ...]) -> Box:
    """The box in a picture that is so much wider and higher, inside it."""
    width, height = min(max(round(box.width * across), 1), shape[1]), min(max(round(box.height * down), 1), shape[0])
    left, top = min(round(box.left * across), shape[1] - width), min(round(box.top * down), shape[0] - height)
    return Box(left, top, width, height, box.turned)
