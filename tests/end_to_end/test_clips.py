"""Raw clips by the command line: every kind of trouble that a folder of clips can hold, and predictions for clips."""

from __future__ import annotations

import csv
import re
import shutil
import unicodedata
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.quarantine import read_quarantine
from lnln.data.schema import MODALITIES, STORED_SPLITS, Split, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from pipelines.clips.drawn_faces import DrawnFace, backdrop, draw_face
from tests.clips import damaged, silence, tone, truncated, write_clip, write_empty_tracks
from tests.command import Outcome, lnln
from tests.end_to_end.test_path import TINY
from tests.pipelines.extractors.vision.picture_clip import real_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Image = NDArray[np.uint8]
SIZE = (160, 120)
RATE = 10  # pictures a second: as many as the default extractor looks at
LABELS = ["video_id", "clip_id", "text", "label", "annotation", "mode"]


def speaker(number: int, size: tuple[int, int]) -> Image:
    """(H, W, 3) a face whose mouth opens and closes with `number`."""
    return faces(number, size, 0.5)


def scenery(number: int, size: tuple[int, int]) -> Image:
    """Soft shades without a face, of their own for each `number`."""
    return backdrop(np.random.default_rng(number), size)


def leaving(number: int, size: tuple[int, int]) -> Image:
    """A face for the first three pictures."""
    return speaker(number, size) if number < 3 else scenery(number, size)


def couple(number: int, size: tuple[int, int]) -> Image:
    return faces(number, size, 0.25, 0.75)


def lying(number: int, size: tuple[int, int]) -> Image:
    """`speaker` as a phone stores it that is held upright: it says that the picture is to be turned clockwise."""
    return np.ascontiguousarray(np.rot90(speaker(number, (size[1], size[0]))))


def faces(number: int, size: tuple[int, int], *places: float) -> Image:
    """A face at each of `places`, as shares of the width."""
    picture = backdrop(np.random.default_rng(0), size)
    for place in places:
        mouth = float(0.5 - 0.5 * np.cos(1.3 * number))
        draw_face(picture, DrawnFace(size[0] * place, size[1] / 2, size[1] * 0.7, mouth_open=mouth))
    return picture


def film(seconds: float = 0.5, **how: Any) -> Callable[[Path], object]:
    """Writes a speaking face and a tone; `how` as `write_clip` has it."""
    return lambda path: write_clip(path, seconds=seconds, **{"size": SIZE, "rate": RATE, "draw": speaker, **how})


FILM = film()


def sound(**how: Any) -> Callable[[Path], object]:
    return film(**{"size": None, **how})


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def cut(keep: float, **how: Any) -> Callable[[Path], object]:
    """Writes the first part of a longer film."""
    return lambda path: truncated(write_clip(path, seconds=3, size=SIZE, rate=RATE, draw=speaker, **how), keep, path)


def scratched(path: Path) -> None:
    """A film of which bytes behind the header are others than they were."""
    path.write_bytes(damaged(write_clip(path, seconds=2, size=SIZE, rate=RATE, draw=speaker).read_bytes(), 1, 60, 0.3))


def no_samples(path: Path) -> None:
    """A WAV file that says how it sounds, and does not."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)


def beside(*others: str) -> Callable[[Path], object]:
    """A film, and files of the same name that end in `others`."""

    def make(path: Path) -> None:
        FILM(path)
        for ending in others:
            other = path.with_suffix(f".{ending}")
            other.write_text("a note") if ending == "txt" else sound()(other)

    return make


@dataclass(frozen=True)
class Case:
    """One listed clip. make: writes its file. lacks: the modalities of which it has no steps. lost: stage and reason,
    where it is none of the utterances. rows: how it is listed besides."""

    clip: str
    make: Callable[[Path], object] | None = FILM
    ending: str = "mp4"
    video: str = "v"
    text: str = "quite a good movie"
    label: str = "1.5"
    mode: str = "train"
    split: Split = "train"
    lacks: str = ""
    lost: tuple[str, str] | None = None
    rows: tuple[tuple[str, str, str], ...] = ()

    @property
    def utterance_id(self) -> str:
        return f"{self.video}$_${self.clip}"


CASES = [
    # Containers and codecs; the names of clips say what they are.
    Case("mp4"),
    Case("mkv", ending="mkv", mode="valid", split="valid"),
    Case("mov", ending="MOV", mode="Test", split="test"),
    Case("webm", ending="webm", mode="validation", split="valid"),
    Case("avi", ending="avi", mode=" dev ", split="valid"),
    Case("ts", ending="ts", mode="test", split="test"),
    Case("wav", sound(), ending="wav", lacks="vision"),
    Case("mp3", sound(cover=True), ending="mp3", lacks="vision"),
    Case("ogg", sound(sound_rate=48_000), ending="ogg", lacks="vision"),
    Case("rate", sound(sound_rate=8_000), ending="wav", lacks="vision"),
    Case("stereo", film(sound=np.concatenate([tone(0.5), silence(0.5)])), ending="mkv"),
    Case("surround", film(sound=np.repeat(tone(0.5), 6, axis=0)), ending="mkv"),
    Case("vfr", film(times=[0, 0.04, 0.3, 0.31, 0.32, 0.7]), ending="mkv"),
    Case("rotated", film(draw=lying, size=SIZE[::-1], rotation=-90)),
    # What a clip may lack.
    Case("no-sound", film(sound=None), lacks="audio"),
    Case("no-sound-webm", film(sound=None), ending="webm", lacks="audio"),
    Case("no-face", film(draw=scenery), lacks="vision"),
    Case("face-leaves", film(draw=leaving)),
    Case("two-faces", film(draw=couple, size=(240, 120))),
    Case("no-text", text="", lacks="text"),
    Case("blank-text", text=" \t ", lacks="text"),
    Case("face-alone", film(sound=None), text="", lacks="text audio"),
    Case("sound-alone", sound(), ending="flac", text="", lacks="text vision"),
    Case("no-label", label=""),
    Case("no-mode", mode="", split="unassigned"),
    Case("neither", label="", mode="", split="unassigned"),
    # Files that broke, and what can be used of them.
    Case("cut", cut(0.6), ending="mkv"),
    Case("cut-mp4", cut(0.6, options={"movflags": "faststart"})),
    Case("scratched", scratched, ending="mkv"),
    Case("cut-without-index", cut(0.6), lost=("file", r"cannot be opened as a media file \(.*\)")),
    Case("garbage", content(bytes(range(256)) * 40), lost=("file", r"cannot be opened as a media file \(.*\)")),
    Case("prose", content(b"this is no film\n" * 50), lost=("file", r"cannot be opened as a media file \(.*\)")),
    Case("list", content(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"), lost=("file", r"cannot be opened.*|names other.*")),
    Case("empty", content(b""), lost=("file", r"Raw/v/empty\.mp4 is empty")),
    Case("no-pictures", write_empty_tracks, lost=("decode", "has neither sound nor picture")),
    Case("no-samples", no_samples, ending="wav", lost=("decode", "has neither sound nor picture")),
    Case("nothing", film(sound=None, draw=scenery), text="", lost=("decode", "neither text nor audio nor vision .*")),
    Case("endless", sound(sound=tone(601, 999), sound_rate=999), ending="wav", lost=("decode", "is longer .*")),
    Case("absent", None, lost=("file", r"there is no Raw/v/absent\.\*")),
    # Names.
    Case("第一集", video="电影", text="这部电影很好看 😀", label="-2"),
    Case("Zoë ü", video="Café", text="Ça m'a plu"),
    Case("passwd", None, video="../outside", lost=("table", "video_id must be the name of a file or folder, .*")),
    Case("deep/er", None, lost=("table", "clip_id must be the name of a file or folder, got 'deep/er'")),
    Case("", None, lost=("table", "clip_id must be the name of a file or folder, got ''")),
    # Files and rows that are there more than once.
    Case("two-files", beside("wav")),
    Case("file-beside", beside("txt")),
    Case("twice", rows=(("quite a good movie", "1.5", "train"),) * 2),
    Case("labels", rows=(("quite a good movie", "-1.5", "train"),), lost=("table", "listed in lines .* another label")),
    Case("modes", rows=(("quite a good movie", "1.5", "test"),), lost=("table", "listed in lines .* another mode")),
    # Values.
    Case("mode", mode="holdout", lost=("table", "mode must be train, valid, test or blank, got 'holdout'")),
    Case("high", label="3.5", lost=("table", "label is 3.5, expected -3 to 3; clips.label_range states .*")),
    Case("word", label="good", lost=("table", "label must be a number or blank, got 'good'")),
]  # fmt: skip
UNLISTED = ["Raw/loose.mp4", "Raw/v/deeper/1.mp4", "Raw/v/stray.mp4"]
COUNTS = {
    "clips": len(CASES),
    "clips_extracted": 34,
    "clips_quarantined": 18,
    "clips_truncated": 3,
    "clips_with_several_files": 1,
    "clips_without_audio": 3,
    "clips_without_face": 1,
    "clips_without_label": 2,
    "clips_without_text": 4,
    "clips_without_vision": 5,
    "files_beside_clips": 1,
    "files_unlisted": 3,
    "rows_repeated": 2,
    "vision_frames_with_several_faces": 5,
    "vision_frames_without_face": 2,
}


def write_folder(folder: Path) -> Path:
    """The clips of CASES and UNLISTED, their list, and files that no one would miss."""
    rows = [LABELS]
    for case in CASES:
        if case.make is not None:
            # As macOS writes names: letters and accents apart.
            path = folder / "Raw" / case.video / unicodedata.normalize("NFD", f"{case.clip}.{case.ending}")
            path.parent.mkdir(parents=True, exist_ok=True)
            case.make(path)
        for text, label, mode in ((case.text, case.label, case.mode), *case.rows):
            rows.append([case.video, case.clip, text, label, "", mode])
    with (folder / "label.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(rows)
    (folder / "Raw" / "v" / "deeper").mkdir()
    for path in [*(folder / name for name in UNLISTED), folder.parent / "outside" / "passwd.mp4"]:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "Raw" / "v" / "mp4.mp4", path)
    (folder / "Raw" / "v" / ".DS_Store").write_bytes(b"x")
    (folder / "Raw" / "Thumbs.db").write_bytes(b"x")
    return folder


class Extracted(NamedTuple):
    folder: Path
    store: Path
    printed: Outcome
    manifest: FeatureManifest
    by_split: dict[Split, Utterances]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    folder = write_folder(tmp_path_factory.mktemp("source") / "clips")
    path = tmp_path_factory.mktemp("store") / "store"
    printed = lnln("extract", folder, "--corpus", "forty", store=path, as_json=False, LNLN_DASK="local")
    assert printed.code == 0, printed.err
    store = Store(path)
    manifest = read_features(store, "forty")
    by_split = {split: read_split(store, manifest, split) for split in manifest.splits}
    return Extracted(folder, path, printed, manifest, by_split)


def test_what_was_met_is_counted(extracted: Extracted) -> None:
    assert extracted.manifest.extraction is not None
    counts = dict(extracted.manifest.extraction.counts)
    frames = {m: sum(int(rows.lengths()[m].sum()) for rows in extracted.by_split.values()) for m in MODALITIES}
    assert counts.pop("audio_frames") == frames["audio"]
    assert counts.pop("vision_frames") == frames["vision"]
    assert counts == COUNTS


def test_every_clip_is_an_utterance_or_in_quarantine(extracted: Extracted) -> None:
    lost = [row.utterance_id for row in read_quarantine(Store(extracted.store), extracted.manifest)]
    kept = [name for rows in extracted.by_split.values() for name in rows.utterance_id]
    with (extracted.folder / "label.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = {f"{row['video_id']}$_${row['clip_id']}" for row in csv.DictReader(file)}
    assert len(listed) == len(CASES)
    assert sorted([*kept, *lost]) == sorted([*listed, *UNLISTED]), "each once"


def test_what_became_of_each_utterance(extracted: Extracted) -> None:
    found = {}
    for split, rows in extracted.by_split.items():
        for index, name in enumerate(rows.utterance_id):
            lacks = " ".join(m for m in MODALITIES if not rows.lengths()[m][index])
            label = None if np.isnan(rows.label[index]) else float(rows.label[index])
            found[name] = (split, lacks, rows.raw_text[index], label)
    assert found == {
        case.utterance_id: (
            case.split,
            case.lacks,
            case.text.strip() or None,
            float(case.label) if case.label else None,
        )
        for case in CASES
        if case.lost is None
    }
    assert [split for split in STORED_SPLITS if split in extracted.by_split] == list(extracted.by_split)


def test_no_frame_is_lost_or_made_up(extracted: Extracted) -> None:
    lengths = {
        name: (int(rows.lengths()["audio"][index]), int(rows.lengths()["vision"][index]))
        for rows in extracted.by_split.values()
        for index, name in enumerate(rows.utterance_id)
    }
    # 0.5 s: 22 frames of 512 samples at 22,050 Hz, one more where a codec adds to its end; 5 pictures.
    for name in ("mp4", "mkv", "mov", "webm", "avi", "stereo", "surround", "rotated", "face-leaves", "two-files"):
        audio, vision = lengths[f"v$_${name}"]
        assert audio in (22, 23) and vision == 5, name
    assert lengths["v$_$vfr"][1] == 8, "the last picture begins at 0.7 s"
    for name in ("cut", "cut-mp4"):
        audio, vision = lengths[f"v$_${name}"]
        assert 40 < audio < 110 and 10 < vision < 25, name


def test_the_quarantine_table(extracted: Extracted) -> None:
    rows = read_quarantine(Store(extracted.store), extracted.manifest)
    expected = {case.utterance_id: case.lost for case in CASES if case.lost is not None}
    expected |= dict.fromkeys(UNLISTED, ("table", re.escape("not in label.csv")))
    assert [row.utterance_id for row in rows] == sorted(expected)
    for row in rows:
        stage, reason = expected[row.utterance_id]
        assert row.stage == stage and re.fullmatch(reason, row.reason), row
        assert str(extracted.folder) not in row.reason and "0x" not in row.reason, row


def test_quarantine_is_printed_and_on_the_card(extracted: Extracted) -> None:
    rows = read_quarantine(Store(extracted.store), extracted.manifest)
    assert extracted.manifest.extraction is not None
    entry = extracted.manifest.extraction.quarantine
    assert entry is not None and entry.num_rows == len(rows) == 21
    lines = extracted.printed.out.splitlines()
    for row in rows[:20]:
        assert any(line.split() == [*row.utterance_id.split(), row.stage, *row.reason.split()] for line in lines), row
    assert f"and 1 more; all 21 that are not in the corpus are in {extracted.store}/{entry.path}" in lines
    card = (extracted.store / extracted.manifest.folder / "README.md").read_text()
    for row in rows[:20]:
        assert f"| `{row.utterance_id}` | `{row.stage}` |" in card, row
    for line in lines, card.splitlines():
        assert any(re.fullmatch(r"[| ]*clips quarantined[| ]+18 of 52[| ]*", text) for text in line)
    assert "21 clips or files are not among the utterances (4 at `decode`" in card
    assert Path(entry.path).name in card


def test_a_second_run_does_nothing(extracted: Extracted) -> None:
    before = times(extracted.store)
    again = lnln("extract", extracted.folder, "--corpus", "forty", store=extracted.store).json
    assert times(extracted.store) == before
    assert again["feature_id"] == extracted.manifest.feature_id
    assert {name: again["extraction"]["counts"][name] for name in COUNTS} == COUNTS
    stored = read_quarantine(Store(extracted.store), extracted.manifest)
    assert again["quarantine"] == [vars(row) for row in stored]


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_was_stored_is_verified(extracted: Extracted) -> None:
    checked = lnln("verify", "forty", store=extracted.store).json
    assert checked["feature shards"] == sum(len(entry.shards) for entry in extracted.manifest.splits.values())


def test_a_folder_without_a_usable_clip_is_refused(extracted: Extracted, tmp_path: Path) -> None:
    raw = tmp_path / "clips" / "Raw" / "v"
    raw.mkdir(parents=True)
    (raw / "1.mp4").write_bytes(b"no film")
    (raw / "2.mp4").touch()
    (raw.parents[1] / "label.csv").write_text(f"{','.join(LABELS)}\nv,1,good,1,,train\nv,2,,,,\nv,3,bad,-1,,test\n")
    store = tmp_path / "store"
    refusal = lnln("extract", raw.parents[1], "--corpus", "none", store=store).refusal
    assert re.search(r"no clip of \S+/clips can be used \(v\$_\$\d: file: ", refusal)
    for name, reason in ("1", "cannot be opened"), ("2", "Raw/v/2.mp4 is empty"), ("3", "there is no Raw/v/3"):
        assert f"v$_${name}: file: {reason}" in refusal
    assert not times(store)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store and a run in it, of one epoch on drawn clips of which 5 pictures a second were looked at."""
    store = tmp_path_factory.mktemp("drawn") / "store"
    manifest = lnln("extract", "sample", "--corpus", "drawn", "--set=vision.rate_hz=5", store=store).json
    assert manifest["extraction"]["counts"]["clips_quarantined"] == 0 and manifest["quarantine"] == []
    run = lnln("train", "drawn", *TINY, "--set=train.epochs=1", store=store).json
    return store, str(run["run_id"])


def test_a_prediction_says_what_a_clip_lacks(trained: tuple[Path, str], tmp_path: Path) -> None:
    store, run = trained
    clips = {name: tmp_path / name for name in ("whole.mkv", "sound.wav", "picture.mp4", "leaves.mov", "broken.mp4")}
    FILM(clips["whole.mkv"])
    sound()(clips["sound.wav"])
    film(sound=None)(clips["picture.mp4"])
    film(draw=leaving)(clips["leaves.mov"])
    clips["broken.mp4"].write_bytes(b"no film")
    said = [f"--transcript={text}" for text in ("a wonderful movie", "a wonderful movie", "a wonderful movie", "", "?")]
    answer = lnln("predict", run, *clips.values(), *said, store=store).json
    rows = {Path(row["input"]).name: row for row in answer["predictions"]}
    assert list(rows) == ["whole.mkv", "sound.wav", "picture.mp4", "leaves.mov"]
    assert {name: row["missing"] for name, row in rows.items()} == {
        "whole.mkv": [],
        "sound.wav": ["vision"],
        "picture.mp4": ["audio"],
        "leaves.mov": ["text"],
    }
    assert {name: row["notes"] for name, row in rows.items()} == {
        "whole.mkv": [],
        "sound.wav": ["no picture"],
        "picture.mp4": ["no sound track"],
        "leaves.mov": ["no transcript", "no face in 1 of 3 vision frames"],
    }
    assert all(-3 <= row["sentiment"] <= 3 for row in rows.values())
    assert len({row["sentiment"] for row in rows.values()}) == 4, "what is missing makes a difference"
    [lost] = answer["quarantine"]
    assert lost["utterance_id"] == str(clips["broken.mp4"]) and lost["stage"] == "file"


def test_real_clips(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder = real_clip("Oz06ZWiO20M/6.mp4").parents[2]
    extracted = lnln("extract", folder, "--corpus", "clips", store=tmp_path / "store").json
    counts = extracted["extraction"]["counts"]
    assert extracted["quarantine"] == [] and counts["clips"] == counts["clips_extracted"] == 4
    assert counts["clips_without_text"] == counts["clips_without_label"] == counts["clips_without_vision"] == 1
    assert counts["clips_without_audio"] == counts["clips_without_face"] == 0
    assert counts["vision_frames_without_face"] < 0.1 * counts["vision_frames"]
    assert {split: entry["num_utterances"] for split, entry in extracted["splits"].items()} == dict.fromkeys(
        STORED_SPLITS, 1
    )
    store, run = trained
    names = ("Oz06ZWiO20M/6.mp4", "03bSnISJMiM/1.wav", "ravdess_actor01/1.mp4", "interview/1.mp4")
    said = [f"--transcript={text}" for text in ("a really ambitious failure", "really good", "kids are talking", "")]
    answer = lnln("predict", run, *(folder / "Raw" / name for name in names), *said, store=store).json
    assert "quarantine" not in answer
    assert [row["missing"] for row in answer["predictions"]] == [[], ["vision"], [], ["text"]]
    assert [row["notes"][:1] for row in answer["predictions"]][1::2] == [["no picture"], ["no transcript"]]
