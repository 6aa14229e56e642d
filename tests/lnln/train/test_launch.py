from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lnln.checkpoint import describe_file
from lnln.config import Config
from lnln.corruption.typos import typos_of
from lnln.data.lease import LEASE_FILE, LostLeaseError
from lnln.data.manifest import FeatureManifest, SplitEntry, commit_features, read_features
from lnln.data.schema import Ragged, Split
from lnln.data.shards import read_split, write_shard
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.evaluate import evaluate
from lnln.model_store import publish, pull
from lnln.models import LNLN
from lnln.report import collect
from lnln.report.verdict import cautions
from lnln.runs import (
    damaged_selection_weights,
    is_finished,
    load_run,
    run_id_for,
    selected_on_test,
    selection_file,
    selection_weights,
)
from lnln.train.failures import reason_of, refusal
from lnln.train.launch import check, chosen_threads, patience_seconds, train
from lnln.train.session import ray_session
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content, mmsa_pickle
from tests.finished_run import small_corpus
from tests.lnln.train.started_run import make_config, started, untimed

SLOW = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("LNLN_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "store")


@pytest.fixture
def manifest(store: Store, tmp_path: Path) -> FeatureManifest:
    return small_corpus(store, tmp_path)


def runs_of(store: Store) -> list[str]:
    folder = Path(store.url) / "runs"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_an_unknown_corpus_is_refused(store: Store) -> None:
    with pytest.raises(RefusedError, match="no corpus 'nothing'"):
        train(store, "nothing", make_config())
    assert runs_of(store) == []


@pytest.mark.parametrize("num_workers", [0, -1])
def test_too_few_workers_are_refused(store: Store, manifest: FeatureManifest, num_workers: int) -> None:
    with pytest.raises(RefusedError, match=f"1 or more, got {num_workers}"):
        train(store, "small", make_config(), num_workers=num_workers)
    assert runs_of(store) == []


@pytest.mark.parametrize(
    ("num_workers", "gpus_per_worker", "said"),
    [
        ((0, 2), 1.0, "1 or more, got 0"),
        ((3, 2), 1.0, "got 3 to 2"),
        (1, 0.0, "above 0 and up to 1, got 0"),
        (1, 1.5, "above 0 and up to 1, got 1.5"),
        (1, float("nan"), "above 0 and up to 1, got nan"),
        (2, 0.5, "cannot share a GPU .* 2 workers with 0.5"),
        ((1, 2), 0.5, "cannot share a GPU"),
    ],
)
def test_workers_and_shares_that_cannot_be_are_refused(
    store: Store, manifest: FeatureManifest, num_workers: Any, gpus_per_worker: float, said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        train(store, "small", make_config(), num_workers=num_workers, gpus_per_worker=gpus_per_worker)
    assert runs_of(store) == []


@pytest.mark.parametrize("text", ["-1", "soon", "inf", "nan"])
def test_a_patience_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNLN_PATIENCE_SECONDS", text)
    with pytest.raises(RefusedError, match=f"LNLN_PATIENCE_SECONDS must be .* got '{text}'"):
        patience_seconds()


def test_a_gpu_that_is_not_there_is_refused(store: Store, manifest: FeatureManifest) -> None:
    import torch

    too_many = torch.cuda.device_count() + 1
    with pytest.raises(RefusedError, match=rf"{too_many} workers? needs? a GPU"):
        train(store, "small", make_config(), num_workers=too_many, use_gpu=True)
    if too_many == 1:
        with pytest.raises(RefusedError, match=r"1 worker needs 0\.5 of a GPU, this machine has 0"):
            train(store, "small", make_config(), gpus_per_worker=0.5)
    assert runs_of(store) == []


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_utterances_is_refused(store: Store, manifest: FeatureManifest, split: str) -> None:
    splits = {name: entry for name, entry in manifest.splits.items() if name != split}
    with pytest.raises(RefusedError, match=f"no utterances in split '{split}'"):
        check(store, dataclasses.replace(manifest, splits=splits), make_config(), 1, None)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_split_without_labels_is_refused(store: Store, tmp_path: Path, split: Split) -> None:
    manifest = small_corpus(store, tmp_path)
    utterances = read_split(store, manifest, split)
    bare = dataclasses.replace(utterances, label=np.full(len(utterances), np.nan, np.float32))
    entry = write_shard(store, manifest.folder, split, bare)
    splits: dict[Split, SplitEntry] = {**manifest.splits, split: SplitEntry(len(bare), (entry,))}
    with pytest.raises(RefusedError, match=f"no labelled utterance in split '{split}'"):
        check(store, dataclasses.replace(manifest, splits=splits), make_config(), 1, None)


def test_published_selection_needs_a_labelled_test_split(store: Store, tmp_path: Path) -> None:
    manifest = small_corpus(store, tmp_path)
    splits: dict[Split, SplitEntry] = {name: manifest.splits[name] for name in ("train", "valid")}
    bare = dataclasses.replace(manifest, splits=splits)
    check(store, bare, make_config(), 1, None)
    with pytest.raises(RefusedError, match="no utterances in split 'test'"):
        check(store, bare, make_config(selection="published"), 1, None)


def replaced(store: Store, manifest: FeatureManifest, split: Split, **columns: Any) -> FeatureManifest:
    """A corpus `broken`, equal but for some columns of one split."""
    utterances = dataclasses.replace(read_split(store, manifest, split), **columns)
    entry = write_shard(store, manifest.folder, split, utterances)
    splits: dict[Split, SplitEntry] = {**manifest.splits, split: SplitEntry(len(utterances), (entry,))}
    return commit_features(store, dataclasses.replace(manifest, corpus="broken", splits=splits))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_labels_out_of_range_are_refused_before_anything_starts(
    store: Store, manifest: FeatureManifest, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = read_split(store, manifest, split).label.copy()
    labels[2] = 47.5
    replaced(store, manifest, split, label=labels)
    monkeypatch.setattr("lnln.train.launch.ray_session", lambda *_: pytest.fail("Ray was started"))
    with pytest.raises(RefusedError, match=r"47\.5") as refused:
        train(store, "broken", make_config(), progress=None)
    assert "\n" not in str(refused.value) and runs_of(store) == []


def with_infinite_audio(store: Store, manifest: FeatureManifest, split: Split) -> None:
    """The corpus `broken`, with a value in `split` that no import leaves there."""
    utterances = read_split(store, manifest, split)
    values = utterances.audio.values.copy()
    values[3, 1] = np.inf
    replaced(store, manifest, split, audio=Ragged(values, utterances.audio.offsets))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_features_that_are_not_finite_are_refused_before_anything_starts(
    store: Store, manifest: FeatureManifest, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_infinite_audio(store, manifest, split)
    monkeypatch.setattr("lnln.train.launch.ray_session", lambda *_: pytest.fail("Ray was started"))
    lines: list[str] = []
    with pytest.raises(RefusedError, match=r"audio has values that are NaN or infinite, .* `lnln import ") as refused:
        train(store, "broken", make_config(), progress=lines.append)
    assert "\n" not in str(refused.value) and runs_of(store) == lines == []


def test_of_large_splits_only_labels_are_read_before_the_start(
    store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_infinite_audio(store, manifest, "valid")
    broken = read_features(store, "broken")
    num_bytes = sum(shard.num_bytes for split in ("train", "valid") for shard in broken.splits[split].shards)
    monkeypatch.setattr("lnln.train.launch.CHECKED_BYTES", num_bytes - 1)
    check(store, broken, make_config(), 1, None)
    monkeypatch.setattr("lnln.train.launch.CHECKED_BYTES", num_bytes)
    with pytest.raises(RefusedError, match="NaN or infinite"):
        check(store, broken, make_config(), 1, None)


def test_an_encoder_that_is_none_is_refused_before_anything_starts(
    store: Store, manifest: FeatureManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lnln.train.launch.ray_session", lambda *_: pytest.fail("Ray was started"))
    (tmp_path / "encoder").mkdir()
    for model_type, said in (("gpt2", "got 'gpt2'"), ("bert", r"model\.safetensors")):
        (tmp_path / "encoder/config.json").write_text(f'{{"model_type": "{model_type}", "vocab_size": 30522}}')
        values = make_config().to_dict()
        values["model"]["text_encoder"] = str(tmp_path / "encoder")
        with pytest.raises(RefusedError, match=said):
            train(store, "small", Config.from_dict(values), progress=None)
        assert runs_of(store) == []


@pytest.mark.parametrize("trained", ["nothing", "history", "checkpoint"])
def test_a_run_that_is_refused_later_stays_only_where_something_was_trained(
    store: Store, manifest: FeatureManifest, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"runs/{run_id_for(make_config(), 'small', manifest)}"

    def refuse(*_: object) -> None:
        assert store.exists(f"{folder}/run.json")
        store.write(f"{folder}/ray/some/file", b"")
        if trained == "history":
            store.write_json(f"{folder}/history.json", [{"epoch": 1}])
        elif trained == "checkpoint":
            results = [{"checkpoint_dir_name": "epoch-0001"}]
            store.write_json(f"{folder}/ray/checkpoint_manager_snapshot.json", {"checkpoint_results": results})
        raise RefusedError("a worker says no")

    monkeypatch.setattr("lnln.train.launch.ray_session", refuse)
    with pytest.raises(RefusedError, match="a worker says no"):
        train(store, "small", make_config(), progress=None)
    assert len(runs_of(store)) == (0 if trained == "nothing" else 1)
    assert store.exists(f"{folder}/run.json") == (trained != "nothing")


@pytest.mark.parametrize(
    ("value", "threads"), [(None, None), ("1", 1), ("3,2", 3), (" 2 ", 2), ("", None), ("many", None), ("0", None)]
)
def test_threads_are_those_that_the_user_asks_for(
    value: str | None, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert chosen_threads() == threads


def test_cores_are_shared_where_nobody_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    from lnln.train.worker import _share_of_cores

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [_share_of_cores(workers) for workers in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]


def test_an_encoder_with_a_smaller_vocabulary_is_refused(store: Store, manifest: FeatureManifest) -> None:
    tokenizer = dataclasses.replace(manifest.tokenizer, vocabulary_size=99999)
    with pytest.raises(RefusedError, match=r"'tiny' knows 30522 ids, .* 99999"):
        check(store, dataclasses.replace(manifest, tokenizer=tokenizer), make_config(), 1, None)


def test_noise_on_ids_of_an_unknown_vocabulary_is_refused_before_ray(
    store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tokenizer: object) -> list[str]:
        raise RefusedError("not at hand")

    noisy = dataclasses.replace(make_config().corruption, protocol="noise")
    check(store, manifest, dataclasses.replace(make_config(), corruption=noisy), 1, None)
    typos_of.cache_clear()
    monkeypatch.setattr("lnln.corruption.typos.read_vocabulary", refuse)
    with pytest.raises(RefusedError, match="not at hand"):
        check(store, manifest, dataclasses.replace(make_config(), corruption=noisy), 1, None)


def test_a_refusal_is_found_in_what_ray_wraps_it_in() -> None:
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    refused = RefusedError("no")
    wrapped = UserExceptionWithTraceback(refused, "Traceback ...\nlnln.errors.RefusedError: no")
    other = UserExceptionWithTraceback(OSError("gone"), "Traceback ...\nOSError: gone")
    group = WorkerGroupError("workers failed", {0: other, 1: wrapped})
    assert refusal(group) is refused and reason_of(group) == "no"
    assert refusal(ControllerError(refused)) is refused
    assert refusal(WorkerGroupError("workers failed", {1: other})) is None
    assert reason_of(WorkerGroupError("workers failed", {1: other})) == "worker 1: OSError: gone"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RefusedError("the loss is NaN\nat step 3"), "the loss is NaN at step 3"),
        (ValueError("first line\nlast line\n"), "ValueError: last line"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_failures_read_as_one_line(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_finished_run_is_returned_as_it_is(run_store: Any) -> None:
    run = load_run(run_store.store, run_store.better)
    assert train(run_store.store, "small", run.config, num_workers=0) == run


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    with ray_session(1):
        yield


@SLOW
def test_a_run_leaves_all_that_it_should(
    store: Store, manifest: FeatureManifest, running_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    lines: list[str] = []
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    config = make_config(epochs=4, average_decay=0.9, selection="published")
    run = train(store, "small", config, config_name="some", progress=lines.append)
    assert ray.is_initialized(), "a Ray that ran before goes on running"
    assert run == load_run(store, run.run_id) and run.run_id == run_id_for(config, "small", manifest)
    assert [record["epoch"] for record in run.history] == [1, 2, 3, 4]
    assert run.score == min(record["score"] for record in run.history)
    assert run.validation == run.history[run.best_epoch - 1]["validation"]
    assert run.num_workers == 1 and run.num_parameters > 10_000 and run.versions.keys() == {"lnln", "torch", "ray"}
    assert len(lines) == 5 and lines[0].endswith("starting with 1 worker") and lines[4].startswith("epoch 4/4")
    folder = Path(store.url) / run.folder
    assert {path.name for path in folder.iterdir()} == {
        "run.json",
        "history.json",
        "result.json",
        LEASE_FILE,
        "lock",
        "model",
        "ray",
        "selected-on-test",
    }
    assert store.read_json(f"{run.folder}/result.json")["num_threads"] == 3
    assert run.absent_modalities == ()
    assert {path.name for path in (folder / "model").iterdir()} == set(run.files)
    for name, entry in run.files.items():
        assert describe_file(folder / "model" / name) == entry
    checkpoints = {path.name for path in (folder / "ray").iterdir() if path.is_dir()}
    assert checkpoints == {"epoch-0004", f"epoch-{run.best_epoch:04d}"}
    weights = load_file(folder / "ray" / f"epoch-{run.best_epoch:04d}" / "average.safetensors")
    state = LNLN.from_pretrained(folder / "model").state_dict()
    assert all(np.array_equal(value, state[name].numpy()) for name, value in weights.items())
    kept = {path.name for path in (folder / "selected-on-test").iterdir()}
    assert kept == {selection_file(epoch) for epoch in set(selected_on_test(run.history).values())}
    assert damaged_selection_weights(store, run) == []
    if run.best_epoch in selection_weights(run):
        same = load_file(folder / "selected-on-test" / selection_file(run.best_epoch))
        assert all(np.array_equal(value, same[name]) for name, value in weights.items())
    assert train(store, "small", config, num_workers=1, progress=lines.append) == run and len(lines) == 5


@SLOW
def test_a_run_that_another_machine_took_over_is_not_finished_here(
    store: Store, manifest: FeatureManifest, running_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine did not answer for a while, so another one trains the run: what is found here is not written."""
    config, lines = make_config(epochs=2), []
    run_id = run_id_for(config, "small", manifest)
    lease = f"runs/{run_id}/{LEASE_FILE}"

    def follow(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 1/2"):
            holder = store.read_json(lease)
            store.write_json(lease, {**holder, "token": "0" * 16, "host": "elsewhere", "machine": "another boot"})

    with pytest.raises(LostLeaseError, match=f"run {run_id} was taken over by .*elsewhere") as lost:
        train(store, "small", config, progress=follow)
    assert "\n" not in str(lost.value) and not is_finished(store, run_id)
    assert store.read_json(f"runs/{run_id}/history.json"), "what was trained stays for who goes on"

    monkeypatch.setattr("lnln.data.lease.LEASE_SECONDS", 1.0)  # the other one falls silent
    lines.clear()
    run = train(store, "small", config, progress=lines.append)
    assert run.run_id == run_id and run.best_epoch in (1, 2)
    assert store.read_json(lease) == {}, "given back"


def test_a_run_that_another_machine_trains_is_refused(
    store: Store, manifest: FeatureManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lnln.data.lease.LEASE_SECONDS", 3.0)
    run_id = run_id_for(make_config(), "small", manifest)
    lease = f"runs/{run_id}/{LEASE_FILE}"
    holder = {"token": "0" * 16, "host": "elsewhere", "pid": 7, "since": "2031-01-01 00:00:00 UTC"}
    holder |= {"machine": "another boot", "started": "1"}
    store.write_json(lease, {**holder, "num_renewals": 1})
    renewal = threading.Timer(0.3, lambda: store.write_json(lease, {**holder, "num_renewals": 2}))
    renewal.start()
    with pytest.raises(RefusedError, match=f"run {run_id} is being run by another process .process 7 on elsewhere"):
        train(store, "small", make_config())
    renewal.join()
    assert not store.exists(f"runs/{run_id}/run.json")


@SLOW
def test_as_many_workers_start_as_there_is_room_for(store: Store, manifest: FeatureManifest, running_ray: None) -> None:
    lines: list[str] = []
    run = train(store, "small", make_config(epochs=1), num_workers=(1, 3), progress=lines.append)
    assert run.num_workers == 1, "Ray was started with one core"
    assert lines[0].endswith("starting with 1 to 3 workers")


@SLOW
def test_what_a_worker_refuses_reaches_the_caller(store: Store, manifest: FeatureManifest, running_ray: None) -> None:
    config = make_config(learning_rate=1e30, encoder_learning_rate=1e30, clip_norm=0.0, warmup_share=0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RefusedError, match="not finite") as refused:
        train(store, "small", config, progress=None)
    assert "\n" not in str(refused.value) and refused.value.__cause__ is None
    assert signal.getsignal(signal.SIGINT) is before
    assert runs_of(store) == [], "its first epoch did not end"


@SLOW
def test_features_that_workers_find_not_finite_are_refused_in_one_line_and_leave_nothing(
    store: Store, manifest: FeatureManifest, running_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lnln.train.launch.CHECKED_BYTES", 0)
    with_infinite_audio(store, manifest, "train")
    with pytest.raises(RefusedError, match=r"audio .*finite|finite.* audio") as refused:
        train(store, "broken", make_config(), progress=None)
    assert "\n" not in str(refused.value) and "Traceback" not in str(refused.value)
    assert refused.value.__cause__ is None and runs_of(store) == []


@SLOW
def test_a_corpus_without_a_modality_trains_and_says_so(store: Store, tmp_path: Path, running_ray: None) -> None:
    content = mmsa_content()
    for split in content.values():
        split["vision"][:] = 0
        split["vision_lengths"] = [0] * len(split["vision_lengths"])
    (tmp_path / "deaf.pkl").write_bytes(pickle.dumps(content))
    import_corpus(store, tmp_path / "deaf.pkl", "deaf")
    lines: list[str] = []
    run = train(store, "deaf", make_config(epochs=1), progress=lines.append)
    said = "vision is absent from every utterance of the training split of deaf; trained without it"
    assert lines[0] == said and run.absent_modalities == ("vision",)
    assert store.read_json(f"{run.folder}/result.json")["absent_modalities"] == ["vision"]
    made = evaluate(store, run.run_id)
    assert made.absent_modalities == ("vision",) and np.isfinite(made.mean["mae"])
    (corpus,) = collect(store, [run.run_id], mask_seeds=[0], with_examples=False).corpora
    assert any("trained without vision" in sentence for sentence in cautions(corpus))
    publish(store, run.run_id, "deaf-lnln")
    card = pull(store, "deaf-lnln", tmp_path / "pulled") / "README.md"
    assert "Trained without vision" in card.read_text()


@SLOW
def test_a_model_without_completeness_goes_the_whole_way(store: Store, tmp_path: Path, running_ray: None) -> None:
    small_corpus(store, tmp_path)
    config = make_config(epochs=2, precision="bfloat16", average_decay=0.5)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="text_only"))
    run = train(store, "small", config, progress=None)
    assert run.run_id.startswith("small-text_only-") and run.history[0]["loss"].keys() == {"total", "sentiment"}
    # Trained in bfloat16, scored in float32, on validation as here.
    made = evaluate(store, run.run_id, split="valid", rates=config.corruption.validation_rates)
    for view in made.views:
        assert view.scores == pytest.approx(run.validation[str(view.missing_rate)], abs=1e-5)
        assert view.mean_completeness is None
    assert made.mean["mae"] == pytest.approx(run.score, abs=1e-5)


@SLOW
def test_a_damaged_shard_is_refused_by_name(store: Store, manifest: FeatureManifest, running_ray: None) -> None:
    shard = Path(store.url) / manifest.splits["train"].shards[0].path
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(RefusedError, match=shard.name):
        train(store, "small", make_config(), progress=None)


@SLOW
def test_a_store_on_s3_gives_the_same_model(tmp_path: Path, s3_store_url: str) -> None:
    pickle = mmsa_pickle(tmp_path / "small.pkl")
    runs = []
    for store in (Store(s3_store_url), Store(tmp_path / "store")):
        import_corpus(store, pickle, "small")
        with started(store, "small", make_config(epochs=2, num_checkpoints=1)) as run:
            out, err = run.end(timeout_seconds=280)
            assert run.process.returncode == 0, err
        runs.append(load_run(store, out.strip()))
    assert untimed(runs[0]) == untimed(runs[1]) and runs[0].files == runs[1].files
    store = Store(s3_store_url)
    for name, entry in runs[0].files.items():
        store.download(f"{runs[0].folder}/model/{name}", tmp_path / name)
        assert describe_file(tmp_path / name) == entry
    assert store.exists(f"{runs[0].folder}/ray/epoch-0002/state.json")
