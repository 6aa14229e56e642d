"""Descriptors of the face that a clip is about, by OpenCV alone: no weights, no network, one core.

    load("vision", "face").extract(clip).values        # (T, 165), ten a second

A face is found and followed (`pipelines/extractors/faces.py`), cut out, brought to 64 x 64 grey pixels, and described
by where it is, how light its parts are, how much each part moved since the picture before, and histograms of oriented
gradients (Dalal and Triggs, CVPR 2005). Every column is named in `COLUMNS`. Left and right are the picture's.
A frame without a face is zeros, which `face` = 0 tells from a face; a clip without any face lacks the modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors.base import Clip, Features, no_features
from pipelines.extractors.faces import OPENCV, Box, FaceConfig, FaceFinder, Sighting, follow, load_opencv


@dataclass(frozen=True)
class Config:
    # Pictures a second.
    rate_hz: float = 10.0
    # Pictures are shrunk until no side is above this. A face of a third of it still fills the 64 pixels that are read.
    longest_side: int = 480
    # How faces are looked for.
    faces: FaceConfig = field(default_factory=FaceConfig)

    def __post_init__(self) -> None:
        if not 0 < self.rate_hz <= 1000:
            raise RefusedError(f"vision.rate_hz must be above 0 and at most 1000, got {self.rate_hz:g}")
        if self.longest_side < 1:
            raise RefusedError(f"vision.longest_side must be 1 or more, got {self.longest_side}")


VERSION = 1
PACKAGES = (OPENCV,)

_SIDE = 64  # pixels of the face crop
_RIGID = 40  # rows of it above the mouth, by which one crop is laid over the next
_CELLS = 4  # cells a side, of 16 pixels
_ORIENTATIONS = tuple(range(10, 180, 20))  # degrees in the middle of each bin; a gradient and its opposite are one

# Parts of a face in the box of the frontal cascade: first and last row, first and last column, as shares of it.
REGIONS = {
    "brows": (0.20, 0.34, 0.15, 0.85),
    "left_eye": (0.34, 0.48, 0.15, 0.47),
    "right_eye": (0.34, 0.48, 0.53, 0.85),
    "nose": (0.45, 0.66, 0.34, 0.66),
    "mouth": (0.66, 0.92, 0.25, 0.75),
}

COLUMNS = (
    # 1 where there is a face; 0 with all others 0 where there is none.
    "face",
    # -1, 0, 1: in profile to the left, ahead, in profile to the right.
    "turned",
    # Middle of the box and its height, as shares of the picture's width and height.
    "box_x", "box_y", "box_height",
    # Mean and deviation of the grey crop, white being 1.
    "brightness", "contrast",
    # Since the picture before, per second: way of the middle in box heights, and growth of the box (logarithm).
    "move_x", "move_y", "growth",
    # Mean change of a pixel since the picture before, in deviations of the crop, once the head's own move is undone.
    "motion_face", *(f"motion_{region}" for region in REGIONS),
    # Mean grey of a part, in deviations of the crop from its mean.
    *(f"light_{region}" for region in REGIONS),
    # Strength of edges by cell and by orientation of their gradient in degrees (0: from left to right).
    *(f"hog_r{r}_c{c}_o{o}" for r in range(_CELLS) for c in range(_CELLS) for o in _ORIENTATIONS),
)  # fmt: skip
_NUM_PLACE = COLUMNS.index("motion_face")


class Extractor:
    """A `FrameExtractor` of vision."""

    columns: Sequence[str] = COLUMNS

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rate_hz = config.rate_hz
        self._cv2 = load_opencv()
        self._finder = FaceFinder(config.faces)
        side, cell = (_SIDE, _SIDE), (_SIDE // _CELLS, _SIDE // _CELLS)
        block = (2 * cell[0], 2 * cell[1])
        self._hog = self._cv2.HOGDescriptor(side, block, cell, cell, len(_ORIENTATIONS))
        self._window = self._cv2.createHanningWindow((_SIDE, _RIGID), self._cv2.CV_32F)

    def extract(self, clip: Clip) -> Features:
        """(T, 165) at `rate_hz`. counts: frames of zeros, since they show no face, frames with several, and whether the
        clip shows no face at all, in which case it has no frames."""
        rows, times, num_without, num_several = [], [], 0, 0
        before: tuple[Sighting, NDArray[np.uint8]] | None = None
        pictures = clip.pictures(self.config.rate_hz, self.config.longest_side)
        for sighting in follow(pictures, self._finder.find, self.config.faces.patience_seconds):
            grey = self._cv2.cvtColor(sighting.picture.image, self._cv2.COLOR_RGB2GRAY)
            rows.append(self._describe(sighting, grey, before))
            times.append(sighting.picture.time)
            num_without += sighting.face is None
            num_several += sighting.num_faces > 1
            before = sighting, grey
        no_face = num_without == len(rows)
        counts = {
            "frames_without_face": 0 if no_face else num_without,
            "frames_with_several_faces": num_several,
            "clips_without_face": int(no_face and clip.has_picture),
        }
        if no_face:
            none = no_features(len(COLUMNS))
            return Features(none.values, none.times, counts)
        return Features(np.stack(rows), np.array(times, np.float64), counts)

    def _describe(
        self, sighting: Sighting, grey: NDArray[np.uint8], before: tuple[Sighting, NDArray[np.uint8]] | None
    ) -> NDArray[np.float32]:
        """(165,) float32: `COLUMNS`."""
        face = sighting.face
        if face is None:
            return np.zeros(len(COLUMNS), np.float32)
        crop = self._crop(face, grey)
        plain = _normalised(crop)
        place = [1, face.turned, *_place(face, grey), crop.mean() / 255, crop.std() / 255]
        if before is None or before[0].face is None:
            moves, motion = [0.0] * 3, [0.0] * (1 + len(REGIONS))
        else:
            last = before[0].face
            moves = _moves(last, face, sighting.picture.time - before[0].picture.time)
            # What the place of the last face shows at the size of this one, so that a box that jitters is no motion.
            x, y = last.middle
            there = Box(round(x - face.width / 2), round(y - face.height / 2), face.width, face.height)
            motion = self._motion(_normalised(self._crop(there, before[1])), plain)
        light = [float(_part(plain, region).mean()) for region in REGIONS]
        return np.concatenate([place, moves, motion, light, self._edges(crop)], dtype=np.float32, casting="same_kind")

    def _crop(self, box: Box, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        crop: NDArray[np.uint8] = self._cv2.resize(box.cut(grey), (_SIDE, _SIDE), interpolation=self._cv2.INTER_AREA)
        return crop

    def _motion(self, before: NDArray[np.float32], now: NDArray[np.float32]) -> list[float]:
        """Mean change of a pixel: in the face, then in each region."""
        (right, down), _ = self._cv2.phaseCorrelate(before[:_RIGID], now[:_RIGID], self._window)
        if np.hypot(right, down) <= _SIDE / 8:  # further than the box itself can be off, it is not the head's move
            shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
            before = self._cv2.warpAffine(before, shift, (_SIDE, _SIDE), borderMode=self._cv2.BORDER_REPLICATE)
        change = np.abs(now - before)
        return [float(change.mean()), *(float(_part(change, region).mean()) for region in REGIONS)]

    def _edges(self, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(144,) the histogram of each cell, averaged over the (up to four) blocks that it is normalised in."""
        # OpenCV's order: blocks down each column of blocks, and cells so within a block.
        blocks = self._hog.compute(crop).reshape(_CELLS - 1, _CELLS - 1, 2, 2, len(_ORIENTATIONS))
        total = np.zeros((_CELLS, _CELLS, len(_ORIENTATIONS)), np.float32)
        num_blocks = np.zeros((_CELLS, _CELLS, 1), np.float32)
        for row in range(2):
            for column in range(2):
                cells = slice(row, row + _CELLS - 1), slice(column, column + _CELLS - 1)
                total[cells] += blocks[:, :, column, row].transpose(1, 0, 2)
                num_blocks[cells] += 1
        edges: NDArray[np.float32] = (total / num_blocks).ravel()
        return edges


def _place(face: Box, grey: NDArray[np.uint8]) -> list[float]:
    height, width = grey.shape
    x, y = face.middle
    return [x / width, y / height, face.height / height]


def _moves(before: Box, now: Box, seconds: float) -> list[float]:
    (x0, y0), (x1, y1) = before.middle, now.middle
    growth = float(np.log(now.height / before.height))
    return [(x1 - x0) / now.height / seconds, (y1 - y0) / now.height / seconds, growth / seconds]


def _normalised(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean 0 and deviation 1; zeros where the crop is of one grey."""
    values = crop.astype(np.float32)
    values -= values.mean()
    values /= max(float(values.std()), 1.0)
    return values


def _part(crop: NDArray[np.float32], region: str) -> NDArray[np.float32]:
    top, bottom, left, right = (round(share * _SIDE) for share in REGIONS[region])
    return crop[top:bottom, left:right]
