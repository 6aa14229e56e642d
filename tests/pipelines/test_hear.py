"""Clips that are heard by a provider: joined to their utterances, and one that cannot be heard costs itself alone."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.data.manifest import read_features
from lnln.data.simulated_shards import read_simulated_shard
from lnln.data.simulated_text import load_simulator, read_simulation
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines import hear as hear_module
from pipelines import simulate as simulate_module
from pipelines.clips.extract_rows import Limits
from pipelines.extract import extract_corpus
from pipelines.extractors.config import load_extract_config
from pipelines.hear import find_clips
from pipelines.isolate import for_this_process
from pipelines.simulate import simulate
from pipelines.simulators import choose
from pipelines.simulators.recognition import Simulator
from tests.clips import tone, write_clip
from tests.pipelines.simulators.tiny_models import save_ctc

NAMES = ["v$_$1", "v$_$2", "v$_$3", "w$_$1", "w$_$2"]


@pytest.fixture(scope="module")
def knobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("ctc") / "model"
    save_ctc(folder)
    return {"model": str(folder), "text_encoder": "tiny"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Five clips, extracted; the second has no sound."""
    folder = tmp_path / "clips"
    lines = ["video_id,clip_id,text,label,mode"]
    for number, name in enumerate(NAMES):
        video, clip = name.split("$_$")
        path = folder / "Raw" / video / f"{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = None if number == 1 else tone(0.5 + 0.1 * number, hz=300 + 100 * number)
        write_clip(path, seconds=0.5, sound=sound)
        lines.append(f"{video},{clip},so good {number},{number / 2},{'test' if number == 4 else 'train'}")
    (folder / "label.csv").write_text("\n".join(lines) + "\n")
    store = Store(tmp_path / "store")
    config = load_extract_config(None, ["vision.name=none"])
    extract_corpus(store, str(folder), "clips", config, limits=Limits(is_isolated=False))
    return store


@pytest.fixture(autouse=True)
def _here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a child process, but for the tests that are about it."""
    if request.node.get_closest_marker("slow"):
        return

    monkeypatch.setattr(simulate_module, "find_clips", partial(find_clips, limits=Limits(is_isolated=False)))


def test_clips_become_steps_with_their_words(store: Store, tmp_path: Path, knobs: dict[str, Any]) -> None:
    provider = choose("recognition", knobs)
    made = simulate(store, "clips", provider, clips=str(tmp_path / "clips")).simulation
    assert made.counts == {
        "utterances": 5,
        "utterances_failed": 0,
        "utterances_without_audio": 1,
        "utterances_without_clip": 0,
        "utterances_without_words": 0,
    }
    assert made.dim == 32 and made.files == {} and made.provider["clips"]["num_clips"] == 5
    rows = read_simulated_shard(store, made.splits["train"].shards[0], 32)
    assert rows.utterance_id == NAMES[:4] and rows.raw_text is not None
    assert rows.raw_text[1] is None and rows.steps.lengths[1] == 0
    assert all(rows.raw_text[row] and rows.steps.lengths[row] > 2 for row in (0, 2, 3))
    assert made == read_simulation(store, "clips", read_features(store, "clips").feature_id)
    assert simulate(store, "clips", provider, clips=str(tmp_path / "clips")).was_there
    with pytest.raises(RefusedError, match="hears the sound of a clip"):
        load_simulator(store, made)
    # Other clips are other simulated text; where they lie is not.
    moved = tmp_path / "moved"
    (tmp_path / "clips").rename(moved)
    assert simulate(store, "clips", provider, clips=str(moved)).was_there
    write_clip(moved / "Raw" / "v" / "1.mp4", seconds=0.5, sound=tone(0.7))
    assert simulate(store, "clips", provider, clips=str(moved)).simulation.simulation_id != made.simulation_id


def test_a_clip_that_cannot_be_heard_costs_itself_alone(
    store: Store,
    tmp_path: Path,
    knobs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "clips" / "Raw" / "v" / "1.mp4").write_bytes(b"no media at all")
    (tmp_path / "clips" / "Raw" / "w" / "2.mp4").unlink()
    original = Simulator.simulate

    def sometimes(self: Any, clip: Any) -> Any:
        said = original(self, clip)
        if "3.mp4" in clip.name:
            return replace(said, steps=np.full_like(said.steps, np.nan))
        return said

    monkeypatch.setattr(Simulator, "simulate", sometimes)
    made = simulate(store, "clips", choose("recognition", knobs), clips=str(tmp_path / "clips")).simulation
    assert made.counts["utterances_failed"] == 2 and made.counts["utterances_without_clip"] == 1
    assert made.lengths["test"].num_absent == 1 and made.lengths["train"].num_absent == 3
    assert "2 utterances could not be simulated and have no steps, the first: v$_$1" in caplog.text


def test_other_clips_are_refused(store: Store, tmp_path: Path, knobs: dict[str, Any]) -> None:
    other = tmp_path / "other"
    (other / "Raw" / "x").mkdir(parents=True)
    write_clip(other / "Raw" / "x" / "1.mp4", seconds=0.5)
    (other / "label.csv").write_text("video_id,clip_id,text,label\nx,1,hm,0\n")
    provider = choose("recognition", knobs)
    with pytest.raises(RefusedError, match=r"none of the 1 clips of .* is one of the 5 utterances of corpus 'clips'"):
        simulate(store, "clips", provider, clips=str(other))
    with pytest.raises(RefusedError, match=r"label\.csv"):
        simulate(store, "clips", provider, clips=str(tmp_path / "absent"))


@pytest.mark.slow
def test_a_clip_that_kills_the_process_that_hears_it(store: Store, tmp_path: Path, knobs: dict[str, Any]) -> None:
    """In a child process, which is killed while it hears; the clip is tried once more, and then given up."""
    provider = choose("recognition", knobs)
    heard: list[int] = []
    original = hear_module._heard

    def kill_once(*arguments: Any) -> Any:
        child = for_this_process()._child
        if child is not None and not heard:
            heard.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hear_module, "_heard", kill_once)
        made = simulate(store, "clips", provider, clips=str(tmp_path / "clips")).simulation
    assert heard and made.counts["utterances_failed"] == 0 and made.counts["utterances_without_audio"] == 1
