"""From utterances in memory to the tensors of one training or evaluation step.

    batches = TrainBatches(utterances, Views(utterances, "train"), config, unknown_id=100)
    for batch in batches.epoch(0): ...

B utterances, T steps of one modality (padded to the longest), D features of one frame, R workers.

An epoch's order depends on (seed, epoch) alone, and a batch is dealt out to the workers afterwards, so any number of
workers takes the same steps. Padded to the longest of the batch, and for a compiled model to one of a few shapes: what
else a model wants (cuts, fixed lengths) it does.

On a device other than the CPU the split lies there (`lnln.resident`), and batches of the same values are made there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from lnln.config import Config
from lnln.corruption import Masks, ViewSpec, training_view
from lnln.corruption.noise import Noise
from lnln.data.schema import MODALITIES, Modality, Ragged, Stream, Utterances
from lnln.resident import ResidentSplit, belongs_on, send, upload
from lnln.views import Rows, Views

# Shapes that the batches of a compiled model come in: for each a graph is compiled, which takes a minute or so.
NUM_SHAPES = 4
# Their lengths are multiples of this, since fused attention on a GPU wants aligned rows.
_ALIGNMENT = 8


@dataclass(frozen=True)
class Inputs:
    """One version (complete or corrupted) of B utterances.

    Masks are True at real steps and False at padding. They say nothing of what was erased: an erased token is [UNK],
    an erased frame is zeros, and both remain real steps. T may be 0: a modality that all B utterances lack.
    text: token ids, or language features of width Dt, which are erased like frames.
    simulated_text: what the text might be, judged by the audio; a step is erased, to zeros, with the audio frame at its
    place. None, and its mask, where nobody asked for it.
    """

    text: Int64[Tensor, "B Tt"] | Float[Tensor, "B Tt Dt"]
    text_mask: Bool[Tensor, "B Tt"]
    audio: Float[Tensor, "B Ta Da"]
    audio_mask: Bool[Tensor, "B Ta"]
    vision: Float[Tensor, "B Tv Dv"]
    vision_mask: Bool[Tensor, "B Tv"]
    simulated_text: Float[Tensor, "B Ts Ds"] | None = None
    simulated_text_mask: Bool[Tensor, "B Ts"] | None = None


# A compiled graph cannot ask a class for its fields.
INPUT_FIELDS = tuple(field.name for field in fields(Inputs))


def tensors_of(inputs: Inputs) -> dict[str, Tensor]:
    """What is there of `inputs`, by the names of its fields."""
    values = {name: getattr(inputs, name) for name in INPUT_FIELDS}
    return {name: value for name, value in values.items() if value is not None}


def map_inputs(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """`inputs` with `change` of each of its tensors."""
    changed: dict[str, Any] = {name: change(value) for name, value in tensors_of(inputs).items()}
    return Inputs(**changed)


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
    lengths: dict[Stream, int] = {}
    for modality in MODALITIES:
        longest = int(utterances.sequences(modality).lengths.max(initial=0))
        lengths[modality] = longest if max_lengths is None else min(longest, max_lengths[modality])
    return _padded_inputs(utterances, lengths)


def corrupt_inputs(inputs: Inputs, kept: Mapping[Modality, Bool[Tensor, "B T"]], unknown_id: int) -> Inputs:
    """What is left of `inputs`, on whatever device they lie: other tokens become [UNK], other frames and language
    features zeros.

    kept: True where kept; what it says of padding does not matter. The masks of `inputs` stay as they are.
    """
    is_ids = inputs.text.dim() == 2
    simulated = inputs.simulated_text
    if simulated is not None:
        simulated = simulated.masked_fill(~_heard(inputs, kept["audio"])[:, :, None], 0)
    return Inputs(
        text=torch.where(kept["text"] | ~inputs.text_mask, inputs.text, unknown_id)
        if is_ids
        else inputs.text.masked_fill(~kept["text"][:, :, None], 0),
        text_mask=inputs.text_mask,
        audio=inputs.audio.masked_fill(~kept["audio"][:, :, None], 0),
        audio_mask=inputs.audio_mask,
        vision=inputs.vision.masked_fill(~kept["vision"][:, :, None], 0),
        vision_mask=inputs.vision_mask,
        simulated_text=simulated,
        simulated_text_mask=inputs.simulated_text_mask,
    )


def _heard(inputs: Inputs, kept_audio: Bool[Tensor, "B Ta"]) -> Bool[Tensor, "B Ts"]:
    """Which steps of the simulated text are left: those at whose place in time the audio frame is kept."""
    mask = inputs.simulated_text_mask
    assert mask is not None, "simulated text comes with its mask"
    heard = kept_audio & inputs.audio_mask
    if heard.shape[1] == 0:
        return torch.zeros_like(mask)
    num_frames, num_steps = inputs.audio_mask.sum(dim=1, keepdim=True), mask.sum(dim=1, keepdim=True)
    steps = torch.arange(mask.shape[1], device=mask.device)[None, :]
    frame = (steps * num_frames // num_steps.clamp(min=1)).clamp(max=heard.shape[1] - 1)
    return mask & heard.gather(1, frame)


def split_batch(batch: Batch, num_parts: int) -> list[Batch]:
    """`batch` in at most `num_parts` parts of about equally many utterances, none of them empty."""
    size = -(-len(batch.label) // num_parts)
    slices = [slice(start, start + size) for start in range(0, len(batch.label), size)]
    return [
        Batch(
            utterance_ids=batch.utterance_ids[rows],
            complete=_rows_of(batch.complete, rows),
            corrupted=_rows_of(batch.corrupted, rows),
            label=batch.label[rows],
            missing_rates=batch.missing_rates[rows],
            weight=batch.weight[rows],
        )
        for rows in slices
    ]


def put_noise(inputs: Inputs, noise: Mapping[Modality, Noise], rows: Rows) -> Inputs:
    """`inputs` with the steps of `noise` replaced. rows: which of `inputs` the rows of `noise` are."""
    changed: dict[str, Tensor] = {}
    for modality, each in noise.items():
        values = getattr(inputs, modality).clone()
        row, step, value = (upload(array, values.device) for array in (rows[each.row], each.step, each.value))
        values[row, step] = value
        changed[modality] = values
    return replace(inputs, **changed)


class TrainBatches:
    """The batches of one worker of `world`; the batches of all workers together are the config's `batch_size` each.

    A worker for which a last batch has no utterance gets the batch's first one with weight 0, so that all workers take
    equally many steps and the sum over them is exact.
    resident: whether the split lies on `device`; None: where that is worth it.
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
        resident: bool | None = None,
    ) -> None:
        assert len(utterances) and 0 <= rank < world
        self._utterances, self._views, self._config = utterances, views, config
        self._unknown_id, self._rank, self._world, self._device = unknown_id, rank, world, torch.device(device)
        self._steps = _num_steps(utterances)
        self._split = _resident(utterances, self._device, resident)
        self._shapes = None if config.train.compile == "none" else self._choose_shapes()

    def __len__(self) -> int:
        """Steps of one epoch."""
        return -(-len(self._utterances) // self._config.train.batch_size)

    def size(self, step: int) -> int:
        """Utterances of step `step` (from 0) over all workers."""
        size = self._config.train.batch_size
        return min(size, len(self._utterances) - step * size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number` (from 0) on this worker's device, one for each step."""
        spec = training_view(self._config.corruption, self._config.train.seed, number)
        shares = []
        for rows in self._order(number):
            own = rows[self._rank :: self._world]
            shares.append((own, 1.0) if len(own) else (rows[:1], 0.0))
        if self._split is not None:
            return self._resident_epoch(self._split, spec, shares)
        return (self._batch(rows, spec, weight) for rows, weight in shares)

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

    def _choose_shapes(self) -> NDArray[np.int64]:
        """(K, 3) lengths of text, audio, vision, each row holding those before it and the last one every utterance.

        Those that a K-th each of the first epoch's batches need, from the smallest batches to the largest. One, where
        the model pads to its longest anyway.
        """
        lengths = np.stack([self._utterances.lengths()[modality] for modality in MODALITIES], axis=1)
        needed = np.stack([lengths[rows].max(axis=0) for rows in self._order(0)])
        needed = needed[np.argsort(needed.sum(axis=1), kind="stable")]
        num_shapes = NUM_SHAPES if self._config.model.mask_padding else 1
        shapes = np.stack([part.max(axis=0) for part in np.array_split(needed, num_shapes) if len(part)])
        shapes[-1] = lengths.max(axis=0)
        aligned = -(-shapes // _ALIGNMENT) * _ALIGNMENT
        return np.unique(np.maximum.accumulate(aligned), axis=0).astype(np.int64)

    def _lengths(self, rows: Rows) -> dict[Stream, int]:
        """What the utterances `rows` are padded to."""
        longest = _longest(self._utterances, rows)
        if self._shapes is None:
            return longest
        holds = (self._shapes >= [longest[modality] for modality in MODALITIES]).all(axis=1)
        shape = dict(zip(MODALITIES, self._shapes[np.flatnonzero(holds)[0]].tolist(), strict=True))
        # Simulated text is as long for all utterances, or nearly so.
        return {**_longest(self._utterances, np.arange(len(self._utterances))), **shape}

    def _missing_rates(self, masks: Masks) -> NDArray[np.float32]:
        if self._config.loss.completeness_target != "realised":
            return masks.missing_rates
        return np.column_stack([masks.realised_rates("text"), masks.missing_rates[:, 1:]])

    def _batch(self, rows: Rows, spec: ViewSpec, weight: float) -> Batch:
        chosen = self._utterances.take(rows)
        complete = _to_device(_padded_inputs(chosen, self._lengths(rows)), self._device)
        masks = self._views.masks(spec, rows)
        noisy = _put_views_noise(complete, self._views, [spec], np.zeros_like(rows), rows, masks.kept)
        return Batch(
            utterance_ids=chosen.utterance_id,
            complete=complete,
            corrupted=_erase(noisy, masks.kept, np.array(spec.protocol == "noise"), self._unknown_id),
            label=upload(chosen.label, self._device),
            missing_rates=upload(self._missing_rates(masks), self._device),
            weight=torch.full((len(rows),), weight, device=self._device),
        )

    def _resident_epoch(
        self, split: ResidentSplit, spec: ViewSpec, shares: Sequence[tuple[Rows, float]]
    ) -> Iterator[Batch]:
        """The batches `shares`, each rows and their weight, of which the host says no more than what noise makes."""
        masks = self._views.masks(spec)
        kept = split.upload_steps({modality: [masks.kept[modality].values] for modality in MODALITIES})
        missing_rates = upload(self._missing_rates(masks), self._device)
        order = upload(np.concatenate([rows for rows, _ in shares]), self._device)
        for (rows, weight), own in zip(shares, order.split([len(rows) for rows, _ in shares]), strict=True):
            padded, real, places = split.gather(own, self._lengths(rows))
            complete = _inputs(padded, real)
            if spec.protocol == "noise":
                hit = masks.take(rows).kept
                corrupted = _put_views_noise(complete, self._views, [spec], np.zeros_like(rows), rows, hit)
            else:
                corrupted = corrupt_inputs(complete, {m: kept[m][places[m]] for m in MODALITIES}, self._unknown_id)
            yield Batch(
                utterance_ids=[self._utterances.utterance_id[row] for row in rows],
                complete=complete,
                corrupted=corrupted,
                label=split.label[own],
                missing_rates=missing_rates[own],
                weight=torch.full((len(rows),), weight, device=self._device),
            )


class EvaluationBatches:
    """Every utterance under every view, each pair on exactly one worker, shortest first so that little is padded.

    Batches are formed before they are dealt out: a pair is computed in the same company for any number of workers.
    resident: whether utterances and masks lie on `device`; None: where that is worth it.
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
        resident: bool | None = None,
    ) -> None:
        assert 0 <= rank < world and batch_size >= 1
        self._utterances, self._views, self._unknown_id = utterances, views, unknown_id
        self._device = torch.device(device)
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
        self._split = _resident(utterances, self._device, resident)
        self._is_noise = np.array([spec.protocol == "noise" for spec in specs], np.bool_)
        if self._split is not None:
            # Noise stands where a step was hit, so there nothing is erased.
            pairs_of = list(zip(masks, self._is_noise, strict=True))
            self._kept_there = self._split.upload_steps(
                {m: [each.kept[m].values | is_noise for each, is_noise in pairs_of] for m in MODALITIES}
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(views, utterances), over all workers."""
        return len(self.specs), len(self._utterances)

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for view, utterance in self._pairs:
            if self._split is not None:
                inputs = self._resident_inputs(self._split, view, utterance)
            else:
                complete = _to_device(to_inputs(self._utterances.take(utterance)), self._device)
                kept = self._kept_of(view, utterance)
                noisy = _put_views_noise(complete, self._views, self.specs, view, utterance, kept)
                inputs = _erase(noisy, kept, self._is_noise[view], self._unknown_id)
            yield EvaluationBatch(inputs, view, utterance)

    def _resident_inputs(self, split: ResidentSplit, view: Rows, utterance: Rows) -> Inputs:
        lengths = _longest(self._utterances, utterance)
        padded, real, places = split.gather(upload(utterance, self._device), lengths)
        inputs = _inputs(padded, real)
        if self._is_noise.any():
            hit = self._kept_of(view, utterance)
            inputs = _put_views_noise(inputs, self._views, self.specs, view, utterance, hit)
        of_view = upload(view, self._device)[:, None]
        kept = {}
        for modality in MODALITIES:
            masks, num_steps = self._kept_there[modality], split.num_steps(modality)
            kept[modality] = masks[torch.where(real[modality], of_view * num_steps + places[modality], len(masks) - 1)]
        return corrupt_inputs(inputs, kept, self._unknown_id)

    def _kept_of(self, view: Rows, utterance: Rows) -> dict[Modality, Ragged]:
        """The masks of these pairs."""
        return {m: masks.take(view * len(self._utterances) + utterance) for m, masks in self._kept.items()}


def _longest(utterances: Utterances, rows: Rows) -> dict[Stream, int]:
    """Most steps that one of the utterances `rows` has, by stream."""
    return {name: int(each.lengths[rows].max()) for name, each in utterances.streams().items()}


def _num_steps(utterances: Utterances) -> NDArray[np.int64]:
    """(N,) steps of each utterance, over all modalities."""
    steps: NDArray[np.int64] = np.stack([utterances.lengths()[modality] for modality in MODALITIES]).sum(axis=0)
    return steps


def _put_views_noise(
    complete: Inputs,
    views: Views,
    specs: Sequence[ViewSpec],
    view: Rows,
    utterance: Rows,
    kept: Mapping[Modality, Ragged],
) -> Inputs:
    """`complete`, the utterances `utterance` (B,), with the noise of each one's view, if that is of protocol noise:
    `view` (B,) are places in `specs`."""
    for number, spec in enumerate(specs):
        if spec.protocol == "noise" and len(rows := np.flatnonzero(view == number)):
            own = {modality: masks.take(rows) for modality, masks in kept.items()}
            complete = put_noise(complete, views.noise(spec, utterance[rows], own), rows)
    return complete


def _erase(inputs: Inputs, kept: Mapping[Modality, Ragged], is_noise: NDArray[np.bool_], unknown_id: int) -> Inputs:
    """`inputs` without what is not `kept`. is_noise: of which rows nothing is erased, or of all: noise is there."""
    masks = {}
    for modality, each in kept.items():
        padded = each.padded(getattr(inputs, modality).shape[1])
        masks[modality] = upload(padded | is_noise[..., None], inputs.text.device)
    return corrupt_inputs(inputs, masks, unknown_id)


def _resident(utterances: Utterances, device: torch.device, wanted: bool | None) -> ResidentSplit | None:
    if wanted is None:
        wanted = belongs_on(device, utterances)
    return ResidentSplit(utterances, device) if wanted else None


def _padded_inputs(utterances: Utterances, lengths: Mapping[Stream, int]) -> Inputs:
    """All of `utterances` as they are, padded or cut to `lengths`; what these do not name, to its longest."""
    padded: dict[Stream, Tensor] = {}
    masks: dict[Stream, Tensor] = {}
    for name, sequences in utterances.streams().items():
        length = lengths[name] if name in lengths else int(sequences.lengths.max(initial=0))
        padded[name] = torch.from_numpy(sequences.padded(length))
        masks[name] = torch.arange(length) < torch.from_numpy(sequences.lengths)[:, None]
    return _inputs(padded, masks)


def _inputs(padded: Mapping[Stream, Tensor], masks: Mapping[Stream, Tensor]) -> Inputs:
    return Inputs(
        text=padded["text"].long() if padded["text"].dim() == 2 else padded["text"],
        text_mask=masks["text"],
        audio=padded["audio"],
        audio_mask=masks["audio"],
        vision=padded["vision"],
        vision_mask=masks["vision"],
        simulated_text=padded.get("simulated_text"),
        simulated_text_mask=masks.get("simulated_text"),
    )


def _to_device(inputs: Inputs, device: torch.device) -> Inputs:
    return map_inputs(inputs, lambda x: send(x, device))


def _rows_of(inputs: Inputs, rows: slice) -> Inputs:
    return map_inputs(inputs, lambda x: x[rows])
