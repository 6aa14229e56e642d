"""Clips become utterances: what is wrong with one costs that one; what is wrong with the machine is refused."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.data.manifest import Tokenizer
from lnln.data.wordpiece import UNCASED
from lnln.errors import RefusedError
from pipelines.clips import extract_rows as module
from pipelines.clips.extract_clip import COUNTS, ExtractorSet, RawClip, extract_clip, plain_reason
from pipelines.clips.extract_rows import Limits, describe, extract_rows
from pipelines.clips.word_times import Word
from pipelines.extractors import load
from pipelines.extractors.base import Clip, ClipError, Features
from pipelines.extractors.config import ClipConfig, ExtractConfig, load_extract_config
from pipelines.steps import told
from tests.clips import tone, truncated, write_clip

TEXT_ONLY = ["audio.name=none", "vision.name=none"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Half a second of picture and sound."""
    return write_clip(tmp_path_factory.mktemp("clips") / "1.mp4", seconds=0.5).read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clips") / "1.wav", size=None, sound=tone(0.3)).read_bytes()


def clip(name: str, data: bytes, text: str | None = "good movie", **more: Any) -> RawClip:
    return RawClip(name, text, ((f"{name}.mp4", data),), **more)


class Frames:
    """An extractor whose frames are `values`, a tenth of a second each."""

    rate_hz = 10.0

    def __init__(self, values: Any, counts: dict[str, int] | None = None) -> None:
        self.values = np.array(values, np.float32)
        self.columns = [f"x{i}" for i in range(self.values.shape[1])]
        self.counts = counts or {}

    def extract(self, clip: Clip) -> Features:
        return Features(self.values, np.arange(len(self.values)) / 10 + 0.05, self.counts)


class Failing(Frames):
    """Raises what it is given."""

    def __init__(self, error: Exception) -> None:
        super().__init__([[0.0]])
        self.error = error

    def extract(self, clip: Clip) -> Features:
        raise self.error


@pytest.fixture(scope="module")
def wordpiece() -> Any:
    return load("text", "wordpiece")


def extractors(text: Any, audio: Any = None, vision: Any = None) -> ExtractorSet:
    return ExtractorSet(text, audio or Frames([[1.0]]), vision or Frames([[1.0]]), ClipConfig(), {}, "")


def test_utterances_keep_the_order_and_what_the_list_says(film: bytes, sound: bytes) -> None:
    clips = [
        clip("a", film, "a great film", label=2.5, modality_labels={"text": 1.0, "vision": None}),
        clip("bad", b"this is no media file"),
        clip("b", sound, None),
        clip("empty", b""),
    ]
    steps: list[int] = []
    with told(lambda: steps.append(1)):
        made = extract_rows(load_extract_config(None, TEXT_ONLY), clips, Limits(), labelled=("text", "vision"))
    assert len(steps) == 4
    utterances = made.utterances
    assert utterances is None or utterances.utterance_id == ["a"]
    assert utterances is not None and utterances.raw_text == ["a great film"] and utterances.label.tolist() == [2.5]
    assert utterances.modality_labels["text"].tolist() == [1.0] and np.isnan(utterances.modality_labels["vision"]).all()
    assert utterances.text[0][0] == UNCASED.cls_id and utterances.text[0][-1] == UNCASED.sep_id
    assert utterances.audio.values.shape == (0, 1) and utterances.audio.values.dtype == np.float32
    assert [(row.utterance_id, row.stage) for row in made.quarantine] == [
        ("bad", "file"),
        ("b", "decode"),
        ("empty", "file"),
    ]
    assert made.quarantine[1].reason == "neither text nor audio nor vision came of it"
    assert set(made.counts) == {"a"} and set(COUNTS) <= set(made.counts["a"])
    assert made.counts["a"]["clips_extracted"] == 1 and made.counts["a"]["clips_without_label"] == 0
    assert made.cleaned == {m: {"num_nan": 0, "num_infinite": 0} for m in ("audio", "vision")}


def test_no_clips() -> None:
    made = extract_rows(load_extract_config(None, TEXT_ONLY), [], Limits())
    assert made.utterances is None and made.quarantine == () and made.counts == {}


def program(folder: Path, does: str) -> str:
    """A program to stand where OpenFace is called."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_clip_that_kills_the_process_costs_only_itself(film: bytes, sound: bytes, tmp_path: Path) -> None:
    """The program is called for clips with a picture, and kills who called it; each time, since it is tried twice."""
    binary = program(tmp_path, f"echo once >> {tmp_path}/calls; kill -9 $PPID; sleep 5")
    config = load_extract_config(None, ["audio.name=none", "vision.name=openface", f"vision.binary={binary}"])
    clips = [clip("a", sound), clip("killer", film), clip("b", sound)]
    made = extract_rows(config, clips, Limits())
    assert made.utterances is not None and made.utterances.utterance_id == ["a", "b"]
    (lost,) = made.quarantine
    assert (lost.utterance_id, lost.stage) == ("killer", "vision") and "was ended by SIGKILL" in lost.reason
    assert (tmp_path / "calls").read_text() == "once\n" * 2


def test_a_clip_that_kills_the_process_by_accident_is_tried_again(film: bytes, tmp_path: Path) -> None:
    """As when another process had taken the memory; the second time it is what it is."""
    binary = program(tmp_path, f"mkdir {tmp_path}/seen || exit 3; kill -9 $PPID; sleep 5")
    config = load_extract_config(None, ["audio.name=none", "vision.name=openface", f"vision.binary={binary}"])
    (lost,) = extract_rows(config, [clip("a", film)], Limits()).quarantine
    assert lost.stage == "vision" and "SIGKILL" not in lost.reason and "OpenFace" in lost.reason


TOO_LONG = "took longer than 1 seconds; clips.timeout_seconds allows another time"


def test_a_clip_that_hangs_costs_only_itself_and_its_time(film: bytes, sound: bytes, tmp_path: Path) -> None:
    binary = program(tmp_path, f"echo once >> {tmp_path}/calls; sleep 30")
    knobs = ["audio.name=none", "vision.name=openface", f"vision.binary={binary}", "clips.timeout_seconds=1"]
    made = extract_rows(load_extract_config(None, knobs), [clip("slow", film), clip("b", sound)], Limits())
    assert made.utterances is not None and made.utterances.utterance_id == ["b"]
    (lost,) = made.quarantine
    assert (lost.utterance_id, lost.stage, lost.reason) == ("slow", "vision", TOO_LONG)
    assert (tmp_path / "calls").read_text() == "once\n"


@pytest.mark.parametrize("is_isolated", [True, False])
def test_what_the_machine_lacks_is_refused(film: bytes, is_isolated: bool) -> None:
    config = load_extract_config(None, ["audio.name=none", "vision.name=openface", "vision.binary=/nowhere/OpenFace"])
    limits = Limits(is_isolated=is_isolated)
    with pytest.raises(RefusedError, match=r"vision\.binary=/nowhere/OpenFace is no program here"):
        describe(config, limits)
    with pytest.raises(RefusedError, match=r"vision\.binary=/nowhere/OpenFace is no program here"):
        extract_rows(config, [clip("a", film)], limits)


def die(config: ExtractConfig) -> None:
    os._exit(3)


def test_extractors_that_end_the_process_when_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_describe", die)
    with pytest.raises(RefusedError, match="the extractors could not be made: the process exited with 3"):
        describe(load_extract_config(None, TEXT_ONLY), Limits())


@pytest.mark.parametrize("stage", ["text", "audio", "vision"])
def test_an_extractor_that_fails_costs_the_clip(film: bytes, wordpiece: Any, stage: str) -> None:
    failing = Failing(KeyError("no <object at 0x7f11aabb>\nhere"))
    if stage == "text":
        made = extractors(type("Tokenizes", (), {"encode": lambda *_: dict[str, str]()["no such key"]})())
    else:
        made = extractors(wordpiece, **{stage: failing})
    with pytest.raises(ClipError) as error:
        extract_clip(made, clip("a", film))
    assert error.value.stage == stage and error.value.reason.startswith("KeyError: ")
    assert "0x7f" not in error.value.reason and "\n" not in error.value.reason


def test_an_extractor_that_refuses_ends_it(film: bytes, wordpiece: Any) -> None:
    with pytest.raises(RefusedError, match="the weights are gone"):
        extract_clip(extractors(wordpiece, vision=Failing(RefusedError("the weights are gone"))), clip("a", film))


def test_a_full_disk_is_no_fault_of_the_clip(film: bytes, wordpiece: Any, tmp_path: Path) -> None:
    full = Failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x")))
    with pytest.raises(
        RefusedError, match=r"no clip can be worked on here: .*No space left on device.*run the command"
    ):
        extract_clip(extractors(wordpiece, audio=full), clip("a", film))


def test_values_that_are_not_finite_are_set_to_0_and_counted(film: bytes, wordpiece: Any) -> None:
    values = [[1.0, np.nan], [np.inf, -np.inf], [1.0, 2.0], [3.0, 4.0]]
    made = extract_clip(extractors(wordpiece, audio=Frames(values)), clip("a", film))
    assert made.audio.tolist() == [[1, 0], [0, 0], [1, 2], [3, 4]] and made.audio.dtype == np.float32
    assert made.cleaned == {"audio": (1, 2), "vision": (0, 0)}


@pytest.mark.parametrize("values", [[[np.nan]], [[1.0, np.nan]], [[np.inf, 1.0], [-np.inf, 2.0]]])
def test_values_of_which_half_are_not_finite_cost_the_clip(film: bytes, wordpiece: Any, values: Any) -> None:
    with pytest.raises(ClipError, match=r"vision: \d of \d values are NaN or infinite"):
        extract_clip(extractors(wordpiece, vision=Frames(values)), clip("a", film))


def test_counts_have_the_names_of_the_manifest(film: bytes, sound: bytes, wordpiece: Any) -> None:
    vision = Frames([[1.0]] * 3, {"frames": 7, "frames_without_face": 2, "clips_without_face": 1})
    counts = extract_clip(extractors(wordpiece, vision=vision), clip("a", film)).counts
    assert counts["vision_frames"] == 3 and counts["vision_frames_without_face"] == 2
    assert counts["clips_without_face"] == 1 and counts["audio_frames"] == 1
    assert counts["clips_without_audio"] == counts["clips_without_vision"] == 0
    assert extract_clip(extractors(wordpiece), clip("a", sound)).counts["clips_without_vision"] == 1
    without = extract_clip(extractors(wordpiece), clip("a", film, " \n"))
    assert without.counts["clips_without_text"] == 1 and len(without.text) == 0


def test_a_truncated_clip_is_used_and_counted(film: bytes, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "1.mkv", seconds=1.0)
    cut = truncated(path, 0.3, tmp_path / "2.mkv").read_bytes()
    config = load_extract_config(None, ["vision.name=none"])
    made = extract_rows(config, [clip("a", cut), clip("b", path.read_bytes())], Limits())
    assert made.counts["a"]["clips_truncated"] == 1 and made.counts["b"]["clips_truncated"] == 0
    assert 0 < made.counts["a"]["audio_frames"] < made.counts["b"]["audio_frames"]


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("film", "sound"), "film"),
        (("sound", "film"), "film"),
        (("silent", "sound"), "silent"),
        (("sound", "sound"), "sound"),
    ],
)
def test_of_several_files_the_one_with_a_picture(
    film: bytes, sound: bytes, tmp_path: Path, wordpiece: Any, names: tuple[str, str], taken: str
) -> None:
    silent = write_clip(tmp_path / "s.mp4", seconds=0.3, sound=None).read_bytes()
    data = {"film": film, "sound": sound, "silent": silent}
    seen: list[str] = []

    class Looking(Frames):
        def extract(self, clip: Clip) -> Features:
            seen.append(clip.name)
            return super().extract(clip)

    files = tuple((f"{name}{i}", data[name]) for i, name in enumerate(names))
    extract_clip(extractors(wordpiece, audio=Looking([[1.0]])), RawClip("a", "x", files))
    assert seen == [next(name for name, _ in files if name.startswith(taken))]


def test_of_several_files_a_damaged_one_is_said(film: bytes, sound: bytes, wordpiece: Any) -> None:
    """The picture may have been in it."""
    with pytest.raises(ClipError, match=r"file: .*"):
        extract_clip(extractors(wordpiece), RawClip("a", "x", (("1.mp4", b"junk"), ("1.wav", sound))))


def test_alignment_makes_all_three_as_long(film: bytes, wordpiece: Any) -> None:
    words = (Word("unbelievably", 0.0, 0.1), Word("good", 0.1, 0.2), Word("late", 7.0, 8.0))
    made = extract_clip(
        extractors(wordpiece, audio=Frames([[1.0], [2.0], [3.0]]), vision=Frames(np.zeros((0, 4)))),
        clip("a", film, "unbelievably good late", words=words),
    )
    assert len(made.text) == len(made.audio) > 5 and made.vision.shape == (0, 4)
    assert made.audio[[0, 1, -3, -2, -1], 0].tolist() == [0, 1, 2, 0, 0]
    assert made.counts["audio_words_without_frames"] == 1 and made.counts["audio_frames"] == 3


def test_a_reason_says_nothing_that_changes() -> None:
    folder = tempfile.gettempdir()
    text = f"cannot read {folder}/tmpab12/deep er/clip.mp4: <X at 0x7f00FF>\n\nnow"
    assert plain_reason(f"cannot read {folder}/tmpab12/deeper/clip.mp4: <X at 0x7f00FF>\n\nnow") == (
        "cannot read clip.mp4: <X at 0x…> now"
    )
    assert "0x7f" not in plain_reason(text)
    assert len(plain_reason("x" * 5000)) == 300


def test_records_and_clips_can_be_sent(film: bytes) -> None:
    config = load_extract_config(None, TEXT_ONLY)
    made = describe(config, Limits())
    assert pickle.loads(pickle.dumps(made)) == made and isinstance(made.tokenizer, Tokenizer)
    assert made.dims == {"audio": 1, "vision": 1} and made.decoder.startswith("av ")
    assert made.records["text"]["name"] == "wordpiece"
    assert describe(config, Limits(is_isolated=False)) == made


@pytest.mark.slow
def test_isolation_changes_no_value(film: bytes, sound: bytes) -> None:
    """Nor does what the process did before."""
    config = load_extract_config(None, ["vision.name=none"])
    made = extract_rows(config, [clip("a", film), clip("b", sound)], Limits())
    direct = extract_rows(config, [clip("b", sound)], Limits(is_isolated=False))
    assert made.utterances is not None and direct.utterances is not None
    np.testing.assert_array_equal(made.utterances.audio[1], direct.utterances.audio[0])
    assert made.utterances.audio.values.shape[1] == 33
