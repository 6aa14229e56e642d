"""From utterances in memory to the tensors of one training or evaluation step.

    batches = TrainBatches(utterances, Views(utterances, "train"), config, unknown_id=100)
    for batch in batches.epoch(0): ...

B utterances, T steps of one modality (padded to the longest), D features of one frame, R workers.

An epoch's order depends on (seed, epoch) alone, and a batch is dealt out to the workers afterwards, so any number of
workers takes the same steps. Padded to the longest of the batch: what else a model wants (cuts, fixed lengths) it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from lnln.config import Config
from lnln.corruption import ViewSpec, training_view
from lnln.corruption.noise import Noise
from lnln.data.schema import MODALITIES, Modality, Ragged, Utterances
from lnln.views import Rows, Views


@dataclass(frozen=True)
class Inputs:
    """One version (complete or corrupted) of B utterances.

    Masks are True at real steps and False at padding. They say nothing of what was erased: an erased token is [UNK],
    an erased frame is zeros, and both remain real steps. T may be 0: a modality that all B utterances lack.
    text: token ids, or language features of width Dt, which are erased like frames.
    """

    text: Int64[Tensor, "B Tt"] | Float[Tensor, "B Tt Dt"]
    text_mask: Bool[Tensor, "B Tt"]
    audio: Float[Tensor, "B Ta Da"]
    audio_mask: Bool[Tensor, "B Ta"]
    vision: Float[Tensor, "B Tv Dv"]
    vision_mask: Bool[Tensor, "B Tv"]


@dataclass(frozen=True)
class Batch:
    """B utterances, complete and corrupted, with what the losses need.

    label: NaN where unlabelled. missing_rates: drawn rate of text, audio, vision; with `loss.completeness_target:
    realised` that of text is the share of its erasable positions that was erased (0 where there are none), which for
    short texts is another number (reference.md D6).
    weight: 1, or 0 for the stand-in that a worker gets when a last batch has too few utterances for all.
    """

    utterance_ids: list[str]
    complete: Inputs
    corrupted: Inputs
    label: Float[Tensor, " B"]
    missing_rates: Float[Tensor, "B 3"]
    weight: Float[Tensor, " B"]


@dataclass(frozen=True)
class EvaluationBatch:
    """B pairs of an utterance and a view: `inputs` are corrupted; `view`, `utterance` (B,) say which pairs they are."""

    inputs: Inputs
    view: Rows
    utterance: Rows


def to_inputs(utterances: Utterances, max_lengths: Mapping[Modality, int] | None = None) -> Inputs:
    """All of `utterances` as they are, padded with zeros to the longest, or cut at `max_lengths`."""
    padded: dict[Modality, Tensor] = {}
    masks: dict[Modality, Tensor] = {}
    for modality in MODALITIES:
        sequences = utterances.sequences(modality)
        length = int(sequences.lengths.max(initial=0))
        if max_lengths is not None:
            length = min(length, max_lengths[modality])
        padded[modality] = torch.from_numpy(sequences.padded(length))
        masks[modality] = torch.arange(length) < torch.from_numpy(sequences.lengths)[:, None]
    return Inputs(
        text=padded["text"] if utterances.text_dim else padded["text"].long(),
        text_mask=masks["text"],
        audio=padded["audio"],
        audio_mask=masks["audio"],
        vision=padded["vision"],
        vision_mask=masks["vision"],
    )


def corrupt_inputs(inputs: Inputs, kept: Mapping[Modality, Bool[Tensor, "B T"]], unknown_id: int) -> Inputs:
    """What is left of `inputs`, on whatever device they lie: other tokens become [UNK], other frames and language
    features zeros.

    kept: True where kept; what it says of padding does not matter. The masks of `inputs` stay as they are.
    """
    is_ids = inputs.text.dim() == 2
    return Inputs(
        text=torch.where(kept["text"] | ~inputs.text_mask, inputs.text, unknown_id)
        if is_ids
        else inputs.text.masked_fill(~kept["text"][:, :, None], 0),
        text_mask=inputs.text_mask,
        audio=inputs.audio.masked_fill(~kept["audio"][:, :, None], 0),
        audio_mask=inputs.audio_mask,
        vision=inputs.vision.masked_fill(~kept["vision"][:, :, None], 0),
        vision_mask=inputs.vision_mask,
    )


def put_noise(inputs: Inputs, noise: Mapping[Modality, Noise], rows: Rows) -> Inputs:
    """`inputs` with the steps of `noise` replaced. rows: which of `inputs` the rows of `noise` are."""
    changed: dict[str, Tensor] = {}
    for modality, each in noise.items():
        values = getattr(inputs, modality).clone()
        row, step, value = (
            torch.from_numpy(array).to(values.device) for array in (rows[each.row], each.step, each.value)
        )
        values[row, step] = value
        changed[modality] = values
    return replace(inputs, **changed)


class TrainBatches:
    """The batches of one worker of `world`; the batches of all workers together are the config's `batch_size` each.

    A worker for which a last batch has no utterance gets the batch's first one with weight 0, so that all workers take
    equally many steps and the sum over them is exact.
    """

    def __init__(
        self,
        utterances: Utterances,
        views: Views,
        config: Config,
        unknown_id: int,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        assert len(utterances) and 0 <= rank < world
        self._utterances, self._views, self._config = utterances, views, config
        self._unknown_id, self._rank, self._world, self._device = unknown_id, rank, world, device
        self._steps = _num_steps(utterances)

    def __len__(self) -> int:
        """Steps of one epoch."""
        return -(-len(self._utterances) // self._config.train.batch_size)

    def size(self, step: int) -> int:
        """Utterances of step `step` (from 0) over all workers."""
        size = self._config.train.batch_size
        return min(size, len(self._utterances) - step * size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number` (from 0) on this worker's device, one for each step."""
        train = self._config.train
        spec = training_view(self._config.corruption, train.seed, number)
        for rows in self._order(number):
            own = rows[self._rank :: self._world]
            yield self._batch(own, spec, 1.0) if len(own) else self._batch(rows[:1], spec, 0.0)

    def _order(self, number: int) -> list[Rows]:
        """The rows of every batch of epoch `number`, over all workers: shuffled, sorted by length within a window of
        `train.length_window` batches, and the batches that are whole shuffled among each other."""
        train = self._config.train
        random = np.random.default_rng([train.seed, number])
        order = random.permutation(len(self._utterances))
        if train.length_window == 1:
            return np.split(order, range(train.batch_size, len(order), train.batch_size))
        window = train.length_window * train.batch_size
        by_length = [
            rows[np.argsort(self._steps[rows], kind="stable")]
            for rows in np.split(order, range(window, len(order), window))
        ]
        batches = [
            batch
            for rows in by_length
            for batch in np.split(rows, range(train.batch_size, len(rows), train.batch_size))
        ]
        whole = random.permutation(len(order) // train.batch_size)
        return [batches[index] for index in whole] + batches[len(whole) :]

    def _batch(self, rows: Rows, spec: ViewSpec, weight: float) -> Batch:
        chosen = self._utterances.take(rows)
        complete = _to_device(to_inputs(chosen), self._device)
        masks = self._views.masks(spec, rows)
        missing_rates = masks.missing_rates
        if self._config.loss.completeness_target == "realised":
            missing_rates = np.column_stack([masks.realised_rates("text"), missing_rates[:, 1:]])
        return Batch(
            utterance_ids=chosen.utterance_id,
            complete=complete,
            corrupted=_under_views(
                complete, self._views, [spec], np.zeros_like(rows), rows, masks.kept, self._unknown_id
            ),
            label=torch.from_numpy(chosen.label).to(self._device),
            missing_rates=torch.from_numpy(missing_rates).to(self._device),
            weight=torch.full((len(rows),), weight, device=self._device),
        )


class EvaluationBatches:
    """Every utterance under every view, each pair on exactly one worker, shortest first so that little is padded.

    Batches are formed before they are dealt out: a pair is computed in the same company for any number of workers.
    """

    def __init__(
        self,
        utterances: Utterances,
        views: Views,
        specs: Sequence[ViewSpec],
        unknown_id: int,
        *,
        batch_size: int = 128,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        assert 0 <= rank < world and batch_size >= 1
        self._utterances, self._views, self._unknown_id, self._device = utterances, views, unknown_id, device
        self.specs = list(specs)
        masks = [views.masks(spec) for spec in specs]
        # By modality the sequences of all views, one view after the other.
        self._kept = {m: Ragged.concatenate([each.kept[m] for each in masks]) for m in MODALITIES if masks}
        by_length = np.argsort(_num_steps(utterances), kind="stable")
        # The views of one utterance lie side by side: they are equally long.
        utterance = np.repeat(by_length, len(specs))
        view = np.tile(np.arange(len(specs)), len(utterances))
        starts = range(0, len(utterance), batch_size)
        pairs = [(view[start : start + batch_size], utterance[start : start + batch_size]) for start in starts]
        self._pairs = pairs[rank::world]

    @property
    def shape(self) -> tuple[int, int]:
        """(views, utterances), over all workers."""
        return len(self.specs), len(self._utterances)

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for view, utterance in self._pairs:
            complete = _to_device(to_inputs(self._utterances.take(utterance)), self._device)
            kept = {m: masks.take(view * len(self._utterances) + utterance) for m, masks in self._kept.items()}
            inputs = _under_views(complete, self._views, self.specs, view, utterance, kept, self._unknown_id)
            yield EvaluationBatch(inputs, view, utterance)


def _num_steps(utterances: Utterances) -> NDArray[np.int64]:
    """(N,) steps of each utterance, over all modalities."""
    steps: NDArray[np.int64] = np.stack([utterances.lengths()[modality] for modality in MODALITIES]).sum(axis=0)
    return steps


def _under_views(
    complete: Inputs,
    views: Views,
    specs: Sequence[ViewSpec],
    view: Rows,
    utterance: Rows,
    kept: Mapping[Modality, Ragged],
    unknown_id: int,
) -> Inputs:
    """`complete`, the utterances `utterance` (B,), each under its view: `view` (B,) are places in `specs`."""
    padded = {modality: masks.padded() for modality, masks in kept.items()}
    for number, spec in enumerate(specs):
        if spec.protocol == "noise" and len(rows := np.flatnonzero(view == number)):
            own = {modality: masks.take(rows) for modality, masks in kept.items()}
            complete = put_noise(complete, views.noise(spec, utterance[rows], own), rows)
            for masks in padded.values():
                masks[rows] = True
    device = complete.text.device
    return corrupt_inputs(complete, {m: torch.from_numpy(masks).to(device) for m, masks in padded.items()}, unknown_id)


def _to_device(inputs: Inputs, device: torch.device | str) -> Inputs:
    return Inputs(**{field.name: getattr(inputs, field.name).to(device) for field in fields(Inputs)})
