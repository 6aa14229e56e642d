"""Studies: real trials on Ray, continued, killed, stopped, failing; and what is refused before anything starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState, create_trial

from lnln.config import Config
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.train.session import ray_session
from pipelines.ingest import import_sample
from tests.finished_run import TINY, small_corpus
from tests.ray_nodes import Cluster, descendants, name_of, ray_cluster
from tuning.record import Study, load_study, study_folder
from tuning.search import RECORD
from tuning.select import best_config, best_trial, pareto_front
from tuning.space import DEFAULT_SPACE, Range, Space
from tuning.storage import open_storage
from tuning.sweep import study_id_for, tune

# Enough of them for something to happen in between.
NUM_EPOCHS = 40

# Twice the largest float32: a loss with such a weight is no number, so the trial fails as one that diverges does.
ENDLESS = Range(0.5, 1e300, "linear")

DRIVER = """
import json, sys
from lnln.config import Config
from lnln.data.store import Store
from tuning.sweep import tune
tune(Store(sys.argv[1]), sys.argv[2], Config.from_dict(json.loads(sys.argv[3])), num_trials=int(sys.argv[4]))
"""


def config(**sections: dict[str, Any]) -> Config:
    made: dict[str, Any] = {**TINY, "train": {"batch_size": 64}, "tune": {"epochs": 1, "max_concurrent_trials": 1}}
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
        config(tune={"seeds": [config().train.seed]}),  # as without
    ):
        assert study_id(made) == same
    for made in (
        config(loss={"sentiment": 2.0}),
        config(loss={"sentiment_distance": "l1"}),
        config(tune={"epochs": 2}),
        config(tune={"seed": 1}),
        config(tune={"seeds": [1, 2]}),
        config(tune={"objectives": ["acc7"]}),
        config(tune={"sampler": "random"}),
        config(tune={"pruning": "none"}),
        config(train={"seed": 2}),
        config(corruption={"mask_seed": 1}),
        config(model={"hidden_dim": 32}),
    ):
        assert study_id(made) != same
    assert study_id(config(), corpus="mosei") != same
    narrow = Space({"adversarial": Range(0.1, 1.0)})
    assert study_id(config(), space=narrow) != same
    # A weight that is not varied is part of what is studied, and any other parameter that is varied is not.
    assert study_id(config(loss={"completeness": 2.0}), space=narrow) != study_id(config(), space=narrow)
    rates = Space({"learning_rate": Range(1e-5, 1e-2), "reversal_strength": Range(0.1, 3)})
    other = config(train={"learning_rate": 1e-3}, model={"reversal_strength": 0.5})
    assert study_id(other, space=rates) == study_id(config(), space=rates) != study_id(other)
    # With seeds of its own a study does not hang on that of a run.
    assert study_id(config(tune={"seeds": [1, 2]}, train={"seed": 5})) == study_id(config(tune={"seeds": [1, 2]}))


def test_what_cannot_be_studied_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    narrow = Space({"adversarial": Range(0.1, 0.5)})
    text_only = config(model={"name": "text_only"})
    reversal = Space({"reversal_strength": Range(0.1, 2)})
    rates_of_encoder = Space({"encoder_learning_rate": Range(1e-5, 1e-3)})
    rates: dict[str, Any] = {"validation_rates": [0.0]}
    refused: list[tuple[Config, dict[str, Any], str]] = [
        (config(), {"num_trials": 0}, "1 trial or more, got 0"),
        (config(), {"num_trials": -3}, "1 trial or more, got -3"),
        (config(), {"num_workers": 0}, "workers must be 1 or more"),
        (config(), {"max_minutes": 0}, "number of minutes above 0, got 0"),
        (config(), {"max_minutes": float("nan")}, "number of minutes above 0, got nan"),
        (config(), {"space": narrow}, r"loss\.adversarial is 0\.8"),
        (config(), {"use_gpu": True, "num_workers": 1000}, "1000 workers need a GPU each"),
        (config(), {"gpus_per_worker": 0.5, "num_workers": 2}, "cannot share a GPU"),
        (config(tune={"sampler": "bayes"}), {}, "tune.sampler must be tpe, random or one of"),
        (config(tune={"sampler": "CmaEsSampler", "objectives": ["mae", "corr"]}), {}, "does not work for 2 objectives"),
        (config(tune={"objectives": ["acc3"]}), {}, "tune.objectives has 'acc3'"),
        (config(tune={"objectives": ["mae@corrupted"]}, corruption=rates), {}, "no rate above 0"),
        (text_only, {}, "varies completeness, adversarial, reconstruction, which a model with model.name=text_only"),
        (text_only, {"space": Space({"dropout": Range(0, 0.5, "linear")})}, "varies dropout, .* learning_rate, enc"),
        (config(model={"correction": False}), {}, "varies completeness, adversarial, which .* model.correction=false"),
        (config(loss={"adversarial": 0}), {"space": reversal}, "no effect with loss.adversarial=0"),
        (config(train={"frozen": "encoder"}), {"space": rates_of_encoder}, "no encoder is trained"),
        (config(model={"reconstruction": False}), {}, "varies reconstruction, which .* model.reconstruction=false"),
    ]
    for made, arguments, reason in refused:
        with pytest.raises(RefusedError, match=reason) as refusal:
            tune(store, "small", made, **{"num_trials": 1, **arguments})
        assert "\n" not in str(refusal.value)
    with pytest.raises(RefusedError, match="absent"):
        tune(store, "absent", config(), num_trials=1)
    assert not (tmp_path / "store" / "studies").exists()


def test_a_study_that_has_its_trials_says_so_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Complete and pruned trials count, failed and interrupted ones do not; one that diverged is a failed one."""
    monkeypatch.setattr("tuning.sweep.ray_session", lambda *_, **__: pytest.fail("Ray was started"))
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path)
    name = study_id_for("small", manifest.feature_id, config(), DEFAULT_SPACE)
    capsys.readouterr()
    with open_storage(store, name, "") as storage:
        study = optuna.create_study(storage=storage.optuna, study_name=name)
        seed = {
            "seed": 1,
            "valid_mae": 1.0,
            "best_epoch": 1,
            "valid_mae_by_rate": {"0.0": 0.9, "0.5": 1.1},
            "valid_mae_by_epoch": [1.0],
            "collapse_share": 0.5,
        }
        for state, record in (
            (TrialState.COMPLETE, {"reason": None, "seeds": [seed], "seconds": 1.0, "has_diverged": False}),
            (TrialState.PRUNED, {"reason": "stopped after epoch 1", "seeds": [seed], "seconds": 1.0}),
            (TrialState.FAIL, {"reason": "seed 1: no space", "seeds": [], "seconds": 1.0, "has_diverged": False}),
            (TrialState.PRUNED, {"reason": "seed 1: not finite", "seeds": [], "seconds": 1.0, "has_diverged": True}),
            (TrialState.FAIL, {"reason": "its process ended"}),
        ):
            value = 1.0 if state == TrialState.COMPLETE else None
            study.add_trial(create_trial(state=state, value=value, user_attrs={RECORD: record}))
        study.ask()  # of a driver that was killed
    found = tune(store, "small", config(), num_trials=2)
    states = [trial.state for trial in found.trials]
    assert states == ["complete", "pruned", "failed", "failed", "failed", "interrupted"]
    assert [trial.has_diverged for trial in found.trials] == [False, False, False, True, False, False]
    assert [trial.values for trial in found.trials] == [{"mae": 1.0}, *[{}] * 5]
    assert [trial.valid_mae for trial in found.trials][:2] == [1.0, None]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"study {name} has its 2 trials already; a larger number of trials continues it"
    assert tune(store, "small", config(), num_trials=1) == found == load_study(store, name)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"study {name} has 2 trials already; a larger number of trials continues it"

    elsewhere = config(tune={"storage_url": f"sqlite:///{tmp_path / 'other.db'}"})
    with pytest.raises(RefusedError, match=r"has 5 trials that ended, and .* tune\.storage_url names has 0"):
        tune(store, "small", elsewhere, num_trials=2)
    assert load_study(store, name) == found


@pytest.mark.slow
def test_a_killed_study_goes_on_without_loss_or_repetition(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    import_sample(store)
    _run_until_killed(store, after_line="trial 0 with")
    folder = next((tmp_path / "studies").iterdir())
    (before,) = load_study(store, folder.name).trials
    assert before.state == "complete"
    capfd.readouterr()

    study = tune(store, "sample", config(), num_trials=3)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line.partition(" with")[0] for line in printed.err.splitlines()] == ["trial 2", "trial 3"], printed.err
    assert printed.err.splitlines()[-1].endswith("3 of 3 done")
    assert [trial.state for trial in study.trials] == ["complete", "interrupted", "complete", "complete"]
    assert study.trials[0] == before
    assert study.trials[0].is_configured
    assert study.trials[2].parameters == study.trials[1].parameters
    assert len({tuple(trial.parameters.values()) for trial in study.trials}) == 3
    for trial in study.of_state("complete"):
        (result,) = trial.seeds
        assert trial.seconds is not None and trial.reason is None
        assert trial.values == {"mae": result.valid_mae}
        assert result.valid_mae_by_rate.keys() == {"0.0", "0.5"}
        assert sum(result.valid_mae_by_rate.values()) / 2 == pytest.approx(result.valid_mae)
        assert (result.best_epoch, result.valid_mae_by_epoch) == (1, [result.valid_mae])
        assert 0 < result.collapse_share <= 1

    assert load_study(store, study.study_id) == study
    assert best_config(config(), study).loss.sentiment == 1.0
    assert best_trial(study).values["mae"] == min(trial.values["mae"] for trial in study.of_state("complete"))
    assert not (tmp_path / "runs").exists() and not (folder / "ray").exists()

    started = time.monotonic()
    assert tune(store, "sample", config(), num_trials=2) == study  # done before: nothing is started
    assert time.monotonic() - started < 5


def _run_until_killed(store: Store, after_line: str) -> None:
    """A driver in a process group of its own, SIGKILLed in the middle of the trial after `after_line`."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, store.url, "sample", json.dumps(config().to_dict()), "4"],
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
@pytest.mark.skipif(sys.platform != "linux", reason="titles of processes: Linux")
def test_a_lost_process_costs_no_trial(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGKILL of the first trial's train worker, and of the second trial's own process."""
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    made = config(train={"batch_size": 4}, tune={"epochs": 12, "seeds": [1, 2], "pruning": "none"})
    capfd.readouterr()
    with _killing(("ray::RayTrainWorker", 0), ("ray::ImplicitFunc", 1)) as killed:
        study = tune(store, "small", made, num_trials=2)
    assert len(killed) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    lines = printed.err.splitlines()
    assert lines[1] == "trial 1: its process was lost; it is tried again"
    assert [line[:12] for line in lines] == ["trial 0 with", "trial 1: its", "trial 1 with"], lines
    assert lines[-1].endswith("2 of 2 done")
    assert [trial.state for trial in study.trials] == ["complete", "complete"]
    for trial in study.trials:
        assert [result.seed for result in trial.seeds] == [1, 2]
        assert [len(result.valid_mae_by_epoch) for result in trial.seeds] == [12, 12]
        assert trial.values["mae"] == pytest.approx(sum(result.valid_mae for result in trial.seeds) / 2)
    assert study.trials[0].seeds[0].valid_mae_by_epoch != study.trials[0].seeds[1].valid_mae_by_epoch
    _assert_optuna_agrees(store, study)
    with open_storage(store, study.study_id, "") as storage:
        for each in optuna.load_study(storage=storage.optuna, study_name=study.study_id).trials:
            assert list(each.intermediate_values) == list(range(1, 25))


@contextmanager
def _killing(*victims: tuple[str, int]) -> Iterator[list[int]]:
    """SIGKILL for a process of each title, in this order, in the trial of that number, a second after its worker
    came; the process ids so far."""
    killed: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        trials: list[int] = []  # process ids, as they come
        for title, number in victims:
            # Of several the youngest: a trial's process may outlast its trial a little.
            while not is_over.wait(0.1):
                below = psutil.Process().children(recursive=True)
                trials += [each.pid for each in below if _has(each, "ray::ImplicitFunc") and each.pid not in trials]
                found = sorted((each for each in below if _has(each, title)), key=psutil.Process.create_time)
                is_trained = any(_has(each, "ray::RayTrainWorker") for each in below)
                if found and is_trained and len(trials) > number and not is_over.wait(1.0):
                    with suppress(psutil.NoSuchProcess):
                        found[-1].kill()
                        killed.append(found[-1].pid)
                        break

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


def _wait_until(is_so: Callable[[], bool], timeout_seconds: float = 120) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.1)


def _lives(*titles: str) -> bool:
    """Whether a process below this one has one of the titles."""
    return any(_has(each, title) for each in psutil.Process().children(recursive=True) for title in titles)


def _has(process: psutil.Process, title: str) -> bool:
    try:
        return "".join(process.cmdline()[:1]).startswith(title)
    except psutil.Error:
        return False


def _assert_optuna_agrees(store: Store, study: Study) -> None:
    """Optuna's storage says the same of every trial as our record."""
    with open_storage(store, study.study_id, "") as storage:
        trials = optuna.load_study(storage=storage.optuna, study_name=study.study_id).trials
    names = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    assert [names[trial.state] for trial in trials] == [trial.state for trial in study.trials]
    assert [study.space.values(trial.params) for trial in trials] == [trial.parameters for trial in study.trials]
    for theirs, ours in zip(trials, study.trials, strict=True):
        if ours.state == "complete":
            assert theirs.values == list(ours.values.values())


def _num_reporting(store: Store) -> int:
    """Trials of the store's only study that have told of an epoch."""
    journals = list(Path(store.url).glob("studies/*/optuna.journal"))
    lines = [json.loads(line) for path in journals for line in path.read_bytes().splitlines() if line.endswith(b"}")]
    return len({line["trial_id"] for line in lines if "intermediate_value" in line})


class SmallHead(Cluster):
    """Its head has no memory to give, so that the processes of trials are on other nodes."""

    def _start(self, *options: str) -> tuple[subprocess.Popen[bytes], str]:
        return super()._start(*options, *(["--memory=1"] if "--head" in options else []))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="several nodes on one machine, and /proc: Linux")
def test_a_lost_node_costs_no_trial(tmp_path: Path) -> None:
    """SIGKILL of the raylet of the node with both trials' processes and one's worker, while both are trained."""
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    tuned = {"epochs": NUM_EPOCHS, "pruning": "none", "max_concurrent_trials": 2}
    made = config(train={"batch_size": 4}, tune=tuned)
    command = [sys.executable, "-c", DRIVER, store.url, "small", json.dumps(made.to_dict()), "2"]
    err = tmp_path / "err"
    with ray_cluster(SmallHead) as cluster:
        node = cluster.add_node()
        more = {**cluster.environment, "RAY_ADDRESS": cluster.address, "LNLN_CACHE": str(tmp_path / "cache")}
        with err.open("wb") as file:
            driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env={**os.environ, **more})
        try:
            _wait_until(lambda: _num_reporting(store) == 2 or driver.poll() is not None)
            assert driver.poll() is None, err.read_text()
            [raylet] = [pid for pid in descendants(node.pid) if name_of(pid) == "raylet"]
            os.kill(raylet, signal.SIGKILL)
            cluster.add_node()
            assert driver.wait(timeout=180) == 0, err.read_text()
        finally:
            driver.kill()
            driver.wait()
    said = err.read_text()
    assert said.count("its process was lost; it is tried again") == 2 and "Traceback" not in said, said
    (made_folder,) = (tmp_path / "store" / "studies").iterdir()
    study = load_study(store, made_folder.name)
    assert [trial.state for trial in study.trials] == ["complete", "complete"], said
    assert all(len(trial.seeds[0].valid_mae_by_epoch) == NUM_EPOCHS for trial in study.trials)
    _assert_optuna_agrees(store, study)


@pytest.mark.slow
def test_a_trial_waits_for_room_and_leaves_it_when_it_is_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Ray that others use: its only core is taken when the study begins, and again before the first trial's worker
    can have it. The second trial is stopped after its first epoch of 30."""
    import ray

    # Of Ray, which waits for a minute.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "5")
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    # A step that is too small to learn anything, unless it is the configured one.
    space = Space({"learning_rate": Range(1e-12, 5e-3)})
    tuned = {"epochs": 30, "grace_epochs": 1, "reduction_factor": 2}
    made = config(train={"learning_rate": 5e-3, "encoder_learning_rate": 5e-3, "batch_size": 8}, tune=tuned)
    ends, said = [tmp_path / "first", tmp_path / "second"], [""]

    @ray.remote(num_cpus=1)
    def take(end: str) -> None:
        while not Path(end).exists():
            time.sleep(0.1)

    def others() -> None:
        def hears(text: str) -> bool:
            said[0] += capfd.readouterr().err
            return text in said[0]

        _wait_until(lambda: hears("the next trial waits"))
        ends[0].touch()
        _wait_until(lambda: _lives("ray::ImplicitFunc"))
        taken = take.remote(str(ends[1]))
        _wait_until(lambda: hears("for its workers"))
        ends[1].touch()
        ray.get(taken)

    with ray_session(1):
        taken = take.remote(str(ends[0]))
        _wait_until(lambda: ray.available_resources().get("CPU", 0) < 1)
        capfd.readouterr()
        thread = threading.Thread(target=others)
        thread.start()
        try:
            study = tune(store, "small", made, num_trials=2, space=space)
        finally:
            for end in ends:
                end.touch()
            thread.join()
        ray.get(taken)
        _wait_until(lambda: ray.available_resources().get("CPU") == 1.0, timeout_seconds=20)
        _wait_until(lambda: not _lives("ray::RayTrainWorker", "ray::TrainController", "ray::ImplicitFunc"), 20)
    lines = (said[0] + capfd.readouterr().err).splitlines()
    assert lines[:2] == [
        "the next trial waits for room: 1 CPU wanted, 0 of 1 free",
        "trial 0: seed 1111 waits for room for its workers",
    ]
    assert lines[-1].endswith("stopped after epoch 1: not among the best half, 2 of 2 done"), lines
    assert [trial.state for trial in study.trials] == ["complete", "pruned"]
    pruned = study.trials[1]
    assert pruned.reason == "stopped after epoch 1: not among the best half"
    assert pruned.seeds[0].valid_mae_by_epoch == [pruned.seeds[0].valid_mae]
    _assert_optuna_agrees(store, study)


@pytest.mark.slow
def test_a_failing_trial_stops_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "store")
    small_corpus(store, tmp_path)
    space = Space({"completeness": ENDLESS})
    made = config(tune={"max_concurrent_trials": 2, "objectives": ["mae@clean", "acc7"]})
    capfd.readouterr()
    study = tune(store, "small", made, num_trials=2, space=space)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [trial.state for trial in study.trials] == ["complete", "failed"]
    assert study.trials[1].values == {} and study.trials[1].has_diverged
    assert study.trials[1].reason is not None and study.trials[1].reason in printed.err
    assert study.trials[1].reason.startswith("seed 1111: the loss is not finite in step 1 of epoch 1: total of")
    lines = printed.err.splitlines()
    assert len(lines) == 3 and lines[0] == "2 objectives: no trial is stopped early (tune.pruning)", lines
    assert best_trial(study).number == 0 and pareto_front(study) == [study.trials[0]]
    assert study.trials[0].values["mae@clean"] == study.trials[0].seeds[0].valid_mae_by_rate["0.0"]
    assert 0 <= study.trials[0].values["acc7"] <= 1


@pytest.mark.slow
def test_a_study_whose_trials_all_failed_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And no trial starts when the time is over."""
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path)
    name = study_id_for("small", manifest.feature_id, config(), DEFAULT_SPACE)
    with open_storage(store, name, "") as storage:
        record = {"reason": "seed 1111: the loss is not finite", "seeds": [], "seconds": 1.0, "has_diverged": True}
        trial = create_trial(state=TrialState.PRUNED, user_attrs={RECORD: record})
        optuna.create_study(storage=storage.optuna, study_name=name).add_trial(trial)
    capfd.readouterr()
    with pytest.raises(RefusedError, match="all 1 trials failed; the last because: seed 1111: the loss") as refusal:
        tune(store, "small", config(), num_trials=2, max_minutes=1e-6)
    assert "\n" not in str(refusal.value)
    printed = capfd.readouterr()
    said = "1e-06 minutes are over, 0 of 2 trials have ended; the same command continues the study\n"
    assert (printed.out, printed.err) == ("", said)
    assert [each.state for each in load_study(store, name).trials] == ["failed"]


@pytest.mark.slow
def test_a_study_on_s3_is_known_to_another_machine(
    tmp_path: Path, s3_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "one"))
    store = Store(s3_store_url)
    small_corpus(store, tmp_path)
    one = tune(store, "small", config(), num_trials=1)
    assert [trial.state for trial in one.trials] == ["complete"]
    assert not store.exists(f"{study_folder(one.study_id)}/ray")
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr("tuning.sweep.ray_session", lambda *_, **__: pytest.fail("Ray was started"))
    assert tune(store, "small", config(), num_trials=1) == one == load_study(store, one.study_id)
    with pytest.raises(pytest.fail.Exception, match="Ray was started"):
        tune(store, "small", config(), num_trials=2)
