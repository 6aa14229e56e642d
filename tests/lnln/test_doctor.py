"""The doctor names what is wrong, and never fails itself."""

from __future__ import annotations

import socket
from importlib import metadata
from pathlib import Path

import pytest

from lnln import doctor


def findings(store: str) -> dict[str, doctor.Finding]:
    return {finding.topic: finding for finding in doctor.examine(store)}


@pytest.fixture(autouse=True)
def _no_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LNLN_DASK", "DASK_SCHEDULER_ADDRESS", "RAY_ADDRESS", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_plain_machine_with_a_folder_is_fine(tmp_path: Path) -> None:
    found = findings(str(tmp_path / "store"))
    assert found["store"].level == "fine"
    assert found["Dask"].level == found["Ray"].level == found["Prefect"].level == "fine"
    assert found["text encoder"].level == "fine"


def test_a_store_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = findings(str(tmp_path / "file" / "store"))
    assert found["store"].level == "wrong" and str(tmp_path / "file") in found["store"].text


def test_a_store_that_did_not_exist_does_not_exist_afterwards(tmp_path: Path) -> None:
    assert findings(str(tmp_path / "a" / "b" / "store"))["store"].level == "fine"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert findings(str(tmp_path / "store"))["store"].level == "fine"
    assert [path.name for path in tmp_path.rglob("*")] == ["store"]


@pytest.mark.parametrize("chosen", ["none", "local"])
def test_a_dask_without_address_is_fine(chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_DASK", chosen)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{closed_port()}")  # LNLN_DASK goes first
    assert findings(str(tmp_path))["Dask"].level == "fine"


def test_an_empty_variable_is_an_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("LNLN_DASK", "")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
    assert str(port) in findings(str(tmp_path))["Dask"].text


def test_an_address_in_lnln_dask_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("LNLN_DASK", address)
        found = findings(str(tmp_path))["Dask"]
    assert found.level == "fine" and address in found.text


def test_services_that_do_not_answer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", f"tcp://127.0.0.1:{port}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    found = findings(str(tmp_path))
    for topic in ("Dask", "Ray", "Prefect"):
        assert found[topic].level == "wrong" and str(port) in found[topic].text


def test_a_service_that_answers_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        assert findings(str(tmp_path))["Ray"].level == "fine"


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "127.0.0.1:notaport", "host:99999999"])
def test_an_address_that_is_none_is_wrong(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    assert findings(str(tmp_path))["Dask"].level == "wrong"


def test_a_version_that_breaks_prefect_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.151.0" if name == "fastapi" else real(name))
    wrong = [finding for finding in doctor.examine(str(tmp_path)) if finding.level == "wrong"]
    assert ["fastapi 0.151.0" in finding.text for finding in wrong] == [True]


def test_raw_clips_can_be_read_where_the_extra_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda module: object())
    found = findings(str(tmp_path))
    assert found["clips"].level == "fine" and "can be read" in found["clips"].text
    assert "research only" in found["more extractors"].text


@pytest.mark.parametrize("missing", sorted(doctor.MEDIA_PACKAGES))
def test_what_raw_clips_lack_is_a_note_with_the_command(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = doctor.MEDIA_PACKAGES[missing]
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in (module, "opensmile") else object())
    found = findings(str(tmp_path))
    assert found["clips"].level == "note"
    assert f"without {missing}: pip install 'lnln[media]'" in found["clips"].text
    assert "no openSMILE" in found["more extractors"].text and found["more extractors"].level == "fine"


def test_openface_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / doctor.OPENFACE_PROGRAMS[0]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no OpenFace" in findings(str(tmp_path))["more extractors"].text
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert f"OpenFace at {program}" in findings(str(tmp_path))["more extractors"].text
