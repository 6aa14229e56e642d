"""Verified folders: what a manifest vouches for arrives whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.model_store.files import MANIFEST, ModelFile, ModelManifest, fetch_folder, is_whole

CONTENT = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "empty.txt": b""}


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, ModelManifest]:
    source = tmp_path / "source"
    source.mkdir()
    store = Store(tmp_path / "store")
    for name, data in CONTENT.items():
        (source / name).write_bytes(data)
        store.write(f"m/{name}", data)
    return store, ModelManifest.of_folder(source, CONTENT)


def test_manifest_survives_its_bytes(stored: tuple[Store, ModelManifest]) -> None:
    manifest = stored[1]
    assert ModelManifest.from_bytes(manifest.to_bytes(), "here") == manifest


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        "C:x",
        "a\\b",
        "x\0y",
        "manifest.json",
        "a\nb",
        "~/x/y",
        "aux:stream",
    ],
)
def test_manifest_that_leaves_the_folder_is_refused(name: str) -> None:
    data = ModelManifest((ModelFile(name, 1, "0" * 64),)).to_bytes()
    with pytest.raises(RefusedError, match="plain file names"):
        ModelManifest.from_bytes(data, "somewhere")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"files": 3}', b'{"files": {"a": {}}}', b"\xff\xfe", b"null"])
def test_damaged_manifest_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(RefusedError, match="somewhere is not a model manifest"):
        ModelManifest.from_bytes(data, "somewhere")


def test_new_folder_is_filled(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "deep" / "target"
    assert fetch_folder(store, "m", manifest, target) == sorted(CONTENT)
    assert {entry.name for entry in target.iterdir()} == {*CONTENT, MANIFEST}
    assert all((target / name).read_bytes() == data for name, data in CONTENT.items())
    assert [entry.name for entry in target.parent.iterdir()] == ["target"]
    assert fetch_folder(store, "m", manifest, target) == []


def test_only_what_is_missing_or_damaged_is_fetched_again(stored: tuple[Store, ModelManifest], tmp_path: Path) -> None:
    store, manifest = stored
    target = tmp_path / "target"
    fetch_folder(store, "m", manifest, target)
    (target / "config.json").unlink()
    (target / "model.safetensors").write_bytes(b"Weights" * 1000)
    (target / "notes.txt").write_text("mine")
    assert fetch_folder(store, "m", manifest, target) == ["config.json", "model.safetensors"]
    assert all(is_whole(target, file) for file in manifest.files)
    assert (target / "notes.txt").read_text() == "mine"


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


def test_untouched_older_version_is_replaced_and_a_touched_one_is_not(
    stored: tuple[Store, ModelManifest], tmp_path: Path
) -> None:
    store, old = stored
    source = tmp_path / "newer"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"newer")
    store.write("n/model.safetensors", b"newer")
    new = ModelManifest.of_folder(source, ["model.safetensors"])
    target = tmp_path / "target"
    fetch_folder(store, "m", old, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(RefusedError, match="not empty"):
        fetch_folder(store, "n", new, target)
    (target / "notes.txt").unlink()
    fetch_folder(store, "n", new, target)
    assert {entry.name for entry in target.iterdir()} == {"model.safetensors", MANIFEST}
    assert (target / "model.safetensors").read_bytes() == b"newer"


def test_damage_in_the_store_is_refused_by_name_and_leaves_nothing(
    stored: tuple[Store, ModelManifest], tmp_path: Path
) -> None:
    store, manifest = stored
    data = bytearray(CONTENT["model.safetensors"])
    data[77] ^= 1
    store.write("m/model.safetensors", bytes(data))
    target = tmp_path / "new" / "target"
    with pytest.raises(RefusedError, match=r"m/model\.safetensors is damaged"):
        fetch_folder(store, "m", manifest, target)
    store.remove("m/model.safetensors")
    with pytest.raises(RefusedError, match=r"m/model\.safetensors is absent"):
        fetch_folder(store, "m", manifest, target)
    assert list((tmp_path / "new").iterdir()) == []


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
