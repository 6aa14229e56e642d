"""Predictions for raw clips: made by the model's own extractors or refused, and what was missing is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from lnln.data.manifest import FeatureManifest
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.model_store import publish, pull
from lnln.predict import Predictor
from pipelines.clips import predict as predict_clips
from pipelines.clips.extract_rows import Limits
from pipelines.clips.predict import clip_notes, is_clip, predict
from pipelines.extract import extract_corpus
from pipelines.extractors.config import load_extract_config
from tests.clips import truncated, write_clip
from tests.finished_run import finished_run, small_corpus

HERE = Limits(is_isolated=False)
# Of extractors that are ready at once: no sound, and the faces that these clips do not have.
CONFIG = load_extract_config(overrides=["audio.name=none", "vision.rate_hz=5"])


class ClipModel(NamedTuple):
    """A store with the corpus `clips`, the folder it was extracted from, and a model of it."""

    store: Store
    folder: Path
    manifest: FeatureManifest
    model: str

    @property
    def clip(self) -> str:
        return str(self.folder / "Raw" / "v" / "test.mp4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, FeatureManifest, str]:
    folder = tmp_path_factory.mktemp("clips")
    rows = ["video_id,clip_id,text,label,annotation,mode"]
    for split in ("train", "valid", "test"):
        (folder / "Raw" / "v").mkdir(parents=True, exist_ok=True)
        write_clip(folder / "Raw" / "v" / f"{split}.mp4", seconds=0.8)
        rows.append(f"v,{split},a good {split} movie,0.5,,{split}")
    (folder / "label.csv").write_text("\n".join(rows))
    store = Store(tmp_path_factory.mktemp("store"))
    manifest = extract_corpus(store, str(folder), "clips", CONFIG, limits=HERE)
    return Path(store.url), folder, manifest, finished_run(store, manifest)


@pytest.fixture
def of_clips(
    made: tuple[Path, Path, FeatureManifest, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ClipModel:
    store, folder, manifest, model = made
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    return ClipModel(Store(store), folder, manifest, model)


@pytest.fixture
def changed(of_clips: ClipModel, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], str]:
    """A folder of the model, its features.json as a function leaves it."""
    publish(of_clips.store, of_clips.model, "clips-lnln")

    def change(function: Callable[[dict[str, Any]], None]) -> str:
        folder = pull(of_clips.store, "clips-lnln", tmp_path / "pulled")
        (folder / "manifest.json").unlink()
        features = json.loads((folder / "features.json").read_text())
        function(features)
        (folder / "features.json").write_text(json.dumps(features))
        return str(folder)

    return change


def test_a_clip_is_predicted_as_its_row_of_the_corpus(of_clips: ClipModel) -> None:
    [row], left_out = predict(of_clips.store, of_clips.model, [of_clips.clip], ["a good test movie"], HERE)
    stored = read_split(of_clips.store, of_clips.manifest, "test")
    [known] = Predictor.open(of_clips.store, of_clips.model).predict_utterances(stored)
    assert row["sentiment"] == known.sentiment and row["completeness"] == known.completeness
    assert row["input"] == row["utterance_id"] == of_clips.clip and row["text"] == "a good test movie"
    assert row["missing"] == ["audio", "vision"] and row["label"] is None and left_out == []
    assert row["notes"] == ["no face"]
    assert json.loads(json.dumps(row)) == row


def test_what_a_clip_lacks_is_said(of_clips: ClipModel, tmp_path: Path) -> None:
    silent = str(write_clip(tmp_path / "silent.mkv", seconds=0.5, sound=None))
    [row], _ = predict(of_clips.store, of_clips.model, [silent], ["fine"], HERE)
    assert row["missing"] == ["audio", "vision"]
    assert {"no sound track", "no face"} <= set(row["notes"])
    with pytest.raises(RefusedError, match=r"silent\.mkv, stage decode: neither text nor audio nor vision"):
        predict(of_clips.store, of_clips.model, [silent], [" "], HERE)


def test_the_order_of_inputs_is_kept(of_clips: ClipModel, tmp_path: Path) -> None:
    other = str(write_clip(tmp_path / "other.mkv", seconds=0.5))
    inputs = ["good", of_clips.clip, "bad", other, of_clips.clip]
    rows, _ = predict(of_clips.store, of_clips.model, inputs, ["one", "\udcff", "three words here"], HERE)
    assert [row["input"] for row in rows] == inputs
    assert [row["text"] for row in rows] == ["good", "one", "bad", "?", "three words here"]
    assert len({row["utterance_id"] for row in rows}) == 5
    assert rows[1]["sentiment"] != rows[4]["sentiment"], "the same clip with another transcript"


def test_one_bad_clip_costs_no_other(of_clips: ClipModel, tmp_path: Path) -> None:
    notes, empty = tmp_path / "notes.txt", tmp_path / "empty.mp4"
    notes.write_text("no clip")
    empty.touch()
    rows, left_out = predict(
        of_clips.store, of_clips.model, [str(notes), of_clips.clip, str(empty)], ["", "fine", ""], HERE
    )
    assert [row["input"] for row in rows] == [of_clips.clip] and rows[0]["text"] == "fine"
    assert [row.utterance_id for row in left_out] == [str(notes), str(empty)]
    with pytest.raises(RefusedError, match=r"notes\.txt, stage .*; .*empty\.mp4, stage ") as refusal:
        predict(of_clips.store, of_clips.model, [str(notes), str(empty)], limits=HERE)
    assert "\n" not in str(refusal.value)
    rows, left_out = predict(of_clips.store, of_clips.model, ["a sentence", str(empty)], limits=HERE)
    assert len(rows) == len(left_out) == 1


def test_a_truncated_clip_is_predicted_and_says_so(of_clips: ClipModel, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", seconds=3)
    cut = str(truncated(whole, 0.6, tmp_path / "cut.mkv"))
    [row], _ = predict(of_clips.store, of_clips.model, [cut], ["fine"], HERE)
    assert "the file is truncated or damaged" in row["notes"]


@pytest.mark.parametrize(
    ("num_clips", "transcripts", "said"),
    [
        (2, ["one"], "2 clips and 1 transcripts"),
        (1, ["one", "two"], "1 clips and 2 transcripts"),
        (0, ["one"], "no clip is given"),
    ],
)
def test_transcripts_belong_to_clips(of_clips: ClipModel, num_clips: int, transcripts: list[str], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        predict(of_clips.store, of_clips.model, ["a sentence", *[of_clips.clip] * num_clips], transcripts, HERE)


@pytest.mark.parametrize("text", ["clip.mp4", "/no/such/Clip.WAV", "s3://bucket/clip.mkv"])
def test_a_clip_that_is_not_there_is_no_sentence(of_clips: ClipModel, text: str) -> None:
    with pytest.raises(RefusedError, match=f"there is no clip {text}"):
        predict(of_clips.store, of_clips.model, ["fine", text], limits=HERE)


def test_a_sentence_may_end_like_a_file(of_clips: ClipModel) -> None:
    rows, _ = predict(of_clips.store, of_clips.model, ["I saw the clip.mp4", "mp4", "good"], limits=HERE)
    assert [row["input"] for row in rows] == ["I saw the clip.mp4", "mp4", "good"]
    assert not is_clip("x" * 5000) and not is_clip("a\0b") and not is_clip("")


def test_a_model_of_imported_features_takes_no_clips(
    of_clips: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_clips, "extract_rows", None)  # refused before anything is decoded
    store = Store(tmp_path / "imported")
    model = finished_run(store, small_corpus(store, tmp_path))
    with pytest.raises(RefusedError) as refusal:
        predict(store, model, [of_clips.clip], limits=HERE)
    said = str(refusal.value)
    assert model in said and "audio MMSA layout" in said and "give it sentences, or shards" in said
    assert len(predict(store, model, ["a sentence"])[0]) == 1


def test_another_version_of_an_extractor_is_refused(
    of_clips: ClipModel, changed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_clips, "extract_rows", None)

    def older(features: dict[str, Any]) -> None:
        features["extractors"]["vision"]["version"] = 77

    with pytest.raises(RefusedError, match=r"trained on vision made by face version 77, .* has face version \d"):
        predict(of_clips.store, changed(older), [of_clips.clip], limits=HERE)


def test_other_weights_are_refused(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    def other(features: dict[str, Any]) -> None:
        features["extractors"]["vision"]["sha256"] = {"model.safetensors": "0123456789abcdef"}

    with pytest.raises(RefusedError, match=r"SHA-256 0123456789ab… of model.safetensors, .* no SHA-256 stated"):
        predict(of_clips.store, changed(other), [of_clips.clip], limits=HERE)


def test_other_columns_are_refused(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    def renamed(features: dict[str, Any]) -> None:
        features["extractors"]["vision"]["columns"][3] = "something else"

    with pytest.raises(RefusedError, match="trained on vision by face with columns"):
        predict(of_clips.store, changed(renamed), [of_clips.clip], limits=HERE)


@pytest.mark.parametrize(
    ("section", "value", "said"),
    [
        ("vision", {"name": "gone", "rate_hz": 5}, "'gone'"),
        ("vision", {"name": "face", "no_such_knob": 1}, "no_such_knob"),
        ("audio", {"name": "none", "x": 1}, "audio.x"),
    ],
)
def test_an_extractor_or_a_knob_that_is_not_here_is_refused(
    of_clips: ClipModel, changed: Callable[..., str], section: str, value: dict[str, Any], said: str
) -> None:
    def other(features: dict[str, Any]) -> None:
        features["extraction"][section] = value

    with pytest.raises(RefusedError, match=f"does not have .*vision face version.*{said}"):
        predict(of_clips.store, changed(other), [of_clips.clip], limits=HERE)


def test_features_aligned_to_words_cannot_be_made_of_a_clip_alone(
    of_clips: ClipModel, changed: Callable[..., str]
) -> None:
    def aligned(features: dict[str, Any]) -> None:
        features["extraction"]["clips"]["align"] = "words"

    with pytest.raises(RefusedError, match="aligned to words"):
        predict(of_clips.store, changed(aligned), [of_clips.clip], limits=HERE)


def test_clips_that_were_read_another_way_are_refused(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    def older(features: dict[str, Any]) -> None:
        features["extraction_version"] = 0

    with pytest.raises(RefusedError, match=r"read the way of version 0, this installation .* version 1; use"):
        predict(of_clips.store, changed(older), [of_clips.clip], limits=HERE)


def test_another_decoder_is_a_note(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    def older(features: dict[str, Any]) -> None:
        features["decoded_by"] = "av 0.1"

    [row], _ = predict(of_clips.store, changed(older), [of_clips.clip], ["fine"], HERE)
    assert any(note.startswith("clips are decoded by av ") and "were by av 0.1" in note for note in row["notes"])


def test_a_package_of_another_version_is_a_note(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    def older(features: dict[str, Any]) -> None:
        for package in features["extractors"]["vision"]["packages"]:
            features["extractors"]["vision"]["packages"][package] = "0.1"

    [row], _ = predict(of_clips.store, changed(older), [of_clips.clip], ["fine"], HERE)
    assert any(note.endswith("here and was 0.1 at training") for note in row["notes"])


def test_a_knob_that_came_after_the_model_is_at_its_default(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    def before(features: dict[str, Any]) -> None:
        del features["extraction"]["vision"]["longest_side"]
        del features["extractors"]["vision"]["config"]["longest_side"]

    [row], _ = predict(of_clips.store, changed(before), [of_clips.clip], ["fine"], HERE)
    assert np.isfinite(row["sentiment"])


def test_a_file_that_cannot_be_read_is_said(of_clips: ClipModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_clips, "MAX_FILE_BYTES", 10)
    with pytest.raises(RefusedError, match=r"test\.mp4 has [\d,]+ bytes; cut it into clips of 10 at most"):
        predict(of_clips.store, of_clips.model, [of_clips.clip], limits=HERE)


def test_the_card_of_a_model_has_the_config_that_extracts_for_it(of_clips: ClipModel, tmp_path: Path) -> None:
    publish(of_clips.store, of_clips.model, "clips-lnln")
    card = (pull(of_clips.store, "clips-lnln", tmp_path / "pulled") / "README.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    (tmp_path / "extraction.yaml").write_text(text)
    config = load_extract_config(str(tmp_path / "extraction.yaml"))
    assert config == CONFIG
    again = extract_corpus(of_clips.store, str(of_clips.folder), "again", config, limits=HERE)
    shard = Path(of_clips.store.url) / again.splits["test"].shards[0].path
    assert len(predict(of_clips.store, of_clips.model, [str(shard)])[0]) == 1


def test_many_shards_are_refused_by_what_they_need(of_clips: ClipModel, tmp_path: Path) -> None:
    (tmp_path / "said.parquet").mkdir()
    for many in (str(tmp_path), f"{tmp_path}/", f"{tmp_path}/said.parquet", f"{tmp_path}/*.parquet", "x*.parquet"):
        with pytest.raises(RefusedError, match=r"may mean many feature shards.*--out FOLDER"):
            predict(of_clips.store, of_clips.model, ["a sentence", many])


def test_nothing_is_refused(of_clips: ClipModel) -> None:
    with pytest.raises(RefusedError, match="nothing to predict"):
        predict(of_clips.store, of_clips.model, [])


@pytest.mark.parametrize(
    ("counts", "notes"),
    [
        ({}, ()),
        ({"clips_extracted": 1, "clips_without_label": 1, "clips_without_audio": 0}, ()),
        ({"clips_without_audio": 1, "clips_truncated": 1}, ("the file is truncated or damaged", "no sound track")),
        ({"clips_without_face": 1}, ("no face",)),
        ({"clips_with_several_faces": 1, "clips_shaky": 1}, ("shaky", "several faces")),
        ({"vision_frames": 40, "vision_frames_without_face": 3}, ("no face in 3 of 40 vision frames",)),
    ],
)
def test_notes_of_a_clip(counts: dict[str, int], notes: tuple[str, ...]) -> None:
    assert sorted(clip_notes(counts)) == sorted(notes)


@pytest.mark.slow
def test_a_clip_that_ends_its_process_is_left_out(of_clips: ClipModel, changed: Callable[..., str]) -> None:
    """By the child process that each extraction has, with everything as a user has it."""
    [row], left_out = predict(of_clips.store, of_clips.model, [of_clips.clip], ["a good test movie"])
    [same], _ = predict(of_clips.store, of_clips.model, [of_clips.clip], ["a good test movie"], HERE)
    assert row == same and left_out == []

    def hasty(features: dict[str, Any]) -> None:
        features["extraction"]["clips"]["timeout_seconds"] = 0.001

    with pytest.raises(RefusedError, match=r"test\.mp4, stage .*: took longer than 0.001 seconds"):
        predict(of_clips.store, changed(hasty), [of_clips.clip], ["a good test movie"])


def test_a_model_is_not_scored_on_features_of_another_kind(of_clips: ClipModel) -> None:
    folder, store = str(of_clips.folder), of_clips.store
    smaller = load_extract_config(overrides=["audio.name=none", "vision.rate_hz=5", "vision.longest_side=100"])
    extract_corpus(store, folder, "smaller", smaller, limits=HERE)
    with pytest.raises(RefusedError, match=r"vision made by face version 1 with longest_side 480, corpus smaller has"):
        evaluate(store, of_clips.model, "smaller")
    (of_clips.folder / "words.csv").write_text("video_id,clip_id,word,start,end\nv,train,a,0,0.5\nv,valid,a,0,0.5\n")
    aligned = load_extract_config(overrides=["audio.name=none", "vision.rate_hz=5", "clips.align=words"])
    made = extract_corpus(store, folder, "aligned", aligned, limits=HERE)
    with pytest.raises(RefusedError, match=r"clips\.align none, corpus aligned has .* clips\.align words"):
        evaluate(store, of_clips.model, "aligned", split="valid")
    shard = Path(store.url) / made.splits["valid"].shards[0].path
    with pytest.raises(RefusedError, match=r"clips\.align words, .* was trained on .* clips\.align none"):
        Predictor.open(store, of_clips.model).predict_shard(shard)
    same = extract_corpus(store, folder, "same", CONFIG, limits=HERE)
    assert evaluate(store, of_clips.model, "same", split="valid").feature_id == same.feature_id
