"""What lies on a device gives the batches that the host makes, to the bit, and never asks the device anything."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.batches import NUM_SHAPES, Batch, EvaluationBatches, Inputs, TrainBatches, tensors_of
from lnln.config import Config, CorruptionConfig, LossConfig, ModelConfig, TrainConfig
from lnln.corruption import ViewSpec
from lnln.data.schema import MODALITIES, Ragged, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.resident import MAX_SHARE, ResidentSplit, belongs_on, fits
from lnln.views import Views
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content, with_text_features
from tests.lnln.test_batches import UNKNOWN, make_utterances, same, spoken

CPU = torch.device("cpu")
# Everything there but values: whatever asks for one is refused.
META = torch.device("meta")


def make_config(mode: str = "clean", target: str = "stated", protocol: str = "frame", **train: Any) -> Config:
    return Config(
        model=ModelConfig(mode=mode),  # type: ignore[arg-type]
        loss=LossConfig(completeness_target=target),  # type: ignore[arg-type]
        corruption=CorruptionConfig(protocol=protocol),  # type: ignore[arg-type]
        train=TrainConfig(**train),
    )


def assert_same_batches(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right) > 0
    for one, two in zip(left, right, strict=True):
        assert one.utterance_ids == two.utterance_ids
        assert same(one.complete, two.complete) and same(one.corrupted, two.corrupted)
        for name in ("label", "missing_rates", "weight"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
            assert getattr(one, name).dtype == getattr(two, name).dtype
        for part in (one.complete, two.complete):
            assert part.text.dtype in (torch.int64, torch.float32) and part.audio.dtype == torch.float32


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(1, 14),
    longest=st.integers(0, 5),
    text_dim=st.sampled_from([0, 4]),
    protocol=st.sampled_from(["frame", "block", "modality"]),
    target=st.sampled_from(["stated", "realised"]),
    batch_size=st.integers(1, 6),
    window=st.integers(1, 3),
    compiled=st.booleans(),
    world=st.integers(1, 3),
    epoch=st.integers(0, 2),
)
def test_training_batches_are_those_of_the_host(
    num: int,
    longest: int,
    text_dim: int,
    protocol: str,
    target: str,
    batch_size: int,
    window: int,
    compiled: bool,
    world: int,
    epoch: int,
) -> None:
    utterances = make_utterances(num, seed=num, longest=longest, text_dim=text_dim)
    compile = "default" if compiled else "none"
    config = make_config(
        target=target, protocol=protocol, batch_size=batch_size, length_window=window, compile=compile, seed=5
    )
    views = Views(utterances, "train")
    for rank in range(world):
        host, device = (
            list(
                TrainBatches(utterances, views, config, UNKNOWN, rank=rank, world=world, resident=resident).epoch(epoch)
            )
            for resident in (False, True)
        )
        assert_same_batches(host, device)


@settings(max_examples=40, deadline=None)
@given(
    num=st.integers(0, 9),
    longest=st.integers(0, 5),
    text_dim=st.sampled_from([0, 4]),
    protocol=st.sampled_from(["frame", "block", "modality"]),
    rates=st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), unique=True, max_size=3),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 3),
)
def test_evaluation_batches_are_those_of_the_host(
    num: int, longest: int, text_dim: int, protocol: str, rates: list[float], batch_size: int, world: int
) -> None:
    utterances = make_utterances(num, seed=num, longest=longest, text_dim=text_dim)
    views = Views(utterances, "valid")
    specs = [ViewSpec.evaluation(rate, 1, protocol) for rate in rates]
    for rank in range(world):
        host, device = (
            list(
                EvaluationBatches(
                    utterances,
                    views,
                    specs,
                    UNKNOWN,
                    batch_size=batch_size,
                    rank=rank,
                    world=world,
                    resident=resident,
                )
            )
            for resident in (False, True)
        )
        assert len(host) == len(device)
        for one, two in zip(host, device, strict=True):
            assert same(one.inputs, two.inputs)
            assert np.array_equal(one.view, two.view) and np.array_equal(one.utterance, two.utterance)


@pytest.mark.parametrize("text", ["ids", "features"])
def test_noise_is_that_of_the_host(tmp_path: Path, text: Any) -> None:
    store, source = Store(tmp_path / "store"), tmp_path / "small.pkl"
    source.write_bytes(pickle.dumps(with_text_features(mmsa_content(), only=False)))
    manifest = import_corpus(store, source, "small", text=text)
    utterances = read_split(store, manifest, "train")
    views = Views(utterances, "train", store, manifest)
    config = make_config(protocol="noise", batch_size=7)
    trained = [
        list(TrainBatches(utterances, views, config, UNKNOWN, resident=resident).epoch(1)) for resident in (False, True)
    ]
    assert_same_batches(*trained)
    assert not all(same(batch.complete, batch.corrupted) for batch in trained[1])
    specs = [ViewSpec.evaluation(rate, 1, protocol) for rate, protocol in ((0.5, "noise"), (0.4, "frame"))]
    host, device = (
        list(EvaluationBatches(utterances, views, specs, UNKNOWN, batch_size=9, resident=resident))
        for resident in (False, True)
    )
    assert all(same(one.inputs, two.inputs) for one, two in zip(host, device, strict=True))


@pytest.mark.parametrize("protocol", ["frame", "block", "modality"])
def test_no_batch_waits_for_the_device(protocol: str) -> None:
    utterances = make_utterances(11)
    config = make_config(protocol=protocol, target="realised", batch_size=4, compile="default")
    batches = TrainBatches(utterances, Views(utterances, "train"), config, UNKNOWN, device=META)
    found = list(batches.epoch(0))
    assert len(found) == 3 and {batch.corrupted.audio.device for batch in found} == {META}
    expected = TrainBatches(utterances, Views(utterances, "train"), config, UNKNOWN)
    shapes = [[getattr(b.complete, m).shape for m in MODALITIES] for b in expected.epoch(0)]
    assert [[getattr(b.complete, m).shape for m in MODALITIES] for b in found] == shapes
    specs = [ViewSpec.evaluation(0.5, 1, protocol)]
    assert len(list(EvaluationBatches(utterances, Views(utterances, "valid"), specs, UNKNOWN, device=META))) == 1
    # What the test stands on: a value that is asked for is refused.
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        found[0].label.isnan().any().item()
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        found[0].label[found[0].label > 0]


def padding_only_differs(one: Inputs, two: Inputs) -> bool:
    for name, left in tensors_of(one).items():
        right = getattr(two, name)
        length = left.shape[1]
        if not torch.equal(left, right[:, :length]) or bool(right[:, length:].any()):
            return False
    return True


@pytest.mark.parametrize("window", [1, 4])
def test_a_compiled_model_gets_few_shapes_and_the_same_utterances(window: int) -> None:
    utterances = spoken(500)
    views = Views(utterances, "train")
    plain, few = (
        TrainBatches(utterances, views, make_config(batch_size=16, length_window=window, compile=compile), UNKNOWN)
        for compile in ("none", "reduce-overhead")
    )
    shapes: set[tuple[int, ...]] = set()
    for epoch in range(4):
        for one, two in zip(plain.epoch(epoch), few.epoch(epoch), strict=True):
            assert one.utterance_ids == two.utterance_ids and torch.equal(one.missing_rates, two.missing_rates)
            assert padding_only_differs(one.complete, two.complete)
            assert padding_only_differs(one.corrupted, two.corrupted)
            shapes.add((len(two.label), *(getattr(two.complete, m).shape[1] for m in MODALITIES)))
    assert {length % 8 for _, *lengths in shapes for length in lengths} == {0}
    whole = {shape for shape in shapes if shape[0] == 16}
    assert 1 < len(whole) <= NUM_SHAPES and len(shapes) <= 2 * NUM_SHAPES
    # Without them there would be a shape for about every batch.
    assert len({tuple(getattr(b.complete, m).shape[1] for m in MODALITIES) for b in plain.epoch(0)}) > 2 * NUM_SHAPES


def test_what_is_padded_to_its_longest_anyway_has_one_shape() -> None:
    utterances = spoken(100)
    config = make_config("reference", batch_size=10, compile="default")
    batches = TrainBatches(utterances, Views(utterances, "train"), config, UNKNOWN)
    longest = -(-int(utterances.audio.lengths.max()) // 8) * 8
    assert {batch.complete.audio.shape for epoch in (0, 1) for batch in batches.epoch(epoch)} == {(10, longest, 1)}


def test_a_split_that_was_read_write_protected_is_taken() -> None:
    utterances = make_utterances(5)
    for values in (utterances.label, *(utterances.sequences(m).values for m in MODALITIES)):
        values.flags.writeable = False
    split = ResidentSplit(utterances, CPU)
    split.label.zero_()
    assert utterances.label.any()


def test_padding_does_not_reach_into_the_next_split() -> None:
    """The last utterance's padding is read from behind all values."""
    frames = Ragged.from_lengths(np.ones((3, 1), np.float32), [2, 1])
    ids = Ragged.from_lengths(np.full(3, 7, np.int32), [1, 2])
    utterances = Utterances(["a", "b"], [None, None], np.zeros(2, np.float32), ids, frames, frames)
    padded, masks, places = ResidentSplit(utterances, CPU).gather(torch.tensor([1, 0]), dict.fromkeys(MODALITIES, 4))
    assert padded["audio"][:, :, 0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert padded["text"].tolist() == [[7, 7, 0, 0], [7, 0, 0, 0]]
    assert masks["audio"].tolist() == [[True, False, False, False], [True, True, False, False]]
    assert places["audio"].tolist() == [[2, 3, 3, 3], [0, 1, 3, 3]]


def test_a_split_too_large_for_the_device_is_left_on_the_host_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert fits(int(MAX_SHARE * 4e9), 4e9, META) and not caplog.records
        assert not fits(int(MAX_SHARE * 4e9) + 1, 4e9, META)
    (record,) = caplog.records
    assert "1.00 GB" in record.getMessage() and "4.00 GB" in record.getMessage()
    assert not belongs_on(CPU, make_utterances(2)) and belongs_on(META, make_utterances(2))
