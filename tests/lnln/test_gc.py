"""What nothing names is found and removed; what anything names, may name, or what is not ours, never."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from lnln import gc
from lnln.config import Config
from lnln.data.manifest import commit_features, commit_view, read_features
from lnln.data.store import Store, StoredFile, UnfinishedUpload
from lnln.data.store_folder import Folder
from lnln.data.verify import damaged_shards
from lnln.errors import RefusedError, StoreFailedError
from lnln.gc import find_garbage, remove_garbage
from lnln.model_store import publish
from lnln.verify import verify
from pipelines.corrupt import corrupt
from pipelines.ingest import import_corpus
from tests.command import lnln
from tests.corpora import mmsa_pickle
from tests.lnln.conftest import RunStore

HOUR = 3600


VIEWS = Config.from_dict(
    {"corruption": {"rates": [0.0, 0.5, 0.9], "validation_rates": [0.0, 0.5], "num_stored_draws": 1}}
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpora a and b of three pickles, a with older features that are not in use, all with views."""
    folder = tmp_path_factory.mktemp("gc")
    store = Store(folder / "store")
    for seed, corpus in enumerate(("a", "b", "a")):
        import_corpus(store, mmsa_pickle(folder / "made.pkl", num=(6, 3, 3), seed=seed), corpus)
        corrupt(store, corpus, VIEWS)
    return folder / "store"


@pytest.fixture
def folder_store(template: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(template, tmp_path / "store"))


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, template: Path) -> Store:
    """A copy of `template`, in a folder and in a bucket."""
    if request.param == "folder":
        copy: Store = request.getfixturevalue("folder_store")
        return copy
    store = Store(request.getfixturevalue("s3_store_url"))
    for path, data in content(Store(template)).items():
        store.write(path, data)
    return store


@pytest.fixture(autouse=True)
def _tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test writes is 25 hours old."""
    monkeypatch.setattr(Store, "clock", lambda self: time.time() + 25 * HOUR)


def content(store: Store) -> dict[str, bytes]:
    return {file.path: store.read(file.path) for file in store.list_files()}


def shards_below(store: Store, folder: str) -> list[str]:
    return sorted(p for p in content(store) if p.startswith(f"{folder}/") and p.endswith(".parquet"))


def collect(store: Store) -> list[str]:
    return remove_garbage(store, find_garbage(store))


def test_a_whole_store_keeps_everything(store: Store) -> None:
    before = content(store)
    assert len([path for path in before if path.endswith(".parquet")]) == 3 * (3 + 3 * 2 + 1)
    garbage = find_garbage(store)
    assert (garbage.paths, garbage.uploads, garbage.kept) == ([], (), {})
    assert remove_garbage(store, garbage) == [] and content(store) == before


def test_what_a_killed_stage_left_is_found_said_and_removed(store: Store) -> None:
    features = read_features(store, "b")
    view = corrupt(store, "b", VIEWS)[0]
    for folder in (features.folder, view.folder):
        store.remove(f"{folder}/manifest.json")
    before = content(store)
    orphans = [*shards_below(store, features.folder), *shards_below(store, view.folder)]
    garbage = find_garbage(store)
    assert garbage.paths == orphans and len(orphans) == 3 + 2
    assert garbage.num_bytes == sum(len(before[path]) for path in orphans)
    assert content(store) == before, "finding removes nothing"
    assert remove_garbage(store, garbage) == orphans
    assert content(store) == {path: data for path, data in before.items() if path not in orphans}
    assert find_garbage(store).paths == [] and verify(store, "a")


def test_a_stray_shard_beside_those_that_are_named(store: Store) -> None:
    features = read_features(store, "a")
    stray = f"{features.folder}/train/part-{'0' * 12}.parquet"
    store.write(stray, b"1234")
    assert collect(store) == [stray]
    assert not damaged_shards(store, features)


def test_the_grace_time(store: Store) -> None:
    features = read_features(store, "b")
    store.remove(f"{features.folder}/manifest.json")
    assert find_garbage(store, 26).paths == [] and len(find_garbage(store, 24).paths) == 3
    for wrong in (-1, float("nan")):
        with pytest.raises(RefusedError, match="grace time must be 0 hours or more, got"):
            find_garbage(store, wrong)


@pytest.mark.parametrize("kind", ["features", "view"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"flip", b'{"content": {}, "sha256": ""}'])
def test_a_damaged_manifest_protects_its_folder(kind: str, damage: bytes, folder_store: Store) -> None:
    store = folder_store
    features = read_features(store, "b")
    view = corrupt(store, "b", VIEWS)[0]
    folder = (features if kind == "features" else view).folder
    stray = f"{folder}/test/part-{'0' * 12}.parquet"
    other = f"{read_features(store, 'a').folder}/test/part-{'0' * 12}.parquet"
    store.write(stray, b"")
    store.write(other, b"")
    whole = store.read(f"{folder}/manifest.json")
    damaged = whole.replace(b'"num_rows": 3', b'"num_rows": 2', 1) if damage == b"flip" else damage
    assert damaged != whole
    store.write(f"{folder}/manifest.json", damaged)
    garbage = find_garbage(store)
    assert garbage.paths == [other] and list(garbage.kept) == [folder]
    assert f"{folder}/manifest.json" in garbage.kept[folder]
    assert remove_garbage(store, garbage) == [other]
    assert store.exists(stray) and all(store.exists(path) for path in shards_below(store, folder))


def test_a_manifest_that_is_damaged_after_it_was_read_protects_too(folder_store: Store) -> None:
    store = folder_store
    features = read_features(store, "b")
    stray = f"{features.folder}/test/part-{'0' * 12}.parquet"
    store.write(stray, b"")
    garbage = find_garbage(store)
    assert garbage.paths == [stray]
    store.write(f"{features.folder}/manifest.json", b"damaged")
    assert remove_garbage(store, garbage) == [] and store.exists(stray)


def test_what_is_committed_meanwhile_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing and the reading of manifests, and between finding and removing."""
    features = read_features(store, "b")
    view = corrupt(store, "b", VIEWS)[0]
    store.remove(f"{features.folder}/manifest.json")
    store.remove(f"{view.folder}/manifest.json")
    list_files = Store.list_files

    def commit_after(self: Store) -> list[StoredFile]:
        listed = list_files(self)
        commit_features(store, features)
        return listed

    monkeypatch.setattr(Store, "list_files", commit_after)
    garbage = find_garbage(store)
    monkeypatch.undo()
    assert garbage.paths == shards_below(store, view.folder)
    commit_view(store, view)
    assert remove_garbage(store, garbage) == []
    assert verify(store)["views"] > 0


def test_what_is_written_again_meanwhile_stays(store: Store) -> None:
    features = read_features(store, "b")
    store.remove(f"{features.folder}/manifest.json")
    garbage = find_garbage(store)
    first, *others = garbage.paths
    data = store.read(first)
    time.sleep(2.1 if "://" in store.url else 0.05)  # the clock of a bucket has whole seconds
    store.write(first, data)
    assert remove_garbage(store, garbage) == others and store.read(first) == data


def test_a_store_that_fails_removes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to be taken for an absent or a damaged manifest."""
    features = read_features(store, "b")
    store.write(f"{features.folder}/test/part-{'0' * 12}.parquet", b"")
    garbage = find_garbage(store)
    before = content(store)

    def fail(self: Store, path: str) -> bytes:
        raise StoreFailedError(f"cannot read {path}")

    monkeypatch.setattr(Store, "read", fail)
    for act in (lambda: find_garbage(store), lambda: remove_garbage(store, garbage)):
        with pytest.raises(StoreFailedError):
            act()
    monkeypatch.undo()
    assert content(store) == before


@pytest.mark.parametrize("moment", ["before", "after it was listed", "after the record went"])
def test_an_import_that_goes_on_from_its_record(moment: str, folder_store: Store) -> None:
    """It makes the record young before it believes the shards that the record names; so an old one goes alone first."""
    store, features = folder_store, read_features(folder_store, "b")
    record = f"{features.folder}/unfinished.json"
    shards = shards_below(store, features.folder)
    store.remove(f"{features.folder}/manifest.json")
    store.write(record, b"{}")
    assert find_garbage(store).paths == [record]
    if moment == "before":
        os.utime(Path(store.url) / record, (time.time() + 24 * HOUR,) * 2)
        assert find_garbage(store).paths == []
        return
    garbage = find_garbage(store)
    if moment == "after it was listed":
        time.sleep(0.05)
        store.write(record, b"{}")
        assert remove_garbage(store, garbage) == []
        return
    assert remove_garbage(store, garbage) == [record] and shards_below(store, features.folder) == shards
    found = find_garbage(store)
    assert found.paths == shards
    store.write(record, b"{}")
    assert remove_garbage(store, found) == []
    store.remove(record)
    assert remove_garbage(store, found) == shards


def test_an_old_record_beside_a_manifest(folder_store: Store) -> None:
    """Left by an import that was killed after it had committed."""
    record = f"{read_features(folder_store, 'b').folder}/unfinished.json"
    folder_store.write(record, b"{}")
    assert collect(folder_store) == [record] and verify(folder_store)["corpora"] == 2


LEFTOVERS = [
    ".corpora.json.0123456789abcdef.part",
    ".corpora.json.lock",
    ".probe-0123456789abcdef",
    "a/features/.current.json.lock",
    "a/views/x/y/test/.part-0123456789ab.parquet.0123456789abcdef.part",
    "models/m/.catalog.json.lock",
    "runs/r/model/.model.safetensors.0123456789abcdef.part",
    "a/features/unknown/train/part-0123456789ab.parquet",
    f"models/m/{'0' * 64}/model.safetensors",
]
NOT_OURS = [
    "notes.part",
    "package.lock",
    "lock",
    ".git/index.lock",
    ".venv/.x.lock",
    "src/.x.0123456789abcdef.part",
    ".probe-of-mine",
    ".other-program.lock",
    "runs/r/lock",
    "runs/r/ray/checkpoint/model.pt",
    "studies/s/journal.log",
    "reports/r/index.html",
    "a/features/README.md",
    "a/features/unknown/README.md",
    "a/features/unknown/croissant.json",
    "a/features/unknown/train/part-mine.parquet",
    "a/features/unknown/mine/part-0123456789ab.parquet",
    "a/features/train/part-0123456789ab.parquet",
    "a/other/x/train/part-0123456789ab.parquet",
    "a/b/features/x/train/part-0123456789ab.parquet",
    "models/m/evaluations/e.json",
    "models/m/v1/model.safetensors",
]


def test_leftovers_go_and_all_else_stays(store: Store) -> None:
    for path in (*LEFTOVERS, *NOT_OURS):
        store.write(path, b"x")
    assert collect(store) == sorted(LEFTOVERS)
    there = content(store)
    assert all(path in there for path in NOT_OURS)
    assert verify(store)["corpora"] == 2


def test_a_lock_that_is_held_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seen: list[list[str]] = []

    def change(before: bytes | None) -> bytes:
        seen.append(collect(store))
        return b"1"

    store.update("corpora.json", change)
    assert seen == [[]] and store.read("corpora.json") == b"1"


def test_models_that_the_catalog_does_not_list(run_store: RunStore) -> None:
    store = run_store.store
    publish(store, run_store.better, "small-lnln")
    before = content(store)
    (folder,) = {
        path.rpartition("/")[0] for path in before if path.startswith("models/small-lnln/") and "manifest" in path
    }
    assert find_garbage(store).paths == []
    orphan = f"models/small-lnln/{'a' * 64}"
    for path in [path for path in before if path.startswith(folder)]:
        store.write(f"{orphan}/{path.rpartition('/')[2]}", before[path])
    assert find_garbage(store).paths == sorted(
        f"{orphan}/{p.rpartition('/')[2]}" for p in before if p.startswith(folder)
    )
    catalog = store.read("models/small-lnln/catalog.json")
    store.write("models/small-lnln/catalog.json", b"damaged")
    garbage = find_garbage(store)
    assert garbage.paths == [] and list(garbage.kept) == ["models/small-lnln"]
    store.write("models/small-lnln/catalog.json", catalog)
    assert len(collect(store)) > 3 and content(store) == before


def test_publishing_again_makes_every_file_young(run_store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `lnln gc` goes by while a publication that was killed is made again."""
    store = run_store.store
    publish(store, run_store.better, "small-lnln")
    store.remove("models/small-lnln/catalog.json")
    files = [file for file in store.list_files() if file.path.startswith("models/small-lnln/")]
    for file in files:
        os.utime(Path(store.url) / file.path, (0, 0))
    garbage = find_garbage(store)
    assert len(garbage.paths) == len(files)
    publish(store, run_store.better, "small-lnln")
    assert remove_garbage(store, garbage) == [] and verify(store, "small-lnln")


@pytest.mark.slow
def test_uploads_that_never_ended(s3_store_url: str) -> None:
    store = Store(s3_store_url)
    backend = store._backend
    where = {"Bucket": s3_store_url.split("/")[2]}
    for key in ("lnln/a/features/f/train/part-0123456789ab.parquet", "elsewhere/x", "lnln/notes/x"):
        backend._fs.call_s3("create_multipart_upload", **where, Key=key)  # type: ignore[attr-defined]
    garbage = find_garbage(store)
    assert [upload.path for upload in garbage.uploads] == ["a/features/f/train/part-0123456789ab.parquet"]
    assert remove_garbage(store, garbage) == ["a/features/f/train/part-0123456789ab.parquet"]
    assert find_garbage(store).uploads == () and [upload.path for upload in store.list_uploads()] == ["notes/x"]


def test_a_young_upload_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto dates every upload 2010, so the folder plays the server."""
    aborted: list[str] = []
    uploads = [UnfinishedUpload(name, "1", time.time() - age * HOUR) for name, age in (("old", 5), ("young", -5))]
    monkeypatch.setattr(Folder, "list_uploads", lambda self: iter(uploads))
    monkeypatch.setattr(Folder, "abort_upload", lambda self, upload: aborted.append(upload.path))
    assert collect(Store(tmp_path)) == ["old"] == aborted


def test_any_manifests_any_strays(folder_store: Store) -> None:
    """Whichever manifests are taken away and whatever is strewn in: the rest stays, to the byte."""
    store, whole = folder_store, content(folder_store)
    folders = sorted({path.rpartition("/")[0] for path in whole if path.endswith("/manifest.json")})
    for seed in range(12):
        chance = random.Random(seed)
        lost = [folder for folder in folders if chance.random() < 0.4]
        gone = {
            path
            for path in whole
            for folder in lost
            if path == f"{folder}/manifest.json" or (path.startswith(f"{folder}/") and path.endswith(".parquet"))
        }
        for folder in lost:
            store.remove(f"{folder}/manifest.json")
        for folder in folders:
            if chance.random() < 0.4:
                store.write(f"{folder}/test/part-{chance.randbytes(6).hex()}.parquet", b"stray")
        collect(store)
        assert content(store) == {path: data for path, data in whole.items() if path not in gone}
        for path in gone:
            store.write(path, whole[path])


def test_an_import_that_goes_on_meanwhile_ends_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old shards of a killed import, the import made again, and gc again and again beside it."""
    monkeypatch.setattr(Store, "clock", lambda self: time.time())
    monkeypatch.setattr("pipelines.ingest.SHARD_BYTES", 300)
    store, pickle = Store(tmp_path / "store"), mmsa_pickle(tmp_path / "made.pkl", num=(60, 20, 20))
    features = import_corpus(store, pickle, "a")
    shards = shards_below(store, features.folder)
    assert len(shards) > 30
    ended, removed = threading.Event(), []

    def collect_for_ever() -> None:
        while not ended.is_set():
            removed.extend(collect(store))

    for _ in range(3):
        store.remove(f"{features.folder}/manifest.json")
        for path in shards:
            os.utime(Path(store.url) / path, (0, 0))
        ended.clear()
        collector = threading.Thread(target=collect_for_ever)
        collector.start()
        made = import_corpus(store, pickle, "a")
        time.sleep(0.05)
        ended.set()
        collector.join()
        assert made == features and verify(store, "a")["feature shards"] == len(shards)
    assert removed, "gc had something to do"


def test_the_second_look_in_a_folder_is_at_the_file_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer replaces the file between the look and the removal."""
    store = Store(tmp_path)
    store.write("a", b"old")
    os.utime(tmp_path / "a", (0, 0))
    (listed,) = store.list_files()
    rename = Path.rename

    def write_first(self: Path, target: Path) -> Path:
        store.write("a", b"new")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", write_first)
    assert not store.remove_unchanged(listed) and store.read("a") == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert not store.remove_unchanged(StoredFile("gone", 1, 0))


def test_the_command(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    import_corpus(store, mmsa_pickle(tmp_path / "made.pkl", num=(6, 3, 3)), "a")
    assert lnln("gc", store=store.url).json == {
        "num_files": 0, "num_bytes": 0, "paths": [], "unfinished_uploads": [], "kept": {}, "removed": None,
    }  # fmt: skip
    stray = f"{read_features(store, 'a').folder}/train/part-{'0' * 12}.parquet"
    store.write(stray, b"1234")
    assert lnln("gc", store=store.url).json["paths"] == [], "young"
    listed = lnln("gc", "--grace", "0", store=store.url).json
    assert (listed["paths"], listed["num_bytes"], listed["removed"]) == ([stray], 4, None) and store.exists(stray)
    assert lnln("gc", "--grace", "0", "--delete", store=store.url).json["removed"] == [stray]
    assert not store.exists(stray)
    assert "got -1" in lnln("gc", "--grace", "-1", store=store.url).refusal
    assert "does not exist" in lnln("gc", store=tmp_path / "none").refusal


def test_what_the_command_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lnln.cli import app

    store = Store(tmp_path / "store")
    store.write("a/features/f/train/part-0123456789ab.parquet", b"1234")
    store.write("b/features/f/manifest.json", b"")
    count = "1 file (4 bytes) and 0 unfinished uploads"
    for options, last in (
        ([], f"nothing names {count}; `lnln --store {store.url} gc --delete` removes them"),
        (["--delete"], f"removed 1 of {count} that nothing names"),
        ([], "nothing to remove"),
    ):
        app(["--store", store.url, "gc", *options], standalone_mode=False)
        *lines, said = capsys.readouterr().out.splitlines()
        assert said == last
        assert lines[-1].startswith("kept b/features/f: ") and "b/features/f/manifest.json" in lines[-1]
        assert lines[:-1] == (["a/features/f/train/part-0123456789ab.parquet"] if "1 file" in last else [])


def test_nobody_else_lists() -> None:
    """Readers take what manifests name; folders of clips and of shards from elsewhere are the exceptions."""
    root = Path(gc.__file__).parents[1]
    listing = {
        path.relative_to(root).as_posix()
        for package in ("lnln", "pipelines", "tuning")
        for path in (root / package).rglob("*.py")
        if "list_files(" in path.read_text(encoding="utf-8")
    }
    stores = {"lnln/data/store.py", "lnln/data/store_folder.py", "lnln/data/store_s3.py"}
    assert listing == {*stores, "lnln/gc.py", "pipelines/clips/table.py", "pipelines/found_shards.py"}
