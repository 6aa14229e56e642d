"""OpenFace 2 (Baltrušaitis et al., FG 2018) where it is installed: the 709 columns of CH-SIMS, 30 a second.

    load("vision", "openface", {"binary": "/opt/OpenFace/build/bin/FeatureExtraction"}).extract(clip).values

288 of gaze and the eyes' landmarks, 6 of the head's pose, 340 of the face's landmarks, 40 of its shape and 35 of action
units, as MMSA-FET extracts them. The program reads the clip's file itself and its frames are brought to the grid by the
nearest timestamp. Its licence is for research only, so lnln neither contains nor fetches it. It decodes with the OpenCV
that it was built with: what that cannot read goes to quarantine though `face` might read it.

A frame in which it found no face, or is not sure of it, is zeros; a clip of such frames only lacks the modality.
FeatureExtraction follows one face; of FaceLandmarkVidMulti's, the one that is largest at first is followed by its
number. Both run on one thread.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.errors import RefusedError
from pipelines.extractors.base import Clip, ClipError, Features, no_features
from pipelines.extractors.program import last_words, run_program

_WHERE = "https://github.com/TadasBaltrusaitis/OpenFace/wiki says how to build it (for research only)"


@dataclass(frozen=True)
class Config:
    # FeatureExtraction or FaceLandmarkVidMulti: a name on the PATH, or a path.
    binary: str = "FeatureExtraction"
    # Frames a second, whatever the file has.
    rate_hz: float = 30.0
    # OpenFace's confidence below which a frame counts as one without a face; 0: its own `success` decides alone.
    min_confidence: float = 0.5
    # Seconds of work allowed for each second of a clip, taken to be ten seconds longer than it is. What takes more is
    # stopped, and the clip goes to quarantine.
    seconds_per_second: float = 10.0

    def __post_init__(self) -> None:
        if not self.binary.strip():
            raise RefusedError("vision.binary must be a name on the PATH or a path, got an empty one")
        if not 0 < self.rate_hz <= 1000:
            raise RefusedError(f"vision.rate_hz must be above 0 and at most 1000, got {self.rate_hz:g}")
        if not 0 <= self.min_confidence <= 1:
            raise RefusedError(f"vision.min_confidence must be from 0 to 1, got {self.min_confidence:g}")
        if not self.seconds_per_second > 0:
            raise RefusedError(f"vision.seconds_per_second must be above 0, got {self.seconds_per_second:g}")


VERSION = 1
PACKAGES: tuple[str, ...] = ()

# What is asked of it; without these it would draw pictures as well.
_WANTED = ("-gaze", "-pose", "-2Dfp", "-3Dfp", "-pdmparams", "-aus")
_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)

# As OpenFace calls and orders them (its wiki, page "Output Format"). Lengths in mm, angles in radians, `x_`, `y_` and
# `eye_lmk_x_`, `eye_lmk_y_` in pixels of the file's pictures.
COLUMNS = (
    *(f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"), "gaze_angle_x", "gaze_angle_y",
    *(f"eye_lmk_{axis}_{point}" for axis in "xyXYZ" for point in range(56)),
    *(f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"),
    *(f"{axis}_{point}" for axis in "xyXYZ" for point in range(68)),
    "p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty", *(f"p_{number}" for number in range(34)),
    # Action units: how strong (0 to 5), and whether there at all (0 or 1).
    *(f"AU{unit:02}_r" for unit in _UNITS),
    *(f"AU{unit:02}_c" for unit in sorted((*_UNITS, 28))),
)  # fmt: skip
_HEADER = ("frame", "face_id", "timestamp", "confidence", "success")
# A clip of ten minutes with two faces makes half of it.
_MOST_BYTES = 512 * 2**20


class Extractor:
    """A `FrameExtractor` of vision."""

    columns: Sequence[str] = COLUMNS

    def __init__(self, config: Config) -> None:
        """RefusedError where the program is not installed."""
        self.config = config
        self.rate_hz = config.rate_hz
        found = shutil.which(config.binary)
        if found is None:
            raise RefusedError(
                f"vision.binary={config.binary} is no program here; set it to OpenFace 2's FeatureExtraction; {_WHERE}"
            )
        # It looks for its models beside where it is called from, so not by a link to it.
        self._binary = Path(found).resolve()

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The SHA-256 of the program."""
        with self._binary.open("rb") as file:
            return {"sha256": {self._binary.name: file_digest(file, "sha256").hexdigest()}}

    def extract(self, clip: Clip) -> Features:
        """(T, 709) at `rate_hz`. counts: those of the extractor `face`.

        ClipError where the program fails on the clip or takes too long; RefusedError where it gives other columns.
        """
        if not clip.has_picture:
            return _nothing(clips_without_face=0)
        table = self._run(clip)
        stamps, chosen, num_faces = _follow(table, self.config.min_confidence)
        if (chosen < 0).all():
            return _nothing(clips_without_face=1)
        times = self._grid(stamps, clip.seconds)
        nearest = _nearest(stamps, times)
        rows = chosen[nearest]
        values = np.where(rows[:, None] >= 0, table[rows, len(_HEADER) :], np.float32(0))
        counts = {
            "frames_without_face": int((rows < 0).sum()),
            "frames_with_several_faces": int((num_faces[nearest] > 1).sum()),
            "clips_without_face": 0,
        }
        return Features(values, times, counts)

    def _grid(self, stamps: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """(T,) times at `rate_hz` for as long as the file's last picture is shown, which is as long as the one before.

        `seconds`, the clip's own end, holds back a timestamp that is nonsense.
        """
        shown_for = stamps[-1] - stamps[-2] if len(stamps) > 1 else 1 / self.config.rate_hz
        num = min(stamps[-1] + shown_for, seconds) * self.config.rate_hz
        # OpenFace rounds timestamps to milliseconds.
        return np.arange(max(1, int(np.ceil(num - 0.1)))) / self.config.rate_hz

    def _run(self, clip: Clip) -> NDArray[np.float32]:
        """(rows, 5 + 709): a row for each face in each frame, `_HEADER` and `COLUMNS`."""
        with clip.file() as file, TemporaryDirectory() as name:
            folder = Path(name)
            command = [str(self._binary), "-f", str(file), "-out_dir", name, "-of", "features", *_WANTED]
            limit = self.config.seconds_per_second * (10 + clip.seconds)
            run_program(command, "OpenFace", folder, limit_seconds=limit, most_bytes=_MOST_BYTES)
            path = folder / "features.csv"
            if not path.exists():
                raise ClipError("vision", f"OpenFace made no features{last_words(folder, command)}")
            return _read_table(path)


def _read_table(path: Path) -> NDArray[np.float32]:
    with path.open(encoding="utf-8", errors="replace") as file:
        names = [name.strip() for name in file.readline().split(",")]  # most versions put a blank before each name
    wanted = (*_HEADER, *COLUMNS)
    if absent := [name for name in wanted if name not in names]:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise RefusedError(
            f"vision.binary must be FeatureExtraction or FaceLandmarkVidMulti of OpenFace 2, whose tables have "
            f"{', '.join(absent[:3])}{more}; this one's do not; {_WHERE}"
        )
    places = [names.index(name) for name in wanted]
    try:
        with warnings.catch_warnings(action="ignore"):  # of a table without rows, which is refused below
            table = np.loadtxt(path, np.float32, delimiter=",", skiprows=1, usecols=places, ndmin=2, comments=None)
    except ValueError as error:
        raise ClipError("vision", f"OpenFace's table cannot be read ({error})") from error
    if not len(table):
        raise ClipError("vision", "OpenFace read no picture")
    return table


def _follow(
    table: NDArray[np.float32], min_confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each frame of the file, (F,) each: when it is shown, the row of the face that the clip is about, -1 where it
    does not show, and how many faces show."""
    frame, face_id, time, confidence, success = table[:, : len(_HEADER)].T
    starts = np.flatnonzero(np.diff(frame, prepend=np.nan) != 0)  # rows of a frame lie together
    stamps = time[starts].astype(np.float64)
    if not (np.isfinite(stamps).all() and stamps[0] >= 0 and (np.diff(stamps) >= 0).all()):
        raise ClipError("vision", "OpenFace's timestamps are not in order")
    is_sure = (success == 1) & (confidence >= min_confidence) & np.isfinite(table).all(axis=1)
    chosen = np.full(len(starts), -1, np.int64)
    num_faces = np.add.reduceat(is_sure.astype(np.int64), starts)
    sizes = _sizes(table)
    followed: float | None = None
    for index, (first, last) in enumerate(zip(starts, [*starts[1:], len(table)], strict=True)):
        rows = first + np.flatnonzero(is_sure[first:last])
        if len(rows):
            same = rows[face_id[rows] == followed]
            chosen[index] = same[0] if len(same) else rows[np.argmax(sizes[rows])]
            followed = face_id[chosen[index]]
    return stamps, chosen, num_faces


def _sizes(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """(rows,) of the box around the landmarks, in pixels."""
    sides = []
    for axis in "xy":
        first = len(_HEADER) + COLUMNS.index(f"{axis}_0")
        sides.append(np.ptp(table[:, first : first + 68], axis=1))
    size: NDArray[np.float32] = sides[0] * sides[1]
    return size


def _nearest(stamps: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    """(T,) the index of the timestamp that is nearest to each time, the earlier of two equally near."""
    after = np.searchsorted(stamps, times).clip(1, max(len(stamps) - 1, 1))
    is_earlier = times - stamps[after - 1] <= stamps[np.minimum(after, len(stamps) - 1)] - times
    return np.where(is_earlier, after - 1, np.minimum(after, len(stamps) - 1))


def _nothing(clips_without_face: int) -> Features:
    none = no_features(len(COLUMNS))
    counts = {"frames_without_face": 0, "frames_with_several_faces": 0, "clips_without_face": clips_without_face}
    return Features(none.values, none.times, counts)
