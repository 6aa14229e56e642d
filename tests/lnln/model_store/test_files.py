"""What a manifest vouches for, and what it may list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnln.errors import RefusedError
from lnln.model_store.files import MANIFEST, ModelFile, ModelManifest, describe, is_whole, read_manifest_of

SHA256 = st.text("0123456789abcdef", min_size=64, max_size=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "empty.txt": b""}.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_manifest_survives_its_bytes(folder: Path) -> None:
    manifest = ModelManifest.of_folder(folder, ["empty.txt", "model.safetensors", "config.json"])
    assert ModelManifest.from_bytes(manifest.to_bytes(), "here") == manifest
    assert [file.name for file in manifest.files] == ["config.json", "empty.txt", "model.safetensors"]


@given(st.dictionaries(st.text(max_size=12), st.tuples(st.integers(0, 2**60), SHA256), max_size=4))
def test_what_is_read_is_what_was_listed_or_refused(content: dict[str, tuple[int, str]]) -> None:
    manifest = ModelManifest(tuple(ModelFile(name, *content[name]) for name in sorted(content)))
    try:
        assert ModelManifest.from_bytes(manifest.to_bytes(), "somewhere") == manifest
    except RefusedError:
        assert any(not name.strip(".") or set(name) & set('/\\:\0"*?<>|\n\r') for name in content)


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


@pytest.mark.parametrize("sha256", ["", "../../x", "0" * 63, "G" * 64, "A" * 64, 7, None, "0" * 64 + "\n"])
def test_what_is_no_digest_is_refused(sha256: object) -> None:
    data = json.dumps({"files": {"config.json": {"num_bytes": 1, "sha256": sha256}}}).encode()
    with pytest.raises(RefusedError, match="somewhere is not a model manifest"):
        ModelManifest.from_bytes(data, "somewhere")


def test_a_file_is_whole_by_size_and_digest_and_is_no_link(folder: Path) -> None:
    file = describe(folder / "config.json")
    assert is_whole(folder, file) and not is_whole(folder / "nowhere", file)
    (folder / "config.json").write_bytes(b"[]")
    assert not is_whole(folder, file)
    (folder / "config.json").unlink()
    (folder / "elsewhere.json").write_bytes(b"{}")
    (folder / "config.json").symlink_to(folder / "elsewhere.json")
    assert not is_whole(folder, file)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert not is_whole(folder, file)


def test_a_manifest_that_cannot_be_read_is_none(folder: Path) -> None:
    assert read_manifest_of(folder) is None and read_manifest_of(folder / "nowhere") is None
    (folder / MANIFEST).write_bytes(b"garbage")
    assert read_manifest_of(folder) is None
    manifest = ModelManifest.of_folder(folder, ["config.json"])
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    assert read_manifest_of(folder) == manifest
