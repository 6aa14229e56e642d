"""Simulated text of a corpus: what it holds, what is skipped, what is made again, and what a failure leaves."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from lnln.data.manifest import FeatureManifest, commit_features, read_features
from lnln.data.regressor import Regressor, design, window_means
from lnln.data.schema import Split, Utterances
from lnln.data.shards import read_split
from lnln.data.simulated_text import (
    Simulation,
    add_simulated_text,
    damaged_simulation_files,
    load_simulator,
    read_simulation,
)
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.gc import find_garbage
from lnln.verify import verify
from pipelines import ingest
from pipelines import simulate as simulate_module
from pipelines.execute import StageFailedError, dask_client
from pipelines.ingest import import_corpus, import_sample
from pipelines.settings import Settings
from pipelines.simulate import plan_targets, simulate
from pipelines.simulators import choose, load_provider
from pipelines.simulators.base import CorpusText
from pipelines.simulators.regressor import Learned, group_of
from tests.corpora import mmsa_content, mmsa_pickle, with_text_features
from tests.pipelines.test_ingest import files

KNOBS = ["text_encoder=tiny", "num_steps=3"]
PROVIDER = load_provider("regressor", KNOBS)


def in_videos(content: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Five utterances of each video."""
    for split, part in content.items():
        part["id"] = [f"{split}{i // 5}$_${i % 5}" for i in range(len(part["id"]))]
    return content


def imported(store: Store, folder: Path, content: dict[str, dict[str, Any]]) -> FeatureManifest:
    path = folder / "corpus.pkl"
    path.write_bytes(pickle.dumps(content))
    return import_corpus(store, path, "tiny")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A corpus in several shards per split."""
    store = Store(tmp_path / "store")
    monkeypatch.setattr(ingest, "SHARD_BYTES", 2000)
    imported(store, tmp_path, in_videos(mmsa_content()))
    return store


@pytest.fixture
def with_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A corpus of language features that are a function of the audio, but for a little noise."""
    content = with_text_features(in_videos(mmsa_content((80, 20, 20))), only=False)
    random = np.random.default_rng(0)
    mixing = random.normal(size=(4, 6))
    for split in content.values():
        for row, length in enumerate(split["audio_lengths"]):
            num_text = int(split["text_bert"][row, 1].sum())
            said = split["audio"][row, : max(length, 1)].mean(axis=0) @ mixing
            split["text"][row, :num_text] = said + random.normal(0, 0.05, (num_text, 6))
        del split["text_bert"], split["raw_text"]
    store = Store(tmp_path / "store")
    monkeypatch.setattr(ingest, "SHARD_BYTES", 4000)
    imported(store, tmp_path, content)
    return store


def joined(store: Store, simulation: Simulation, split: Split) -> Utterances:
    features = read_features(store, simulation.corpus)
    return add_simulated_text(store, simulation, split, read_split(store, features, split))


def test_every_utterance_with_audio_has_its_steps(store: Store) -> None:
    outcome = simulate(store, "tiny", PROVIDER)
    made, features = outcome.simulation, read_features(store, "tiny")
    assert not outcome.was_there and made == read_simulation(store, "tiny", features.feature_id)
    assert list(made.splits) == list(features.splits) and len(made.splits["train"].shards) > 1
    assert made.dim == 32 and made.counts == {"utterances": 66, "utterances_without_audio": 3}
    regressor = load_simulator(store, made)
    for split, entry in made.splits.items():
        assert [s.num_rows for s in entry.shards] == [s.num_rows for s in features.splits[split].shards]
        rows = joined(store, made, split)
        assert rows.simulated_text is not None
        np.testing.assert_array_equal(rows.simulated_text.lengths, np.where(rows.audio.lengths > 0, 3, 0))
        assert made.lengths[split].num_absent == 1 and made.lengths[split].max == 3
        if split != "train":
            for row in range(len(rows)):
                np.testing.assert_array_equal(regressor.simulate(rows.audio[row]), rows.simulated_text[row])
    assert damaged_simulation_files(store, made) == []
    assert find_garbage(store, 0).paths == []
    assert verify(store, "tiny")["simulations"] == 1


def test_it_finds_what_the_audio_tells_and_says_how_much(with_features: Store) -> None:
    made = simulate(with_features, "tiny", PROVIDER).simulation
    assert made.dim == 6 and made.provider["models"] == {} and made.provider["knobs"]["text_encoder"] == ""
    for split in ("train", "valid"):
        said = made.quality[split]
        assert said["simulated"]["r2"] > 0.8 > 0.2 > said["mean_step"]["r2"]
        assert said["simulated"]["cosine"] > 0.9
    assert made.quality["train"]["num_utterances"] == 79 and made.quality["valid"]["num_utterances"] == 19
    rows = joined(with_features, made, "test")
    assert rows.simulated_text is not None
    text = [window_means(rows.text[row], 3) for row in range(1, len(rows))]
    error = np.mean([np.square(rows.simulated_text[row] - text[row - 1]).mean() for row in range(1, len(rows))])
    assert error < 0.2 * np.var(np.concatenate(text))


def test_training_utterances_are_simulated_by_maps_that_have_not_seen_their_video(with_features: Store) -> None:
    """Each fold's map is what ridge regression gives of the other folds alone, solved directly."""
    made = simulate(with_features, "tiny", PROVIDER).simulation
    features = read_features(with_features, "tiny")
    learned = Learned.read(with_features, made.files)
    rows = joined(with_features, made, "train")
    assert rows.simulated_text is not None and len(learned.by_fold) == 5
    heard = [row for row in range(len(rows)) if rows.audio.lengths[row] and rows.text.lengths[row]]
    folds = np.array([learned.fold_of[group_of(rows.utterance_id[row], learned.fold_of)] for row in heard])
    videos = {rows.utterance_id[row].partition("$_$")[0]: fold for row, fold in zip(heard, folds, strict=True)}
    assert len(videos) == 16 and sorted(np.bincount(list(videos.values())).tolist()) == [3, 3, 3, 3, 4]
    mean, std = (np.array(features.statistics["audio"][key], np.float32) for key in ("mean", "std"))
    x = np.stack([design(rows.audio[row], 3, mean, std) for row in heard])
    y = np.stack([window_means(rows.text[row], 3).astype(np.float32) for row in heard])

    def solved(chosen: Any) -> Regressor:
        inputs, targets = x[chosen].reshape(-1, x.shape[-1]), y[chosen].reshape(-1, y.shape[-1]).astype(np.float64)
        scale = inputs.std(axis=0)
        standard = (inputs - inputs.mean(axis=0)) / scale
        common = standard.T @ standard / len(inputs) + made.quality["penalty"] * np.eye(len(scale))
        weights = np.linalg.solve(common, standard.T @ (targets - targets.mean(axis=0)) / len(inputs))
        weights /= scale[:, None]
        intercept = targets.mean(axis=0) - inputs.mean(axis=0) @ weights
        return Regressor(3, mean, std, weights.astype(np.float32), intercept.astype(np.float32))

    for fold in range(5):
        expected = solved(folds != fold)
        np.testing.assert_allclose(learned.by_fold[fold].weights, expected.weights, atol=1e-4)
        for row in np.array(heard)[folds == fold]:
            np.testing.assert_allclose(
                rows.simulated_text[row], expected.simulate(rows.audio[row]), atol=1e-3, rtol=1e-3
            )
    np.testing.assert_allclose(learned.final.weights, solved(folds >= 0).weights, atol=1e-4)


def test_what_is_there_is_not_made_again(store: Store) -> None:
    first = simulate(store, "tiny", PROVIDER)
    before = files(store)
    again = simulate(store, "tiny", PROVIDER)
    assert again.was_there and again.simulation == first.simulation and files(store) == before
    other = simulate(store, "tiny", load_provider("regressor", ["text_encoder=tiny", "num_steps=1"])).simulation
    assert other.simulation_id != first.simulation.simulation_id
    feature_id = read_features(store, "tiny").feature_id
    assert read_simulation(store, "tiny", feature_id) == other
    assert simulate(store, "tiny", PROVIDER).was_there  # and in use again
    assert read_simulation(store, "tiny", feature_id) == first.simulation


def test_a_second_store_gets_the_same_bytes(store: Store, tmp_path: Path) -> None:
    simulate(store, "tiny", PROVIDER)
    other = Store(tmp_path / "other")
    import_corpus(other, tmp_path / "corpus.pkl", "tiny")
    simulate(other, "tiny", PROVIDER)
    made = [{name: data for name, (_, data) in files(each).items() if "/simulated/" in name} for each in (store, other)]
    assert made[0] == made[1] and len(made[0]) > 8


@pytest.mark.parametrize("what", ["shard", "manifest", "shard gone", "simulator", "folds gone"])
def test_what_is_damaged_is_refused_and_made_again(store: Store, what: str) -> None:
    first = simulate(store, "tiny", PROVIDER).simulation
    root = Path(store.url)
    path = {
        "manifest": root / first.folder / "manifest.json",
        "simulator": root / first.files["simulator.safetensors"].path,
        "folds gone": root / first.files["folds.json"].path,
    }.get(what, root / first.splits["test"].shards[0].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    if what.endswith("gone"):
        path.unlink()
    with pytest.raises(RefusedError, match=path.name):
        verify(store, "tiny")
    if what.startswith("shard"):
        with pytest.raises(RefusedError, match="run `lnln simulate tiny` again"):
            joined(store, first, "test")
    mended = simulate(store, "tiny", PROVIDER)
    assert mended.simulation == first and not mended.was_there
    assert verify(store, "tiny")["simulations"] == 1 and find_garbage(store, 0).paths == []


@pytest.mark.parametrize("at", ["teach_shard", "fit", "regress_shard"])
def test_after_a_failure_the_same_command_does_what_is_missing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    quiet = Store(tmp_path / "quiet")
    import_corpus(quiet, tmp_path / "corpus.pkl", "tiny")
    simulate(quiet, "tiny", PROVIDER)
    calls: list[str] = []

    def counted(name: str, fail_at: int | None) -> Callable[..., Any]:
        original = getattr(simulate_module, name)

        def call(**arguments: Any) -> Any:
            calls.append(name)
            if calls.count(name) == fail_at:
                raise KeyboardInterrupt
            return original(**arguments)

        return call

    stages = ("teach_shard", "fit", "regress_shard")
    with monkeypatch.context() as patch:
        for name in stages:
            patch.setattr(simulate_module, name, counted(name, {"fit": 1}.get(at, 3) if name == at else None))
        with pytest.raises(KeyboardInterrupt):
            simulate(store, "tiny", PROVIDER)
    with pytest.raises(RefusedError, match="run `lnln simulate tiny`"):
        read_simulation(store, "tiny", read_features(store, "tiny").feature_id)
    done = {name: calls.count(name) - (name == at) for name in stages}
    calls.clear()
    with monkeypatch.context() as patch:
        for name in stages:
            patch.setattr(simulate_module, name, counted(name, None))
        simulate(store, "tiny", PROVIDER)
    features = read_features(store, "tiny")
    num_shards = {split: len(entry.shards) for split, entry in features.splits.items()}
    num_taught = num_shards["train"] + num_shards["valid"]
    assert calls.count("teach_shard") == num_taught - done["teach_shard"]
    assert calls.count("regress_shard") == sum(num_shards.values()) - done["regress_shard"]
    made = [{n: d for n, (_, d) in files(each).items() if "/simulated/" in n} for each in (store, quiet)]
    assert made[0] == made[1]


def test_a_damaged_feature_shard_is_named(store: Store) -> None:
    entry = read_features(store, "tiny").splits["test"].shards[0]
    whole = store.read(entry.path)
    store.write(entry.path, whole[:-1])
    with pytest.raises(StageFailedError, match=Path(entry.path).name):
        simulate(store, "tiny", PROVIDER)
    store.write(entry.path, whole)
    assert not simulate(store, "tiny", PROVIDER).was_there


def test_two_writers_at_once_have_one_result(store: Store) -> None:
    outcomes: list[Simulation] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcomes.append(simulate(store, "tiny", PROVIDER).simulation)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(outcomes) == 3 and outcomes[0] == outcomes[1] == outcomes[2]
    assert verify(store, "tiny")["simulations"] == 1


def test_who_loses_what_it_was_going_by_takes_what_the_other_has_made(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one ends, and clears away, while this one is about to learn."""
    original = simulate_module.fit

    def late(**arguments: Any) -> Any:
        monkeypatch.setattr(simulate_module, "fit", original)
        simulate(store, "tiny", PROVIDER)
        return original(**arguments)

    monkeypatch.setattr(simulate_module, "fit", late)
    outcome = simulate(store, "tiny", PROVIDER)
    assert outcome.was_there and damaged_simulation_files(store, outcome.simulation) == []


def test_without_valid_the_folds_choose(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    features = imported(store, tmp_path, in_videos(mmsa_content()))
    kept: tuple[Split, ...] = ("train", "test")
    splits = {split: features.splits[split] for split in kept}
    lengths = {split: features.lengths[split] for split in kept}
    commit_features(store, replace(features, feature_id="e" * 12, splits=splits, lengths=lengths))
    made = simulate(store, "tiny", PROVIDER).simulation
    assert "valid" not in made.quality and made.quality["penalty"] > 0 and list(made.splits) == ["train", "test"]


@pytest.mark.parametrize("num", [(2, 1, 1), (3, 1, 1), (6, 2, 2)])
def test_the_smallest_corpora(tmp_path: Path, num: tuple[int, int, int]) -> None:
    """The first of each split has no audio, and two are needed to learn."""
    store = Store(tmp_path / "store")
    imported(store, tmp_path, mmsa_content(num))
    if num[0] < 3:
        with pytest.raises(RefusedError, match="1 utterances of the training split have both audio and text"):
            simulate(store, "tiny", PROVIDER)
        return
    made = simulate(store, "tiny", PROVIDER).simulation
    assert made.lengths["test"].num_absent == 1
    for split in made.splits:
        rows = joined(store, made, split)
        assert rows.simulated_text is not None and np.isfinite(rows.simulated_text.values).all()


def test_audio_that_never_changes_gives_the_mean(tmp_path: Path) -> None:
    content = in_videos(mmsa_content())
    for split in content.values():
        split["audio"][:] = 1.0
    store = Store(tmp_path / "store")
    imported(store, tmp_path, content)
    made = simulate(store, "tiny", PROVIDER).simulation
    rows = joined(store, made, "test")
    assert rows.simulated_text is not None
    np.testing.assert_allclose(rows.simulated_text.values, rows.simulated_text.values[:1].repeat(39, 0), atol=1e-6)
    assert made.quality["valid"]["simulated"] == made.quality["valid"]["mean_step"]


def test_clips_without_a_split_are_simulated_too(tmp_path: Path) -> None:
    from tests.extracted_corpus import extracted_corpus

    store = Store(tmp_path / "store")
    extracted_corpus(store, tmp_path)
    made = simulate(store, "clips", PROVIDER).simulation
    assert made.splits["unassigned"].num_utterances == 4 and made.counts["utterances"] == 70
    test, waiting = joined(store, made, "test"), joined(store, made, "unassigned")
    assert test.simulated_text is not None and waiting.simulated_text is not None
    np.testing.assert_array_equal(waiting.simulated_text[0], test.simulated_text[10])


def test_refusals(store: Store) -> None:
    with pytest.raises(RefusedError, match="holds no corpus 'mosi'"):
        simulate(store, "mosi", PROVIDER)
    with pytest.raises(RefusedError, match="hears no clips, got --clips there"):
        simulate(store, "tiny", PROVIDER, clips="there")
    with pytest.raises(RefusedError, match="hears the clips: run `lnln simulate tiny --provider recognition --clips"):
        simulate(store, "tiny", choose("recognition"))
    features = read_features(store, "tiny")
    alone = replace(features, splits={"test": features.splits["test"]}, lengths={"test": features.lengths["test"]})
    with pytest.raises(RefusedError, match="has no split 'train' to learn from, it has test"):
        simulate_module._refuse_what_learns_from_nothing(PROVIDER, alone, None)


def test_another_encoder_on_a_worker_is_refused(store: Store) -> None:
    features = read_features(store, "tiny")
    record = PROVIDER.record(PROVIDER.make(CorpusText.of(features)))
    other = {**record, "models": {"text_encoder": {"name": "tiny", "sha256": {}, "seed": 1}}}
    plan = plan_targets(store, features, "tiny/simulated/x/y", PROVIDER, other)
    with pytest.raises(RefusedError, match=r"the provider has models .* on this worker"):
        plan.jobs[0]()


def test_simulated_text_belongs_to_the_features_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    import_corpus(store, mmsa_pickle(tmp_path / "a.pkl"), "tiny")
    first = simulate(store, "tiny", PROVIDER).simulation
    features = import_corpus(store, mmsa_pickle(tmp_path / "b.pkl", seed=1), "tiny")
    with pytest.raises(RefusedError, match="no simulated text for the features in use; run `lnln simulate tiny`"):
        read_simulation(store, "tiny", features.feature_id)
    second = simulate(store, "tiny", PROVIDER).simulation
    assert first.simulation_id != second.simulation_id and first.feature_id != second.feature_id


def test_an_interrupted_commit_leaves_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any, **__: Any) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(simulate_module, "commit_simulation", die)
        with pytest.raises(KeyboardInterrupt):
            simulate(store, "tiny", PROVIDER)
    garbage = find_garbage(store, 0).paths
    assert any("/targets/" in path for path in garbage) and all("/simulated/" in path for path in garbage)
    assert not simulate(store, "tiny", PROVIDER).was_there
    assert find_garbage(store, 0).paths == []


@pytest.mark.slow
def test_dask_writes_the_same_bytes(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    import_corpus(other, tmp_path / "corpus.pkl", "tiny")
    made = simulate(store, "tiny", PROVIDER).simulation
    with dask_client(Settings(dask="local")) as client:
        assert simulate(other, "tiny", PROVIDER, client).simulation == made
    assert {name: data for name, (_, data) in files(store).items()} == {
        name: data for name, (_, data) in files(other).items()
    }


@pytest.mark.slow
def test_a_bucket_gets_the_same_and_mends_the_same_way(store: Store, tmp_path: Path, s3_store_url: str) -> None:
    bucket = Store(s3_store_url)
    import_corpus(bucket, tmp_path / "corpus.pkl", "tiny")
    made = simulate(store, "tiny", PROVIDER).simulation
    assert simulate(bucket, "tiny", PROVIDER).simulation == made
    bucket.remove(made.splits["valid"].shards[0].path)
    assert simulate(bucket, "tiny", PROVIDER).simulation == made
    assert damaged_simulation_files(bucket, made) == []


def test_the_sample_can_be_simulated(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    import_sample(store)
    made = simulate(store, "sample", PROVIDER).simulation
    assert made.counts["utterances"] == 360
