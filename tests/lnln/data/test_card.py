"""Dataset cards: true, deterministic, read by Hugging Face `datasets` and by Croissant's own library, and harmless."""

from __future__ import annotations

import csv
import json
import pickle
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml

from lnln.data import card
from lnln.data.card import CARD_FILES, CROISSANT, README
from lnln.data.card_extraction import NUM_ROWS_SHOWN, join_runs
from lnln.data.card_facts import SPLIT_NAMES
from lnln.data.manifest import FeatureManifest, SplitEntry, commit_features
from lnln.data.schema import Split
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines import ingest
from pipelines.ingest import import_corpus, import_sample
from tests.corpora import mmsa_content, with_text_features
from tests.extracted_corpus import CONFIG, EXTRACTORS, LEFT_OUT, extracted_corpus


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three splits in several shards; infinite values, utterances without audio or vision, a hostile name."""
    content = mmsa_content((24, 7, 9))
    content["train"]["audio"][1, 0, 0] = -np.inf
    path = tmp_path / "a|b`c*.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.fixture
def manifest(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureManifest:
    monkeypatch.setattr(ingest, "SHARD_BYTES", 1500)
    made = import_corpus(store, source, "tiny")
    assert len(made.splits["train"].shards) > 1
    return made


def folder(store: Store, manifest: FeatureManifest) -> Path:
    return Path(store.url) / manifest.folder


def metadata(page: str) -> dict[str, Any]:
    _, front, _ = page.split("---\n", 2)
    value: dict[str, Any] = yaml.safe_load(front)
    return value


def test_the_page_names_what_the_manifest_lists(store: Store, manifest: FeatureManifest) -> None:
    page = (folder(store, manifest) / README).read_text()
    said = metadata(page)
    assert said["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {
                    "split": SPLIT_NAMES[split],
                    "path": [f"{split}/{shard.path.rpartition('/')[2]}" for shard in entry.shards],
                }
                for split, entry in manifest.splits.items()
            ],
        }
    ]
    info = said["dataset_info"]
    assert [(each["name"], each["num_examples"]) for each in info["splits"]] == [
        ("train", 24),
        ("validation", 7),
        ("test", 9),
    ]
    shards = [shard for entry in manifest.splits.values() for shard in entry.shards]
    assert info["download_size"] == sum(shard.num_bytes for shard in shards)
    assert (said["license"], said["license_name"]) == ("other", "not-stated")
    assert "synthetic" not in said["tags"] and {"text", "audio", "vision"} <= set(said["tags"])
    assert manifest.source["sha256"] in page and manifest.digest() in page
    assert "| audio | 0 | 1 |" in page, "one infinite value was set to 0"


def test_labels_are_counted(store: Store, manifest: FeatureManifest) -> None:
    page = (folder(store, manifest) / README).read_text()
    for split in manifest.splits:
        labels = read_split(store, manifest, split).label
        nearest = np.clip(np.floor(labels + 3.5), 0, 6).astype(int)
        counts = " | ".join(str(count) for count in np.bincount(nearest, minlength=7))
        assert f"| `{split}` | {counts} |" in page


def test_a_hostile_name_stays_in_its_cell(store: Store, manifest: FeatureManifest, source: Path) -> None:
    page = (folder(store, manifest) / README).read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| source file |")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_datasets_reads_the_folder(
    store: Store, manifest: FeatureManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    # What a writer left behind that was killed is no part of the corpus.
    (folder(store, manifest) / "train" / "part-000000000000.parquet").write_bytes(b"half")
    _no_network(monkeypatch)
    corpus = datasets.load_dataset(str(folder(store, manifest)), cache_dir=str(tmp_path / "cache"))
    assert list(corpus) == ["train", "validation", "test"]
    for split in manifest.splits:
        ours, name = read_split(store, manifest, split), SPLIT_NAMES[split]
        assert corpus[name]["utterance_id"][:] == ours.utterance_id
        assert corpus[name]["audio_length"][:] == ours.audio.lengths.tolist()
        for row, values in enumerate(corpus[name]["audio"][:]):
            np.testing.assert_array_equal(np.array(values, np.float32).reshape(-1, 4), ours.audio[row])


def test_croissant_reads_the_records(store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlcroissant

    _no_network(monkeypatch)
    described = mlcroissant.Dataset(jsonld=folder(store, manifest) / CROISSANT)
    assert not described.metadata.issues.errors
    for split in manifest.splits:
        ours, name = read_split(store, manifest, split), SPLIT_NAMES[split]
        records = list(described.records(name))
        ids = [record[f"{name}/utterance_id"] for record in records]
        assert sorted(each.decode() if isinstance(each, bytes) else each for each in ids) == sorted(ours.utterance_id)


def test_croissant_states_every_shard(store: Store, manifest: FeatureManifest) -> None:
    said = json.loads((folder(store, manifest) / CROISSANT).read_bytes())
    files = {each["contentUrl"]: each["sha256"] for each in said["distribution"] if each["@type"] == "cr:FileObject"}
    shards = [shard for entry in manifest.splits.values() for shard in entry.shards]
    assert files == {shard.path.removeprefix(f"{manifest.folder}/"): shard.sha256 for shard in shards}
    assert "license" not in said


def test_the_snippets_run(store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    page = (folder(store, manifest) / README).read_text()
    monkeypatch.chdir(folder(store, manifest))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder(store, manifest).parent / "cache"))
    _no_network(monkeypatch)
    names: dict[str, Any] = {}
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) == 4
    for snippet in snippets:
        exec(compile(snippet, README, "exec"), names)
    ours = read_split(store, manifest, "train")
    assert list(names["train"]["utterance_id"]) == ours.utterance_id
    for row, frames in enumerate(names["vision"]):
        np.testing.assert_array_equal(frames, ours.vision[row])
    assert names["train_summary"][0] == len(ours)
    assert names["corpus"]["train"].num_rows == len(ours)
    assert names["unpack"](b"\x05", 4).tolist() == [True, False, True, False]


def test_equal_features_equal_cards(
    store: Store, manifest: FeatureManifest, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Store(tmp_path / "elsewhere")
    import_corpus(again, source, "tiny")
    for name in CARD_FILES:
        path = f"{manifest.folder}/{name}"
        assert again.read(path) == store.read(path)
        assert str(tmp_path).encode() not in store.read(path)


@pytest.mark.parametrize("name", CARD_FILES)
def test_the_next_import_writes_a_card_that_is_gone_or_damaged(
    name: str, store: Store, manifest: FeatureManifest, source: Path
) -> None:
    path = f"{manifest.folder}/{name}"
    before = store.read(path)
    for damage in (store.remove, lambda path: store.write(path, b"no card")):
        damage(path)
        read_split(store, manifest, "train")
        assert import_corpus(store, source, "tiny") == manifest
        assert store.read(path) == before


def test_a_card_that_cannot_be_written_harms_nothing(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise RefusedError("the folder is full")

    monkeypatch.setattr(card, "gather_facts", refuse)
    made = import_corpus(store, source, "tiny")
    assert len(read_split(store, made, "train")) == 24
    assert "has no card (the folder is full)" in caplog.text


@pytest.mark.parametrize(("value", "said"), [(np.nan, "| vision | 1 | 0 |"), (0.0, "every value of the source was")])
def test_a_zero_may_be_a_value_that_was_cleaned(store: Store, tmp_path: Path, value: float, said: str) -> None:
    content = mmsa_content((9, 3, 3))
    content["train"]["vision"][0, 0, 0] = value
    path = tmp_path / "cleaned.pkl"
    path.write_bytes(pickle.dumps(content))
    page = (folder(store, import_corpus(store, path, "cleaned")) / README).read_text()
    assert said in page
    assert ("- A 0 among the features may be a value that was not finite" in page) == bool(np.isnan(value))


def test_language_features_and_an_absent_modality(store: Store, tmp_path: Path) -> None:
    content = with_text_features(mmsa_content((9, 3, 3)))
    for split in content.values():
        split["vision_lengths"] = [0] * len(split["vision_lengths"])
        split["vision"][:] = 0
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(content))
    made = import_corpus(store, path, "features")
    page = (folder(store, made) / README).read_text()
    assert "none: text is language features" in page and "text_ids" not in page
    assert "No utterance of the training split has vision" in page
    assert "vision" not in metadata(page)["tags"]


def test_the_sample_is_said_to_be_synthetic(store: Store) -> None:
    made = import_sample(store)
    page = (folder(store, made) / README).read_text()
    said = metadata(page)
    assert "**The corpus is synthetic**" in page
    assert said["license"] == "mit" and "synthetic" in said["tags"]


def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a reader of local files called somebody")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def extracted(store: Store, tmp_path: Path) -> FeatureManifest:
    return extracted_corpus(store, tmp_path)


def test_an_extracted_corpus_says_what_made_it(store: Store, extracted: FeatureManifest) -> None:
    page = (folder(store, extracted) / README).read_text()
    assert "| audio | `tones` | 3 | 4 | 43.0664 |" in page and "| vision | `drawn` | 1 | 3 | 5 |" in page
    assert "audio: `mfcc_0` to `mfcc_1`, `zero\\|crossing`, `C#`." in page
    assert "| clips without audio | 3 of 96 |" in page and "without text" not in page
    assert "openSMILE, whose licence allows research only" in page
    assert "How the features were extracted is known only" not in page
    (config,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert yaml.safe_load(config) == CONFIG, "lnln extract --config takes it as it is"


def test_every_dimension_can_be_looked_up(store: Store, extracted: FeatureManifest) -> None:
    with (folder(store, extracted) / "columns.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for modality in ("audio", "vision"):
        names = EXTRACTORS[modality]["columns"]
        assert [row["name"] for row in rows if row["modality"] == modality] == names
        assert [int(row["dimension"]) for row in rows if row["modality"] == modality] == list(range(len(names)))


def test_what_is_not_in_the_corpus_is_said(store: Store, extracted: FeatureManifest) -> None:
    page = (folder(store, extracted) / README).read_text()
    assert extracted.extraction is not None and extracted.extraction.quarantine is not None
    name = extracted.extraction.quarantine.path.rpartition("/")[2]
    said = f"30 clips or files are not among the utterances (29 at `decode`, 1 at `table`); the whole table is `{name}`"
    assert said in page
    rows = [line for line in page.splitlines() if line.startswith("| `v$_$")]
    assert len(rows) == NUM_ROWS_SHOWN - 1 and "<b>" not in page
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)


def test_datasets_reads_unassigned_clips_and_the_quarantine(
    store: Store, extracted: FeatureManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    _no_network(monkeypatch)
    cache = str(tmp_path / "cache")
    corpus = datasets.load_dataset(str(folder(store, extracted)), cache_dir=cache)
    assert {name: len(rows) for name, rows in corpus.items()} == {
        "train": 40,
        "validation": 12,
        "test": 14,
        "unassigned": 4,
    }
    left_out = datasets.load_dataset(str(folder(store, extracted)), "quarantine", split="train", cache_dir=cache)
    assert left_out["reason"][:] == [row.reason for row in sorted(LEFT_OUT)]


def test_croissant_reads_unassigned_clips_and_the_quarantine(store: Store, extracted: FeatureManifest) -> None:
    import mlcroissant

    described = mlcroissant.Dataset(jsonld=folder(store, extracted) / CROISSANT)
    assert not described.metadata.issues.errors
    assert len(list(described.records("unassigned"))) == 4
    assert len(list(described.records("quarantine"))) == len(LEFT_OUT)


def test_clips_that_nobody_assigned_have_a_card_whose_snippets_run(
    store: Store, extracted: FeatureManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    only: dict[Split, SplitEntry] = {"unassigned": extracted.splits["unassigned"]}
    lengths: dict[Split, Any] = {"unassigned": extracted.lengths["unassigned"]}
    assert extracted.extraction is not None
    extraction = replace(extracted.extraction, quarantine=None)
    made = replace(extracted, splits=only, lengths=lengths, extraction=extraction, feature_id="f" * 12)
    for shard in only["unassigned"].shards:
        store.write(shard.path.replace(extracted.folder, made.folder), store.read(shard.path))
    moved = [
        replace(shard, path=shard.path.replace(extracted.folder, made.folder)) for shard in only["unassigned"].shards
    ]
    made = replace(made, splits={"unassigned": SplitEntry(4, tuple(moved))})
    card.write_card(store, commit_features(store, made))
    page = (folder(store, made) / README).read_text()
    assert "Every clip is among the utterances." in page and "`valid` is called" not in page
    monkeypatch.chdir(folder(store, made))
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[:2]:
        exec(compile(snippet, README, "exec"), names)
    assert len(names["unassigned"]) == names["unassigned_summary"][0] == 4


def test_a_damaged_quarantine_table_costs_the_card_and_nothing_else(
    store: Store, extracted: FeatureManifest, caplog: pytest.LogCaptureFixture
) -> None:
    assert extracted.extraction is not None and extracted.extraction.quarantine is not None
    store.write(extracted.extraction.quarantine.path, b"damaged")
    assert card.write_card(store, extracted) is extracted
    assert "has no card" in caplog.text and "quarantine" in caplog.text


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        ([], []),
        (["a"], [("a", "a")]),
        (["a_0", "a_1", "a_2", "b_3"], [("a_0", "a_2"), ("b_3", "b_3")]),
        (["x_9", "x_10"], [("x_9", "x_10")]),
        (["x_09", "x_10", "x_12"], [("x_09", "x_10"), ("x_12", "x_12")]),
        (["p1_x2", "p1_x3", "p2_x3"], [("p1_x2", "p1_x3"), ("p2_x3", "p2_x3")]),
        (["a1b", "a2b", "a3c"], [("a1b", "a2b"), ("a3c", "a3c")]),
        (["a", "a"], [("a", "a"), ("a", "a")]),
        (["1" * 5000, "1" * 5000], [("1" * 5000,) * 2] * 2),
    ],
)
def test_runs_of_names(names: list[str], runs: list[tuple[str, str]]) -> None:
    assert join_runs(names) == runs
