"""A folder of clips becomes a corpus: the same bytes wherever and however it is worked on, and nothing said falsely."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnln.config import Config, CorruptionConfig
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.quarantine import read_quarantine
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.gc import find_garbage
from lnln.verify import verify
from pipelines import commit, execute, extract, unfinished
from pipelines.clips import files as clip_files
from pipelines.clips.extract_rows import Description, Limits, describe
from pipelines.clips.extract_shard import ExtractedShard, extract_shard
from pipelines.corrupt import corrupt
from pipelines.execute import StageFailedError, dask_client
from pipelines.extract import extract_corpus
from pipelines.extractors.config import ExtractConfig, load_extract_config
from pipelines.ingest import import_corpus
from pipelines.settings import Settings
from tests.clips import tone, write_clip
from tests.command import lnln
from tests.corpora import mmsa_pickle

CONFIG = load_extract_config(None, ["vision.name=none"])
# Five times faster, where features do not matter.
LIGHT = load_extract_config(None, ["audio.name=none", "vision.name=none"])
SPLITS = ("train", "train", "valid", "train", "test", "", "train")


def write_folder(folder: Path, num: int = 7) -> Path:
    """Clips of 0.2 to 0.3 s, each with a tone of its own, in several splits; one without picture, one without text."""
    rows = ["video_id,clip_id,text,label,annotation,mode"]
    for i in range(num):
        video = folder / "Raw" / f"v{i % 2}"
        video.mkdir(parents=True, exist_ok=True)
        sound = tone(0.2 + 0.02 * (i % 5), hz=200.0 * (i % 7 + 1))
        size = None if i % 7 == 1 else (32, 32)
        write_clip(video / f"{i}.{'wav' if size is None else 'mkv'}", seconds=0.2, size=size, sound=sound)
        text = "" if i % 7 == 3 else f"clip number {i}"
        rows.append(f"v{i % 2},{i},{text},{'' if i % 7 == 5 else i % 7 - 3},,{SPLITS[i % 7]}")
    (folder / "label.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("source") / "clips")


@pytest.fixture
def clips(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "clips"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "CLIPS_PER_SHARD", 2)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory, made: Path) -> tuple[FeatureManifest, dict[str, bytes]]:
    """The manifest and the files of an extraction of LIGHT that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "CLIPS_PER_SHARD", 2)
        store = Store(tmp_path_factory.mktemp("undisturbed"))
        return extract_corpus(store, str(made), "mine", LIGHT), contents(store)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, made: Path) -> tuple[FeatureManifest, dict[str, bytes]]:
    """As `light`, with audio."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "CLIPS_PER_SHARD", 2)
        store = Store(tmp_path_factory.mktemp("undisturbed"))
        return extract_corpus(store, str(made), "mine", CONFIG), contents(store)


def contents(store: Store) -> dict[str, bytes]:
    root = Path(store.url)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def lost(store: Store, manifest: FeatureManifest) -> dict[str, tuple[str, str]]:
    return {row.utterance_id: (row.stage, row.reason) for row in read_quarantine(store, manifest)}


def test_what_is_in_the_corpus(made: Path, store: Store) -> None:
    manifest = extract_corpus(store, str(made), "mine", CONFIG)
    assert read_features(store, "mine") == manifest
    assert {split: entry.num_utterances for split, entry in manifest.splits.items()} == {
        "train": 4,
        "valid": 1,
        "test": 1,
        "unassigned": 1,
    }
    train = read_split(store, manifest, "train")
    assert train.utterance_id == ["v0$_$0", "v1$_$1", "v1$_$3", "v0$_$6"]
    assert train.raw_text == ["clip number 0", "clip number 1", None, "clip number 6"]
    assert train.label.tolist() == [-3, -2, 0, 3] and train.text.lengths.tolist()[2] == 0
    assert np.isnan(read_split(store, manifest, "unassigned").label).all()
    assert manifest.dims == {"audio": 33, "vision": 1} and (train.audio.lengths > 3).all()
    assert manifest.lengths["train"]["audio"].max == train.audio.lengths.max()
    np.testing.assert_allclose(manifest.statistics["audio"]["mean"], train.audio.values.mean(0, np.float64), rtol=1e-8)
    np.testing.assert_allclose(manifest.statistics["audio"]["std"], train.audio.values.std(0, np.float64), rtol=1e-6)
    assert manifest.statistics["vision"] == {"mean": [0.0], "std": [0.0]}
    assert manifest.label_range == (-3.0, 3.0) and manifest.tokenizer.name == "bert-base-uncased"
    assert manifest.extractors["audio"]["name"] == "librosa_sims" and len(manifest.extractors["audio"]["columns"]) == 33
    assert manifest.source["name"] == "clips" and not manifest.source["synthetic"]
    assert manifest.source["num_bytes"] == sum(p.stat().st_size for p in (made / "Raw").rglob("*.*"))
    extraction = manifest.extraction
    assert extraction is not None and extraction.quarantine is None and read_quarantine(store, manifest) == []
    assert ExtractConfig.from_values(extraction.config) == CONFIG
    total = sum(read_split(store, manifest, split).audio.lengths.sum() for split in manifest.splits)
    assert extraction.counts == {
        "audio_frames": total,
        "clips": 7,
        "clips_extracted": 7,
        "clips_quarantined": 0,
        "clips_truncated": 0,
        "clips_with_several_files": 0,
        "clips_without_audio": 0,
        "clips_without_label": 1,
        "clips_without_text": 1,
        "clips_without_vision": 1,
        "files_beside_clips": 0,
        "files_unlisted": 0,
        "rows_repeated": 0,
        "vision_frames": 0,
    }


def test_all_that_works_on_an_import_works_on_it(made: Path, store: Store, clips: Path) -> None:
    (clips / "Raw" / "v1" / "stray.mp4").write_bytes(b"x")
    manifest = extract_corpus(store, str(clips), "mine", LIGHT)
    views = corrupt(store, "mine", Config(CorruptionConfig(rates=(0.5,), num_stored_draws=1)))
    assert views and all("unassigned" not in view.splits for view in views)
    assert verify(store, "mine")["feature shards"] == sum(len(entry.shards) for entry in manifest.splits.values())
    assert find_garbage(store, 0).paths == []


def test_clips_that_are_wrong_go_to_quarantine_and_no_other(store: Store, clips: Path) -> None:
    raw = clips / "Raw"
    (raw / "v0" / "0.mkv").write_bytes(b"")
    (raw / "v1" / "1.wav").write_bytes(b"no media at all")
    (raw / "v0" / "2.mkv").unlink()
    (raw / "v1" / "stray.mp4").write_bytes(b"x")
    shutil.copy(raw / "v0" / "4.mkv", raw / "v1" / "tést 你.mkv")
    with (clips / "label.csv").open("a") as table:
        table.write("v1,tést 你,你好,1,,valid\nv0,6,clip number 6,3,,train\nv1,9,x,y,,train\n../v1,3,x,1,,train\n")
    manifest = extract_corpus(store, str(clips), "mine", CONFIG)
    assert manifest.extraction is not None
    found = lost(store, manifest)
    assert list(found) == ["../v1$_$3", "Raw/v1/stray.mp4", "v0$_$0", "v0$_$2", "v1$_$1", "v1$_$9"]
    assert {name: stage for name, (stage, _) in found.items()} == {
        "../v1$_$3": "table",
        "Raw/v1/stray.mp4": "table",
        "v0$_$0": "file",
        "v0$_$2": "file",
        "v1$_$1": "file",
        "v1$_$9": "table",
    }
    assert read_split(store, manifest, "valid").utterance_id == ["v1$_$tést 你"]
    assert read_split(store, manifest, "valid").raw_text == ["你好"]
    assert read_split(store, manifest, "train").utterance_id == ["v1$_$3", "v0$_$6"]
    counts = manifest.extraction.counts
    assert counts["clips"] == counts["clips_extracted"] + counts["clips_quarantined"] == 10
    assert counts["clips_quarantined"] == 5 and counts["files_unlisted"] == 1 and counts["rows_repeated"] == 1


def test_no_usable_clip_is_refused_and_leaves_nothing(store: Store, clips: Path) -> None:
    for path in (clips / "Raw").rglob("*.*"):
        path.write_bytes(b"nothing")
    with pytest.raises(RefusedError, match=r"no clip of .*clips can be used \(v0\$_\$0: file: .*; and 4 more\)"):
        extract_corpus(store, str(clips), "mine", LIGHT)
    assert contents(store) == {}
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "mine")


@pytest.mark.parametrize("per_shard", [1, 64])
def test_the_size_of_shards_changes_nothing_else(
    made: Path, store: Store, per_shard: int, monkeypatch: pytest.MonkeyPatch, whole: tuple[FeatureManifest, Any]
) -> None:
    monkeypatch.setattr(extract, "CLIPS_PER_SHARD", per_shard)
    manifest = extract_corpus(store, str(made), "mine", CONFIG)
    assert max(shard.num_rows for shard in manifest.splits["train"].shards) == min(per_shard, 4)
    assert replace(manifest, splits=whole[0].splits) == whole[0]


def test_shards_are_cut_by_bytes_too(made: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(extract, "CLIPS_PER_SHARD", 64)
    monkeypatch.setattr(extract, "CLIP_BYTES_PER_SHARD", 1)
    manifest = extract_corpus(store, str(made), "mine", CONFIG)
    assert [shard.num_rows for shard in manifest.splits["train"].shards] == [1, 1, 1, 1]


def test_where_the_clips_lie_and_how_they_are_guarded_changes_nothing(
    clips: Path, store: Store, light: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    manifest = extract_corpus(store, f"file://{clips}/", "mine", LIGHT, limits=Limits(is_isolated=False))
    assert manifest == light[0] and contents(store) == light[1]


def test_the_same_clips_are_not_extracted_twice(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch, light: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    extract_corpus(store, str(made), "mine", LIGHT)
    before = {path: path.stat().st_mtime_ns for path in Path(store.url).rglob("*.parquet")}
    monkeypatch.setattr(extract, "plan_extraction", None)
    assert extract_corpus(store, str(made), "mine", LIGHT) == light[0]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("which", ["shard", "quarantine", "manifest"])
def test_damage_is_mended_by_the_same_command(clips: Path, store: Store, which: str) -> None:
    (clips / "Raw" / "v1" / "1.wav").write_bytes(b"no media at all")
    manifest = extract_corpus(store, str(clips), "mine", LIGHT)
    files = contents(store)
    assert manifest.extraction is not None and manifest.extraction.quarantine is not None
    path = {
        "shard": manifest.splits["valid"].shards[0].path,
        "quarantine": manifest.extraction.quarantine.path,
        "manifest": f"{manifest.folder}/manifest.json",
    }[which]
    data = bytearray(files[path])
    data[len(data) // 2] ^= 1
    (Path(store.url) / path).write_bytes(data)
    assert extract_corpus(store, str(clips), "mine", LIGHT) == manifest and contents(store) == files


def change_text(folder: Path) -> None:
    path = folder / "label.csv"
    path.write_text(path.read_text().replace("clip number 4", "clip number four"))


def change_mode(folder: Path) -> None:
    path = folder / "label.csv"
    path.write_text(path.read_text().replace("valid", "test"))


def change_label(folder: Path) -> None:
    path = folder / "label.csv"
    path.write_text(path.read_text().replace("clip number 4,1", "clip number 4,1.5"))


def change_byte(folder: Path) -> None:
    with (folder / "Raw" / "v1" / "1.wav").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")


def lose_clip(folder: Path) -> None:
    (folder / "Raw" / "v1" / "1.wav").unlink()


@pytest.mark.parametrize("change", [change_text, change_mode, change_label, change_byte, lose_clip])
def test_other_clips_are_other_features(
    clips: Path, store: Store, change: Callable[[Path], None], light: tuple[FeatureManifest, Any]
) -> None:
    change(clips)
    assert extract_corpus(store, str(clips), "mine", LIGHT).feature_id != light[0].feature_id


def test_other_extractors_are_other_features_and_a_stray_file_is_not(
    clips: Path, store: Store, whole: tuple[FeatureManifest, Any]
) -> None:
    (clips / "Raw" / "v1" / "stray.mp4").write_bytes(b"x")
    assert extract_corpus(store, str(clips), "mine", CONFIG).feature_id == whole[0].feature_id
    other = load_extract_config(None, ["vision.name=none", "audio.num_mfcc=13"])
    manifest = extract_corpus(store, str(clips), "mine", other)
    assert manifest.feature_id != whole[0].feature_id and manifest.dims["audio"] == 26
    longer = load_extract_config(None, ["vision.name=none", "clips.max_seconds=60"])
    assert extract_corpus(store, str(clips), "mine", longer).feature_id != whole[0].feature_id


def test_without_training_clips_statistics_are_of_all_and_training_is_refused(clips: Path, store: Store) -> None:
    path = clips / "label.csv"
    path.write_text(path.read_text().replace("train", ""))
    manifest = extract_corpus(store, str(clips), "mine", CONFIG)
    assert list(manifest.splits) == ["valid", "test", "unassigned"]
    values = np.concatenate([read_split(store, manifest, split).audio.values for split in manifest.splits])
    np.testing.assert_allclose(manifest.statistics["audio"]["mean"], values.mean(0, np.float64), rtol=1e-8)
    with pytest.raises(RefusedError, match=r"corpus 'mine' has no split 'train' to learn from, .*label\.csv"):
        manifest.spec()


@pytest.mark.slow
def test_the_command_refuses_to_train_without_training_clips(clips: Path, store: Store) -> None:
    path = clips / "label.csv"
    path.write_text(path.read_text().replace("train", ""))
    extract_corpus(store, str(clips), "mine", LIGHT)
    assert "has no utterances in split 'train'" in lnln("train", "mine", store=store.url).refusal


def test_a_real_corpus_is_not_replaced_by_drawn_clips(tmp_path: Path, store: Store) -> None:
    import_corpus(store, mmsa_pickle(tmp_path / "x.pkl"), "mine")
    with pytest.raises(RefusedError, match=r"corpus 'mine' of .* is not synthetic"):
        extract_corpus(store, "sample", "mine", LIGHT)


@pytest.mark.slow
def test_drawn_clips_are_synthetic_and_always_the_same(store: Store) -> None:
    manifest = extract_corpus(store, "sample", "drawn", LIGHT)
    assert manifest.source["synthetic"] and manifest.source["name"] == "drawn clips"
    assert set(manifest.splits) == {"train", "valid", "test"} and manifest.extraction is not None
    assert manifest.extraction.counts["clips"] == 12
    assert extract_corpus(store, "sample", "drawn", LIGHT) == manifest


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_costs_its_clip(clips: Path, store: Store) -> None:
    (clips / "Raw" / "v1" / "1.wav").chmod(0)
    manifest = extract_corpus(store, str(clips), "mine", CONFIG)
    assert lost(store, manifest) == {"v1$_$1": ("file", "Raw/v1/1.wav cannot be read: Permission denied")}


def test_a_file_that_may_not_be_read_in_a_folder(clips: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where the tests run as root: the system call answers as it would to others."""
    opens = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "1.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return opens(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    manifest = extract_corpus(store, str(clips), "mine", CONFIG)
    assert lost(store, manifest) == {"v1$_$1": ("file", "Raw/v1/1.wav cannot be read: Permission denied")}


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_clip_that_changes_meanwhile_is_refused(
    clips: Path, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    read = clip_files.read_clip

    def spoil_and_read(source: Store, clip: clip_files.WeighedClip) -> Any:
        path = clips / "Raw" / "v0" / "4.mkv"
        if how == "gone":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(b"other")
        return read(source, clip)

    monkeypatch.setattr("pipelines.clips.extract_shard.read_clip", spoil_and_read)
    with pytest.raises(
        StageFailedError, match=r"test 0: .*4\.mkv was there when the extraction began, and has changed"
    ):
        extract_corpus(store, str(clips), "mine", LIGHT)
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "mine")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: replace(d, decoder="av 1.0"), r"clips are decoded by av \d.*, and by av 1\.0 where"),
        (
            lambda d: replace(
                d, records={**d.records, "audio": {**d.records["audio"], "packages": {"librosa": "0.1"}}}
            ),
            r"the extractor of audio has packages .*librosa.* on this worker, and \{'librosa': '0.1'\} where",
        ),
    ],
)
def test_a_worker_with_other_versions_is_refused(
    made: Path, store: Store, spoil: Callable[[Description], Description], said: str
) -> None:
    made_by = spoil(describe(CONFIG, Limits()))
    with pytest.raises(RefusedError, match=said):
        extract_shard(store, Store(made), "f", "train", (), CONFIG, made_by, (), Limits())


def shards_run(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], BaseException | None]) -> list[int]:
    """Numbers of the jobs that are run from now on; `fails` says which of them fail, and how."""
    seen: list[int] = []

    def extract_or_fail(**arguments: Any) -> ExtractedShard:
        seen.append(len(seen))
        if (error := fails(seen[-1])) is not None:
            raise error
        return extract_shard(**arguments)

    monkeypatch.setattr(extract, "extract_shard", extract_or_fail)
    return seen


@pytest.mark.parametrize("error", [OSError("disk is full"), KeyboardInterrupt()])
def test_the_same_command_does_what_is_missing(
    made: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    light: tuple[FeatureManifest, dict[str, bytes]],
) -> None:
    with monkeypatch.context() as patch:
        shards_run(patch, lambda number: error if number == 2 else None)
        with pytest.raises((StageFailedError, KeyboardInterrupt)):
            extract_corpus(store, str(made), "mine", LIGHT)
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "mine")
    seen = shards_run(monkeypatch, lambda _: None)
    assert extract_corpus(store, str(made), "mine", LIGHT) == light[0]
    assert len(seen) == (1 if isinstance(error, OSError) else 3) and contents(store) == light[1]


def test_quarantine_survives_an_extraction_that_failed(
    clips: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a shard that stands, and of one that has no utterance at all."""
    for name in ("v0/0.mkv", "v0/2.mkv"):
        (clips / "Raw" / name).write_bytes(b"no media at all")
    with monkeypatch.context() as patch:
        shards_run(patch, lambda number: OSError("disk is full") if number == 3 else None)
        with pytest.raises(StageFailedError):
            extract_corpus(store, str(clips), "mine", CONFIG)
    seen = shards_run(monkeypatch, lambda _: None)
    manifest = extract_corpus(store, str(clips), "mine", CONFIG)
    assert len(seen) == 1 and list(lost(store, manifest)) == ["v0$_$0", "v0$_$2"] and "valid" not in manifest.splits
    other = Store(Path(store.url).with_name("other"))
    assert extract_corpus(other, str(clips), "mine", CONFIG) == manifest and contents(store) == contents(other)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda shards: shards["train 0"]["shard"].update(num_rows=1),
        lambda shards: shards["train 0"].update(shard=None),
        lambda shards: shards["train 0"].update(quarantine=[{"utterance_id": "a", "stage": "b", "reason": "c"}]),
        lambda shards: shards["train 0"].update(quarantine=[{"utterance_id": "a"}]),
        lambda shards: shards["train 0"].pop("counts"),
        lambda shards: shards["train 0"].update(counts=[1]),
        lambda shards: shards["train 0"].update(cleaned={}),
        lambda shards: shards["train 0"].update(cleaned={"audio": {"num_nan": "x"}}),
        lambda shards: shards["train 0"].update(counts={"clips_extracted": "two"}),
        lambda shards: shards.update({"train 0": 7}),
    ],
)
def test_a_record_that_is_wrong_is_not_believed(
    made: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[dict[str, Any]], Any],
    light: tuple[FeatureManifest, dict[str, bytes]],
) -> None:
    with monkeypatch.context() as patch:
        shards_run(patch, lambda number: OSError("disk is full") if number == 3 else None)
        with pytest.raises(StageFailedError):
            extract_corpus(store, str(made), "mine", LIGHT)
    path = Path(store.url) / light[0].folder / "unfinished.json"
    record = json.loads(path.read_text())["content"]
    spoil(record["shards"])
    path.write_text(json.dumps(unfinished.signed(record)))
    assert extract_corpus(store, str(made), "mine", LIGHT) == light[0] and contents(store) == light[1]


def test_a_crash_before_the_manifest_leaves_nothing_visible(
    made: Path, store: Store, monkeypatch: pytest.MonkeyPatch, light: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "commit_features", crash)
        with pytest.raises(KeyboardInterrupt):
            extract_corpus(store, str(made), "mine", LIGHT)
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "mine")
    assert extract_corpus(store, str(made), "mine", LIGHT) == light[0] and contents(store) == light[1]


def test_the_bar_moves_by_clip(made: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = watch_bars(monkeypatch)
    extract_corpus(store, str(made), "mine", LIGHT)
    assert bars == {"weigh clips": [7, *[1] * 7], "extract mine": [7, *[1] * 7]}


def watch_bars(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """By the name of each bar, its total, and then by how much it was moved each time."""
    bars: dict[str, list[int]] = {}

    @contextmanager
    def bar(text: str, total: int) -> Iterator[Callable[..., None]]:
        bars[text] = [total]
        yield lambda num_steps=1: bars[text].append(num_steps)

    monkeypatch.setattr(execute, "bar", bar)
    return bars


def test_words_make_all_modalities_as_long(clips: Path, store: Store) -> None:
    words = ["video_id,clip_id,word,start,end"]
    for i in (0, 1, 4):
        words += [f"v{i % 2},{i},{word},{start},{start + 0.1}" for start, word in ((0, "clip"), (0.1, "unbelievably"))]
    (clips / "words.csv").write_text("\n".join(words) + "\n")
    config = load_extract_config(None, ["vision.name=none", "clips.align=words"])
    manifest = extract_corpus(store, str(clips), "mine", config)
    train = read_split(store, manifest, "train")
    assert train.utterance_id == ["v0$_$0", "v1$_$1"]
    np.testing.assert_array_equal(train.text.lengths, train.audio.lengths)
    assert not train.audio[0][0].any() and not train.audio[0][-1].any() and train.audio[0][1].any()
    assert [stage for stage, _ in lost(store, manifest).values()] == ["table"] * 4


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("many") / "clips", 28)


@pytest.fixture(scope="module")
def many_whole(tmp_path_factory: pytest.TempPathFactory, many: Path) -> dict[str, bytes]:
    """What one process leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "CLIPS_PER_SHARD", 2)
        store = Store(tmp_path_factory.mktemp("undisturbed"))
        extract_corpus(store, str(many), "mine", CONFIG)
        return contents(store)


@pytest.mark.slow
def test_dask_workers_write_the_same_bytes_through_deaths(
    many: Path, many_whole: dict[str, bytes], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker is killed in the middle, by the operating system's own means; Dask starts another."""
    bars = watch_bars(monkeypatch)
    with dask_client(Settings(dask="local")) as client:
        assert client is not None and len(client.run(os.getpid)) == 2
        killed: list[int] = []

        def kill() -> None:
            while sum(1 for _ in Path(store.url).rglob("part-*.parquet")) < 3 and not ended.wait(0.01):
                pass
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

        ended = threading.Event()
        thread = threading.Thread(target=kill)
        thread.start()
        try:
            extract_corpus(store, str(many), "mine", CONFIG, client)
        finally:
            ended.set()
            thread.join()
    assert len(killed) == 1
    assert {path: data for path, data in contents(store).items() if "/." not in path} == many_whole
    total, *moves = bars["extract mine"]
    assert total == 28 == sum(moves) and len(moves) > 16


@pytest.mark.slow
def test_a_killed_command_is_continued(many: Path, many_whole: dict[str, bytes], store: Store) -> None:
    """SIGKILL to the process that extracts, in the middle: its child ends too, and the next attempt makes the rest."""
    child = os.fork()
    if not child:
        numbers = count()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unfinished, "SAVE_EVERY_SECONDS", 0)
            shards_run(patch, lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(numbers) == 6 else None)
            extract_corpus(store, str(many), "mine", CONFIG)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with pytest.MonkeyPatch.context() as patch:
        seen = shards_run(patch, lambda _: None)
        extract_corpus(store, str(many), "mine", CONFIG)
    assert len(seen) == sum("part-" in path for path in many_whole) - 6
    assert contents(store) == many_whole


@pytest.mark.slow
def test_clips_and_store_in_buckets(
    made: Path, s3_store_url: str, whole: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    source, store = Store(f"{s3_store_url}/clips"), Store(f"{s3_store_url}/store")
    for path in made.rglob("*.*"):
        if path.is_file():
            source.write(path.relative_to(made).as_posix(), path.read_bytes())
    listed = sorted(file.path for file in source.list_files())
    manifest = extract_corpus(store, source.url, "mine", CONFIG)
    assert manifest == whole[0] and sorted(file.path for file in source.list_files()) == listed
    assert {file.path: store.read(file.path) for file in store.list_files()} == whole[1]
