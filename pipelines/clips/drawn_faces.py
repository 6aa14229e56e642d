"""Faces that are drawn, for made-up clips: the default detector finds them, and every feature of them is known.

picture = backdrop(np.random.default_rng(0), (320, 240))
draw_face(picture, DrawnFace(x=160, y=120, height=140, mouth_open=0.5, smile=1.0))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.extractors.faces import load_opencv

# Drawn so many times larger and then shrunk, which smooths every edge.
_OVERSAMPLING = 4


@dataclass(frozen=True)
class DrawnFace:
    """x, y: middle of the head, and height: from chin to hair, all in pixels. skin: grey of its lightest part."""

    x: float
    y: float
    height: float
    # 0 closed to 1 wide open.
    mouth_open: float = 0.0
    # -1 corners down to 1 corners up; the brows go with it.
    smile: float = 0.0
    # 0 closed to 1 open.
    eyes_open: float = 1.0
    skin: int = 205
    hair: int = 50


def backdrop(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) soft shades, in which there is no face. size: (W, H)."""
    cv2 = load_opencv()
    width, height = size
    coarse = rng.integers(90, 150, (4, 5, 3), np.uint8)
    picture: NDArray[np.uint8] = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return picture


def draw_face(picture: NDArray[np.uint8], face: DrawnFace) -> None:
    """Into `picture` (H, W, 3), over what is there. What lies beyond its edges is cut off."""
    cv2 = load_opencv()
    side = max(round(face.height * 1.3), 1)
    left, top = round(face.x - side / 2), round(face.y - side / 2)
    colour, cover = _portrait(face)
    colour = cv2.resize(colour, (side, side), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(cover, (side, side), interpolation=cv2.INTER_AREA)[..., None]
    rows = slice(max(top, 0), max(min(top + side, picture.shape[0]), 0))
    columns = slice(max(left, 0), max(min(left + side, picture.shape[1]), 0))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    inside = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    share = cover[inside].astype(np.float32) / 255
    picture[rows, columns] = np.rint(colour[inside] * share + picture[rows, columns] * (1 - share)).astype(np.uint8)


def _portrait(face: DrawnFace) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A square of 1.3 times the head's height: (S, S, 3) colours, and (S, S) how much of them covers what is behind."""
    cv2 = load_opencv()
    size = 64 * _OVERSAMPLING
    unit = size / 1.3  # the head's height
    middle = size / 2
    canvas = np.zeros((size, size), np.float32)
    cover = np.zeros((size, size), np.uint8)

    def ellipse(
        target: NDArray[np.generic], x: float, y: float, wide: float, high: float, grey: float, thickness: int = -1,
        arc: tuple[float, float] = (0, 360),
    ) -> None:  # fmt: skip
        """x, y from the middle of the head, wide and high the half axes, all in heads."""
        centre = round(middle + x * unit), round(middle + y * unit)
        axes = max(round(wide * unit), 1), max(round(high * unit), 1)
        cv2.ellipse(target, centre, axes, 0, *arc, grey, thickness, cv2.LINE_AA)

    line = max(round(0.028 * unit), 1)
    skin = float(face.skin)
    ellipse(cover, 0, -0.02, 0.375, 0.52, 255)
    ellipse(canvas, 0, -0.02, 0.375, 0.52, face.hair)
    # The face, darker towards its sides and its chin.
    for step in range(12):
        share = step / 11
        ellipse(canvas, 0, 0.05 + 0.01 * share, 0.34 - 0.14 * share, 0.45 - 0.16 * share, skin * (0.66 + 0.34 * share))
    for side in (-1.0, 1.0):
        x = 0.155 * side
        ellipse(canvas, x, -0.045, 0.105, 0.062, skin * 0.62)  # the hollow of the eye
        if face.eyes_open > 0.3:
            ellipse(canvas, x, -0.035, 0.07, 0.036 * face.eyes_open, skin * 1.02)
            ellipse(canvas, x, -0.035, 0.032, 0.034 * face.eyes_open, 25)
        else:
            ellipse(canvas, x, -0.03, 0.07, 0.012, 40)
        ellipse(canvas, x, -0.10 - 0.012 * face.smile, 0.10, 0.035, 45, line, (195, 345))  # the brow
        ellipse(canvas, 0.055 * side, 0.155, 0.024, 0.014, skin * 0.5)  # a nostril
        ellipse(canvas, 0.2 * side, 0.13, 0.07, 0.06, min(skin * 1.08, 250))  # the cheek
    ellipse(canvas, 0, 0.05, 0.028, 0.11, min(skin * 1.1, 252))  # the bridge of the nose
    ellipse(canvas, 0, 0.178, 0.06, 0.012, skin * 0.62)  # the shadow under it
    # The mouth: lips around a dark opening, corners by the smile.
    high = 0.012 + 0.07 * max(face.mouth_open, 0.0)
    ellipse(canvas, 0, 0.29, 0.125, high + 0.022, skin * 0.55)
    ellipse(canvas, 0, 0.29, 0.105, high, 25)
    if abs(face.smile) > 0.05:
        arc = (15.0, 165.0) if face.smile > 0 else (195.0, 345.0)
        bend = 0.07 * abs(face.smile)
        ellipse(canvas, 0, 0.29 - np.sign(face.smile) * bend * 0.7, 0.15, bend, skin * 0.4, line, arc)
    ellipse(canvas, 0, 0.385, 0.07, 0.012, skin * 0.72)  # the shadow above the chin
    canvas = cv2.GaussianBlur(canvas, (0, 0), 0.008 * unit)
    grey = np.clip(canvas, 0, 255)
    colour = np.stack([grey, grey * 0.86, grey * 0.74], axis=-1)
    return np.rint(colour).astype(np.uint8), cover
