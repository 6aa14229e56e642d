"""Copies of a model's files: they are whole, or refused by name, and continue where they were cut off."""

from __future__ import annotations

import errno
import multiprocessing
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from lnln.data import s3_reader
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store.fetch import fetch_folder, is_unfinished
from lnln.model_store.files import MANIFEST, ModelManifest, fetch, is_whole, read_manifest_of
from lnln.model_store.importing import import_model
from lnln.model_store.opened import open_model
from tests.faulty_proxy import FaultyProxy

CONTENT = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "empty.txt": b""}
MIB = 1 << 20


def put(store: Store, folder: Path, content: dict[str, bytes], prefix: str = "m") -> ModelManifest:
    """Write `content` to `prefix` of the store; `folder` is made on the way."""
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
        store.write(f"{prefix}/{name}", data)
    return ModelManifest.of_folder(folder, content)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, ModelManifest]:
    store = Store(tmp_path / "store")
    return store, put(store, tmp_path / "source", CONTENT)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Store, ModelManifest, bytes]:
    """A model of 3 MiB and a bit: whoever writes no files above `LIMIT` gets its middle."""
    store = Store(tmp_path / "store")
    data = np.random.default_rng(0).bytes(3 * MIB + 77)
    return store, put(store, tmp_path / "source", {"a.json": b"{}", "model.safetensors": data}), data


LIMIT = 2 * MIB + 1234


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """As on a disk that is full: a write that would make a file larger ends there, with an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def cut_off(store: Store, manifest: ModelManifest, target: Path) -> Path:
    """Begin a copy that ends within the large file; returns that, as far as it came."""
    with no_file_above(LIMIT), pytest.raises(OSError) as error:
        fetch_folder(store, "m", manifest, target)
    assert error.value.errno == errno.EFBIG and not target.exists()
    (part,) = target.parent.glob(f".{target.name}.lnln-parts/*.part")
    assert part.stat().st_size == LIMIT
    return part


def leftovers(target: Path) -> list[str]:
    return [entry.name for entry in target.parent.iterdir() if entry.name.startswith(f".{target.name}")]


def test_new_folder_is_filled(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "deep" / "target"
    assert fetch_folder(store, "m", manifest, target) == sorted(CONTENT)
    assert {entry.name for entry in target.iterdir()} == {*CONTENT, MANIFEST}
    assert all((target / name).read_bytes() == data for name, data in CONTENT.items())
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]


def test_an_empty_folder_and_a_link_to_one_are_filled(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    fetch_folder(store, "m", manifest, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "empty" / MANIFEST).is_file()


def test_of_a_whole_copy_nothing_is_read(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    shutil.rmtree(store.url)
    assert fetch_folder(store, "m", manifest, target) == []
    assert leftovers(target) == []


def test_only_what_is_missing_or_damaged_is_fetched_again(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    (target / "config.json").unlink()
    (target / "model.safetensors").write_bytes(b"Weights" * 1000)
    (target / "notes.txt").write_text("mine")
    store.remove("m/empty.txt")
    assert fetch_folder(store, "m", manifest, target) == ["config.json", "model.safetensors"]
    assert all(is_whole(target, file) for file in manifest.files)
    assert (target / "notes.txt").read_text() == "mine"
    assert leftovers(target) == []


@pytest.mark.parametrize("manifest_bytes", [None, b"", b"garbage"])
def test_lost_manifest_is_mended(
    stored: tuple[Store, ModelManifest], tmp_path: Path, manifest_bytes: bytes | None
) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    (target / MANIFEST).unlink()
    if manifest_bytes is not None:
        (target / MANIFEST).write_bytes(manifest_bytes)
    assert fetch_folder(store, "m", manifest, target) == []
    assert (target / MANIFEST).read_bytes() == manifest.to_bytes()


def test_foreign_folder_is_left_alone(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    target.mkdir()
    (target / "README.md").write_text("mine")
    with pytest.raises(RefusedError, match="not empty"):
        fetch_folder(store, "m", manifest, target)
    assert [entry.name for entry in target.iterdir()] == ["README.md"]
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RefusedError, match="something else than a folder"):
        fetch_folder(store, "m", manifest, file)
    assert leftovers(target) == [] and leftovers(file) == []


def test_untouched_older_version_is_replaced_and_a_touched_one_is_not(
    stored: tuple[Store, ModelManifest], tmp_path: Path
) -> None:
    store, old = stored
    new = put(store, tmp_path / "newer", {"model.safetensors": b"newer"}, "n")
    target = tmp_path / "target"
    fetch_folder(store, "m", old, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(RefusedError, match="not empty"):
        fetch_folder(store, "n", new, target)
    (target / "notes.txt").unlink()
    fetch_folder(store, "n", new, target)
    assert {entry.name for entry in target.iterdir()} == {"model.safetensors", MANIFEST}
    assert (target / "model.safetensors").read_bytes() == b"newer"
    assert leftovers(target) == []


def test_damage_in_the_store_is_refused_by_name_and_leaves_nothing(
    stored: tuple[Store, ModelManifest], tmp_path: Path
) -> None:
    store, manifest = stored
    data = bytearray(CONTENT["model.safetensors"])
    data[77] ^= 1
    target = tmp_path / "new" / "target"
    for damaged in (bytes(data), bytes(data[:-1]), bytes(data) + b"x", b""):
        store.write("m/model.safetensors", damaged)
        with pytest.raises(RefusedError, match=r"m/model\.safetensors is damaged"):
            fetch_folder(store, "m", manifest, target)
        assert list((tmp_path / "new").iterdir()) == []
    store.remove("m/model.safetensors")
    with pytest.raises(RefusedError, match=r"m/model\.safetensors is absent"):
        fetch_folder(store, "m", manifest, target)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_folder_that_one_stands_in_stays_the_folder_that_it_is(
    stored: tuple[Store, ModelManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point cannot be replaced, and beside it nothing may be written: nothing is done outside of it."""
    store, manifest = stored
    target = tmp_path / "shell" / "here"
    target.mkdir(parents=True)
    monkeypatch.chdir(target)
    before = target.stat().st_ino
    parent = target.parent.stat().st_mtime_ns
    assert fetch_folder(store, "m", manifest, Path()) == sorted(CONTENT)
    assert Path("model.safetensors").read_bytes() == CONTENT["model.safetensors"], "from where one stood before"
    newer = put(store, tmp_path / "newer", {"model.safetensors": b"newer", "config.json": b"{}"}, "n")
    store.remove("n/config.json")
    assert fetch_folder(store, "n", newer, Path()) == ["model.safetensors"], "what both versions have is there"
    assert {entry.name for entry in Path().iterdir()} == {"model.safetensors", "config.json", MANIFEST}
    assert target.stat().st_ino == before and target.parent.stat().st_mtime_ns == parent
    assert leftovers(target) == []


class Killed(BaseException):
    """In place of a signal that nobody catches."""


@contextmanager
def killed_at_move(number: int) -> Iterator[None]:
    """As if the process ended before its move with this number, from 0 on."""
    left = iter(range(number))
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise Killed
        return replace(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", counted)
        yield


@pytest.mark.parametrize("version", ["the same", "another"], ids=lambda which: f"then {which}")
@pytest.mark.parametrize("before", ["empty", "older"])
def test_a_copy_into_a_folder_that_ends_at_any_move_is_refused_and_continued(
    stored: tuple[Store, ModelManifest], tmp_path: Path, before: str, version: str
) -> None:
    store, manifest = stored
    old_content = {"model.safetensors": b"older", "config.json": b"{}", "gone.txt": b"gone"}
    old = put(store, tmp_path / "older", old_content, "o")
    third = put(store, tmp_path / "third", {"model.safetensors": b"third", "b.json": b"{}"}, "t")
    num_cut = 0
    for number in range(20):
        target = tmp_path / f"target-{number}"
        target.mkdir()
        if before == "older":
            fetch_folder(store, "o", old, target)
        with killed_at_move(number):
            try:
                fetch_folder(store, "m", manifest, target)
            except Killed:
                num_cut += 1
            else:
                break
        if (found := read_manifest_of(target)) is None:
            assert is_unfinished(target)
            with pytest.raises(RefusedError, match=f"target-{number} holds a part of a model.*pull` it there again"):
                open_model(store, str(target))
            with pytest.raises(RefusedError, match=f"target-{number} holds a part of a model"):
                import_model(store, target, "imported")
        else:
            assert found == old and all(is_whole(target, file) for file in old.files), "or it is what it was"
        prefix, wanted = ("m", manifest) if version == "the same" else ("t", third)
        fetch_folder(store, prefix, wanted, target)
        assert {entry.name for entry in target.iterdir()} == {*(file.name for file in wanted.files), MANIFEST}
        assert all(is_whole(target, file) for file in wanted.files) and not is_unfinished(target)
    assert num_cut >= 5


def test_what_came_into_a_folder_is_not_read_again(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    target.mkdir()
    # Three parts that are whole, this manifest by way of the parts, and the first file.
    with killed_at_move(5), pytest.raises(Killed):
        fetch_folder(store, "m", manifest, target)
    assert is_unfinished(target) and sum(1 for _ in target.iterdir()) == 2
    shutil.rmtree(store.url)
    (target / "notes.txt").write_text("mine")
    fetch_folder(store, "m", manifest, target)
    assert {entry.name for entry in target.iterdir()} == {*CONTENT, MANIFEST, "notes.txt"}


def test_what_is_put_there_while_files_come_is_not_written_over(
    stored: tuple[Store, ModelManifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    target.mkdir()

    def fetched(*arguments: Any) -> None:
        fetch(*arguments)
        (target / "config.json").write_text("mine")

    monkeypatch.setattr("lnln.model_store.fetch.fetch", fetched)
    with pytest.raises(RefusedError, match="not empty"):
        fetch_folder(store, "m", manifest, target)
    assert [entry.name for entry in target.iterdir()] == ["config.json"]
    assert (target / "config.json").read_text() == "mine"


@pytest.mark.parametrize("where", ["files/stray", "files/config.json", "stray", "{part}", "begun/x/y"])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_stray_folder_among_the_parts_stops_nobody(
    stored: tuple[Store, ModelManifest], tmp_path: Path, where: str, is_there: bool
) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    if is_there:
        target.mkdir()
    parts = target / ".lnln-parts" if is_there else tmp_path / ".target.lnln-parts"
    stray = parts / where.format(part=f"{manifest.files[0].sha256}.part")
    stray.mkdir(parents=True)
    (stray / "file").write_text("?")
    fetch_folder(store, "m", manifest, target)
    assert {entry.name for entry in target.iterdir()} == {*CONTENT, MANIFEST} and leftovers(target) == []


def test_files_where_folders_should_be_among_the_parts(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    parts = tmp_path / ".target.lnln-parts"
    parts.mkdir()
    for name in ("files", "begun"):
        (parts / name).write_text("?")
    fetch_folder(store, "m", manifest, tmp_path / "target")
    parts.mkdir()
    (parts / "lock").mkdir()
    shutil.rmtree(tmp_path / "target")
    with pytest.raises(RefusedError, match="lock: it is a folder; remove it"):
        fetch_folder(store, "m", manifest, tmp_path / "target")


def test_a_folder_with_the_name_of_a_file_is_refused(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    (target / "config.json").unlink()
    (target / "config.json").mkdir()
    with pytest.raises(RefusedError, match=r"config\.json is a folder, and the model has a file of that name"):
        fetch_folder(store, "m", manifest, target)


def test_link_is_not_a_whole_file(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    outside = tmp_path / "outside.json"
    outside.write_bytes(CONTENT["config.json"])
    (target / "config.json").unlink()
    (target / "config.json").symlink_to(outside)
    assert fetch_folder(store, "m", manifest, target) == ["config.json"]
    assert not (target / "config.json").is_symlink()


def test_a_copy_that_was_cut_off_continues_at_the_byte(
    large: tuple[Store, ModelManifest, bytes], tmp_path: Path
) -> None:
    store, manifest, data = large
    target = tmp_path / "target"
    cut_off(store, manifest, target)
    # What was copied before is not there to be read again.
    store.remove("m/a.json")
    store.write("m/model.safetensors", bytes(LIMIT) + data[LIMIT:])
    fetch_folder(store, "m", manifest, target)
    assert (target / "model.safetensors").read_bytes() == data
    assert leftovers(target) == []


@pytest.mark.parametrize("damage", ["a byte", "too long", "all of it", "empty"])
def test_a_part_that_was_damaged_is_begun_anew(
    large: tuple[Store, ModelManifest, bytes], tmp_path: Path, damage: str
) -> None:
    store, manifest, data = large
    target = tmp_path / "target"
    part = cut_off(store, manifest, target)
    content = {"a byte": b"x" + data[1:LIMIT], "too long": data + b"x", "all of it": bytes(len(data)), "empty": b""}
    part.write_bytes(content[damage])
    fetch_folder(store, "m", manifest, target)
    assert (target / "model.safetensors").read_bytes() == data


def test_damage_in_the_store_behind_a_part_is_the_stores(
    large: tuple[Store, ModelManifest, bytes], tmp_path: Path
) -> None:
    store, manifest, data = large
    target = tmp_path / "target"
    cut_off(store, manifest, target)
    store.write("m/model.safetensors", data[:-1] + b"?")
    with pytest.raises(RefusedError, match=r"m/model\.safetensors is damaged"):
        fetch_folder(store, "m", manifest, target)
    assert not target.exists() and leftovers(target) == []


def test_what_came_of_another_version_does_not_get_into_this_one(
    large: tuple[Store, ModelManifest, bytes], tmp_path: Path
) -> None:
    store, manifest, data = large
    target = tmp_path / "target"
    cut_off(store, manifest, target)
    newer = put(store, tmp_path / "newer", {"model.safetensors": data, "b.json": b"{}"}, "n")
    store.write("n/model.safetensors", bytes(LIMIT) + data[LIMIT:])
    fetch_folder(store, "n", newer, target)
    assert {entry.name for entry in target.iterdir()} == {"model.safetensors", "b.json", MANIFEST}
    assert (target / "model.safetensors").read_bytes() == data, "but what both have is continued"
    assert leftovers(target) == []


def test_a_mend_that_was_cut_off_leaves_what_is_whole(
    large: tuple[Store, ModelManifest, bytes], tmp_path: Path
) -> None:
    store, manifest, data = large
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    (target / "model.safetensors").unlink()
    with no_file_above(LIMIT), pytest.raises(OSError):
        fetch_folder(store, "m", manifest, target)
    assert {entry.name for entry in target.iterdir()} == {"a.json", MANIFEST, ".lnln-parts"}
    store.write("m/model.safetensors", bytes(LIMIT) + data[LIMIT:])
    assert fetch_folder(store, "m", manifest, target) == ["model.safetensors"]
    assert (target / "model.safetensors").read_bytes() == data and leftovers(target) == []
    assert {entry.name for entry in target.iterdir()} == {"a.json", "model.safetensors", MANIFEST}


def test_who_copies_the_same_at_the_same_time_waits_and_copies_nothing(
    large: tuple[Store, ModelManifest, bytes], tmp_path: Path
) -> None:
    store, manifest, _ = large
    barrier = threading.Barrier(8)

    def one(_: int) -> list[str]:
        barrier.wait()
        return fetch_folder(store, "m", manifest, tmp_path / "target")

    with ThreadPoolExecutor(8) as pool:
        copied = list(pool.map(one, range(8)))
    assert sorted(copied) == [*[[]] * 7, ["a.json", "model.safetensors"]]
    assert all(is_whole(tmp_path / "target", file) for file in manifest.files)
    assert leftovers(tmp_path / "target") == []


def test_versions_that_are_put_to_one_place_at_the_same_time_do_not_mix(
    stored: tuple[Store, ModelManifest], tmp_path: Path
) -> None:
    store, first = stored
    second = put(store, tmp_path / "newer", {**CONTENT, "model.safetensors": b"newer" * 1000}, "n")
    target = tmp_path / "target"

    def one(number: int) -> None:
        prefix, manifest = [("m", first), ("n", second)][number % 2]
        barrier.wait()
        fetch_folder(store, prefix, manifest, target)

    barrier = threading.Barrier(8)
    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(8)))
        found = ModelManifest.from_bytes((target / MANIFEST).read_bytes(), "target")
        assert found in (first, second) and all(is_whole(target, file) for file in found.files)


def _copy(url: str, manifest: ModelManifest, target: Path) -> None:
    fetch_folder(Store(url), "m", manifest, target)


@pytest.mark.slow
def test_a_process_that_is_killed_lets_go_and_is_continued(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    data = np.random.default_rng(0).bytes(96 * MIB)
    manifest = put(store, tmp_path / "source", {"model.safetensors": data})
    target = tmp_path / "target"
    context = multiprocessing.get_context("spawn")
    num_cut = 0
    for _ in range(5):
        process = context.Process(target=_copy, args=(store.url, manifest, target))
        process.start()
        deadline = time.monotonic() + 30
        while process.is_alive() and time.monotonic() < deadline:
            if any(part.stat().st_size for part in tmp_path.glob(".target.lnln-parts/*.part")):
                break
            time.sleep(0.0005)
        process.kill()
        process.join(10)
        parts = list(tmp_path.glob(".target.lnln-parts/*.part"))
        num_cut += bool(parts)
        for part in parts:
            assert data.startswith(part.read_bytes()[: 4 * MIB]), "what came is a beginning"
        if target.exists():
            assert all(is_whole(target, file) for file in manifest.files), "whole or absent"
            shutil.rmtree(target)
    assert num_cut, "none was killed within the copy"
    fetch_folder(store, "m", manifest, target)
    assert all(is_whole(target, file) for file in manifest.files) and leftovers(target) == []


@pytest.mark.slow
def test_over_s3_a_lost_connection_costs_what_was_not_copied(
    s3_endpoint: str, s3_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_reader, "PIECE_BYTES", MIB)
    monkeypatch.setenv("LNLN_S3_RETRY_SECONDS", "0")
    with FaultyProxy(s3_endpoint, seed=0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = Store(s3_store_url)
        data = np.random.default_rng(0).bytes(7 * MIB + 5)
        manifest = put(store, tmp_path / "source", {"model.safetensors": data})
        target = tmp_path / "target"

        def num_pieces() -> int:
            made = [method for method, path in proxy.requests if urlsplit(path).path.endswith("/model.safetensors")]
            proxy.requests.clear()
            return made.count("GET")

        num_pieces()
        proxy.rate, proxy.kinds, proxy.num_to_spare = 1.0, ("truncated answer",), 5
        with pytest.raises(StoreFailedError):
            fetch_folder(store, "m", manifest, target)
        assert not target.exists() and num_pieces() >= 6
        proxy.be_good()
        fetch_folder(store, "m", manifest, target)
        # Of its 8 pieces the 3 that were missing, and the first, which says what object it is.
        assert num_pieces() == 4
        assert (target / "model.safetensors").read_bytes() == data
        assert fetch_folder(store, "m", manifest, target) == [] and num_pieces() == 0


def test_what_is_no_place_for_a_model_is_refused(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    with pytest.raises(RefusedError, match="a folder of its own"):
        fetch_folder(store, "m", manifest, Path("/"))
    (tmp_path / ".target.lnln-parts").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedError, match="is no folder; remove it"):
        fetch_folder(store, "m", manifest, tmp_path / "target")
    assert not (tmp_path / "target").exists()
