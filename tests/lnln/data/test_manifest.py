from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lnln.data.manifest import (
    NO_TOKENIZER,
    LengthSummary,
    ShardEntry,
    SplitEntry,
    ViewManifest,
    check_corpus_name,
    commit_features,
    commit_view,
    list_corpora,
    list_views,
    read_features,
    read_view,
)
from lnln.data.schema import MODALITIES, Modality
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from tests.lnln.data.features import make_manifest

SHARD = ShardEntry("c/features/f1/train/part-0.parquet", 3, 10, "1" * 64)
PATH = "c/features/f1/manifest.json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def make_view(view_id: str = "v1") -> ViewManifest:
    return ViewManifest(
        corpus="c",
        feature_id="f1",
        view_id=view_id,
        spec={"protocol": "frame", "rates": [0.1, 0.1, 0.1]},
        realised_rates={"test": {"text": 0.08, "audio": 0.1, "vision": 0.1}},
        splits={"test": SplitEntry(3, (SHARD,))},
    )


def test_commit_and_read(store: Store) -> None:
    manifest = make_manifest([SHARD])
    assert commit_features(store, manifest) == manifest
    assert read_features(store, "c") == manifest == read_features(store, "c", "f1")
    assert read_features(store, "c").digest() == manifest.digest()
    assert store.read_json("c/features/current.json") == {"feature_id": "f1"}
    assert list_corpora(store) == ["c"]


def test_spec_takes_the_longest_of_train(store: Store) -> None:
    spec = make_manifest([SHARD]).spec()
    assert (spec.text_length, spec.audio_length, spec.vision_length) == (8, 8, 8)
    assert (spec.audio_dim, spec.vision_dim, spec.vocabulary_size, spec.unknown_id) == (5, 3, 30522, 100)
    assert spec.label_range == (-3.0, 3.0)


def test_spec_says_how_text_comes(store: Store) -> None:
    ids = make_manifest([SHARD])
    assert ids.text_dim == 0 and (ids.spec().text_dim, ids.spec().tokenizer) == (0, "bert-base-uncased")
    features = replace(ids, dims={**ids.dims, "text": 300}, tokenizer=NO_TOKENIZER)
    assert features.text_dim == 300 and (features.spec().text_dim, features.spec().tokenizer) == (300, "")
    assert features.spec().vocabulary_size == 0
    commit_features(store, features)
    assert read_features(store, "c") == features and list(read_features(store, "c").dims) == list(MODALITIES)


def test_absent_modalities_are_those_that_training_never_has() -> None:
    manifest = make_manifest([SHARD])
    assert manifest.absent_modalities() == ()
    nothing, some = LengthSummary(0, 0.0, 0, 3), manifest.lengths["train"]["text"]
    train: dict[Modality, LengthSummary] = {"text": nothing, "audio": some, "vision": nothing}
    changed = replace(manifest, lengths={**manifest.lengths, "train": train})
    assert changed.absent_modalities() == ("text", "vision")


def test_same_job_same_bytes(store: Store, tmp_path: Path) -> None:
    commit_features(store, make_manifest([SHARD]))
    commit_features(Store(tmp_path / "other"), make_manifest([SHARD]))
    assert store.read(PATH) == (tmp_path / "other" / PATH).read_bytes()


def test_first_commit_stands(store: Store) -> None:
    first = make_manifest([SHARD])
    commit_features(store, first)
    assert commit_features(store, make_manifest([replace(SHARD, num_bytes=11)])) == first
    assert read_features(store, "c") == first


def test_newest_features_are_current_and_older_remain(store: Store) -> None:
    commit_features(store, make_manifest([SHARD]))
    commit_features(store, make_manifest([SHARD], feature_id="f2"))
    commit_features(store, make_manifest([SHARD], corpus="b"))
    assert read_features(store, "c").feature_id == "f2"
    assert read_features(store, "c", "f1").feature_id == "f1"
    assert list_corpora(store) == ["b", "c"]


def test_unknown_corpus_is_refused_with_the_command(store: Store) -> None:
    with pytest.raises(RefusedError, match=r"holds no corpus 'mosi' \(it has none\); run `lnln import PICKLE"):
        read_features(store, "mosi")
    commit_features(store, make_manifest([SHARD]))
    with pytest.raises(RefusedError, match=r"it has c\)"):
        read_features(store, "mosi")
    with pytest.raises(RefusedError, match="no features f9"):
        read_features(store, "c", "f9")


def test_every_flipped_bit_is_seen(store: Store, tmp_path: Path) -> None:
    commit_features(store, make_manifest([SHARD]))
    whole = store.read(PATH)
    before = read_features(store, "c")
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (tmp_path / PATH).write_bytes(damaged)
        try:
            # A flip between tokens may leave the same JSON; nothing else may be read as whole.
            assert read_features(store, "c") == before
        except RefusedError as error:
            assert "manifest.json" in str(error) and "\n" not in str(error)


def test_truncated_and_foreign_manifests_are_refused(store: Store) -> None:
    commit_features(store, make_manifest([SHARD]))
    whole = store.read(PATH)
    content = json.loads(whole)["content"]
    for data in (b"", whole[:100], b"[]", b"3", b"{}", encode_json({"content": content, "sha256": "0" * 64})):
        store.write(PATH, data)
        with pytest.raises(RefusedError, match=r"manifest\.json"):
            read_features(store, "c")


def test_manifest_in_the_wrong_place_is_refused(store: Store) -> None:
    commit_features(store, make_manifest([SHARD]))
    store.write("c/features/f2/manifest.json", store.read(PATH))
    with pytest.raises(RefusedError, match="wrong place"):
        read_features(store, "c", "f2")


def test_damaged_manifest_is_mended_by_a_commit(store: Store) -> None:
    commit_features(store, make_manifest([SHARD]))
    store.write(PATH, store.read(PATH)[:50])
    commit_features(store, make_manifest([SHARD]))
    assert read_features(store, "c") == make_manifest([SHARD])


def test_damaged_pointers_are_refused(store: Store) -> None:
    commit_features(store, make_manifest([SHARD]))
    for value in (b'["f1"]\n', b"{}", b'{"feature_id": 3}', b"{"):
        store.write("c/features/current.json", value)
        with pytest.raises(RefusedError, match=r"current\.json"):
            read_features(store, "c")
    store.write("corpora.json", b'{"c": 1}')
    with pytest.raises(RefusedError, match=r"corpora\.json"):
        list_corpora(store)


def test_views(store: Store) -> None:
    assert read_view(store, "c", "f1", "v1") is None and list_views(store, "c", "f1") == []
    commit_view(store, make_view("v2"))
    assert commit_view(store, make_view()) == make_view() == read_view(store, "c", "f1", "v1")
    assert list_views(store, "c", "f1") == ["v1", "v2"]
    store.write("c/views/f1/v1/manifest.json", b"{")
    with pytest.raises(RefusedError, match=r"v1/manifest\.json"):
        read_view(store, "c", "f1", "v1")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "runs", "models", "corpora.json", "a" * 65, "a b", "é", "a\n"])
def test_corpus_names(name: str, store: Store) -> None:
    with pytest.raises(RefusedError, match="corpus is named by"):
        check_corpus_name(name)
    with pytest.raises(RefusedError, match="corpus is named by"):
        read_features(store, name)


def test_length_summary() -> None:
    assert LengthSummary.of(np.array([0, 0, 1])) == LengthSummary(0, 0.333333, 1, 2)


@pytest.mark.slow
def test_on_s3_the_same_bytes(s3_store_url: str, store: Store) -> None:
    remote = Store(s3_store_url)
    for place in (store, remote):
        commit_features(place, make_manifest([SHARD]))
        commit_view(place, make_view())
    for path in (PATH, "c/views/f1/v1/manifest.json", "c/views/f1/index.json", "corpora.json"):
        assert store.read(path) == remote.read(path)
