"""Optuna's storage: one process at a time, nothing lost when that is killed, and a journal for stores without files."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import optuna
import pytest

from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.storage import StudyStorage, open_storage

ID = "sample-lnln-0123456789ab"


def add_trial(storage: StudyStorage, value: float) -> None:
    study = optuna.create_study(storage=storage.optuna, study_name=ID, load_if_exists=True)
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    study.tell(trial, value)


def values(storage: StudyStorage) -> list[float | None]:
    return [trial.value for trial in optuna.load_study(storage=storage.optuna, study_name=ID).trials]


def hold(url: str, is_held: Event) -> None:
    with open_storage(Store(url), ID, ""):
        is_held.set()
        time.sleep(60)


def test_a_journal_in_the_study_folder_goes_on_where_it_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for value in (1.0, 2.0):
        with open_storage(store, ID, "") as storage:
            add_trial(storage, value)
            storage.save()
    assert (tmp_path / "studies" / ID / "optuna.journal").is_file()
    with open_storage(store, ID, "") as storage:
        assert values(storage) == [1.0, 2.0]


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    is_held = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), is_held))
    process.start()
    try:
        assert is_held.wait(60)
        with pytest.raises(RefusedError, match="being run by another process"), open_storage(Store(tmp_path), ID, ""):
            pass
        process.kill()  # the lock ends with its holder
        process.join(60)
        with open_storage(Store(tmp_path), ID, ""):
            pass
    finally:
        process.kill()
        process.join(60)


def test_a_journal_whose_writer_was_killed_is_mended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 1.0)
    journal = tmp_path / "studies" / ID / "optuna.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"w","study')
    (journal.parent / "optuna.journal.lock").symlink_to(journal)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 2.0)
        assert values(storage) == [1.0, 2.0]


@pytest.mark.parametrize("damage", [b"no json\n", b'{"op_code":99,"worker_id":"w"}\n', b"[]\n", b"\x00\xff\n"])
def test_a_damaged_journal_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    folder = tmp_path / "studies" / ID
    folder.mkdir(parents=True)
    (folder / "optuna.journal").write_bytes(damage)
    refused = pytest.raises(RefusedError, match=r"optuna\.journal of the study is damaged")
    with refused as refusal, open_storage(Store(tmp_path), ID, ""):
        pass
    assert "\n" not in str(refusal.value)


def test_a_database_takes_the_place_of_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    for value in (1.0, 2.0):
        with open_storage(Store(tmp_path / "store"), ID, url) as storage:
            add_trial(storage, value)
            storage.save()
            assert values(storage)[-1] == value
    assert not list((tmp_path / "store").rglob("*journal*"))


@pytest.mark.parametrize("url", ["nothing", "oracle+unknown://x", "sqlite:////absent/folder/x.db"])
def test_a_database_that_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RefusedError, match=r"tune\.storage_url") as refusal, open_storage(Store(tmp_path), ID, url):
        pass
    assert "\n" not in str(refusal.value)


@pytest.fixture
def bucket(tmp_path: Path, s3_store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    return s3_store_url


@pytest.mark.slow
def test_on_s3_the_journal_is_copied_to_the_store(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(bucket)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 1.0)
        storage.save()
        add_trial(storage, 2.0)
        storage.save()
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "another machine"))
    with open_storage(store, ID, "") as storage:
        assert values(storage) == [1.0, 2.0]
        add_trial(storage, 3.0)
        storage.save()
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))  # the first machine's journal is the older one now
    with open_storage(store, ID, "") as storage:
        assert values(storage) == [1.0, 2.0, 3.0]


@pytest.mark.slow
def test_on_s3_what_a_killed_driver_could_not_copy_is_kept(tmp_path: Path, bucket: str) -> None:
    store = Store(bucket)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 1.0)
        storage.save()
        add_trial(storage, 2.0)
    with open_storage(store, ID, "") as storage:
        assert values(storage) == [1.0, 2.0]
        storage.save()
    store.remove(f"studies/{ID}/optuna.journal")  # a study that was removed from the store does not come back
    with open_storage(store, ID, "") as storage, pytest.raises(KeyError):
        values(storage)


@pytest.mark.slow
def test_on_s3_another_machine_at_the_same_time_is_refused(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(bucket)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 1.0)
        storage.save()
        monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "another machine"))
        with open_storage(store, ID, "") as other:
            add_trial(other, 2.0)
            other.save()
        add_trial(storage, 3.0)
        with pytest.raises(RefusedError, match="changed by another process"):
            storage.save()
