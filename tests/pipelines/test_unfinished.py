"""After an import that ended badly: a rerun writes what is missing, and believes no record that it has not checked."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lnln.data.manifest import FeatureManifest, ShardEntry, read_features
from lnln.data.schema import Utterances
from lnln.data.shards import read_split, write_shard
from lnln.data.store import Store
from lnln.data.verify import are_intact, damaged_shards
from lnln.errors import RefusedError
from pipelines import ingest, unfinished
from pipelines.execute import StageFailedError
from pipelines.ingest import import_corpus
from tests.command import lnln
from tests.corpora import mmsa_content


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", 400)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps(mmsa_content((12, 4, 5))))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def whole(tmp_path: Path, source: Path) -> tuple[FeatureManifest, dict[str, bytes]]:
    """The manifest and the files of an import that nothing disturbed."""
    store = Store(tmp_path / "undisturbed")
    return import_corpus(store, source, "tiny"), contents(store)


def contents(store: Store) -> dict[str, bytes]:
    root = Path(store.url)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def record_path(store: Store, manifest: FeatureManifest) -> Path:
    return Path(store.url) / manifest.folder / "unfinished.json"


def jobs_run(monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], BaseException | None]) -> list[int]:
    """Numbers of the shards that are encoded from now on; `fails` says which of them fail, and how."""
    seen: list[int] = []

    def write(store: Store, folder: str, split: Any, utterances: Utterances) -> ShardEntry:
        seen.append(len(seen))
        error = fails(seen[-1])
        if error is not None:
            raise error
        return write_shard(store, folder, split, utterances)

    monkeypatch.setattr(ingest, "write_shard", write)
    return seen


@pytest.fixture
def failed(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[FeatureManifest, dict[str, bytes]]
) -> Iterator[tuple[FeatureManifest, dict[str, bytes]]]:
    """An import whose second and fifth job have failed."""
    with monkeypatch.context() as patch:
        seen = jobs_run(patch, lambda number: OSError("disk is full") if number in (1, 4) else None)
        with pytest.raises(StageFailedError, match=r"import tiny: 2 of \d+ jobs failed"):
            import_corpus(store, source, "tiny")
    assert len(seen) == sum(len(split.shards) for split in whole[0].splits.values()) > 5
    with pytest.raises(RefusedError, match="holds no corpus"):
        read_features(store, "tiny")
    yield whole


def test_a_rerun_does_what_failed_and_nothing_else(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = failed
    before = {path: path.stat().st_mtime_ns for path in Path(store.url).rglob("*.parquet")}
    seen = jobs_run(monkeypatch, lambda _: None)
    assert import_corpus(store, source, "tiny") == manifest
    assert len(seen) == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert contents(store) == files


def test_a_rerun_that_fails_has_less_to_do_the_next_time(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = failed
    jobs_run(monkeypatch, lambda number: OSError("disk is full") if number == 0 else None)
    with pytest.raises(StageFailedError, match="1 of 2 jobs failed"):
        import_corpus(store, source, "tiny")
    seen = jobs_run(monkeypatch, lambda _: None)
    assert import_corpus(store, source, "tiny") == manifest and len(seen) == 1 and contents(store) == files


def test_the_record_is_new_again_before_old_shards_are_relied_on(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or `lnln gc` might take, as old and named by nothing, what has just been found to be whole."""
    path = record_path(store, failed[0])
    os.utime(path, (1, 1))
    ages: list[float] = []

    def look(*arguments: Any) -> Iterator[bool]:
        ages.append(path.stat().st_mtime)
        return are_intact(*arguments)

    monkeypatch.setattr(unfinished, "are_intact", look)
    import_corpus(store, source, "tiny")
    assert len(ages) == 1 and ages[0] > 1 and not path.exists()


@pytest.mark.parametrize("how", ["a bit", "gone", "cut"])
def test_shards_that_were_damaged_since_are_written_again(
    store: Store,
    source: Path,
    failed: tuple[FeatureManifest, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    path = Path(store.url) / failed[0].splits["train"].shards[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data if how == "a bit" else data[:-1])
    seen = jobs_run(monkeypatch, lambda _: None)
    manifest = import_corpus(store, source, "tiny")
    assert len(seen) == 3 and damaged_shards(store, manifest) == [] and contents(store) == failed[1]


@pytest.mark.parametrize("position", [5, 40, 300, 10**6])
def test_a_bit_flipped_in_the_record_is_noticed(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]], position: int
) -> None:
    """One bit makes another job's name of a job's name."""
    path = record_path(store, failed[0])
    data = bytearray(path.read_bytes())
    data[min(position, data.index(b"train 2"))] ^= 1
    path.write_bytes(data)
    assert import_corpus(store, source, "tiny") == failed[0] and contents(store) == failed[1]


def test_shards_of_other_jobs_are_not_taken(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    path = record_path(store, failed[0])
    text = path.read_text().replace('"train 2"', '"train x"').replace('"train 3"', '"train 2"')
    path.write_text(text.replace('"train x"', '"train 3"'))
    assert import_corpus(store, source, "tiny") == failed[0] and contents(store) == failed[1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record["shards"]["train 0"].update(num_rows=99),
        lambda record: record["shards"]["train 0"].update(path="tiny/features/else/train/part-0.parquet"),
        lambda record: record["shards"]["train 0"].update(path="../../etc/passwd"),
        lambda record: record["shards"]["train 0"].update(sha256="0" * 64),
        lambda record: record["shards"].update(other=record["shards"]["train 0"]),
        lambda record: record["shards"].update({"train 0": None}),
        lambda record: record["shards"].update({"train 0": {"path": 1}}),
        lambda record: record["shards"]["train 0"].update(sha256=7),
        lambda record: record.update(shards=[1]),
        lambda record: record.update(plan="0"),
        lambda record: record.pop("plan"),
    ],
)
def test_a_record_that_is_wrong_is_not_believed(
    store: Store,
    source: Path,
    failed: tuple[FeatureManifest, dict[str, bytes]],
    spoil: Callable[[dict[str, Any]], Any],
) -> None:
    path = record_path(store, failed[0])
    record = json.loads(path.read_text())
    spoil(record["content"])
    path.write_text(json.dumps(unfinished.signed(record["content"])))
    assert import_corpus(store, source, "tiny") == failed[0] and contents(store) == failed[1]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"\xff"])
def test_a_record_that_is_none_is_not_believed(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]], data: bytes
) -> None:
    record_path(store, failed[0]).write_bytes(data)
    assert import_corpus(store, source, "tiny") == failed[0] and contents(store) == failed[1]


def test_shards_that_were_cut_otherwise_are_not_taken(
    store: Store, source: Path, failed: tuple[FeatureManifest, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "SHARD_BYTES", 700)
    manifest = import_corpus(store, source, "tiny")
    sizes = [[shard.num_rows for shard in one.splits["train"].shards] for one in (manifest, failed[0])]
    assert sizes[0] != sizes[1]
    assert read_split(store, manifest, "train").utterance_id == [f"video0$_${i}" for i in range(12)]


def test_an_import_that_the_user_ends_is_continued(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    with monkeypatch.context() as patch:
        jobs_run(patch, lambda number: KeyboardInterrupt() if number == 3 else None)
        with pytest.raises(KeyboardInterrupt):
            import_corpus(store, source, "tiny")
    seen = jobs_run(monkeypatch, lambda _: None)
    num_shards = sum(len(split.shards) for split in whole[0].splits.values())
    assert import_corpus(store, source, "tiny") == whole[0] and len(seen) == num_shards - 3
    assert contents(store) == whole[1]


def test_a_killed_process_has_noted_what_it_did(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[FeatureManifest, dict[str, bytes]]
) -> None:
    monkeypatch.setattr(unfinished, "SAVE_EVERY_SECONDS", 0)
    child = os.fork()
    if not child:
        jobs_run(monkeypatch, lambda number: os._exit(9) if number == 4 else None)
        import_corpus(store, source, "tiny")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    seen = jobs_run(monkeypatch, lambda _: None)
    num_shards = sum(len(split.shards) for split in whole[0].splits.values())
    assert import_corpus(store, source, "tiny") == whole[0] and len(seen) == num_shards - 4
    assert contents(store) == whole[1]


def test_a_store_that_fails_does_not_hide_what_failed(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_run(monkeypatch, lambda number: OSError("disk is full") if number else None)
    monkeypatch.setattr(Store, "write_json", lambda *_: (_ for _ in ()).throw(RefusedError("the disk is full")))
    with pytest.raises(StageFailedError, match=r"OSError: disk is full"):
        import_corpus(store, source, "tiny")


def test_the_command_says_what_failed_and_mends_it(tmp_path: Path, source: Path) -> None:
    """A folder where a file must go fails one job; once it is gone, the same command ends well."""
    store = Store(tmp_path / "store")
    other = Store(tmp_path / "other")
    done = lnln("import", source, "--corpus", "tiny", store=other.url).json
    manifest = read_features(other, "tiny")
    obstacle = Path(store.url) / manifest.splits["valid"].shards[0].path
    (obstacle / "x").mkdir(parents=True)
    refusal = lnln("import", source, "--corpus", "tiny", store=store.url).refusal
    assert (
        "import tiny: 1 of 3 jobs failed (valid 0: " in refusal and "the same command does what is missing" in refusal
    )
    (obstacle / "x").rmdir()
    obstacle.rmdir()
    before = {path: path.stat().st_mtime_ns for path in Path(store.url).rglob("*.parquet")}
    assert len(before) == 2
    assert {**lnln("import", source, "--corpus", "tiny", store=store.url).json, "store": 0} == {**done, "store": 0}
    assert {path: path.stat().st_mtime_ns for path in before} == before and contents(store) == contents(other)
    assert dataclasses.asdict(read_features(store, "tiny")) == dataclasses.asdict(manifest)
