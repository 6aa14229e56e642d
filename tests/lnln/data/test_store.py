"""The same promises of a store, kept by a folder and by an S3 server."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lnln.data.store import Store, StoreAbilities, default_store, encode_json
from lnln.errors import RefusedError


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(tmp_path / "store")
    return Store(request.getfixturevalue("s3_store_url"))


def test_write_read_replace_remove(store: Store) -> None:
    assert not store.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")
    store.write("a/b.bin", b"one")
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two" and store.exists("a/b.bin")
    store.write("a/empty", b"")
    assert store.read("a/empty") == b""
    store.remove("a/b.bin")
    store.remove("a/b.bin")
    assert not store.exists("a/b.bin")


def test_create_is_first_come(store: Store) -> None:
    assert store.create("x.json", b"first")
    assert not store.create("x.json", b"second")
    assert not store.create("x.json", b"first")
    assert store.read("x.json") == b"first"


def test_only_one_of_many_creates(store: Store) -> None:
    for round_ in range(3):
        barrier = threading.Barrier(6)

        def create(number: int, path: str = f"race/{round_}", barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return store.create(path, b"same" if number % 2 else b"other")

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(create, range(6))) == 1


def test_update_loses_nothing(store: Store) -> None:
    def add(_: int) -> None:
        store.update("count", lambda before: str(int(before or b"0") + 1).encode())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(24)))
    assert store.read("count") == b"24"


def test_update_that_fails_changes_nothing(store: Store) -> None:
    store.write("kept", b"1")

    def fail(before: bytes | None) -> bytes:
        raise RefusedError("no")

    with pytest.raises(RefusedError, match="no"):
        store.update("kept", fail)
    assert store.update("kept", lambda before: (before or b"") + b"2") == b"12"


def test_open_seeks(store: Store) -> None:
    store.write("long", bytes(range(256)) * 100)
    with store.open("long") as file:
        file.seek(25_500)
        assert file.read(3) == bytes([156, 157, 158])
    with pytest.raises(FileNotFoundError):
        store.open("none").read()


def test_upload_and_download(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3 << 20))
    store.upload(source, "models/m.bin")
    store.download("models/m.bin", tmp_path / "new" / "copy.bin")
    assert (tmp_path / "new" / "copy.bin").read_bytes() == source.read_bytes()
    with pytest.raises(FileNotFoundError):
        store.download("models/none", tmp_path / "new" / "none.bin")
    with pytest.raises(FileNotFoundError):
        store.upload(tmp_path / "none", "models/none")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["copy.bin"]
    assert not store.exists("models/none")


def test_json_is_canonical(store: Store) -> None:
    store.write_json("v.json", {"b": [1.5, None], "a": "é"})
    assert store.read("v.json") == '{\n  "a": "é",\n  "b": [\n    1.5,\n    null\n  ]\n}\n'.encode()
    assert store.read_json("v.json") == {"a": "é", "b": [1.5, None]}
    assert not store.create_json("v.json", 1)
    store.write("broken.json", b'{"a": ')
    with pytest.raises(RefusedError, match=r"broken\.json is no whole JSON"):
        store.read_json("broken.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        encode_json(float("nan"))


def test_probe_leaves_nothing(store: Store) -> None:
    assert store.probe() == StoreAbilities(conditional_create=True, conditional_update=True)


def test_pickled_as_its_url(store: Store) -> None:
    store.write("a", b"1")
    other = pickle.loads(pickle.dumps(store))
    assert other == store and other.read("a") == b"1"


def test_arrow_writes_where_the_store_reads(store: Store) -> None:
    filesystem, path = store.arrow("runs/r")
    assert "://" not in path
    filesystem = pickle.loads(pickle.dumps(filesystem))
    filesystem.create_dir(path, recursive=True)
    with filesystem.open_output_stream(f"{path}/file") as stream:
        stream.write(b"ray")
    assert store.read("runs/r/file") == b"ray"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "a\\b", "a\0b"])
def test_paths_stay_inside(store: Store, path: str) -> None:
    for act in (store.read, store.exists, store.remove, lambda p: store.write(p, b""), store.open, store.arrow):
        with pytest.raises(RefusedError, match="path in a store"):
            act(path)


@pytest.mark.parametrize("url", ["", "gs://bucket/x", "s3://", "s3:///x", "http://x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedError, match="store URL must be"):
        Store(url)


def test_relative_url_is_fixed_when_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("./store")
    monkeypatch.chdir("/")
    store.write("a", b"1")
    assert (tmp_path / "store" / "a").read_bytes() == b"1"
    assert Store(f"file://{tmp_path}/store").read("a") == b"1"


def test_default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LNLN_STORE", raising=False)
    assert default_store() == "./store"
    monkeypatch.setenv("LNLN_STORE", "s3://b/p")
    assert default_store() == "s3://b/p"


def test_making_a_store_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not store.exists("x")
    with pytest.raises(FileNotFoundError):
        store.read("x")
    assert not (tmp_path / "store").exists()


def test_nothing_but_the_file_remains_in_a_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create("a", b"1")
    store.create("a", b"2")
    store.write("a", b"3")
    store.update("a", lambda before: b"4")
    store.upload(tmp_path / "a", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Store(tmp_path).write("a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    store = Store(tmp_path / "store")
    for act in (lambda: store.read("a"), lambda: store.write("a", b""), lambda: store.create("a", b"")):
        with pytest.raises(RefusedError, match=r"store .*: cannot \w+ a: (Not a directory|File exists)"):
            act()


def test_folder_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = Store(tmp_path)
    assert store.create("a", b"1") and not store.create("a", b"2")
    assert store.read("a") == b"1" and [path.name for path in tmp_path.iterdir()] == ["a"]


def _add_in_process(url: str, times: int) -> None:
    for _ in range(times):
        Store(url).update("list.json", lambda before: encode_json([*json.loads(before or b"[]"), 1]))


@pytest.mark.slow
def test_update_between_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_in_process, args=(str(tmp_path), 30)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(Store(tmp_path).read_json("list.json")) == 90
    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]


@pytest.mark.slow
def test_missing_bucket_is_refused(s3_store_url: str) -> None:
    store = Store("s3://no-such-bucket/x")
    acts: list[Callable[[], object]] = [
        lambda: store.read("a"),
        lambda: store.exists("a"),
        lambda: store.write("a", b""),
        lambda: store.create("a", b""),
        lambda: store.open("a"),
    ]
    for act in acts:
        with pytest.raises(RefusedError, match="no-such-bucket"):
            act()


@pytest.mark.slow
def test_unreachable_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(RefusedError, match=r"store s3://b/x: cannot read a: .*127\.0\.0\.1"):
        Store("s3://b/x").read("a")


@pytest.mark.slow
def test_other_writers_answer_is_not_taken_for_ours(s3_store_url: str) -> None:
    """A lost race by If-None-Match is told from our own write whose answer was lost."""
    from lnln.data.store_s3 import S3

    bucket, _, prefix = s3_store_url.removeprefix("s3://").partition("/")
    backend = S3(bucket, prefix)
    assert backend._put_if("a", b"1", {"IfNoneMatch": "*"})
    assert not backend._put_if("a", b"1", {"IfNoneMatch": "*"})
    assert not backend._put_if("a", b"2", {"IfMatch": '"00000000000000000000000000000000"'})
    assert not backend._put_if("gone", b"2", {"IfMatch": '"00000000000000000000000000000000"'})
    assert backend.read("a") == b"1"


@pytest.mark.parametrize("data", [b'{"rate": NaN}', b'{"rate": -Infinity}', b"[" * 200_000])
def test_json_that_is_none_is_refused_by_name(store: Store, data: bytes) -> None:
    store.write("a/value.json", data)
    with pytest.raises(RefusedError, match=r"a/value\.json is no whole JSON file"):
        store.read_json("a/value.json")


def test_a_file_replaced_while_gc_looks_stays_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links")

    store = Store(tmp_path)
    store.write("a/old", b"old")
    os.utime(tmp_path / "a" / "old", (1, 1))
    (old,) = store.list_files()
    rename = Path.rename

    def replace_first(path: Path, target: Path) -> Path:
        if path.name == "old":
            path.write_bytes(b"new")
        return rename(path, target)

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(Path, "rename", replace_first)
    assert not store.remove_unchanged(old)
    assert store.read("a/old") == b"new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["old"]
