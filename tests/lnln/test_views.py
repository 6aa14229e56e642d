"""Views of a split: stored or computed to equal effect, and noise as it is put into batches."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lnln.batches import EvaluationBatches, Inputs, TrainBatches, corrupt_inputs, tensors_of, to_inputs
from lnln.config import Config, CorruptionConfig, TrainConfig
from lnln.corruption import ViewSpec, make_masks
from lnln.corruption.noise import NoiseSource
from lnln.data.manifest import FeatureManifest
from lnln.data.mmsa import TextForm
from lnln.data.schema import MODALITIES, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.views import Views
from pipelines.corrupt import corrupt
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content, with_text_features
from tests.lnln.corruption.plain import PROTOCOLS
from tests.lnln.test_batches import UNKNOWN, make_utterances, same


def imported(folder: Path, text: TextForm = "ids") -> tuple[Store, FeatureManifest]:
    store = Store(folder / "store")
    source = folder / "small.pkl"
    source.write_bytes(pickle.dumps(with_text_features(mmsa_content(), only=False)))
    return store, import_corpus(store, source, "small", text=text)


def alone(spec: ViewSpec, utterances: Utterances, index: int, manifest: FeatureManifest) -> Inputs:
    """One utterance under a view, step by step."""
    only = utterances.take([index])
    masks = make_masks(spec, only.utterance_id, only.lengths(), keep_ends=not only.text_dim)
    complete = to_inputs(only)
    if spec.protocol != "noise":
        return corrupt_inputs(complete, {m: torch.from_numpy(masks.kept[m].padded()) for m in MODALITIES}, UNKNOWN)
    for modality in MODALITIES:
        source = NoiseSource.of(manifest)
        noise = source.draw(spec, modality, only.utterance_id, only.sequences(modality), masks.kept[modality])
        for step, value in zip(noise.step, noise.value, strict=True):
            getattr(complete, modality)[0, step] = torch.as_tensor(value)
    return complete


@pytest.mark.parametrize("text", ["ids", "features"])
def test_every_pair_is_its_utterance_under_its_view_whatever_the_protocol(tmp_path: Path, text: TextForm) -> None:
    store, manifest = imported(tmp_path, text)
    utterances = read_split(store, manifest, "test")
    specs = [ViewSpec.evaluation(rate, 3, protocol) for protocol in PROTOCOLS for rate in (0.0, 0.4, (1.0, 0.0, 0.7))]
    batches = EvaluationBatches(
        utterances, Views(utterances, "test", store, manifest), specs, UNKNOWN, batch_size=17, rank=0, world=1
    )
    pairs, num_changed = [], 0
    for batch in batches:
        for row, (view, utterance) in enumerate(zip(batch.view, batch.utterance, strict=True)):
            pairs.append((int(view), int(utterance)))
            expected = alone(specs[view], utterances, int(utterance), manifest)
            for name, value in tensors_of(expected).items():
                wanted, got = value[0], getattr(batch.inputs, name)[row]
                assert torch.equal(got[: len(wanted)], wanted) and not got[len(wanted) :].any()
            complete = to_inputs(utterances.take([utterance]))
            num_changed += specs[view].protocol == "noise" and not same(expected, complete)
    assert sorted(pairs) == [(view, u) for view in range(len(specs)) for u in range(len(utterances))]
    assert num_changed > len(utterances)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("text", ["ids", "features"])
def test_training_batches_are_their_utterances_under_the_draw(tmp_path: Path, text: TextForm, protocol: str) -> None:
    store, manifest = imported(tmp_path, text)
    utterances = read_split(store, manifest, "train")
    config = Config(
        train=TrainConfig(batch_size=16, seed=5),
        corruption=CorruptionConfig(protocol=protocol, draws="fixed_positions"),  # type: ignore[arg-type]
    )
    for epoch in (0, 2):
        spec = ViewSpec.training(5, epoch, protocol=protocol, position_draw=0)
        for batch in TrainBatches(utterances, Views(utterances, "train", store, manifest), config, UNKNOWN).epoch(
            epoch
        ):
            for row, name in enumerate(batch.utterance_ids):
                expected = alone(spec, utterances, utterances.utterance_id.index(name), manifest)
                for name, value in tensors_of(expected).items():
                    wanted, got = value[0], getattr(batch.corrupted, name)[row]
                    assert torch.equal(got[: len(wanted)], wanted)
            rows = np.array([utterances.utterance_id.index(name) for name in batch.utterance_ids])
            assert same(batch.complete, to_inputs(utterances.take(rows)))  # the complete ones stay complete


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_stored_views_have_the_same_effect(tmp_path: Path, protocol: str) -> None:
    store, manifest = imported(tmp_path)
    utterances = read_split(store, manifest, "test")
    corruption = CorruptionConfig(rates=(0.5, (1.0, 0.0, 0.2)), protocol=protocol)  # type: ignore[arg-type]
    specs = [ViewSpec.evaluation(rate, 0, protocol) for rate in corruption.rates]

    def batches() -> list[Inputs]:
        views = Views(utterances, "test", store, manifest)
        return [batch.inputs for batch in EvaluationBatches(utterances, views, specs, UNKNOWN)]

    before = batches()
    made = corrupt(store, "small", Config(corruption=corruption, train=TrainConfig(epochs=1)))
    assert {spec.view_id for spec in specs} <= {view.view_id for view in made}
    assert all(same(one, other) for one, other in zip(before, batches(), strict=True))


def test_noise_keeps_what_is_not_hit_and_every_mask(tmp_path: Path) -> None:
    store, manifest = imported(tmp_path)
    utterances = read_split(store, manifest, "test")
    views = Views(utterances, "test", store, manifest)
    spec = ViewSpec.evaluation(0.5, 0, "noise")
    (batch,) = EvaluationBatches(utterances, views, [spec], UNKNOWN)
    complete, masks = to_inputs(utterances.take(batch.utterance)), views.masks(spec, batch.utterance)
    for modality in MODALITIES:
        is_real = getattr(complete, f"{modality}_mask")
        assert torch.equal(getattr(batch.inputs, f"{modality}_mask"), is_real)
        before, after = (getattr(inputs, modality).reshape(*is_real.shape, -1) for inputs in (complete, batch.inputs))
        is_hit = is_real & ~torch.from_numpy(masks.kept[modality].padded())
        assert is_hit.any()
        assert torch.equal((before != after).any(dim=2), is_hit)  # each of them, and nothing else
    deviation = (batch.inputs.audio - complete.audio)[(batch.inputs.audio != complete.audio)].std()
    assert abs(float(deviation) / np.mean(manifest.statistics["audio"]["std"]) - 1) < 0.3


def test_noise_without_a_manifest_is_refused() -> None:
    utterances = make_utterances(5)
    batches = EvaluationBatches(utterances, Views(utterances, "valid"), [ViewSpec.evaluation(0.5, 0, "noise")], UNKNOWN)
    with pytest.raises(RefusedError, match="came without a manifest"):
        next(iter(batches))


def test_noise_of_no_steps_is_none(tmp_path: Path) -> None:
    """A modality that every utterance of a batch lacks, and views that hit nothing."""
    store, manifest = imported(tmp_path)
    utterances = read_split(store, manifest, "test")
    rows = np.flatnonzero(utterances.lengths()["audio"] == 0)
    without = utterances.take(rows)
    views = Views(without, "test", store, manifest)
    for rate in (0.0, 1.0):
        (batch,) = EvaluationBatches(without, views, [ViewSpec.evaluation(rate, 0, "noise")], UNKNOWN)
        assert batch.inputs.audio.shape[:2] == (len(rows), 0)
        assert (rate == 0) == same(batch.inputs, to_inputs(without.take(batch.utterance)))
