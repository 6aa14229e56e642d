"""The record of a study in the store: what was saved is read back, by us and by others; damage is refused by name."""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any, get_args

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.config import Config, TuneConfig
from lnln.data.store import Store
from lnln.errors import RefusedError
from tests.made_study import OTHER, PAPER, complete, failed, interrupted, made_study, pruned
from tuning.record import (
    SeedResult,
    State,
    Study,
    TrialRecord,
    is_study,
    load_study,
    save_study,
    study_folder,
    trials_parquet,
)
from tuning.space import PARAMETERS, Range, Space

EVERY_STATE = (
    complete(0, 0.9, 0.8, parameters=PAPER),
    pruned(1, 0.7),
    failed(2, has_diverged=True),
    interrupted(3),
    TrialRecord(4, "running", dict(OTHER), False),
)


def folder_of(store: Store, made: Study) -> Path:
    return Path(store.url) / study_folder(made.study_id)


def test_a_study_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    store, made = Store(tmp_path), made_study(*EVERY_STATE)
    save_study(store, made)
    assert load_study(store, made.study_id) == made
    content = json.loads((folder_of(store, made) / "study.json").read_text())
    assert content["num_trials"] == {"complete": 1, "pruned": 1, "failed": 1, "interrupted": 1, "running": 1}
    assert (
        content["configured"] == PAPER and content["directions"] == {"mae": "minimize"} and content["seeds"] == [1111]
    )
    save_study(store, made_study())
    assert load_study(store, made.study_id).trials == ()
    assert {path.name for path in folder_of(store, made).iterdir()} == {"study.json", "trials.parquet"}


FLOATS = st.floats(allow_nan=False)
NAMES = st.text(max_size=20)


@st.composite
def studies(draw: st.DrawFn) -> Study:
    """Any numbers and texts in any state; not all of them make sense, all must survive."""
    varied = draw(st.lists(st.sampled_from(sorted(set(PARAMETERS) - {"dropout"})), min_size=1, unique=True))
    space = Space({name: Range(0.1, 1.0) for name in varied})
    objectives = draw(
        st.lists(st.sampled_from(["mae", "mae@clean", "acc7", "corr@corrupted"]), min_size=1, unique=True)
    )
    seeds = st.builds(
        SeedResult,
        seed=st.integers(0, 2**63 - 1),
        valid_mae=FLOATS,
        best_epoch=st.integers(1, 10_000),
        valid_mae_by_rate=st.dictionaries(NAMES, FLOATS, max_size=3),
        valid_mae_by_epoch=st.lists(FLOATS, max_size=4),
        collapse_share=st.floats(0, 1),
    )
    trials = []
    for number in range(draw(st.integers(0, 4))):
        state = draw(st.sampled_from(get_args(State)))
        is_complete = state == "complete"
        few = st.lists(st.sampled_from(list(space.ranges)), unique=True)
        trials.append(
            TrialRecord(
                number=number,
                state=state,
                parameters={name: draw(FLOATS) for name in (space.ranges if is_complete else draw(few))},
                is_configured=draw(st.booleans()),
                values={name: draw(FLOATS) for name in objectives} if is_complete else {},
                seeds=tuple(draw(st.lists(seeds, min_size=1 if is_complete else 0, max_size=3))),
                seconds=draw(st.none() | FLOATS),
                reason=draw(st.none() | NAMES),
                has_diverged=draw(st.booleans()),
            )
        )
    return made_study(*trials, space=space, directions=dict.fromkeys(objectives, "minimize"))


@settings(deadline=None, max_examples=60)
@given(made=studies())
def test_any_numbers_and_texts_survive(made: Study, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "any-study")
    save_study(store, made)
    loaded = load_study(store, made.study_id)
    assert loaded == made
    assert list(loaded.directions) == list(made.directions), "the first one chooses"
    assert trials_parquet(made) == trials_parquet(made), "the same bytes for the same study"


def test_pandas_and_duckdb_read_the_trials(tmp_path: Path) -> None:
    store, made = Store(tmp_path), made_study(*EVERY_STATE)
    save_study(store, made)
    path = folder_of(store, made) / "trials.parquet"

    frame = pd.read_parquet(path)
    assert list(frame["state"]) == ["complete", "pruned", "failed", "interrupted", "running"]
    assert frame["parameter.adversarial"].isna().tolist() == [False, False, False, True, False]
    assert frame["value.mae"].notna().sum() == 1 and frame["valid_mae"][0] == pytest.approx(0.85)
    assert [seed["valid_mae"] for seed in frame["seeds"][0]] == [0.9, 0.8]
    assert frame["has_diverged"].tolist() == [False, False, True, False, False]

    query = f"""
        select number, "parameter.reconstruction" as reconstruction, seed.seed, seed.valid_mae
        from (select *, unnest(seeds) as seed from '{path}') where state = 'complete' order by seed.seed
    """
    assert duckdb.sql(query).fetchall() == [(0, 0.1, 1111, 0.9), (0, 0.1, 1112, 0.8)]
    rates = f"select unnest(seeds[1].valid_mae_by_rate).missing_rate from '{path}' where number = 0"
    assert duckdb.sql(rates).fetchall() == [("0.0",), ("0.5",)]


def test_an_empty_study_has_typed_columns() -> None:
    schema = pq.read_schema(io.BytesIO(trials_parquet(made_study())))
    assert schema.field("parameter.adversarial").type == pa.float64()
    assert schema == pq.read_schema(io.BytesIO(trials_parquet(made_study(*EVERY_STATE))))


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("", ""),
        ("sqlite:////srv/studies.db", "sqlite:////srv/studies.db"),
        ("postgresql://lnln:se:cr%40et@db:5432/studies?a=b", "postgresql://lnln:***@db:5432/studies?a=b"),
        ("mysql+pymysql://lnln@db/studies", "mysql+pymysql://lnln@db/studies"),
    ],
)
def test_a_databases_password_is_not_recorded(url: str, recorded: str, tmp_path: Path) -> None:
    config = Config(tune=TuneConfig(storage_url=url))
    store, made = Store(tmp_path), made_study(config=config.to_dict())
    save_study(store, made)
    read = load_study(store, made.study_id).trained_config()
    assert read.tune.storage_url == recorded
    assert dataclasses.replace(read, tune=config.tune) == config
    assert b"se:cr" not in (folder_of(store, made) / "study.json").read_bytes()


def test_unknown_studies_are_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RefusedError, match=r"no study 'absent' in .*; `lnln tune CORPUS --trials N` makes one"):
        load_study(store, "absent")
    for name in ("../runs/x", "", "/etc", "a/../b", "x\\y"):
        with pytest.raises(RefusedError):
            load_study(store, name)


def test_whether_a_name_is_that_of_a_study(tmp_path: Path) -> None:
    store, made = Store(tmp_path / "store"), made_study()
    assert not is_study(store, made.study_id)
    save_study(store, made)
    assert is_study(store, made.study_id)
    for name in ("", ".", "..", "../store", f"x/../{made.study_id}", str(tmp_path), f"{made.study_id}@best", "a b\0"):
        assert not is_study(store, name)
    assert not is_study(store, f"{made.study_id}/")


@pytest.mark.parametrize("damage", ["{}", "[]", "3", "null", '{"study_id": "x"}', '["a"]', "{", "", "NaN"])
def test_a_damaged_study_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    store, made = Store(tmp_path), made_study(complete(0, 0.9))
    save_study(store, made)
    (folder_of(store, made) / "study.json").write_text(damage, encoding="utf-8")
    with pytest.raises(RefusedError, match=made.study_id) as refusal:
        load_study(store, made.study_id)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"directions": {}},
        {"directions": {"mae": "down"}},
        {"directions": ["mae"]},
        {"directions": {"mae": "minimize", "acc7": "maximize"}},
        {"space": {}},
        {"space": {"speed": {"low": 1, "high": 2}}},
        {"space": 3},
        {"seeds": 7},
    ],
)
def test_a_study_that_says_what_none_says_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    store, made = Store(tmp_path), made_study(complete(0, 0.9))
    save_study(store, made)
    store.write_json(f"{study_folder(made.study_id)}/study.json", {**made.to_dict(), **change})
    with pytest.raises(RefusedError, match="does not hold the record of a study"):
        load_study(store, made.study_id)


@pytest.mark.parametrize(
    "row",
    [
        {"state": "finished"},
        {"state": None},
        {"seeds": []},
        {"seeds": None},
        {"value.mae": None},
    ],
)
def test_a_trial_that_says_what_none_says_is_refused(row: dict[str, Any], tmp_path: Path) -> None:
    store, made = Store(tmp_path), made_study(complete(0, 0.9))
    save_study(store, made)
    path = folder_of(store, made) / "trials.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.Table.from_pylist([{**table.to_pylist()[0], **row}], schema=table.schema), path)
    with pytest.raises(RefusedError, match="does not hold the record of a study"):
        load_study(store, made.study_id)
    pq.write_table(table.drop_columns(["reason"]), path)
    with pytest.raises(RefusedError, match=r"does not hold the record of a study .*reason"):
        load_study(store, made.study_id)


def test_damaged_trials_are_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    """Cut at any place, or with a byte changed: never other numbers, never a traceback."""
    store, made = Store(tmp_path), made_study(*EVERY_STATE)
    save_study(store, made)
    path = folder_of(store, made) / "trials.parquet"
    whole = path.read_bytes()
    for end in range(0, len(whole), 197):
        path.write_bytes(whole[:end])
        with pytest.raises(RefusedError, match="does not hold the record of a study"):
            load_study(store, made.study_id)
    # The pages, which hold the numbers; some bytes of their headers say nothing that is read.
    begin_of_footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    num_refused = 0
    for place in range(4, begin_of_footer, 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            assert load_study(store, made.study_id) == made, place
        except RefusedError:
            num_refused += 1
    assert num_refused > 50


def _save_again_and_again(url: str, seconds: float) -> None:
    store, end = Store(url), time.monotonic() + seconds
    while time.monotonic() < end:
        for num_trials in (0, 3, 30, 7):
            save_study(store, made_study(*(complete(i, 0.9 + num_trials) for i in range(num_trials))))


def test_a_study_is_whole_while_it_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = made_study()
    save_study(store, made)
    writer = multiprocessing.get_context("spawn").Process(target=_save_again_and_again, args=(store.url, 1.5))
    writer.start()
    try:
        seen = set()
        while writer.is_alive():
            trials = load_study(store, made.study_id).trials
            seen.add(len(trials))
            assert all(trial.valid_mae == pytest.approx(0.9 + len(trials)) for trial in trials)
        assert writer.exitcode == 0
    finally:
        writer.kill()
        writer.join()
    assert len(seen) > 1 and seen <= {0, 3, 7, 30}


def test_study_json_is_written_after_its_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first save that is cut short leaves no study, not one without trials."""
    store, made = Store(tmp_path), made_study(complete(0, 0.9))

    def broken(*args: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Store, "write_json", broken)
    with pytest.raises(OSError, match="full"):
        save_study(store, made)
    assert not is_study(store, made.study_id)
    with pytest.raises(RefusedError, match="no study"):
        load_study(store, made.study_id)


def test_the_record_stands_for_its_dataclasses() -> None:
    """A field that is added to the record is written, or this fails."""
    columns = set(pq.read_schema(io.BytesIO(trials_parquet(made_study()))).names)
    named = {name for name in columns if "." not in name}
    assert {field.name for field in dataclasses.fields(TrialRecord)} - {"parameters", "values"} <= named
    table = pq.read_table(io.BytesIO(trials_parquet(made_study(*EVERY_STATE))))
    assert set(table.to_pylist()[0]["seeds"][0]) == {field.name for field in dataclasses.fields(SeedResult)}
    kept = {field.name for field in dataclasses.fields(Study)} - {"trials"}
    assert kept <= made_study().to_dict().keys()


def test_the_first_objective_stays_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = made_study(directions={"mae@corrupted": "minimize", "acc7": "maximize", "mae": "minimize"})
    save_study(store, made)
    loaded = load_study(store, made.study_id)
    assert list(loaded.directions) == ["mae@corrupted", "acc7", "mae"] and loaded.first_objective == "mae@corrupted"
