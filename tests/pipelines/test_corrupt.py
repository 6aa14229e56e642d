"""Views: what they hold, what is skipped, what is made again, and what a failure leaves."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from lnln.config import Config, CorruptionConfig, Protocol, TrainConfig
from lnln.corruption import ViewSpec, make_masks
from lnln.data.manifest import FeatureManifest, list_views, read_features, read_view
from lnln.data.schema import MODALITIES, Split
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.data.verify import damaged_shards
from lnln.data.view_shards import read_view_shard
from lnln.errors import RefusedError
from lnln.views import Views
from pipelines import corrupt as corrupt_module
from pipelines import ingest
from pipelines.corrupt import VIEWS_PER_JOB, corrupt, plan_views, view_specs
from pipelines.execute import StageFailedError, dask_client
from pipelines.ingest import import_corpus, import_sample
from pipelines.settings import Settings
from tests.corpora import mmsa_content, mmsa_pickle, with_text_features
from tests.pipelines.test_ingest import files

CONFIG = Config(
    corruption=CorruptionConfig(rates=(0.0, 0.5, 1.0), validation_rates=(0.0, 0.25), num_stored_draws=3, mask_seed=4),
    train=TrainConfig(epochs=2, seed=9),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The sample in several shards per split."""
    store = Store(tmp_path / "store")
    monkeypatch.setattr(ingest, "SHARD_BYTES", 60_000)
    import_sample(store)
    return store


def expected_splits(spec: ViewSpec) -> list[Split]:
    return ["train"] if spec.rates is None else ["valid", "test"]


def test_what_a_config_asks_for() -> None:
    assert view_specs(CONFIG) == [
        *(ViewSpec.evaluation(rate, 4) for rate in (0.0, 0.25, 0.5, 1.0)),
        *(ViewSpec.training(9, draw, 0.5) for draw in (0, 1)),
    ]
    many = Config(train=TrainConfig(epochs=100))
    fixed = replace(many, corruption=replace(CONFIG.corruption, draws="fixed"))
    assert view_specs(fixed)[4:] == [ViewSpec.training(4, 0, 0.5)]  # by the mask seed, and only one
    positions = replace(CONFIG, corruption=replace(CONFIG.corruption, draws="fixed_positions", shared_uniforms=True))
    assert view_specs(positions)[4:] == [
        ViewSpec.training(9, 0, 0.5, shared_uniforms=True),
        ViewSpec.training(9, 1, 0.5, position_draw=0, shared_uniforms=True),
    ]
    assert sum(spec.is_training for spec in view_specs(many)) == many.corruption.num_stored_draws


def test_stored_masks_are_those_that_anyone_would_draw(store: Store) -> None:
    features = read_features(store, "sample")
    assert len(features.splits["train"].shards) > 1
    views = corrupt(store, "sample", CONFIG)
    assert [view.view_id for view in views] == [spec.view_id for spec in view_specs(CONFIG)]
    for view, spec in zip(views, view_specs(CONFIG), strict=True):
        assert view == read_view(store, "sample", features.feature_id, spec.view_id)
        assert list(view.splits) == expected_splits(spec)
        for split, entry in view.splits.items():
            utterances = read_split(store, features, split)
            assert [s.num_rows for s in entry.shards] == [s.num_rows for s in features.splits[split].shards]
            shards = [read_view_shard(store, shard) for shard in entry.shards]
            assert [name for shard in shards for name in shard.utterance_id] == utterances.utterance_id
            masks = make_masks(spec, utterances.utterance_id, utterances.lengths())
            np.testing.assert_array_equal(np.concatenate([s.missing_rates for s in shards]), masks.missing_rates)
            for modality, (erased, erasable) in masks.count_erased().items():
                kept = np.concatenate([shard.kept[modality].values for shard in shards])
                np.testing.assert_array_equal(kept, masks.kept[modality].values)
                assert view.realised_rates[split][modality] == pytest.approx(erased / erasable, abs=1e-9)
    assert list_views(store, "sample", features.feature_id) == sorted(view.view_id for view in views)
    assert views[0].realised_rates["test"] == dict.fromkeys(MODALITIES, 0.0)
    assert views[3].realised_rates["test"] == dict.fromkeys(MODALITIES, 1.0)


def test_views_of_language_features_erase_any_step_and_are_those_that_anyone_would_draw(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(with_text_features(mmsa_content())))
    features = import_corpus(store, path, "tiny")
    shared = replace(CONFIG.corruption, draws="fixed_positions", shared_uniforms=True)
    for config in (CONFIG, replace(CONFIG, corruption=shared)):
        for view, spec in zip(corrupt(store, "tiny", config), view_specs(config), strict=True):
            for split, entry in view.splits.items():
                utterances = read_split(store, features, split)
                masks = Views(utterances, split).masks(spec)
                stored = [read_view_shard(store, shard) for shard in entry.shards]
                for modality in MODALITIES:
                    kept = np.concatenate([shard.kept[modality].values for shard in stored])
                    np.testing.assert_array_equal(kept, masks.kept[modality].values)
                    assert view.realised_rates[split][modality] == pytest.approx(1 - kept.mean(), abs=1e-9)
            if spec.rates == (1.0, 1.0, 1.0):
                assert view.realised_rates["test"] == dict.fromkeys(MODALITIES, 1.0)


@pytest.mark.parametrize("protocol", ["block", "modality", "noise"])
def test_every_protocol_is_stored_as_anyone_would_draw_it(store: Store, protocol: Protocol) -> None:
    rates = (0.0, 0.5, (1.0, 0.0, 0.3), 1.0)
    config = replace(CONFIG, corruption=replace(CONFIG.corruption, protocol=protocol, rates=rates))
    specs = view_specs(config)
    assert [spec.rate for spec in specs if not spec.is_training] == [0.0, 0.25, 0.5, (1.0, 0.0, 0.3), 1.0]
    features = read_features(store, "sample")
    for view, spec in zip(corrupt(store, "sample", config), specs, strict=True):
        assert view.view_id == spec.view_id and view.spec == spec.to_dict()
        for split, entry in view.splits.items():
            utterances = read_split(store, features, split)
            shards = [read_view_shard(store, shard) for shard in entry.shards]
            masks = make_masks(spec, utterances.utterance_id, utterances.lengths())
            for column, modality in enumerate(MODALITIES):
                kept = [each.kept[modality][row] for each in shards for row in range(len(each.utterance_id))]
                assert [each.tolist() for each in kept] == [
                    masks.kept[modality][row].tolist() for row in range(len(utterances))
                ]
                counted = [each[1:-1] if modality == "text" else each for each in kept]
                hit = sum(int((~each).sum()) for each in counted) / sum(map(len, counted))
                assert view.realised_rates[split][modality] == pytest.approx(hit, abs=1e-9)
                if spec.rates is not None and spec.rates[column] in (0, 1):
                    assert hit == spec.rates[column]
    assert all(read_view(store, "sample", features.feature_id, spec.view_id) for spec in specs)


def test_views_are_far_smaller_than_features(store: Store) -> None:
    features = read_features(store, "sample")
    view = corrupt(store, "sample", CONFIG)[2]
    for split in ("valid", "test"):
        sizes = [sum(shard.num_bytes for shard in manifest.splits[split].shards) for manifest in (view, features)]
        assert sizes[0] < sizes[1] / 4  # narrow features, and Parquet's own bytes


def test_what_is_there_is_not_made_again(store: Store) -> None:
    first = corrupt(store, "sample", CONFIG)
    before = files(store)
    assert corrupt(store, "sample", CONFIG) == first
    assert files(store) == before
    more = Config(corruption=CONFIG.corruption, train=TrainConfig(epochs=3, seed=9))
    assert [view for view in corrupt(store, "sample", more) if view in first] == first
    assert {name: entry for name, entry in files(store).items() if name in before and "index" not in name} == {
        name: entry for name, entry in before.items() if "index" not in name
    }


@pytest.mark.parametrize("what", ["shard", "manifest", "shard gone"])
def test_what_is_damaged_is_made_again(store: Store, what: str) -> None:
    first = corrupt(store, "sample", CONFIG)
    path = Path(store.url) / first[1].folder / "manifest.json"
    if what != "manifest":
        path = Path(store.url) / first[1].splits["test"].shards[0].path
    path.write_bytes(path.read_bytes()[:-9])
    if what == "shard gone":
        path.unlink()
    assert corrupt(store, "sample", CONFIG) == first
    for shard in first[1].splits["test"].shards:
        read_view_shard(store, shard)


def test_plans_are_data(store: Store) -> None:
    features = read_features(store, "sample")
    plan = plan_views(store, features, view_specs(CONFIG))
    num_shards = {split: len(entry.shards) for split, entry in features.splits.items()}
    assert len(plan) == sum(num_shards.values())
    assert str(plan).startswith(f"corrupt sample: {len(plan)} jobs\n  train 0, views 0 to 1\n")
    many = [ViewSpec.evaluation(rate / 100, 0) for rate in range(2 * VIEWS_PER_JOB + 1)]
    assert len(plan_views(store, features, many)) == 3 * (num_shards["valid"] + num_shards["test"])
    assert len(plan_views(store, features, [])) == 0


def test_an_unknown_corpus_is_refused(store: Store) -> None:
    with pytest.raises(RefusedError, match="holds no corpus 'mosi'"):
        corrupt(store, "mosi", CONFIG)


def damage_a_shard(store: Store, features: FeatureManifest, split: Split) -> Path:
    path = Path(store.url) / features.splits[split].shards[0].path
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    return path


def test_a_damaged_feature_shard_is_named_and_harms_only_its_own_views(store: Store) -> None:
    features = read_features(store, "sample")
    path = damage_a_shard(store, features, "train")
    with pytest.raises(StageFailedError, match=path.name) as caught:
        corrupt(store, "sample", CONFIG)
    assert list(caught.value.failures) == ["train 0, views 0 to 1"]
    exist = set(list_views(store, "sample", features.feature_id))
    assert exist == {spec.view_id for spec in view_specs(CONFIG) if spec.rates is not None}
    for spec in view_specs(CONFIG):
        view = read_view(store, "sample", features.feature_id, spec.view_id)
        assert (view is not None) == (spec.rates is not None)
    import_sample(store)  # mends the shard
    assert len(corrupt(store, "sample", CONFIG)) == len(view_specs(CONFIG))


def test_an_interruption_leaves_whole_views_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    features = read_features(store, "sample")
    calls = 0

    def stop_at_third(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*arguments, **named)  # type: ignore[arg-type]

    original = corrupt_module.mask_shard
    with monkeypatch.context() as patch:
        patch.setattr(corrupt_module, "mask_shard", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            corrupt(store, "sample", CONFIG)
    for view_id in list_views(store, "sample", features.feature_id):
        view = read_view(store, "sample", features.feature_id, view_id)
        assert view is not None
        for entry in view.splits.values():
            assert [read_view_shard(store, shard) for shard in entry.shards]
    assert len(corrupt(store, "sample", CONFIG)) == len(view_specs(CONFIG))


def test_views_belong_to_the_features_in_use(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    import_corpus(store, mmsa_pickle(tmp_path / "a.pkl"), "tiny")
    first = corrupt(store, "tiny", CONFIG)
    import_corpus(store, mmsa_pickle(tmp_path / "b.pkl", seed=1), "tiny")
    second = corrupt(store, "tiny", CONFIG)
    assert {view.view_id for view in first} == {view.view_id for view in second}
    assert {view.feature_id for view in first}.isdisjoint(view.feature_id for view in second)


@pytest.mark.slow
def test_dask_writes_the_same_bytes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupt_module, "VIEWS_PER_JOB", 1)
    other = Store(tmp_path / "other")
    import_sample(other)
    made = corrupt(store, "sample", CONFIG)
    with dask_client(Settings(dask="local")) as client:
        assert corrupt(other, "sample", CONFIG, client) == made
    assert {name: data for name, (_, data) in files(store).items()} == {
        name: data for name, (_, data) in files(other).items()
    }


@pytest.mark.slow
def test_a_bucket_gets_the_same_manifests_and_mends_the_same_way(store: Store, s3_store_url: str) -> None:
    bucket = Store(s3_store_url)
    assert import_sample(bucket) == import_sample(store)
    made = corrupt(store, "sample", CONFIG)
    assert corrupt(bucket, "sample", CONFIG) == made
    bucket.remove(made[0].splits["valid"].shards[0].path)
    assert corrupt(bucket, "sample", CONFIG) == made
    assert bucket.exists(made[0].splits["valid"].shards[0].path)


def test_what_another_process_mended_meanwhile_is_not_taken_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found damaged here, mended and committed there; and then this process dies."""
    made = corrupt(store, "sample", CONFIG)
    path = made[0].splits["test"].shards[0].path
    whole = store.read(path)
    store.write(path, whole[:-1])

    def mend_and_die(*_: Any, **__: Any) -> NoReturn:
        store.write(path, whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(corrupt_module, "run", mend_and_die)
    with pytest.raises(KeyboardInterrupt):
        corrupt(store, "sample", CONFIG)
    assert read_view(store, "sample", made[0].feature_id, made[0].view_id) == made[0]
    assert damaged_shards(store, made[0]) == []
