"""Section `extract` of `make bench`: on a few clips, and that its baseline is given the same clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.performance.extract import CORPUS, measure_extract
from benchmarks.performance.file_clip import FileClip, take_apart
from lnln.data.manifest import read_features
from lnln.data.store import Store
from pipelines.clips.decode import open_clip
from pipelines.clips.sample import write_sample_clips


@pytest.mark.slow
def test_the_whole_section_on_six_clips(tmp_path: Path) -> None:
    comparisons = measure_extract(tmp_path, 1, 6, with_dask=False)
    assert [comparison.name for comparison in comparisons] == [
        "clips to feature shards, one core",
        "decode alone",
        "audio alone",
        "vision alone",
    ]
    for comparison in comparisons:
        assert comparison.amount == 6 and comparison.ours.seconds[0] > 0 and comparison.baselines[0].seconds[0] > 0
    manifest = read_features(Store(str(tmp_path / "store")), CORPUS)
    assert manifest.extraction is not None and manifest.extraction.counts["clips_extracted"] == 6
    assert len(list((tmp_path / "files").glob("*/sound.wav"))) == 6  # and the baseline did its work too


def test_the_baseline_sees_and_hears_what_ours_does(tmp_path: Path) -> None:
    write_sample_clips(tmp_path, 6)
    path = min((tmp_path / "Raw").glob("*/*.mp4"))
    apart = tmp_path / "apart"
    apart.mkdir()
    theirs = FileClip(apart, take_apart(path.read_bytes(), apart))
    with open_clip(path.read_bytes(), "clip.mp4", max_seconds=60) as ours:
        pictures, others = list(ours.pictures(10, 160)), list(theirs.pictures(10, 160))
        sound, other_sound = ours.sound(22_050), theirs.sound(22_050)
    assert abs(len(pictures) - len(others)) <= 1 and pictures[0].image.shape == others[0].image.shape
    for one, other in zip(pictures, others, strict=False):
        assert np.abs(one.image.astype(int) - other.image).mean() < 8
    assert abs(len(sound) - len(other_sound)) < 2205
    num = min(len(sound), len(other_sound))
    assert np.corrcoef(sound[:num], other_sound[:num])[0, 1] > 0.95
