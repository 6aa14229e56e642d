"""Choosing from a study, and its record in the store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from lnln.config import Config, load_config, to_dict
from lnln.data.store import Store
from lnln.errors import RefusedError
from tuning.select import (
    State,
    Study,
    TrialRecord,
    best_config,
    best_trial,
    load_study,
    save_study,
    study_folder,
    table,
)
from tuning.space import DEFAULT_SPACE

PAPER = {"completeness": 0.9, "adversarial": 0.8, "reconstruction": 0.1}
OTHER = {"completeness": 0.3, "adversarial": 1.25, "reconstruction": 0.05}


def trial(
    number: int, valid_mae: float | None, state: State = "complete", weights: dict[str, float] = OTHER
) -> TrialRecord:
    measured = valid_mae is not None
    return TrialRecord(
        number=number,
        state=state,
        weights=weights,
        is_configured=weights == PAPER,
        valid_mae=valid_mae,
        best_epoch=2 if measured else None,
        valid_mae_by_rate={"0.0": valid_mae, "0.8": valid_mae} if valid_mae is not None else {},
        valid_mae_by_epoch=[valid_mae + 0.1, valid_mae] if valid_mae is not None else [],
        seconds=12.3,
        reason=None if measured else "loss is NaN at step 3",
    )


def study(*trials: TrialRecord) -> Study:
    return Study(
        study_id="sample-lnln-0123456789ab",
        corpus="sample",
        feature_id="f" * 12,
        config=Config().to_dict(),
        space=DEFAULT_SPACE,
        configured_weights=PAPER,
        sampler={"name": "TPESampler", "seed": 0},
        versions={"optuna": "5.0.0"},
        trials=trials,
    )


def test_the_best_trial_has_the_smallest_error_and_the_earlier_of_equals_wins() -> None:
    made = study(trial(0, 0.9, weights=PAPER), trial(1, 0.7), trial(2, 0.7), trial(3, None, "failed"))
    assert best_trial(made).number == 1


def test_only_complete_trials_can_be_best() -> None:
    made = study(trial(0, None, "failed"), trial(1, None, "interrupted"), trial(2, 1.4))
    assert best_trial(made).number == 2
    with pytest.raises(RefusedError, match="has no complete trial"):
        best_trial(study(trial(0, None, "failed")))
    with pytest.raises(RefusedError, match="has no complete trial"):
        best_config(Config(), study())


def test_the_best_config_differs_in_the_weights_alone() -> None:
    config = load_config("sample", ["loss.sentiment=2", "loss.sentiment_distance=huber", "train.epochs=7"])
    chosen = best_config(config, study(trial(0, 0.9, weights=PAPER), trial(1, 0.7)))
    assert dataclasses.replace(chosen, loss=config.loss) == config
    assert to_dict(chosen.loss) == {**to_dict(config.loss), **OTHER}
    assert best_config(config, study(trial(0, 0.5, weights=PAPER), trial(1, 0.7))) == config


def test_the_table_ranks_and_marks_the_configured_weights() -> None:
    rows = table(
        study(trial(0, 0.9, weights=PAPER), trial(1, None, "failed"), trial(2, 0.7), trial(3, None, "interrupted"))
    )
    assert [row["trial"] for row in rows] == ["2", "0 (configured)", "1", "3"]
    assert [row["validation MAE"] for row in rows] == ["0.7000", "0.9000", "failed", "interrupted"]
    assert rows[0]["adversarial"] == "1.25"
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert table(study()) == []


def test_a_trial_without_weights_has_a_row_too() -> None:
    assert table(study(trial(0, None, "interrupted", weights={})))[0]["adversarial"] == ""


def test_a_study_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = study(trial(0, 0.9, weights=PAPER), trial(1, None, "failed"), trial(2, 0.7))
    save_study(store, made)
    assert load_study(store, made.study_id) == made
    content = json.loads((tmp_path / study_folder(made.study_id) / "study.json").read_text())
    assert content["best"] == {"number": 2, "weights": OTHER, "valid_mae": 0.7}
    assert content["num_trials"] == {"complete": 2, "failed": 1, "pruned": 0, "interrupted": 0, "running": 0}
    save_study(store, dataclasses.replace(made, trials=(trial(0, None, "failed"),)))
    assert json.loads((tmp_path / study_folder(made.study_id) / "study.json").read_text())["best"] is None


def test_unknown_and_damaged_studies_are_refused_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RefusedError, match="no study 'absent'"):
        load_study(store, "absent")
    made = study(trial(0, 0.9))
    save_study(store, made)
    folder = tmp_path / study_folder(made.study_id)
    (folder / "trials.json").write_text("[{", encoding="utf-8")
    with pytest.raises(RefusedError, match=r"trials\.json"):
        load_study(store, made.study_id)
    for damage in ("{}", "[]", "3", '{"study_id": "x"}', '[{"number": 1}]', '["a"]', "null"):
        save_study(store, made)
        (folder / "trials.json").write_text(damage, encoding="utf-8")
        if damage not in ("{}", "[]"):
            with pytest.raises(RefusedError):
                load_study(store, made.study_id)
        save_study(store, made)
        (folder / "study.json").write_text(damage, encoding="utf-8")
        with pytest.raises(RefusedError, match="does not hold the record"):
            load_study(store, made.study_id)
    with pytest.raises(RefusedError):
        load_study(store, "../runs/x")
