"""Optuna's storage: one process at a time, nothing lost when that is killed, and a journal for stores without files.

What several processes do to one study is in `test_drivers.py`.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from lnln.config import fingerprint
from lnln.data.lease import LostLeaseError
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from tuning.journal import mended, open_journal
from tuning.storage import StudyStorage, open_storage

ID = "sample-lnln-0123456789ab"


def add_trial(storage: StudyStorage, value: float) -> None:
    study = optuna.create_study(storage=storage.optuna, study_name=ID, load_if_exists=True)
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    study.tell(trial, value)


def values(storage: StudyStorage) -> list[float | None]:
    return [trial.value for trial in optuna.load_study(storage=storage.optuna, study_name=ID).trials]


def journal_of(store: Path) -> Path:
    return store / "studies" / ID / "optuna.journal"


def nothing() -> None:
    """What a driver is told that still holds its study."""


def numbers(journal: Path) -> list[int]:
    """Of the complete trials, after one more was added: a journal is whole when it can be read and extended."""
    study = optuna.create_study(storage=open_journal(journal, nothing), study_name=ID, load_if_exists=True)
    study.add_trial(optuna.trial.create_trial(value=0.0))
    return [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE]


def test_a_journal_in_the_study_folder_goes_on_where_it_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for value in (1.0, 2.0):
        with open_storage(store, ID, "") as storage:
            add_trial(storage, value)
            storage.save()
    assert (tmp_path / "studies" / ID / "optuna.journal").is_file()
    with open_storage(store, ID, "") as storage:
        assert values(storage) == [1.0, 2.0]


def test_what_ray_tune_keeps_of_a_storage_holds_nothing(tmp_path: Path) -> None:
    """Tune pickles its search with all it refers to."""
    for url in ("", f"sqlite:///{tmp_path / 'optuna.db'}"):
        with open_storage(Store(tmp_path / fingerprint(url)), ID, url) as storage:
            add_trial(storage, 1.0)
            copy = pickle.loads(pickle.dumps(storage))
            with pytest.raises(LostLeaseError):
                copy.save()
            add_trial(storage, 2.0)


def test_a_journal_whose_writer_was_killed_is_mended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 1.0)
    journal = tmp_path / "studies" / ID / "optuna.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"w","study')
    (journal.parent / "optuna.journal.lock").symlink_to(journal)
    began = time.monotonic()
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 2.0)
        assert values(storage) == [1.0, 2.0]
    assert time.monotonic() - began < 25  # Optuna itself takes a lock for left behind after 30 s


def test_a_journal_cut_at_any_byte_is_what_was_whole_of_it(tmp_path: Path) -> None:
    with open_storage(Store(tmp_path), ID, "") as storage:
        for value in (1.0, 2.0):
            add_trial(storage, value)
    content = journal_of(tmp_path).read_bytes()
    lines = content.splitlines(keepends=True)
    for length in range(len(content) + 1):
        whole = content[: content.rfind(b"\n", 0, length) + 1]
        assert mended(content[:length]) == whole
    begin = 0
    for line in lines:  # at its begin, within it, and without its end
        for length in (begin, begin + 1, begin + len(line) // 2, begin + len(line) - 1):
            journal = tmp_path / str(length)
            journal.write_bytes(content[:length])
            found = numbers(journal)
            num_ended = content[:begin].count(b'"state":1')
            assert found[:num_ended] == list(range(num_ended)) and len(found) == num_ended + 1
        begin += len(line)


def test_a_half_line_that_another_wrote_after_is_left_out(tmp_path: Path) -> None:
    """A driver is killed while it writes, and somebody's dashboard adds a line before the next driver comes."""
    with open_storage(Store(tmp_path), ID, "") as storage:
        study = optuna.create_study(storage=storage.optuna, study_name=ID)
        study.set_user_attr("note", 'quotes: {"op_code":1} and \\')
        add_trial(storage, 1.0)
        add_trial(storage, 2.0)
    lines = journal_of(tmp_path).read_bytes().splitlines(keepends=True)
    half = b'{"op_code":6,"worker_id":"another","trial_id":1,"state":3,"values":null}'
    for index in range(len(lines)):
        content = b"".join(lines[:index]) + half[: 1 + 7 * index % len(half)] + b"".join(lines[index:])
        assert mended(content) == b"".join(lines)
        journal = tmp_path / str(index)
        journal.write_bytes(content)
        assert numbers(journal) == [0, 1, 2]


@given(st.lists(st.binary(max_size=30)))
def test_nothing_is_mended_into_what_it_was_not(pieces: list[bytes]) -> None:
    """Whatever lies in the file: what is kept of it stood there, is whole, and needs no mending again."""
    content = b'{"op_code":'.join(pieces)
    try:
        found = mended(content)
    except ValueError:
        return
    assert mended(found) == found
    for line in found.splitlines(keepends=True):
        assert line in content and isinstance(json.loads(line), dict)


def test_a_driver_that_was_taken_for_gone_while_it_wrote_writes_nowhere(tmp_path: Path) -> None:
    """The worst moment to be stopped: the file is open and the lease was asked for, the line is not yet written."""
    journal = tmp_path / "j"
    study = optuna.create_study(storage=open_journal(journal, nothing), study_name=ID)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    taken_over: list[bytes] = []

    def stop_here() -> None:
        if not taken_over:
            other = optuna.load_study(storage=open_journal(journal, nothing), study_name=ID)
            other.add_trial(optuna.trial.create_trial(value=2.0))
            taken_over.append(journal.read_bytes())

    stopped = open_journal(journal, stop_here)
    (study_id,) = (study._study_id for study in stopped.get_all_studies())
    stopped.set_study_user_attr(study_id, "late", 1)
    assert taken_over == [journal.read_bytes()]
    assert not Path(f"{journal}.lock").is_symlink()
    assert numbers(journal) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_a_driver_that_lost_its_study_is_refused_before_it_writes(tmp_path: Path, kind: str) -> None:
    store, url = Store(tmp_path / "store"), f"sqlite:///{tmp_path / 'optuna.db'}" if kind == "database" else ""
    with open_storage(store, ID, url) as storage:
        study = optuna.create_study(storage=storage.optuna, study_name=ID)
        trial = study.ask()
        _take_over(store, url)
        for write in (storage.save, study.ask, lambda: study.tell(trial, 1.0), lambda: trial.report(1.0, 1)):
            with pytest.raises(LostLeaseError, match="was taken over by another process") as refusal:
                write()
            assert "\n" not in str(refusal.value)
    with open_storage(store, ID, url) as storage:
        (kept,) = optuna.load_study(storage=storage.optuna, study_name=ID).trials
        assert (kept.state, kept.intermediate_values) == (TrialState.RUNNING, {})


def _take_over(store: Store, url: str) -> None:
    """As a driver that has since ended: of this machine, with a number that nobody has."""
    changes = {"token": "another", "pid": 1 << 22, "started": "1"}
    if url:
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            content = connection.scalar(sqlalchemy.text("SELECT content FROM lnln_leases"))
            other = json.dumps({**json.loads(content or ""), **changes})
            connection.execute(sqlalchemy.text("UPDATE lnln_leases SET content = :content"), {"content": other})
        engine.dispose()
    else:
        path = f"studies/{ID}/lease.json"
        store.write_json(path, {**store.read_json(path), **changes})


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


def test_a_database_has_one_driver_whatever_store_each_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lnln.data.lease.LEASE_SECONDS", 12.0)
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    other = "mosi-lnln-0123456789ab"
    refused = pytest.raises(RefusedError, match=r"in the database of tune\.storage_url is being run by another")
    with open_storage(Store(tmp_path / "one"), ID, url) as storage:
        add_trial(storage, 1.0)
        with refused as refusal, open_storage(Store(tmp_path / "other"), ID, url):
            pass
        assert "\n" not in str(refusal.value)
        with open_storage(Store(tmp_path / "other"), other, url):
            add_trial(storage, 2.0)
    with open_storage(Store(tmp_path / "other"), ID, url) as storage:
        assert values(storage) == [1.0, 2.0]


def test_nobody_takes_a_database_between_the_last_look_and_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    with open_storage(Store(tmp_path / "store"), ID, f"sqlite:///{path}") as storage:
        study = optuna.create_study(storage=storage.optuna, study_name=ID)
        tried: list[str] = []

        def take(connection: sqlalchemy.Connection) -> None:
            other = sqlite3.connect(path, timeout=0)
            try:
                other.execute("UPDATE lnln_leases SET content = '{}'")
            except sqlite3.OperationalError as error:
                tried.append(str(error))
            finally:
                other.close()

        assert isinstance(storage.optuna, optuna.storages.RDBStorage)
        sqlalchemy.event.listen(storage.optuna.engine, "commit", take)  # after our own look
        study.set_user_attr("x", 1)
        assert "database is locked" in tried


@pytest.mark.parametrize(
    "url",
    [
        "nothing",
        "oracle+unknown://x",
        "sqlite:////absent/folder/x.db",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
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
        refused = pytest.raises(RefusedError, match="being run by another process")
        with refused, open_storage(store, ID, ""):
            pass
        add_trial(storage, 2.0)
        storage.save()
        _take_over(store, "")
        with pytest.raises(LostLeaseError):
            storage.save()
        with open_storage(store, ID, "") as other:
            add_trial(other, 3.0)
            other.save()
    assert (tmp_path / "cache").is_dir()
    with open_storage(store, ID, "") as other:
        assert values(other) == [1.0, 2.0, 3.0]


@pytest.mark.slow
def test_on_s3_a_journal_that_is_not_the_one_it_began_from_is_not_replaced(bucket: str) -> None:
    """Whatever made it so; a lease is only as good as the clocks that count its seconds."""
    store = Store(bucket)
    with open_storage(store, ID, "") as storage:
        add_trial(storage, 1.0)
        storage.save()
        path = f"studies/{ID}/optuna.journal"
        theirs = store.read(path) + b"{}\n"
        store.write(path, theirs)
        with pytest.raises(RefusedError, match="was changed by another process"):
            storage.save()
        assert store.read(path) == theirs


def test_a_database_that_fails_meanwhile_ends_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    refused = pytest.raises(StoreFailedError, match=r"the database of tune\.storage_url failed .* the same command")
    with refused as refusal, open_storage(Store(tmp_path / "store"), ID, f"sqlite:///{path}?timeout=0.1") as storage:
        add_trial(storage, 1.0)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("begin exclusive")
            add_trial(storage, 2.0)
    assert "\n" not in str(refusal.value)
    with open_storage(Store(tmp_path / "store"), ID, f"sqlite:///{path}") as storage:
        assert values(storage) == [1.0]
