from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnln.batches import EvaluationBatches, Inputs, TrainBatches, corrupt_inputs, tensors_of, to_inputs
from lnln.config import Config, CorruptionConfig, LossConfig, TrainConfig
from lnln.corruption import ViewSpec, make_masks, training_view
from lnln.data.manifest import FeatureManifest, SplitEntry, ViewManifest, commit_view, view_folder
from lnln.data.mmsa import TextForm
from lnln.data.schema import MODALITIES, Ragged, Split, Utterances
from lnln.data.shards import read_split
from lnln.data.store import Store
from lnln.data.view_shards import write_view_shard
from lnln.errors import RefusedError
from lnln.models.padding import leave_out
from lnln.views import Views
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_content, with_text_features
from tests.finished_run import small_corpus

UNKNOWN = 100


def make_utterances(num: int, seed: int = 0, longest: int = 6, text_dim: int = 0) -> Utterances:
    """Random utterances; any modality may be absent, the text included. text_dim: text is features of this width."""
    random = np.random.default_rng(seed)
    lengths = {m: random.integers(0, longest + 1, num) for m in MODALITIES}
    num_steps = lengths["text"].sum()
    ids = random.integers(1000, 2000, num_steps).astype(np.int32)
    features = random.uniform(1, 2, (num_steps, text_dim)).astype(np.float32)
    return Utterances(
        utterance_id=[f"u{i}" for i in range(num)],
        raw_text=[None] * num,
        label=random.uniform(-3, 3, num).astype(np.float32),
        text=Ragged.from_lengths(features if text_dim else ids, lengths["text"]),
        audio=Ragged.from_lengths(
            random.uniform(1, 2, (lengths["audio"].sum(), 3)).astype(np.float32), lengths["audio"]
        ),
        vision=Ragged.from_lengths(
            random.uniform(1, 2, (lengths["vision"].sum(), 2)).astype(np.float32), lengths["vision"]
        ),
    )


def config(batch_size: int, seed: int = 0, **corruption: object) -> Config:
    return Config(
        train=TrainConfig(batch_size=batch_size, seed=seed),
        corruption=CorruptionConfig(**corruption),  # type: ignore[arg-type]
    )


def train_batches(
    utterances: Utterances, batch_size: int, rank: int = 0, world: int = 1, seed: int = 0
) -> TrainBatches:
    views = Views(utterances, "train")
    return TrainBatches(utterances, views, config(batch_size, seed), UNKNOWN, rank=rank, world=world)


def same(left: Inputs, right: Inputs) -> bool:
    mine, others = tensors_of(left), tensors_of(right)
    return mine.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in mine.items())


def with_simulated_text(utterances: Utterances, lengths: Sequence[int], dim: int = 4) -> Utterances:
    values = np.random.default_rng(5).normal(size=(sum(lengths), dim)).astype(np.float32)
    return dataclasses.replace(utterances, simulated_text=Ragged.from_lengths(values, lengths))


def test_inputs_are_padded_to_the_longest_and_masked() -> None:
    utterances = make_utterances(9)
    inputs = to_inputs(utterances)
    assert inputs.text.dtype == torch.int64 and inputs.audio.shape[2] == 3 and inputs.vision.shape[2] == 2
    for modality in MODALITIES:
        mask = getattr(inputs, f"{modality}_mask")
        assert mask.sum(dim=1).tolist() == utterances.lengths()[modality].tolist()
        values = inputs.text if modality == "text" else getattr(inputs, modality)
        assert (values[~mask] == 0).all()
        for row, sequence in enumerate(utterances.sequences(modality)[i] for i in range(9)):
            assert np.array_equal(values[row, : len(sequence)].numpy(), sequence)


def test_inputs_are_cut_at_the_longest_allowed() -> None:
    inputs = to_inputs(make_utterances(9), {"text": 2, "audio": 0, "vision": 99})
    assert inputs.text.shape == (9, 2) and inputs.audio.shape == (9, 0, 3) and inputs.vision.shape[1] == 6


def test_a_modality_that_all_lack_has_no_steps() -> None:
    utterances = dataclasses.replace(
        make_utterances(3), vision=Ragged.from_lengths(np.zeros((0, 2), np.float32), [0, 0, 0])
    )
    inputs = to_inputs(utterances)
    assert inputs.vision.shape == (3, 0, 2) and inputs.vision_mask.shape == (3, 0)
    nothing = {m: torch.zeros(getattr(inputs, f"{m}_mask").shape, dtype=torch.bool) for m in MODALITIES}
    assert corrupt_inputs(inputs, nothing, UNKNOWN).vision.shape == (3, 0, 2)


def test_corruption_leaves_masks_and_padding_as_they_are() -> None:
    inputs = to_inputs(make_utterances(9))
    nothing = {m: torch.zeros_like(getattr(inputs, f"{m}_mask")) for m in MODALITIES}
    erased = corrupt_inputs(inputs, nothing, UNKNOWN)
    assert (erased.text[inputs.text_mask] == UNKNOWN).all() and (erased.text[~inputs.text_mask] == 0).all()
    assert not erased.audio.any() and not erased.vision.any()
    assert torch.equal(erased.text_mask, inputs.text_mask) and torch.equal(erased.audio_mask, inputs.audio_mask)
    everything = {m: torch.ones_like(mask) for m, mask in nothing.items()}
    assert same(corrupt_inputs(inputs, everything, UNKNOWN), inputs)


def test_a_step_of_simulated_text_is_erased_with_the_audio_frame_at_its_place() -> None:
    audio = Ragged.from_lengths(np.ones((9, 3), np.float32), [6, 1, 0, 2])
    utterances = with_simulated_text(dataclasses.replace(make_utterances(4), audio=audio), [3, 3, 2, 0])
    inputs = to_inputs(utterances)
    assert inputs.simulated_text is not None and inputs.simulated_text.shape == (4, 3, 4)
    kept = {m: torch.ones_like(getattr(inputs, f"{m}_mask")) for m in MODALITIES}
    kept["audio"][0, [0, 1, 3, 5]] = False  # of steps at frames 0, 2 and 4 the first falls out
    left = corrupt_inputs(inputs, kept, UNKNOWN)
    assert left.simulated_text is not None and left.simulated_text_mask is inputs.simulated_text_mask
    is_left = left.simulated_text.any(dim=-1)
    # What has no audio has nothing that its text could be judged by.
    assert is_left.tolist() == [[False, True, True], [True] * 3, [False] * 3, [False] * 3]
    assert torch.equal(left.simulated_text[is_left], inputs.simulated_text[is_left])
    without_audio = leave_out(inputs, ["text", "vision"])
    assert without_audio.simulated_text is not None and without_audio.simulated_text.shape == (4, 0, 4)
    assert corrupt_inputs(without_audio, {**kept, "audio": kept["audio"][:, :0]}, UNKNOWN).audio.shape[1] == 0


@pytest.mark.parametrize("compile_mode", ["none", "default"])
def test_simulated_text_on_a_device_is_what_it_is_elsewhere(compile_mode: Literal["none", "default"]) -> None:
    utterances = with_simulated_text(make_utterances(9), [4, 0, 1, 3, 2, 4, 4, 1, 2])
    views, chosen = Views(utterances, "train"), config(4, 0)
    chosen = dataclasses.replace(chosen, train=dataclasses.replace(chosen.train, compile=compile_mode))
    here, there = (TrainBatches(utterances, views, chosen, UNKNOWN, resident=each) for each in (False, True))
    pairs = list(zip(here.epoch(0), there.epoch(0), strict=True))
    for one, other in pairs:
        assert same(one.complete, other.complete) and same(one.corrupted, other.corrupted)
        simulated = one.corrupted.simulated_text
        assert simulated is not None and (compile_mode == "none" or simulated.shape[1] == 4)
    specs = [ViewSpec.evaluation(rate, 0) for rate in (0.0, 0.5, 1.0)]
    scored = [EvaluationBatches(utterances, views, specs, UNKNOWN, resident=each) for each in (False, True)]
    for mine, theirs in zip(*scored, strict=True):
        assert same(mine.inputs, theirs.inputs)


def test_language_features_are_padded_and_erased_like_frames() -> None:
    utterances = make_utterances(9, text_dim=5)
    inputs = to_inputs(utterances)
    assert inputs.text.shape == (9, utterances.text.lengths.max(), 5) and inputs.text.dtype == torch.float32
    assert inputs.text_mask.sum(dim=1).tolist() == utterances.text.lengths.tolist()
    assert not inputs.text[~inputs.text_mask].any() and inputs.text[inputs.text_mask].all()
    masks = make_masks(ViewSpec.evaluation(0.5, 0), utterances.utterance_id, utterances.lengths(), keep_ends=False)
    kept = {m: torch.from_numpy(masks.kept[m].padded()) for m in MODALITIES}
    erased = corrupt_inputs(inputs, kept, UNKNOWN)
    is_left = kept["text"] & inputs.text_mask
    assert torch.equal(erased.text[is_left], inputs.text[is_left]) and not erased.text[~is_left].any()
    assert torch.equal(erased.text_mask, inputs.text_mask) and is_left.any() and (~is_left & inputs.text_mask).any()
    inputs.text[:] = float("nan")
    nothing = {m: torch.zeros_like(mask) for m, mask in kept.items()}
    assert not corrupt_inputs(inputs, nothing, UNKNOWN).text.any()


def test_language_features_may_lose_their_ends() -> None:
    utterances = make_utterances(40, text_dim=5)
    views = Views(utterances, "valid")
    everything = ViewSpec.evaluation(1.0, 0)
    assert not views.masks(everything).kept["text"].values.any()
    assert not views.masks(everything, np.array([3, 5])).kept["text"].values.any()
    for batch in EvaluationBatches(utterances, views, [everything], UNKNOWN):
        assert not batch.inputs.text.any() and batch.inputs.text_mask.any()
    ids = make_utterances(40)
    assert Views(ids, "valid").masks(everything).kept["text"].values.any()


@pytest.mark.parametrize("text_dim", [0, 5])
def test_completeness_may_be_held_against_what_was_erased(text_dim: int) -> None:
    utterances = make_utterances(200, text_dim=text_dim)
    stated, realised = (
        next(
            TrainBatches(
                utterances,
                Views(utterances, "train"),
                dataclasses.replace(config(200), loss=LossConfig(completeness_target=target)),
                UNKNOWN,
            ).epoch(0)
        )
        for target in ("stated", "realised")
    )
    assert same(stated.corrupted, realised.corrupted)
    assert torch.equal(stated.missing_rates[:, 1:], realised.missing_rates[:, 1:])
    assert realised.missing_rates.dtype == torch.float32
    was_erased = (stated.complete.text != stated.corrupted.text).reshape(200, 6, -1).any(dim=2).sum(dim=1)
    lengths = stated.complete.text_mask.sum(dim=1)
    num_erasable = lengths if text_dim else (lengths - 2).clamp(min=0)
    expected = was_erased / num_erasable.clamp(min=1)
    torch.testing.assert_close(realised.missing_rates[:, 0], expected)
    assert (num_erasable == 0).any() and not torch.equal(stated.missing_rates, realised.missing_rates)


def test_an_erased_frame_is_zero_whatever_it_was() -> None:
    inputs = to_inputs(make_utterances(4))
    inputs.audio[:, 0] = float("nan")
    nothing = {m: torch.zeros_like(getattr(inputs, f"{m}_mask")) for m in MODALITIES}
    assert corrupt_inputs(inputs, nothing, UNKNOWN).audio.isfinite().all()


@settings(max_examples=60, deadline=None)
@given(num=st.integers(1, 23), batch_size=st.integers(1, 9), world=st.integers(1, 5), epoch=st.integers(0, 3))
def test_workers_together_take_the_batches_of_one(num: int, batch_size: int, world: int, epoch: int) -> None:
    utterances = make_utterances(num)
    alone = list(train_batches(utterances, batch_size).epoch(epoch))
    shared = [list(train_batches(utterances, batch_size, rank, world).epoch(epoch)) for rank in range(world)]
    whole = train_batches(utterances, batch_size)
    assert {len(batches) for batches in shared} == {len(alone)} == {len(whole)}
    seen: list[str] = []
    for step, batch in enumerate(alone):
        assert len(batch.utterance_ids) == whole.size(step) and batch.weight.sum() == whole.size(step)
        parts = [batches[step] for batches in shared]
        dealt = [n for p in parts for n, w in zip(p.utterance_ids, p.weight.tolist(), strict=True) if w == 1]
        assert sorted(dealt) == sorted(batch.utterance_ids)
        assert sum(float(part.weight.sum()) for part in parts) == whole.size(step)
        assert all(len(part.utterance_ids) >= 1 for part in parts)
        rates = dict(zip(batch.utterance_ids, batch.missing_rates.tolist(), strict=True))
        for part in parts:
            for name, rate in zip(part.utterance_ids, part.missing_rates.tolist(), strict=True):
                assert rates[name] == rate
        seen += batch.utterance_ids
    assert sorted(seen) == sorted(utterances.utterance_id)


def windowed(utterances: Utterances, batch_size: int, window: int, rank: int = 0, world: int = 1) -> TrainBatches:
    """Batches of utterances that are sorted by length within `window` batches."""
    train = TrainConfig(batch_size=batch_size, seed=3, length_window=window)
    return TrainBatches(utterances, Views(utterances, "train"), Config(train=train), UNKNOWN, rank=rank, world=world)


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    window=st.integers(1, 12),
    world=st.integers(1, 4),
    epoch=st.integers(0, 2),
)
def test_every_utterance_is_seen_once_in_any_window(
    num: int, batch_size: int, window: int, world: int, epoch: int
) -> None:
    utterances = make_utterances(num)
    alone = windowed(utterances, batch_size, window)
    batches = list(alone.epoch(epoch))
    assert len(batches) == len(alone)
    assert [len(batch.utterance_ids) for batch in batches] == [alone.size(step) for step in range(len(alone))]
    assert all(len(batch.utterance_ids) == batch_size for batch in batches[:-1]), "the partial batch is the last"
    assert sorted(name for batch in batches for name in batch.utterance_ids) == sorted(utterances.utterance_id)
    shared = [list(windowed(utterances, batch_size, window, rank, world).epoch(epoch)) for rank in range(world)]
    for step, batch in enumerate(batches):
        parts = [own[step] for own in shared]
        dealt = [n for p in parts for n, w in zip(p.utterance_ids, p.weight.tolist(), strict=True) if w == 1]
        assert sorted(dealt) == sorted(batch.utterance_ids)
        assert sum(float(part.weight.sum()) for part in parts) == alone.size(step)


@settings(max_examples=30, deadline=None)
@given(num=st.integers(1, 40), batch_size=st.integers(1, 9), epoch=st.integers(0, 3))
def test_a_window_of_one_batch_is_the_plain_shuffle(num: int, batch_size: int, epoch: int) -> None:
    utterances = make_utterances(num)
    order = np.random.default_rng([3, epoch]).permutation(num)
    seen = [name for batch in windowed(utterances, batch_size, 1).epoch(epoch) for name in batch.utterance_ids]
    assert seen == [f"u{row}" for row in order]


def spoken(num: int) -> Utterances:
    """Utterances as long as speech is: log-normal, a few of them many times the median, equally in each modality."""
    random = np.random.default_rng(5)
    lengths = np.clip(random.lognormal(np.log(20), 0.7, num).astype(int), 1, 400)
    frames = Ragged.from_lengths(np.ones((lengths.sum(), 1), np.float32), lengths)
    ids = Ragged.from_lengths(np.full(lengths.sum(), 1000, np.int32), lengths)
    names = [f"u{i}" for i in range(num)]
    return Utterances(names, [None] * num, np.zeros(num, np.float32), ids, frames, frames)


def share_of_padding(batches: TrainBatches, epoch: int = 0) -> float:
    masks = [batch.complete.audio_mask for batch in batches.epoch(epoch)]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def test_wider_windows_pad_less() -> None:
    utterances = spoken(1024)
    shares = [share_of_padding(windowed(utterances, 32, window)) for window in (1, 4, 16, 1000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.6 and shares[1] < 0.5 and shares[2] < 0.3 and shares[-1] < 0.2


def test_windows_neither_begin_with_the_shortest_nor_repeat_themselves() -> None:
    """The batches of an epoch come in no order of length, and other utterances share one in the next."""
    batches = windowed(spoken(1024), 32, 8)
    epochs = [list(batches.epoch(epoch)) for epoch in (0, 1)]
    longest = np.array([batch.complete.audio_mask.shape[1] for batch in epochs[0]])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.5
    together = [{frozenset(batch.utterance_ids) for batch in epoch} for epoch in epochs]
    assert not together[0] & together[1]
    again = [batch.utterance_ids for batch in windowed(spoken(1024), 32, 8).epoch(1)]
    assert again == [batch.utterance_ids for batch in epochs[1]]


def test_masks_do_not_hang_on_the_window() -> None:
    utterances = make_utterances(20)
    rates = [
        {
            name: rate
            for batch in windowed(utterances, 4, window).epoch(2)
            for name, rate in zip(batch.utterance_ids, batch.missing_rates.tolist(), strict=True)
        }
        for window in (1, 3)
    ]
    assert rates[0] == rates[1]


def test_order_and_masks_hang_on_seed_and_epoch() -> None:
    utterances = make_utterances(20)

    def first(epoch: int, seed: int = 0) -> tuple[list[str], list[list[float]]]:
        batch = next(train_batches(utterances, 20, seed=seed).epoch(epoch))
        return batch.utterance_ids, batch.missing_rates.tolist()

    assert first(1) == first(1)
    assert first(0)[0] != first(1)[0] and first(0)[0] != first(0, seed=1)[0]
    by_name = [dict(zip(*first(epoch), strict=True)) for epoch in (0, 1)]
    assert by_name[0] != by_name[1]


def test_fixed_draws_are_those_of_the_first_epoch() -> None:
    utterances = make_utterances(20)
    batches = TrainBatches(utterances, Views(utterances, "train"), config(20, draws="fixed"), UNKNOWN)
    rates = []
    for epoch in (0, 1):
        batch = next(batches.epoch(epoch))
        rates.append(dict(zip(batch.utterance_ids, batch.missing_rates.tolist(), strict=True)))
    assert rates[0] == rates[1]


def test_fixed_draws_are_the_same_for_every_training_seed() -> None:
    utterances = make_utterances(20)
    views = Views(utterances, "train")
    erased = []
    for seed in (0, 1):
        batches = TrainBatches(utterances, views, config(20, seed, draws="fixed", mask_seed=1111), UNKNOWN)
        batch = next(batches.epoch(0))
        rows = np.argsort([int(name[1:]) for name in batch.utterance_ids])
        erased.append([batch.corrupted.audio[rows], batch.missing_rates[rows]])
    assert all(torch.equal(one, two) for one, two in zip(*erased, strict=True))


def test_fixed_positions_have_fresh_rates_in_each_epoch() -> None:
    utterances = make_utterances(20)
    batches = TrainBatches(utterances, Views(utterances, "train"), config(20, draws="fixed_positions"), UNKNOWN)
    rates = [
        dict(zip(b.utterance_ids, b.missing_rates.tolist(), strict=True)) for e in (0, 1) for b in batches.epoch(e)
    ]
    assert rates[0] != rates[1]


def test_a_training_batch_is_its_utterances_under_their_masks() -> None:
    utterances = make_utterances(8)
    batch = next(train_batches(utterances, 8).epoch(2))
    rows = np.array([utterances.utterance_id.index(name) for name in batch.utterance_ids])
    spec = training_view(CorruptionConfig(), 0, 2)
    masks = make_masks(spec, batch.utterance_ids, {m: lengths[rows] for m, lengths in utterances.lengths().items()})
    complete = to_inputs(utterances.take(rows))
    kept = {m: torch.from_numpy(masks.kept[m].padded()) for m in MODALITIES}
    assert same(batch.complete, complete) and same(batch.corrupted, corrupt_inputs(complete, kept, UNKNOWN))
    assert np.array_equal(batch.label.numpy(), utterances.label[rows])
    assert np.array_equal(batch.missing_rates.numpy(), masks.missing_rates)


@settings(max_examples=30, deadline=None)
@given(num=st.integers(1, 12), batch_size=st.integers(1, 7), world=st.integers(1, 4))
def test_every_pair_is_evaluated_once(num: int, batch_size: int, world: int) -> None:
    utterances = make_utterances(num)
    specs = [ViewSpec.evaluation(rate, 3) for rate in (0.0, 0.5, 1.0)]
    pairs = []
    for rank in range(world):
        batches = EvaluationBatches(
            utterances, Views(utterances, "valid"), specs, UNKNOWN, batch_size=batch_size, rank=rank, world=world
        )
        assert batches.shape == (3, num)
        for batch in batches:
            pairs += list(zip(batch.view.tolist(), batch.utterance.tolist(), strict=True))
            for row, (view, utterance) in enumerate(zip(batch.view, batch.utterance, strict=True)):
                only = utterances.take([utterance])
                masks = make_masks(specs[view], only.utterance_id, only.lengths())
                kept = {m: torch.from_numpy(masks.kept[m].padded()) for m in MODALITIES}
                expected = corrupt_inputs(to_inputs(only), kept, UNKNOWN)
                for name, value in tensors_of(expected).items():
                    wanted, got = value[0], getattr(batch.inputs, name)[row]
                    assert torch.equal(got[: len(wanted)], wanted) and not got[len(wanted) :].any()
    assert sorted(pairs) == [(view, utterance) for view in range(3) for utterance in range(num)]


def write_view(store: Store, manifest: FeatureManifest, spec: ViewSpec, utterances: Utterances) -> ViewManifest:
    """The view of the training split in two shards."""
    folder = view_folder(manifest.corpus, manifest.feature_id, spec.view_id)
    halves = [utterances.take(range(15)), utterances.take(range(15, len(utterances)))]
    masks = [make_masks(spec, half.utterance_id, half.lengths(), keep_ends=not manifest.text_dim) for half in halves]
    entries = tuple(
        write_view_shard(store, folder, "train", half.utterance_id, mask)
        for half, mask in zip(halves, masks, strict=True)
    )
    splits: dict[Split, SplitEntry] = {"train": SplitEntry(len(utterances), entries)}
    view = ViewManifest(manifest.corpus, manifest.feature_id, spec.view_id, spec.to_dict(), {}, splits)
    return commit_view(store, view)


@pytest.mark.parametrize("text", ["ids", "features"])
def test_stored_masks_are_the_computed_ones(tmp_path: Path, text: TextForm) -> None:
    store = Store(tmp_path / "store")
    source = tmp_path / "small.pkl"
    source.write_bytes(pickle.dumps(with_text_features(mmsa_content(), only=False)))
    manifest = import_corpus(store, source, "small", text=text)
    utterances = read_split(store, manifest, "train")
    stored, computed = Views(utterances, "train", store, manifest), Views(utterances, "train")
    shared = ViewSpec.training(7, 3, position_draw=0, shared_uniforms=True)
    for spec in (ViewSpec.training(7, 0), ViewSpec.evaluation(0.4, 7), shared):
        view = write_view(store, manifest, spec, utterances)
        for rows in (None, np.array([3, 39, 0])):
            left, right = stored.masks(spec, rows), computed.masks(spec, rows)
            assert np.array_equal(left.missing_rates, right.missing_rates)
            assert np.array_equal(left.realised_rates("text"), right.realised_rates("text"))
            for modality in MODALITIES:
                assert np.array_equal(left.kept[modality].values, right.kept[modality].values)
                assert np.array_equal(left.kept[modality].offsets, right.kept[modality].offsets)
        assert Views(utterances, "valid", store, manifest).masks(spec).missing_rates.shape == (40, 3)
        # It is the stored ones that are read: a damaged shard is noticed.
        path = tmp_path / "store" / view.splits["train"].shards[0].path
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(RefusedError, match="bytes"):
            Views(utterances, "train", store, manifest).masks(spec)


def test_a_view_of_other_utterances_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    manifest = small_corpus(store, tmp_path)
    utterances = read_split(store, manifest, "train")
    spec = ViewSpec.training(7, 0)
    write_view(store, manifest, spec, dataclasses.replace(utterances, utterance_id=utterances.utterance_id[::-1]))
    with pytest.raises(RefusedError, match=r"does not fit split train.*lnln corrupt small"):
        Views(utterances, "train", store, manifest).masks(spec)
