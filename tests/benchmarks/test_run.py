"""Running the plan: what is left to do, and a miniature of the whole that is killed and called again."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.results.code import UNKNOWN, code_fingerprint, is_made_by, record_code
from benchmarks.results.plan import Experiment, Plan
from benchmarks.results.run import Job, _share, pending, remove_run, run_plan, train_and_score
from benchmarks.results.scores import Scores, features_digest, read_all, read_scores, scores_path, write_scores
from lnln.config import Config
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.runs import Run, load_run, run_folder, run_id_for
from tests.benchmarks.made_scores import CODE, made_scores, small_plan
from tests.corpora import mmsa_pickle
from tests.finished_run import finished_run, small_corpus

TINY = """\
  model.text_encoder=tiny, model.hidden_dim=16, model.num_heads=2, model.head_dim=8, model.num_tokens=2,
  model.embedding_depth=1, model.completeness_depth=1, model.proxy_depth=1, model.reconstructor_depth=1,
  model.dominant_depth=1, model.fusion_depth=1, train.batch_size=16, train.epochs=EPOCHS, train.learning_rate=1e-3"""

MINIATURE = f"""
corpus: tiny
config: sample
set: [
{TINY}]
rates: [0, 0.5]
validation_rates: [0, 0.5]
mask_seeds: [0, 1]
groups:
  main:
    kind: systems
    title: Main systems
    seeds: [1]
    against: clean
    experiments:
      clean: {{title: clean LNLN}}
      published:
        title: published
        set: [model.mode=reference, corruption.shared_uniforms=true, train.selection=published]
      as_shipped: {{title: as it ships, like: published, selection: published}}
  unread:
    kind: changes
    title: Validation only
    seeds: [1]
    test: false
    base: clean
    experiments:
      no_adversarial: {{title: without the adversarial term, set: [loss.adversarial=0]}}
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> FeatureManifest:
    folder = tmp_path_factory.mktemp("corpus")
    return small_corpus(Store(folder / "store"), folder, "tiny")


def scores_on(manifest: FeatureManifest, plan: Plan, experiment: Experiment, seed: int) -> Scores:
    return dataclasses.replace(
        made_scores(plan, experiment, seed),
        source_sha256=str(manifest.source["sha256"]),
        feature_id=manifest.feature_id,
        manifest_digest=features_digest(manifest),
    )


def test_what_is_scored_is_not_trained_again(tmp_path: Path, manifest: FeatureManifest) -> None:
    plan = small_plan(tmp_path)
    everything = list(plan.experiments())
    jobs = pending(plan, everything, {}, manifest)
    assert [job.name for job in jobs] == [
        "clean 1",
        "clean 2",
        "text_only 1",
        "text_only 2",
        "no_adversarial 1",
        "no_audio 1",
    ]
    found = {(each.name, seed): scores_on(manifest, plan, each, seed) for each in everything for seed in each.seeds}
    assert pending(plan, everything, found, manifest) == []
    found["clean", 2] = dataclasses.replace(found["clean", 2], test=None)
    found["no_audio", 1] = dataclasses.replace(found["no_audio", 1], feature_id="of other features")
    found["text_only", 2] = dataclasses.replace(found["text_only", 2], code="older")
    assert [job.name for job in pending(plan, everything, found, manifest)] == ["clean 2", "no_audio 1"]
    assert [job.name for job in pending(plan, everything, found, manifest, CODE)] == [
        "clean 2",
        "text_only 2",
        "no_audio 1",
    ]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train by leaving a run that is finished at once; the ids of those that were not there before."""
    ids: list[str] = []

    def train(store: Store, corpus: str, config: Config, **_: object) -> Run:
        manifest = read_features(store, corpus)
        run_id = run_id_for(config, corpus, manifest)
        if not store.exists(f"{run_folder(run_id)}/result.json"):
            values = {key: value for key, value in config.to_dict().items() if key not in ("train", "tune")}
            assert finished_run(store, manifest, config.train.seed, train=config.to_dict()["train"], **values) == run_id
            ids.append(run_id)
        return load_run(store, run_id)

    monkeypatch.setattr("lnln.train.launch.train", train)
    return ids


def tiny_job(folder: Path) -> tuple[Plan, Job, Store, FeatureManifest, str]:
    plan, store = small_plan(folder, MINIATURE.replace("EPOCHS", "1")), Store(folder / "store")
    manifest = small_corpus(store, folder, "tiny")
    clean = plan.experiment("clean")
    return plan, Job((clean,), 1), store, manifest, run_id_for(clean.config(1), "tiny", manifest)


def test_features_that_changed_are_scored_anew(tmp_path: Path, trained: list[str]) -> None:
    plan, job, store, manifest, run_id = tiny_job(tmp_path)
    (clean,) = job.experiments
    path = scores_path(tmp_path / "scores", plan, clean, 1)
    for older in ({"feature_id": "of other features"}, {"manifest_digest": "of other features"}):
        write_scores(path, dataclasses.replace(scores_on(manifest, plan, clean, 1), **older))  # type: ignore[arg-type]
        train_and_score(plan, job, store, tmp_path / "scores")
        scores = read_scores(path)
        assert scores is not None and scores.is_current(plan, clean, manifest)
        assert scores.run_id == run_id and scores.code == code_fingerprint()
    before = path.read_bytes()
    train_and_score(plan, job, store, tmp_path / "scores")
    assert path.read_bytes() == before and trained == [run_id]


def test_older_code_is_retrained_only_when_asked_for(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, job, store, _, run_id = tiny_job(tmp_path)
    path = scores_path(tmp_path / "scores", plan, job.experiments[0], 1)

    def code_after(code: str, *, retrain: bool) -> str:
        monkeypatch.setattr("benchmarks.results.run.code_fingerprint", lambda: code)
        train_and_score(plan, job, store, tmp_path / "scores", retrain_older_code=retrain)
        scores = read_scores(path)
        assert scores is not None
        return scores.code

    assert code_after("a", retrain=False) == "a" and len(trained) == 1
    assert code_after("b", retrain=False) == "a" and len(trained) == 1
    path.unlink()
    assert code_after("b", retrain=False) == "a+b" and len(trained) == 1, "trained by one, scored by the other"
    assert code_after("b", retrain=True) == "b" and len(trained) == 2
    assert code_after("b", retrain=True) == "b" and len(trained) == 2, "nothing is left to be done"
    # Killed before it was scored: what this code has trained is kept.
    path.unlink()
    assert code_after("b", retrain=True) == "b" and len(trained) == 2
    assert set(trained) == {run_id}


def test_a_run_without_a_record_is_of_unknown_code(tmp_path: Path, manifest: FeatureManifest) -> None:
    store = Store(tmp_path / "store")
    assert record_code(store, "runs/new", "a") == "a"
    assert record_code(store, "runs/new", "b") == "b", "nothing was begun by a"
    run_id = finished_run(store, small_corpus(store, tmp_path, "tiny"))
    folder = run_folder(run_id)
    assert not is_made_by(store, folder, "a")
    assert record_code(store, folder, "a") == f"a+{UNKNOWN}"
    remove_run(store, run_id)
    assert not store.exists(f"{folder}/run.json") and is_made_by(store, folder, "a")
    assert record_code(store, folder, "a") == "a"


def test_equal_configs_share_a_training(tmp_path: Path, manifest: FeatureManifest) -> None:
    plan = small_plan(tmp_path, MINIATURE.replace("EPOCHS", "1"))
    jobs = pending(plan, list(plan.experiments()), {}, manifest)
    assert [[each.name for each in job.experiments] for job in jobs] == [
        ["clean"],
        ["published", "as_shipped"],
        ["no_adversarial"],
    ]


def test_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.results.run._cores", lambda: [0, 2, 5])
    assert [_share(slot, 2) for slot in range(2)] == [[0, 5], [2]]
    assert [_share(slot, 4) for slot in range(4)] == [[0], [2], [5], [0]]
    assert _share(0, 1) == [0, 2, 5]


def test_refusals_come_before_any_work(tmp_path: Path) -> None:
    plan, store = small_plan(tmp_path), tmp_path / "store"
    arguments = (plan, tmp_path / "plan.yaml", tmp_path / "absent.pkl", store, tmp_path / "scores")
    with pytest.raises(RefusedError, match="no MMSA pickle at"):
        run_plan(*arguments, num_jobs=1, only=None)
    with pytest.raises(RefusedError, match="JOBS must be 1 or more"):
        run_plan(*arguments, num_jobs=0, only=None)
    with pytest.raises(RefusedError, match="no group or experiment 'x'"):
        run_plan(*arguments, num_jobs=1, only="x")


def test_another_file_is_refused(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    clean = plan.experiment("clean")
    write_scores(scores_path(tmp_path / "scores", plan, clean, 1), made_scores(plan, clean, 1))
    with pytest.raises(RefusedError, match=r"clean-1\.json was scored on data with SHA-256 abababababab"):
        run_plan(
            plan,
            tmp_path / "plan.yaml",
            mmsa_pickle(tmp_path / "tiny.pkl"),
            tmp_path / "store",
            tmp_path / "scores",
            num_jobs=1,
            only=None,
        )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    places = {"plan": "plan.yaml", "data": "tiny.pkl", "store": "store", "scores": "scores", "page": "page/results.md"}
    options = [f"--{name}={folder / place}" for name, place in places.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.results", "run", *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def histories(folder: Path) -> list[int]:
    """Finished epochs of each run in the store."""
    found = []
    for path in (folder / "store" / "runs").glob("*/history.json"):
        try:
            found.append(len(json.loads(path.read_text())))
        except ValueError:  # it is just being replaced
            continue
    return found


def wait_for_lock(folder: Path, timeout_seconds: float) -> None:
    """Until no process that was orphaned holds a run."""
    import fcntl

    deadline = time.monotonic() + timeout_seconds
    for path in (folder / "store" / "runs").glob("*/lock"):
        with path.open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    assert time.monotonic() < deadline, "a training outlived the process that started it"
                    time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_and_called_again(tmp_path: Path) -> None:
    epochs = 4
    plan = small_plan(tmp_path, MINIATURE.replace("EPOCHS", str(epochs)))
    pickle = mmsa_pickle(tmp_path / "tiny.pkl")
    process = start(tmp_path)
    deadline = time.monotonic() + 240
    while not any(histories(tmp_path)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.1)
    process.kill()  # the runner alone: its training has to notice
    process.communicate()
    wait_for_lock(tmp_path, 30)
    before = histories(tmp_path)

    out, _ = (process := start(tmp_path, "--jobs=2")).communicate(timeout=300)
    assert process.returncode == 0, out
    found = read_all(tmp_path / "scores", plan)
    assert set(found) == {(name, 1) for name in ("clean", "published", "as_shipped", "no_adversarial")}
    assert before and max(before) >= 1
    clean, published, shipped = (found[name, 1] for name in ("clean", "published", "as_shipped"))
    assert clean.num_epochs == epochs
    assert clean.test and published.test and shipped.test and clean.all_missing
    assert clean.test.view_ids == published.test.view_ids, "the same views, whatever a config says of its masks"
    assert published.run_id == shipped.run_id and published.config == shipped.config
    assert found["no_adversarial", 1].test is None
    assert len(clean.test.samples["mae"]) == 1000 and set(clean.test.samples) == set(shipped.test.samples)
    assert clean.all_missing.samples == {}
    assert {each.code for each in found.values()} == {code_fingerprint()}

    # Nothing of the corpus is in what may be shared.
    text = "".join(path.read_text() for path in (tmp_path / "scores").rglob("*.json"))
    assert "utterance 1" not in text and "$_$" not in text and str(tmp_path) not in text
    # What was needed on the way is gone, the models are there.
    assert not list((tmp_path / "store").glob("runs/*/ray")) and not list((tmp_path / "store").glob("cache/*"))
    assert len(list((tmp_path / "store").glob("runs/*/model/model.safetensors"))) == 3

    page = (tmp_path / "page" / "results.md").read_text()
    assert "3 of 3 trainings are scored" in page and "test not yet read" in page
    assert (tmp_path / "page" / "results-tiny.svg").is_file()

    # Again: nothing to do, the same page. With test wanted after all: scored without training.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").rglob("*.json")}
    out, _ = (process := start(tmp_path)).communicate(timeout=120)
    assert process.returncode == 0 and "0 trainings to go" in out, out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "scores").rglob("*.json")} == times
    assert (tmp_path / "page" / "results.md").read_text() == page
    wanted = small_plan(tmp_path, MINIATURE.replace("EPOCHS", str(epochs)).replace("    test: false\n", ""))
    out, _ = (process := start(tmp_path, "--only=unread")).communicate(timeout=120)
    assert process.returncode == 0 and "epoch" not in out, out
    again = read_all(tmp_path / "scores", wanted)
    assert again["no_adversarial", 1].test is not None
    assert again["no_adversarial", 1].run_id == found["no_adversarial", 1].run_id

    pickle.write_bytes(b"another file")
    out, _ = (process := start(tmp_path)).communicate(timeout=120)
    assert process.returncode == 1 and "results: " in out and "Traceback" not in out, out


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    text = MINIATURE.replace("EPOCHS", "1").replace("loss.adversarial=0", "model.text_encoder=/no/such/encoder")
    plan = small_plan(tmp_path, text)
    mmsa_pickle(tmp_path / "tiny.pkl")
    process = start(tmp_path, "--only=clean,no_adversarial", "--jobs=2")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "1 of 2 trainings failed: no_adversarial 1" in out and "Traceback" not in out, out
    assert set(read_all(tmp_path / "scores", plan)) == {("clean", 1)}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_training_outlives_the_runner(tmp_path: Path, how: signal.Signals) -> None:
    small_plan(tmp_path, MINIATURE.replace("EPOCHS", "200"))
    mmsa_pickle(tmp_path / "tiny.pkl")
    process = start(tmp_path, "--only=clean")
    deadline = time.monotonic() + 120
    while not any(histories(tmp_path)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(how)
    out, _ = process.communicate(timeout=150)
    assert process.returncode != 0 and "Traceback" not in out, out
    wait_for_lock(tmp_path, 1 if how == signal.SIGINT else 90)
    assert max(histories(tmp_path)) < 200, "stopped, not finished"
