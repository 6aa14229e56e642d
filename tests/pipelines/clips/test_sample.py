from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.clips.decode import open_clip
from pipelines.clips.sample import write_sample_clips
from pipelines.clips.table import ClipRow, read_clip_table
from pipelines.extractors import load
from pipelines.extractors.config import ClipConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clips")
    write_sample_clips(made, num_clips=6)
    return made


def rows(folder: Path) -> tuple[ClipRow, ...]:
    table = read_clip_table(Store(str(folder)), ClipConfig())
    assert not table.problems and not table.unlisted
    return tuple(table.rows)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }


def test_the_list_is_one_that_extraction_reads(folder: Path) -> None:
    clips = rows(folder)
    assert len(clips) == 6
    assert Counter(clip.split for clip in clips) == {"train": 3, "valid": 1, "test": 1, "unassigned": 1}
    assert [clip.utterance_id for clip in clips][:5:4] == ["sample000$_$1", "sample001$_$1"]
    *labelled, last = clips
    assert (last.text, last.label, last.split) == (None, None, "unassigned")
    assert len({clip.label for clip in labelled}) == 5  # no two alike, so that there is something to learn
    for clip in labelled:
        assert clip.text and clip.label is not None and -3 <= clip.label <= 3
        assert ("wonderful" in clip.text) == (clip.label == 3)
        assert ("terrible" in clip.text) == (clip.label == -3)


def test_faces_are_found_but_for_the_clip_of_noise(folder: Path) -> None:
    extractor = load("vision", "face")
    mouth = list(extractor.columns).index("motion_mouth")
    for number, clip in enumerate(rows(folder)):
        data = (folder / clip.files[0].path).read_bytes()
        with open_clip(data, clip.utterance_id, max_seconds=60) as decoded:
            assert 1.5 <= decoded.seconds <= 3.1
            assert decoded.has_sound and decoded.has_picture
            features = extractor.extract(decoded)
        if number == 4:
            assert features.counts["clips_without_face"] == 1
        else:
            assert features.values[:, 0].mean() >= 0.9
            assert features.counts["frames_with_several_faces"] == 0
            assert features.values[1:, mouth].mean() > 0.1


def test_the_mouth_is_open_where_the_sound_is_loud(folder: Path) -> None:
    extractor = load("vision", "face", {"rate_hz": 25})
    clip = rows(folder)[0]
    with open_clip((folder / clip.files[0].path).read_bytes(), "1", max_seconds=60) as decoded:
        features, sound = extractor.extract(decoded), decoded.sound(16_000)
    light = features.values[:, list(extractor.columns).index("light_mouth")]
    loudness = [np.abs(sound[round(time * 16_000) :][:640]).mean() for time in features.times]
    assert np.corrcoef(light, loudness)[0, 1] < -0.5
    assert 0.3 < np.abs(sound).max() < 0.6
    assert np.abs(sound[: 16_000 // 10]).max() < 0.1 * np.abs(sound).max()  # silent at first


@pytest.mark.slow
def test_equal_arguments_give_equal_clips(folder: Path, tmp_path: Path) -> None:
    write_sample_clips(tmp_path / "again", num_clips=6)
    assert digests(tmp_path / "again") == digests(folder)
    write_sample_clips(tmp_path / "other", num_clips=6, seed=1)
    assert not set(digests(tmp_path / "other").values()) & set(digests(folder).values())


def test_what_is_there_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    before = digests(folder)
    with pytest.raises(RefusedError, match="must be a new or an empty folder"):
        write_sample_clips(folder)
    assert digests(folder) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match="must be a new or an empty folder"):
        write_sample_clips(tmp_path / "file")


def test_too_few_clips(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="at least 6 clips, got 5"):
        write_sample_clips(tmp_path / "few", num_clips=5)
    assert not (tmp_path / "few").exists()
