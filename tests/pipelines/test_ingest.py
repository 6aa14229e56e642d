"""Import: what the manifest says, shards of equal size, the same again, damage, and crashes that leave nothing."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lnln.cli import show
from lnln.cli.console import Console
from lnln.config import fingerprint
from lnln.data.digest import digest_file
from lnln.data.manifest import NO_TOKENIZER, FeatureManifest, SplitEntry, commit_features, read_features
from lnln.data.mmsa import MmsaCorpus, read_mmsa
from lnln.data.sample import make_sample
from lnln.data.schema import MODALITIES, SPLITS, Ragged, Utterances
from lnln.data.shards import read_split, write_shard
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from lnln.data.wordpiece import CHINESE, UNCASED
from lnln.errors import RefusedError
from pipelines import commit, ingest
from pipelines.execute import StageFailedError, dask_client
from pipelines.ingest import import_corpus, import_sample, plan_import
from pipelines.settings import Settings
from tests.command import lnln
from tests.corpora import mmsa_content, mmsa_pickle, with_text_features

SIZES = (12, 4, 5)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small corpus; one audio value of each split is -inf."""
    content = mmsa_content(SIZES)
    for split in content.values():
        split["audio"][1, 0, 0] = -np.inf  # the first utterance has no audio
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> dict[str, tuple[int, bytes]]:
    """Every file of the store: when it was last written, and its bytes."""
    root = Path(store.url)
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def same(one: Utterances, two: Utterances) -> bool:
    return (
        one.utterance_id == two.utterance_id
        and one.raw_text == two.raw_text
        and np.array_equal(one.label, two.label, equal_nan=True)
        and all(np.array_equal(one.sequences(m).values, two.sequences(m).values) for m in MODALITIES)
        and all(np.array_equal(one.sequences(m).offsets, two.sequences(m).offsets) for m in MODALITIES)
    )


def test_what_was_read_is_what_the_shards_hold(store: Store, source: Path) -> None:
    manifest = import_corpus(store, source, "tiny")
    assert manifest == read_features(store, "tiny")
    expected = read_mmsa(source)
    for split in SPLITS:
        assert same(read_split(store, manifest, split), expected.splits[split])
        assert manifest.splits[split].num_utterances == len(expected.splits[split])
        for modality, lengths in expected.splits[split].lengths().items():
            summary = manifest.lengths[split][modality]
            assert (summary.min, summary.max) == (lengths.min(), lengths.max())
            assert summary.num_absent == (lengths == 0).sum()
    assert manifest.cleaned["audio"]["num_infinite"] == 3
    assert manifest.dims == {"audio": 4, "vision": 3}


def test_statistics_are_those_of_the_training_frames(store: Store, source: Path) -> None:
    manifest = import_corpus(store, source, "tiny")
    train = read_mmsa(source).splits["train"]
    for modality in ("audio", "vision"):
        values = train.sequences(modality).values.astype(np.float64)
        np.testing.assert_allclose(manifest.statistics[modality]["mean"], values.mean(0), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(manifest.statistics[modality]["std"], values.std(0), rtol=1e-8, atol=1e-12)


def test_feature_ids_stand(store: Store, source: Path) -> None:
    """A corpus that was imported by an earlier version is found, and not imported a second time."""
    sha256 = digest_file(source)[1]
    expected = fingerprint({"source": sha256, "import": 1})
    assert import_corpus(store, source, "tiny").feature_id == expected
    assert import_corpus(store, source, "tiny", text="ids").feature_id == expected


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A small corpus that has token ids and language features of width 6."""
    path = tmp_path / "both.pkl"
    path.write_bytes(pickle.dumps(with_text_features(mmsa_content(SIZES), only=False)))
    return path


def test_text_features_are_another_import_of_the_same_source(store: Store, both: Path) -> None:
    ids = import_corpus(store, both, "tiny")
    features = import_corpus(store, both, "tiny", text="features")
    assert features.feature_id != ids.feature_id and features == read_features(store, "tiny")
    assert features.dims == {"text": 6, "audio": 4, "vision": 3} and features.tokenizer == NO_TOKENIZER
    assert features.extractors["text"] == {"name": "MMSA layout"} and set(features.cleaned) == set(MODALITIES)
    expected = read_mmsa(both, "features")
    values = expected.splits["train"].text.values.astype(np.float64)
    np.testing.assert_allclose(features.statistics["text"]["mean"], values.mean(0), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(features.statistics["text"]["std"], values.std(0), rtol=1e-8, atol=1e-12)
    for split in SPLITS:
        assert same(read_split(store, features, split), expected.splits[split])
    assert not damaged_shards(store, features)
    before = files(store)
    assert import_corpus(store, both, "tiny", text="features") == features and files(store) == before
    assert import_corpus(store, both, "tiny") == ids == read_features(store, "tiny")


def test_text_features_are_the_default_where_there_are_no_ids(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "only.pkl"
    path.write_bytes(pickle.dumps(with_text_features(mmsa_content(SIZES))))
    assert import_corpus(store, path, "tiny").text_dim == 6
    for corpus in ("tiny", "other"):  # already there, and not
        with pytest.raises(RefusedError, match=r"only\.pkl has neither 'text_bert' nor transcripts"):
            import_corpus(store, path, corpus, text="ids")


def test_a_tokenizer_that_is_stated_gives_features_of_their_own(store: Store, tmp_path: Path) -> None:
    content = mmsa_content(SIZES)
    for split in content.values():
        del split["raw_text"]
    path = tmp_path / "untold.pkl"
    path.write_bytes(pickle.dumps(content))
    assumed = import_corpus(store, path, "tiny")
    outcome = lnln("import", path, "--corpus", "tiny", "--tokenizer", "bert-base-chinese", store=store.url)
    stated = read_features(store, "tiny")
    assert outcome.code == 0 and stated.tokenizer == CHINESE and assumed.tokenizer == UNCASED
    assert stated.feature_id != assumed.feature_id
    assert import_corpus(store, path, "tiny", tokenizer="bert-base-chinese") == stated
    assert import_corpus(store, path, "tiny") == assumed == read_features(store, "tiny")


def test_damaged_features_leave_nothing(store: Store, tmp_path: Path) -> None:
    content = mmsa_content(SIZES)
    content["test"]["vision"][:] = np.nan
    path = tmp_path / "damaged.pkl"
    path.write_bytes(pickle.dumps(content))
    outcome = lnln("import", path, "--corpus", "tiny", store=store.url)
    assert outcome.code == 1 and len(outcome.err.splitlines()) == 1 and "damaged.pkl: split test" in outcome.err
    assert not Path(store.url).exists() or files(store) == {}


def test_features_that_cannot_be_used_are_made_again(store: Store, source: Path) -> None:
    """What the refusal of a split asks for helps, although the shard is what its manifest states."""
    manifest = import_corpus(store, source, "tiny")
    broken = read_split(store, manifest, "valid")
    broken.vision.values[0] = np.nan
    entry = SplitEntry(len(broken), (write_shard(store, manifest.folder, "valid", broken),))
    store.remove(f"{manifest.folder}/manifest.json")
    foreign = commit_features(store, dataclasses.replace(manifest, splits={**manifest.splits, "valid": entry}))
    with pytest.raises(RefusedError, match="lnln import PICKLE --corpus tiny"):
        read_split(store, foreign, "valid")
    assert import_corpus(store, source, "tiny") == manifest
    assert np.isfinite(read_split(store, manifest, "valid").vision.values).all()


def test_a_modality_that_the_whole_corpus_lacks_is_named(store: Store, tmp_path: Path) -> None:
    content = mmsa_content(SIZES)
    for split in content.values():
        split["vision_lengths"] = [0] * len(split["id"])
    path = tmp_path / "blind.pkl"
    path.write_bytes(pickle.dumps(content))
    assert import_corpus(store, path, "blind").absent_modalities() == ("vision",)


def test_what_the_command_says_of_text_features_absence_and_cleaning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = with_text_features(mmsa_content(SIZES), only=False)
    for split in content.values():
        split["vision_lengths"] = [0] * len(split["id"])
    content["valid"]["text"][2, 1, 0] = np.nan
    path = tmp_path / "blind.pkl"
    path.write_bytes(pickle.dumps(content))
    outcome = lnln("import", path, "--corpus", "blind", "--text", "features", store=tmp_path / "store")
    assert outcome.json["dims"] == {"text": 6, "audio": 4, "vision": 3}
    assert outcome.json["absent_modalities"] == ["vision"]
    warning = f"{path}: 1 NaN or infinite values of text were set to 0, the first in split valid, utterance video1$_$2"
    assert outcome.err.splitlines().count(warning) == 1
    show.corpus(Console(), read_features(Store(tmp_path / "store"), "blind"))
    said = capsys.readouterr().out
    assert "dims text 6, audio 4, vision 3" in said
    assert "vision: absent from the whole training split" in said
    assert "audio: absent" not in said


def test_statistics_of_large_constant_and_absent_features() -> None:
    large = Ragged.from_lengths(np.array([[3e38, 1.0], [-3e38, 1.0], [3e38, 1.0]], np.float32), [1, 2])
    made = ingest._statistics(large)
    assert all(math.isfinite(number) for numbers in made.values() for number in numbers)
    assert made["std"][1] == 0
    assert ingest._statistics(Ragged.from_lengths(np.zeros((0, 2), np.float32), [0, 0])) == {
        "mean": [0.0, 0.0],
        "std": [0.0, 0.0],
    }


def test_the_same_source_is_not_imported_twice(store: Store, source: Path, tmp_path: Path) -> None:
    first = import_corpus(store, source, "tiny")
    before = files(store)
    copy = tmp_path / "other_name.pkl"
    copy.write_bytes(source.read_bytes())
    assert import_corpus(store, copy, "tiny") == first
    assert files(store) == before


def test_another_source_is_in_use_until_the_first_comes_back(store: Store, source: Path, tmp_path: Path) -> None:
    first = import_corpus(store, source, "tiny")
    second = import_corpus(store, mmsa_pickle(tmp_path / "b.pkl", seed=1), "tiny")
    assert second.feature_id != first.feature_id
    assert read_features(store, "tiny") == second
    assert import_corpus(store, source, "tiny") == first == read_features(store, "tiny")


def test_shards_are_of_equal_size_and_keep_the_order(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = import_corpus(store, source, "tiny")
    expected = [read_split(store, whole, split) for split in SPLITS]
    monkeypatch.setattr(ingest, "SHARD_BYTES", 400)
    parts = import_corpus(store, source, "parts")
    assert len(parts.splits["train"].shards) > 2
    for split, utterances in zip(SPLITS, expected, strict=True):
        assert same(read_split(store, parts, split), utterances)
        assert sum(shard.num_rows for shard in parts.splits[split].shards) == len(utterances)
    assert parts.feature_id == whole.feature_id
    assert parts.statistics == whole.statistics


@pytest.mark.parametrize("limit", [1, 100, 1000, 10**9])
def test_shard_rows_cover_all_rows_once(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", limit)
    utterances = make_sample().splits["train"]
    bounds = ingest._shard_rows(utterances)
    assert [first for first, _ in bounds[1:]] == [last for _, last in bounds[:-1]]
    assert (bounds[0][0], bounds[-1][1]) == (0, len(utterances))
    assert all(first < last for first, last in bounds)
    if limit == 1000:
        sizes = [
            sum(utterances.take(np.arange(*rows)).sequences(m).values.nbytes for m in MODALITIES) for rows in bounds
        ]
        assert max(sizes) < limit + 8 * 40 + 10 * 25 * 4 + 8 * 40 * 4 + 17 * 4


def test_utterances_without_any_sequence_are_one_shard() -> None:
    nothing = Ragged.from_lengths(np.zeros((0, 2), np.float32), [0, 0, 0])
    utterances = Utterances(["a", "b", "c"], [None] * 3, np.zeros(3, np.float32), nothing, nothing, nothing)
    assert ingest._shard_rows(utterances) == [(0, 3)]


def test_a_plan_copies_no_sequence(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", 10_000)
    corpus = make_sample()
    plan = plan_import(store, "sample/features/x", corpus)
    assert len(plan) > 5
    assert str(plan).startswith("import sample: ")
    for job in plan.jobs:
        own, all_of_them = job.arguments["utterances"].audio.values, corpus.splits[job.arguments["split"]].audio.values
        assert len(own) == 0 or np.shares_memory(own, all_of_them)


def damage(store: Store, manifest: FeatureManifest, how: str) -> None:
    path = Path(store.url) / manifest.splits["train"].shards[0].path
    if how == "gone":
        path.unlink()
    elif how == "a bit":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        (Path(store.url) / manifest.folder / "manifest.json").write_text('{"content": {}}')


@pytest.mark.parametrize("how", ["gone", "a bit", "cut", "manifest"])
def test_importing_again_mends_what_was_damaged(store: Store, source: Path, how: str) -> None:
    manifest = import_corpus(store, source, "tiny")
    damage(store, manifest, how)
    with pytest.raises(RefusedError, match="again"):
        read_split(store, read_features(store, "tiny"), "train")
    assert import_corpus(store, source, "tiny") == manifest
    assert same(read_split(store, manifest, "train"), read_mmsa(source).splits["train"])


def test_a_crash_between_shards_and_manifest_leaves_nothing_visible(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "commit_features", crash)
        with pytest.raises(KeyboardInterrupt):
            import_corpus(store, source, "tiny")
    assert any(name.endswith(".parquet") for name in files(store))
    with pytest.raises(RefusedError, match="holds no corpus 'tiny'"):
        read_features(store, "tiny")
    import_corpus(store, source, "tiny")
    assert len(read_split(store, read_features(store, "tiny"), "train")) == SIZES[0]


def test_a_failed_shard_leaves_no_features(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_on_valid(store: Store, folder: str, split: str, utterances: Utterances) -> object:
        if split == "valid":
            raise OSError("disk is full")
        return write_shard(store, folder, split, utterances)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest, "write_shard", fail_on_valid)
    with pytest.raises(StageFailedError, match=r"1 of 3 jobs failed \(valid 0: OSError: disk is full\)"):
        import_corpus(store, source, "tiny")
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "tiny")


@pytest.mark.parametrize(
    "corpus", ["../x", "", "a/b", "/etc", ".", "..", "runs", "models", "corpora.json", "a\n", "a" * 65]
)
def test_a_corpus_name_that_is_no_folder_is_refused(store: Store, source: Path, corpus: str, tmp_path: Path) -> None:
    for attempt in (lambda: import_corpus(store, source, corpus), lambda: import_sample(store, corpus)):
        with pytest.raises(RefusedError, match="a corpus is named"):
            attempt()
    assert not (tmp_path / "store").exists() or not files(store)


class Opener:
    """A pickle that would run code, were it unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit(7)",)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: pickle.dumps({"train": Opener()}),
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: pickle.dumps({key: part for key, part in pickle.loads(data).items() if key != "valid"}),
    ],
    ids=["other global", "truncated", "empty", "no valid split"],
)
def test_a_bad_pickle_is_refused_and_leaves_nothing(
    store: Store, source: Path, spoil: Callable[[bytes], bytes]
) -> None:
    source.write_bytes(spoil(source.read_bytes()))
    with pytest.raises(RefusedError, match=r"corpus\.pkl"):
        import_corpus(store, source, "tiny")
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "tiny")


def test_no_pickle_and_a_folder_are_refused(store: Store, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pkl", tmp_path):
        with pytest.raises(RefusedError, match="no MMSA pickle at"):
            import_corpus(store, path, "tiny")


def test_a_pickle_that_changes_while_it_is_read_is_refused(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_late(path: Path, *options: Any) -> MmsaCorpus:
        corpus = read_mmsa(path, *options)
        return dataclasses.replace(corpus, source={**corpus.source, "sha256": "0" * 64})

    monkeypatch.setattr(ingest, "read_mmsa", read_late)
    with pytest.raises(RefusedError, match="changed while it was read"):
        import_corpus(store, source, "tiny")


def test_the_sample_is_synthetic_and_the_same_again(store: Store, tmp_path: Path) -> None:
    manifest = import_sample(store)
    assert manifest.corpus == "sample"
    assert manifest.source["synthetic"] is True
    before = files(store)
    assert import_sample(store) == manifest
    assert files(store) == before
    other = Store(tmp_path / "other")
    import_sample(other)
    assert {name: data for name, (_, data) in files(other).items()} == {
        name: data for name, (_, data) in before.items()
    }


@pytest.mark.slow
def test_dask_writes_the_same_bytes(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", 400)
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    manifest = import_corpus(here, source, "tiny")
    with dask_client(Settings(dask="local")) as client:
        assert import_corpus(there, source, "tiny", client) == manifest
    assert [data for _, data in files(here).values()] == [data for _, data in files(there).values()]
    assert list(files(here)) == list(files(there))


def test_the_sample_does_not_take_the_place_of_a_real_corpus(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    real = import_corpus(store, mmsa_pickle(tmp_path / "real.pkl"), "mine")
    with pytest.raises(RefusedError, match=r"'mine' of .* is not synthetic"):
        import_sample(store, "mine")
    assert read_features(store, "mine") == real
    assert import_sample(store, "sample") == import_sample(store, "sample")


def test_too_little_memory_is_no_damage(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's error says nothing of the file: good features stay."""
    made = import_corpus(store, source, "tiny")

    def fail(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 268435456 failed")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "iter_batches", fail)
        with pytest.raises(MemoryError):
            import_corpus(store, source, "tiny")
    assert read_features(store, "tiny") == made and damaged_shards(store, made) == []
