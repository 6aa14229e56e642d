"""OpenFace is licensed for research only and cannot be installed here. In its place stands a shell script that writes
tables as OpenFace's wiki describes them ("Output Format"), or fails: it shows that the tables are read rightly and that
failures are contained, and nothing about OpenFace's own figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.errors import RefusedError
from pipelines.extractors import choose
from pipelines.extractors.base import ClipError
from pipelines.extractors.vision.openface import COLUMNS, Config, Extractor, _nearest
from tests.pipelines.extractors.test_program import script
from tests.pipelines.extractors.vision.picture_clip import PictureClip, noise

HEADER = ("frame", "face_id", "timestamp", "confidence", "success")


def row(frame: int, time: float, face_id: int = 0, confidence: float = 0.98, success: int = 1, **values: Any) -> str:
    """One line of a table: every column has its number plus `frame` / 100, but for those in `values`."""
    filled: Mapping[str, Any] = {name: f"{index + frame / 100:.2f}" for index, name in enumerate(COLUMNS)} | values
    return ", ".join(
        [str(frame), str(face_id), f"{time:.3f}", f"{confidence:g}", str(success), *(str(filled[n]) for n in COLUMNS)]
    )


def table(rows: Sequence[str], header: Sequence[str] = (*HEADER, *COLUMNS), between: str = ", ") -> str:
    return "\n".join([between.join(header), *rows]) + "\n"


def extractor(folder: Path, content: str, **knobs: Any) -> Extractor:
    (folder / "table.csv").write_text(content)
    binary = script(
        folder / "FeatureExtraction", f'echo "$@" > "{folder}/arguments"; cp "{folder}/table.csv" "$4/$6.csv"'
    )
    return Extractor(Config(binary=str(binary), **knobs))


def clip(seconds: float = 1.0) -> PictureClip:
    return PictureClip(noise(1), data=b"a film", seconds=seconds)


def test_the_layout_of_ch_sims() -> None:
    assert len(COLUMNS) == len(set(COLUMNS)) == 709
    groups = {
        "gaze": COLUMNS[:288], "pose": COLUMNS[288:294], "landmarks": COLUMNS[294:634], "shape": COLUMNS[634:674],
        "units": COLUMNS[674:],
    }  # fmt: skip
    assert all(name.startswith(("gaze_", "eye_lmk_")) for name in groups["gaze"])
    assert groups["pose"] == ("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz")
    assert groups["landmarks"][0] == "x_0" and groups["landmarks"][-1] == "Z_67" and len(groups["landmarks"]) == 340
    assert groups["shape"][0] == "p_scale" and groups["shape"][-1] == "p_33"
    assert groups["units"][0] == "AU01_r" and groups["units"][16] == "AU45_r" and "AU28_r" not in groups["units"]
    assert groups["units"][17] == "AU01_c" and "AU28_c" in groups["units"] and len(groups["units"]) == 35


def test_what_it_is_asked(tmp_path: Path) -> None:
    extractor(tmp_path, table([row(1, 0.0)])).extract(clip())
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[0] == "-f" and arguments[1].endswith("clip.mp4") and arguments[2] == "-out_dir"
    assert set(arguments[6:]) == {"-gaze", "-pose", "-2Dfp", "-3Dfp", "-pdmparams", "-aus"}
    assert not Path(arguments[1]).exists() and not Path(arguments[3]).exists()


@pytest.mark.parametrize("between", [", ", ","])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_columns_are_read_by_name(tmp_path: Path, between: str, is_shuffled: bool) -> None:
    """Versions differ in the blanks before names, and in which columns stand where."""
    rows = [row(1, 0.0), row(2, 1 / 30)]
    header: list[str] = [*HEADER, *COLUMNS]
    if is_shuffled:
        order = np.random.default_rng(0).permutation(len(header))
        rows = [", ".join(["7", *(line.split(", ")[place] for place in order)]) for line in rows]
        header = ["more", *(header[place] for place in order)]
    features = extractor(tmp_path, table(rows, header, between)).extract(clip())
    assert features.values.shape == (2, 709)
    assert features.values[0] == pytest.approx(np.arange(709) + 0.01)
    assert features.values[1] == pytest.approx(np.arange(709) + 0.02)
    assert features.times == pytest.approx([0, 1 / 30])


def test_frames_without_a_sure_face_are_zeros_and_counted(tmp_path: Path) -> None:
    rows = [
        row(1, 0.0),
        row(2, 1 / 30, success=0, confidence=0.9),
        row(3, 2 / 30, confidence=0.3),
        row(4, 3 / 30, AU45_r="-nan"),
        row(5, 4 / 30, confidence=0.5),
    ]
    features = extractor(tmp_path, table(rows)).extract(clip())
    assert features.values.any(axis=1).tolist() == [True, False, False, False, True]
    assert np.isfinite(features.values).all()
    assert features.counts == {"frames_without_face": 3, "frames_with_several_faces": 0, "clips_without_face": 0}
    unsure = extractor(tmp_path, table(rows), min_confidence=0.0).extract(clip())
    assert unsure.values.any(axis=1).tolist() == [True, False, True, False, True]


def test_no_face_at_all(tmp_path: Path) -> None:
    features = extractor(tmp_path, table([row(1, 0.0, success=0), row(2, 0.03, success=0)])).extract(clip())
    assert features.values.shape == (0, 709)
    assert features.counts == {"frames_without_face": 0, "frames_with_several_faces": 0, "clips_without_face": 1}


def test_no_picture_is_not_shown_to_it(tmp_path: Path) -> None:
    features = extractor(tmp_path, "nothing that can be read").extract(PictureClip([]))
    assert features.values.shape == (0, 709) and set(features.counts.values()) == {0}
    assert not (tmp_path / "arguments").exists()


@pytest.mark.parametrize(("file_rate", "num"), [(15.0, 15), (24.0, 24), (30.0, 30), (59.94, 60)])
def test_the_grid_is_the_same_whatever_rate_the_file_has(tmp_path: Path, file_rate: float, num: int) -> None:
    rows = [row(frame + 1, frame / file_rate) for frame in range(num)]
    features = extractor(tmp_path, table(rows)).extract(clip(seconds=num / file_rate))
    assert features.times == pytest.approx(np.arange(len(features.times)) / 30)
    assert len(features.times) == 30
    shown = np.rint(features.values[:, 0] * 100).astype(int) - 1  # which of the file's frames
    assert np.abs(shown / file_rate - features.times).max() <= 0.5 / file_rate + 1e-3


def test_of_several_faces_the_largest_is_followed_by_its_number(tmp_path: Path) -> None:
    """As FaceLandmarkVidMulti gives them: a row for each face."""

    def wide(width: float) -> dict[str, Any]:
        return {"x_0": 0, "x_16": 700 + width, "y_0": 0, "y_8": 900}

    rows = [
        row(1, 0 / 30, 0, **wide(0)), row(1, 0 / 30, 1, **wide(900), gaze_0_x=-1),
        row(2, 1 / 30, 0, **wide(5000)), row(2, 1 / 30, 1, **wide(900), gaze_0_x=-1),
        row(3, 2 / 30, 0, **wide(0)), row(3, 2 / 30, 1, success=0, gaze_0_x=-1),
        row(4, 3 / 30, 1, **wide(900), gaze_0_x=-1),
    ]  # fmt: skip
    features = extractor(tmp_path, table(rows)).extract(clip())
    assert (features.values[:, 0] == -1).tolist() == [True, True, False, True]
    assert features.counts["frames_with_several_faces"] == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 60), min_size=1, max_size=20), st.lists(st.floats(0, 60), min_size=1, max_size=20))
def test_nearest(stamps: list[float], times: list[float]) -> None:
    ordered, wanted = np.sort(stamps), np.sort(times)
    distance = np.abs(ordered[None] - wanted[:, None])
    found = _nearest(ordered, wanted)
    assert distance[np.arange(len(wanted)), found] == pytest.approx(distance.min(axis=1))


# --- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_binary_that_is_not_there_says_where_it_is_to_be_had() -> None:
    with pytest.raises(RefusedError, match=r"is no program here; .*OpenFace/wiki") as caught:
        Extractor(Config(binary="no-such-program"))
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    absent = ("AU28_c", "p_33", "x_0", "gaze_angle_y")
    header = [name for name in (*HEADER, *COLUMNS) if name not in absent]
    with pytest.raises(RefusedError, match="whose tables have gaze_angle_y, x_0, p_33 and 1 more"):
        extractor(tmp_path, table([", ".join(["1"] * len(header))], header)).extract(clip())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (table([]), "OpenFace read no picture"),
        (table([row(1, 0.0), row(2, 0.03)[:500]]), "OpenFace's table cannot be read"),
        (table([row(1, 0.0).replace("1.01", "what")]), "OpenFace's table cannot be read"),
        (table([row(1, 1.0), row(2, 0.5)]), "OpenFace's timestamps are not in order"),
        (table([row(1, -1.0)]), "OpenFace's timestamps are not in order"),
        (table([row(1, float("nan"))]), "OpenFace's timestamps are not in order"),
    ],
)
def test_tables_that_are_damaged(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(ClipError) as caught:
        extractor(tmp_path, content).extract(clip())
    assert caught.value.stage == "vision" and reason in caught.value.reason
    assert str(tmp_path) not in caught.value.reason


def test_a_timestamp_that_is_nonsense_does_not_fill_the_memory(tmp_path: Path) -> None:
    features = extractor(tmp_path, table([row(1, 0.0), row(2, 9e9)])).extract(clip(seconds=2.0))
    assert len(features.values) == 60


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("echo 'ERROR: Could not open the video file'; exit 0",
         "OpenFace made no features: ERROR: Could not open the video file"),
        ("exit 1", "OpenFace ended with status 1 and said nothing"),
        ("kill -ABRT $$", "OpenFace was ended by SIGABRT and said nothing"),
        ('echo "$2 is no film"; exit 1', "OpenFace ended with status 1: clip.mp4 is no film"),
        ("sleep 600", "OpenFace was not done after 1 seconds"),
    ],
)  # fmt: skip
def test_a_run_that_fails_costs_the_clip(tmp_path: Path, lines: str, reason: str) -> None:
    binary = script(tmp_path / "FeatureExtraction", lines)
    with pytest.raises(ClipError) as caught:
        Extractor(Config(binary=str(binary), seconds_per_second=0.1)).extract(clip(seconds=0.1))
    assert (caught.value.stage, caught.value.reason) == ("vision", reason)


def test_it_is_called_where_it_lies_and_known_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenFace finds its models beside the path that it is called by, which must not be a link."""
    (tmp_path / "build").mkdir()
    (tmp_path / "bin").mkdir()
    binary = script(tmp_path / "build" / "FeatureExtraction", f'echo "$0" > "{tmp_path}/called"; exit 1')
    (tmp_path / "bin" / "FeatureExtraction").symlink_to(binary)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    made = Extractor(Config())
    with pytest.raises(ClipError):
        made.extract(clip())
    assert (tmp_path / "called").read_text().strip() == str(binary)
    [digest] = made.provenance["sha256"].values()
    assert len(digest) == 64
    assert choose("vision", "openface").record(made)["columns"] == list(COLUMNS)


@pytest.mark.parametrize(
    "knobs",
    [{"binary": " "}, {"rate_hz": 0.0}, {"min_confidence": 1.5}, {"min_confidence": float("nan")},
     {"seconds_per_second": 0.0}],
)  # fmt: skip
def test_knobs_out_of_range(knobs: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=f"vision.{next(iter(knobs))} must be"):
        Config(**knobs)
