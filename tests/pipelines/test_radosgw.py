"""The store, the flows and gc on Ceph's S3 server, which answers otherwise than AWS and moto in many places."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lnln.config import Config
from lnln.data import s3_client, s3_reader, store_s3
from lnln.data.manifest import read_features
from lnln.data.store import Store, StoreAbilities
from lnln.errors import RefusedError, StoreFailedError
from lnln.gc import find_garbage, remove_garbage
from pipelines.corrupt import corrupt
from pipelines.ingest import import_corpus
from tests.command import lnln
from tests.corpora import mmsa_pickle

pytestmark = pytest.mark.slow

CONFIG = Config.from_dict({"corruption": {"rates": [0.0, 0.5], "validation_rates": [0.0, 0.5], "num_stored_draws": 1}})


@pytest.fixture
def store(radosgw_store_url: str) -> Store:
    return Store(radosgw_store_url)


def test_verbs(store: Store, tmp_path: Path) -> None:
    assert store.probe() == StoreAbilities(conditional_create=True, conditional_update=True)
    for data in (b"", b"x", os.urandom(3000)):
        store.write("a/b.bin", data)
        assert store.read("a/b.bin") == data and store.exists("a/b.bin")
        with store.open("a/b.bin") as file:
            assert file.read() == data and file.seek(1) == 1 and file.read() == data[1:]
        store.download("a/b.bin", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == data
        store.upload(tmp_path / "copy", "uploaded")
        assert store.read("uploaded") == data
    assert {(file.path, file.num_bytes) for file in store.list_files()} == {("a/b.bin", 3000), ("uploaded", 3000)}
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    assert not store.exists("a/b.bin")
    for act in (store.read, store.open, lambda path: store.download(path, tmp_path / "none")):
        with pytest.raises(FileNotFoundError):
            act("a/b.bin")
    filesystem, path = store.arrow("runs/r/file")
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"ray")
    assert store.read("runs/r/file") == b"ray"


def test_pieces(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_reader, "PIECE_BYTES", 1000)
    for num_bytes in (0, 1, 1000, 1001, 7000):
        data = os.urandom(num_bytes)
        store.write("sized", data)
        store.download("sized", tmp_path / "copy")
        with store.open("sized") as file:
            assert store.read("sized") == data == (tmp_path / "copy").read_bytes() == file.read()


def test_create_is_first_come(store: Store) -> None:
    barrier = threading.Barrier(6)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create("x.json", str(number).encode())

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(create, range(6)))
    assert sum(outcomes) == 1 and store.read("x.json") == str(outcomes.index(True)).encode()


def test_update_loses_nothing(store: Store) -> None:
    def add(_: int) -> None:
        store.update("count", lambda before: str(int(before or b"0") + 1).encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(16)))
    assert store.read("count") == b"16"


def test_a_large_file_goes_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_s3, "MULTIPART_BYTES", 6 << 20)
    monkeypatch.setattr(store_s3, "PART_BYTES", 5 << 20)
    data = os.urandom(11 << 20)
    store.write("large", data)
    assert store.read("large") == data and store.list_uploads() == []


def test_refusals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="no such bucket"):
        Store("s3://no-such-bucket/x").read("a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    began = time.monotonic()
    with pytest.raises(StoreFailedError, match="cannot write a: "):
        Store(store.url).write("a", b"")
    assert time.monotonic() - began < 5, "no use in trying again"


def test_flows(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes as in a folder; then gc takes what nothing names and nothing else."""
    monkeypatch.setattr("pipelines.ingest.SHARD_BYTES", 1000)
    pickle, folder = mmsa_pickle(tmp_path / "made.pkl", num=(24, 6, 8)), Store(tmp_path / "store")
    for each in (folder, store):
        import_corpus(each, pickle, "c")
        corrupt(each, "c", CONFIG)
    assert content(store) == content(folder)
    counts = lnln("verify", store=store.url).json
    assert counts["corpora"] == 1 and counts["views"] == 3

    features = read_features(store, "c")
    stray = f"{features.folder}/train/part-0123456789ab.parquet"
    store.write(stray, b"stray")
    s3_client.filesystem().call_s3(
        "create_multipart_upload", Bucket=store.url.split("/")[2], Key=f"lnln/{features.folder}/train/x"
    )
    young = find_garbage(store)
    assert (young.paths, young.uploads) == ([], ())
    monkeypatch.setattr(Store, "clock", lambda self: time.time() + 25 * 3600)
    garbage = find_garbage(store)
    assert garbage.paths == [stray] and [upload.path for upload in garbage.uploads] == [f"{features.folder}/train/x"]
    time.sleep(2.1)  # the clock of a bucket has whole seconds
    store.write(stray, b"stray")
    assert remove_garbage(store, garbage) == [f"{features.folder}/train/x"], "written again since"
    assert remove_garbage(store, find_garbage(store)) == [stray]
    assert store.list_uploads() == [] and content(store) == content(folder)


def content(store: Store) -> dict[str, bytes]:
    return {file.path: store.read(file.path) for file in store.list_files()}
