"""Feature shards that no manifest lists: the same files on this machine and in a bucket, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines import found_shards
from pipelines.found_shards import _fits, find_shards

FILES = ("a.parquet", "b.parquet", "b.csv", "deep/a.parquet", "deep/er/c.parquet", "_hidden.parquet", ".b.parquet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "shards" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "shards"


def names(folder: Path, *inputs: str, but_below: str | None = None) -> list[str]:
    return [shard.url.removeprefix(f"{folder}/") for shard in find_shards(inputs, but_below=but_below)]


def test_files_folders_and_patterns(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(folder, f"{folder}/b.parquet") == ["b.parquet"]
    assert names(folder, str(folder)) == ["a.parquet", "b.parquet", "deep/a.parquet", "deep/er/c.parquet"]
    assert names(folder, f"{folder}/*.parquet") == ["a.parquet", "b.parquet"]
    assert names(folder, f"{folder}/*/[ac].parquet") == ["deep/a.parquet"]
    assert names(folder, f"{folder}/**/?.parquet", f"{folder}/a.parquet") == names(folder, f"{folder}/")
    assert names(folder, f"{folder}/_hidden.parquet") == ["_hidden.parquet"]
    monkeypatch.chdir(folder)
    assert names(folder, "*.parquet", "./a.parquet") == ["a.parquet", "b.parquet"]
    assert names(folder, "deep") == ["deep/a.parquet", "deep/er/c.parquet"]
    for shard in find_shards(["deep"]):
        assert len(shard.store.read(shard.path)) == shard.num_bytes


def test_what_is_below_the_output_is_no_input(folder: Path) -> None:
    assert names(folder, str(folder), but_below=f"{folder}/deep") == ["a.parquet", "b.parquet"]
    assert names(folder, str(folder), but_below=f"{folder}/dee") == names(folder, str(folder))
    assert names(folder, f"{folder}/deep/../*.parquet", but_below=f"{folder}/deep")
    with pytest.raises(RefusedError, match="no feature shard"):
        find_shards([f"{folder}/deep/../deep/*.parquet"], but_below=f"{folder}/deep")


@pytest.mark.parametrize(
    "given_",
    ["b.csv", "absent.parquet", "*.csv", "x/*.parquet", "great movie", "x" * 5000, "a\0b", "**x/*.parquet", "deep/**"],
)
def test_nothing_is_refused_by_what_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch, given_: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(RefusedError, match="feature shard") as refusal:
        find_shards(["a.parquet", given_])
    assert "\n" not in str(refusal.value)


def test_a_file_that_no_machine_should_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_shards, "MAX_SHARD_BYTES", 10)
    with pytest.raises(RefusedError, match=r"deep/a\.parquet has 14 bytes.*several of 10 at most"):
        find_shards([str(folder)])


def test_a_folder_that_leads_to_itself_ends(folder: Path) -> None:
    (folder / "deep" / "loop").symlink_to(folder)
    assert names(folder, str(folder)) == ["a.parquet", "b.parquet", "deep/a.parquet", "deep/er/c.parquet"]


PARTS = st.sampled_from(["a", "b", "ab", "a.parquet"])
PATTERNS = st.sampled_from(["*", "?", "a*", "[ab]", "[!a]", "**", "ab", "*.parquet"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.sets(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=8),
    pattern=st.lists(PATTERNS, min_size=1, max_size=4),
)
def test_a_pattern_means_in_a_bucket_what_it_means_on_a_disk(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], pattern: list[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    files = set()
    for path in sorted(paths):
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
            files.add(path)
        except OSError:  # a file where another path has a folder
            continue
    files = {path for path in files if (root / path).is_file()}
    on_disk = {str(path.relative_to(root)) for path in root.glob("/".join(pattern)) if path.is_file()}
    assert {path for path in files if _fits(path.split("/"), pattern)} == on_disk


@pytest.mark.slow
def test_a_bucket(s3_store_url: str) -> None:
    bucket = Store(s3_store_url)
    for name in FILES:
        bucket.write(f"shards/{name}", name.encode())

    def found(given_: str, but_below: str | None = None) -> list[str]:
        shards = find_shards([f"{s3_store_url}/{given_}"], but_below=but_below)
        assert all(len(shard.store.read(shard.path)) == shard.num_bytes for shard in shards)
        return [shard.url.removeprefix(f"{s3_store_url}/shards/") for shard in shards]

    assert found("shards") == found("shards/") == ["a.parquet", "b.parquet", "deep/a.parquet", "deep/er/c.parquet"]
    assert found("shards/*.parquet") == ["a.parquet", "b.parquet"]
    assert found("sh*/deep/**/[ac].parquet") == ["deep/a.parquet", "deep/er/c.parquet"]
    assert found("shards/_hidden.parquet") == ["_hidden.parquet"]
    assert found("shards", but_below=f"{s3_store_url}/shards/deep") == ["a.parquet", "b.parquet"]
    for absent in ("shards/absent.parquet", "nothing", "shards/*.csv"):
        with pytest.raises(RefusedError, match="no feature shard"):
            found(absent)
