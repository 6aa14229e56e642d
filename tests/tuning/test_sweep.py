"""Studies: real trials on Ray, continued, killed, failing; and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.ingest import import_sample
from tests.finished_run import TINY, small_corpus
from tuning.select import best_config, best_trial, load_study
from tuning.space import DEFAULT_SPACE, Range, Space
from tuning.sweep import study_id_for, tune

# Twice the largest float32: a loss with such a weight is no number, so the trial fails as one that diverges does.
ENDLESS = Range(0.5, 1e300, "linear")

DRIVER = """
import json, sys
from lnln.config import Config
from lnln.data.store import Store
from tuning.sweep import tune
tune(Store(sys.argv[1]), "sample", Config.from_dict(json.loads(sys.argv[2])), num_trials=4)
"""


def config(**sections: dict[str, Any]) -> Config:
    made: dict[str, Any] = {**TINY, "train": {"batch_size": 64}, "tune": {"epochs": 1}}
    return Config.from_dict({**made, **{name: {**made.get(name, {}), **keys} for name, keys in sections.items()}})


def study_id(made: Config, corpus: str = "mosi", space: Space = DEFAULT_SPACE) -> str:
    return study_id_for(corpus, "0" * 12, made, space)


def test_what_makes_a_study_another_one() -> None:
    same = study_id(config())
    assert same == study_id(Config.from_dict(config().to_dict()))
    assert same.startswith("mosi-lnln-")
    for made in (
        config(loss={"adversarial": 0.6, "completeness": 1.0}),
        config(tune={"max_concurrent_trials": 8}),
        config(tune={"storage_url": "sqlite:///x.db"}),
        config(train={"epochs": 50}),
    ):
        assert study_id(made) == same
    for made in (
        config(loss={"sentiment": 2.0}),
        config(loss={"sentiment_distance": "l1"}),
        config(tune={"epochs": 2}),
        config(tune={"seed": 1}),
        config(train={"seed": 2}),
        config(corruption={"mask_seed": 1}),
        config(model={"hidden_dim": 32}),
    ):
        assert study_id(made) != same
    assert study_id(config(), corpus="mosei") != same
    narrow = Space({"adversarial": Range(0.1, 1.0)})
    assert study_id(config(), space=narrow) != same
    # A weight that is not varied is part of what is studied.
    assert study_id(config(loss={"completeness": 2.0}), space=narrow) != study_id(config(), space=narrow)


def test_what_cannot_be_studied_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    narrow = Space({"adversarial": Range(0.1, 0.5)})
    for arguments, reason in (
        ({"num_trials": 0}, "1 trial or more, got 0"),
        ({"num_trials": -3}, "1 trial or more, got -3"),
        ({"num_trials": 1, "num_workers": 0}, "workers must be 1 or more"),
        ({"num_trials": 1, "space": narrow}, r"loss\.adversarial is 0\.8"),
        ({"num_trials": 1, "use_gpu": True, "num_workers": 1000}, "1000 workers need a GPU each"),
    ):
        with pytest.raises(RefusedError, match=reason) as refusal:
            tune(store, "small", config(), **arguments)
        assert "\n" not in str(refusal.value)
    with pytest.raises(RefusedError, match="absent"):
        tune(store, "absent", config(), num_trials=1)
    assert not (tmp_path / "store" / "studies").exists()


@pytest.mark.slow
def test_a_killed_study_goes_on_without_loss_or_repetition(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    import_sample(store)
    _run_until_killed(store, after_line="trial 0 with")
    folder = next((tmp_path / "studies").iterdir())
    before = json.loads((folder / "trials.json").read_text())
    assert [trial["state"] for trial in before] == ["complete"]
    capfd.readouterr()

    study = tune(store, "sample", config(), num_trials=3)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line.partition(" with")[0] for line in printed.err.splitlines()] == ["trial 2", "trial 3"], printed.err
    assert printed.err.splitlines()[-1].endswith("3 of 3 done")
    assert [trial.state for trial in study.trials] == ["complete", "interrupted", "complete", "complete"]
    assert study.trials[0].to_dict() == before[0]
    assert study.trials[0].is_configured
    assert study.trials[2].weights == study.trials[1].weights
    assert len({tuple(trial.weights.values()) for trial in study.trials}) == 3
    for trial in study.trials:
        if trial.state == "complete":
            assert trial.valid_mae is not None and trial.seconds is not None
            assert trial.valid_mae_by_rate.keys() == {"0.0", "0.5"}
            assert sum(trial.valid_mae_by_rate.values()) / 2 == pytest.approx(trial.valid_mae)
            assert (trial.best_epoch, trial.valid_mae_by_epoch) == (1, [trial.valid_mae])

    assert load_study(store, study.study_id) == study
    assert best_config(config(), study).loss.sentiment == 1.0
    assert best_trial(study).valid_mae == min(trial.valid_mae for trial in study.trials if trial.valid_mae)
    assert {path.name for path in folder.iterdir()} == {"study.json", "trials.json", "optuna.journal", "lock"}
    assert not (tmp_path / "runs").exists()

    started = time.monotonic()
    assert tune(store, "sample", config(), num_trials=2) == study  # done before: nothing is started
    assert time.monotonic() - started < 5
    assert capfd.readouterr().err == ""


def _run_until_killed(store: Store, after_line: str) -> None:
    """A driver in a process group of its own, SIGKILLed in the middle of the trial after `after_line`."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, store.url, json.dumps(config().to_dict())],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert driver.stderr is not None
    lines = []
    try:
        for line in driver.stderr:
            lines.append(line)
            if line.startswith(after_line):
                break
        else:
            pytest.fail("".join(lines))
        time.sleep(3)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait(timeout=30)
        driver.stderr.close()


@pytest.mark.slow
def test_a_failing_trial_stops_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    space = Space({"completeness": ENDLESS})
    capfd.readouterr()
    study = tune(store, "small", config(tune={"max_concurrent_trials": 2}), num_trials=2, space=space)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [trial.state for trial in study.trials] == ["complete", "failed"]
    assert study.trials[1].valid_mae is None
    assert study.trials[1].reason is not None and study.trials[1].reason in printed.err
    assert len(printed.err.splitlines()) == 2, printed.err
    assert best_trial(study).number == 0


@pytest.mark.slow
def test_a_study_whose_trials_all_fail_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    endless = config(loss={"completeness": 1e299})
    with pytest.raises(RefusedError, match="all 1 trials failed") as refusal:
        tune(store, "small", endless, num_trials=1, num_workers=2, space=Space({"completeness": ENDLESS}))
    assert "\n" not in str(refusal.value)
    study = load_study(store, study_id_of(tmp_path / "store"))
    assert [trial.state for trial in study.trials] == ["failed"]
    assert "the loss is not finite in step 1 of epoch 1: total of" in (study.trials[0].reason or "")


@pytest.mark.slow
def test_a_study_on_s3_goes_on_from_another_machine(
    tmp_path: Path, s3_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "one"))
    store = Store(s3_store_url)
    small_corpus(store, tmp_path)
    one = tune(store, "small", config(), num_trials=1)
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "other"))
    two = tune(store, "small", config(), num_trials=2)
    assert two.trials[0] == one.trials[0]
    assert [trial.state for trial in two.trials] == ["complete"] * 2
    assert load_study(store, two.study_id) == two


def study_id_of(store: Path) -> str:
    (folder,) = (store / "studies").iterdir()
    return folder.name
