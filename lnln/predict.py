"""Sentiment of sentences and of utterances in feature shards, with what was missing and how sure the model can be.

    predictor = Predictor.open(store, "mosi-lnln@best")        # or a run, or a pulled folder
    predictor.predict_texts(["not bad at all"])
    predictor.predict_shard(Path("clips.parquet"))

A sentence is an utterance without audio and vision, and the prediction says so. Raw clips are predicted by
`pipelines/clips/predict.py`, which extracts their features first, and millions of utterances by `pipelines/predict.py`.
What computes is what `lnln evaluate` computes with, so the numbers are the same to rounding: float32, on the
accelerator if there is one, utterances of similar length together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lnln.config import from_dict
from lnln.corruption import Masks, ViewSpec, make_masks
from lnln.corruption.noise import NoiseSource
from lnln.data import wordpiece
from lnln.data.extractors import find_difference, identity_of
from lnln.data.manifest import FeatureManifest
from lnln.data.schema import MODALITIES, FeatureSpec, Modality, Ragged, Stream, Utterances
from lnln.data.shards import decode_shard, read_extractors
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.metrics import is_sims
from lnln.model_store.opened import OpenedModel, modalities_read, open_model
from lnln.model_store.simulator import simulate, simulator_of
from lnln.views import Rows, Views

if TYPE_CHECKING:
    import torch

# Upper ends of the words for sentiment: those of CMU-MOSI's annotators round to whole numbers, as Acc-7 does, and
# CH-SIMS's are its five classes. A value at an end belongs to the lower word.
MOSI_WORDS = (
    (-2.5, "strongly negative"),
    (-1.5, "negative"),
    (-0.5, "weakly negative"),
    (0.5, "neutral"),
    (1.5, "weakly positive"),
    (2.5, "positive"),
    (float("inf"), "strongly positive"),
)
SIMS_WORDS = (
    (-0.7, "negative"),
    (-0.1, "weakly negative"),
    (0.1, "neutral"),
    (0.7, "weakly positive"),
    (float("inf"), "positive"),
)
BATCH_SIZE = 128
# Characters of a sentence that are looked at: far more than any model takes, and little enough for a hostile input.
MAX_CHARACTERS = 100_000
# Sentences that are read line by line: the answer is one table, or one JSON object.
MAX_LINES = 100_000
COMPLETE = ViewSpec.evaluation(0.0, seed=0)


@dataclass(frozen=True)
class Prediction:
    """What the model says of one utterance.

    sentiment: in the units of the corpus's labels. label_text: the same in words. completeness: the model's estimate of
    1 - missing rate of text, None where it makes none. missing: modalities of which nothing was there, and simulated
    text where the model reads it and there was none. notes: what was done to the input.
    label: the known one, where there is one.
    """

    utterance_id: str
    text: str | None
    sentiment: float
    label_text: str
    completeness: float | None
    missing: tuple[Stream, ...]
    notes: tuple[str, ...] = ()
    label: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {**asdict(self), "missing": list(self.missing), "notes": list(self.notes)}


@dataclass(frozen=True)
class Columns:
    """What the model says of N utterances, column by column, in their order.

    sentiment: (N,) float32. completeness: (N,) float32, or None for a model that does not estimate it. missing: (N, 3)
    float32, of text, audio, vision the share that was not there: 1 where the utterance lacks the modality, else the
    share of its steps that the view erased or disturbed. notes: what was done to each. simulated: (N,) whether there is
    simulated text, None for a model that reads none.
    """

    sentiment: NDArray[np.float32]
    completeness: NDArray[np.float32] | None
    missing: NDArray[np.float32]
    notes: list[tuple[str, ...]]
    simulated: NDArray[np.bool_] | None = None

    def missing_of(self, row: int) -> tuple[Stream, ...]:
        """Of what nothing was there."""
        gone: list[Stream] = [m for m, share in zip(MODALITIES, self.missing[row], strict=True) if share == 1]
        if self.simulated is not None and not self.simulated[row]:
            gone.append("simulated_text")
        return tuple(gone)


class Predictor:
    """A model ready to predict. Make it with `open`, or from an OpenedModel.

    device: where it computes, such as `cpu` or `cuda:1`; None: on the accelerator if there is one.
    """

    def __init__(self, opened: OpenedModel, device: str | None = None) -> None:
        self.opened = opened
        self.label_range: tuple[float, float] = tuple(opened.features["label_range"])
        self.device = choose_device(device)
        self._spec = from_dict(FeatureSpec, opened.features["spec"], where="features.json spec.")
        self._model = opened.load().to(self.device).eval()
        # Most steps of each modality; none of one that the model does not read.
        limits: dict[str, int] = self._model.limits  # type: ignore[assignment]
        self._limits: dict[Modality, int] = {m: limits.get(m, 0) for m in MODALITIES}
        self._is_read = {m: m in limits for m in MODALITIES}
        # The model asks how much of a whole text is erased, which one that was cut does not tell.
        self._cut_at = {**self._limits}
        if opened.model.reads_simulated_text and not self._spec.text_dim:
            self._cut_at["text"] = np.iinfo(np.int64).max
        # Of what made the features, what has to be equal; empty in folders that do not say.
        self._made_by = identity_of(opened.features.get("extractors", {}))

    @classmethod
    def open(cls, store: Store, reference: str, device: str | None = None) -> Predictor:
        """RefusedError for an unknown reference or a damaged file, as `open_model`, and a device that is not there."""
        return cls(open_model(store, reference), device)

    @property
    def simulated_text_dim(self) -> int:
        """Width of a step of the simulated text that the model reads; 0 where it reads none."""
        return self._spec.simulated_text_dim

    def predict_texts(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per sentence, in order. RefusedError for an empty one, and for a model without a tokenizer.

        A sentence longer than the model takes ends early, and its prediction says so.
        """
        rows, notes = [], []
        for number, ids in enumerate(self._tokenize(texts), start=1):
            if len(ids) <= 2:
                raise RefusedError(f"sentence {number} is empty, so there is nothing to predict from; leave it out")
            limit = self._limits["text"]
            notes.append(self._cut_note("text", len(ids)))
            rows.append(ids if len(ids) <= limit else np.concatenate([ids[: limit - 1], ids[-1:]]))
        utterances = Utterances(
            utterance_id=[f"sentence {number}" for number in range(1, len(texts) + 1)],
            raw_text=[_plain(text) for text in texts],
            label=np.full(len(texts), np.nan, np.float32),
            text=Ragged.from_lengths(np.concatenate([np.empty(0, np.int32), *rows]), [len(row) for row in rows]),
            audio=_no_frames(len(texts), self._spec.audio_dim),
            vision=_no_frames(len(texts), self._spec.vision_dim),
        )
        predictions = self.predict_utterances(utterances)
        return [replace(made, notes=note) for made, note in zip(predictions, notes, strict=True)]

    def predict_shard(self, path: Path) -> list[Prediction]:
        """One prediction per row of a feature shard.

        RefusedError where it is none, has other features, or states other extractors than the model was trained with.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RefusedError(f"cannot read {path}: {error.strerror or error}") from error
        return self.predict_utterances(self.decode(data, str(path)))

    def decode(self, data: bytes, name: str) -> Utterances:
        """The utterances of a feature shard, fit to be predicted; `name` is what a refusal calls it.

        RefusedError as `predict_shard` and `predict_utterances`.
        """
        dims = {m: dim for m, dim in self._dims().items() if m != "text" or dim}
        self._check_extractors(data, name)
        utterances = decode_shard(data, dims, name=name)
        self._check(utterances)
        return utterances

    def predict_utterances(self, utterances: Utterances) -> list[Prediction]:
        """One prediction per utterance, in order. RefusedError for other dims, foreign ids and values not finite."""
        if not len(utterances):
            return []
        said = self.predict_columns(utterances)
        return [
            Prediction(
                utterance_id=utterances.utterance_id[i],
                text=utterances.raw_text[i],
                sentiment=float(said.sentiment[i]),
                label_text=describe(float(said.sentiment[i]), self.label_range),
                completeness=None if said.completeness is None else float(said.completeness[i]),
                missing=said.missing_of(i),
                notes=said.notes[i],
                label=None if np.isnan(utterances.label[i]) else float(utterances.label[i]),
            )
            for i in range(len(utterances))
        ]

    def predict_columns(
        self, utterances: Utterances, view: ViewSpec = COMPLETE, noise: NoiseSource | None = None
    ) -> Columns:
        """Of one utterance or more, after they have lost what `view` takes. RefusedError as `predict_utterances`.

        noise: of their corpus, for a view of protocol `noise`. Where the model reads simulated text and the utterances
        bring none, it is what the model's own simulator makes of their audio.
        """
        self._check(utterances)
        if self.opened.model.reads_simulated_text and utterances.simulated_text is None:
            utterances = simulate(self.opened, utterances)
        lengths = utterances.lengths()
        masks = make_masks(view, utterances.utterance_id, lengths, keep_ends=not utterances.text_dim)
        views = _PartViews(utterances, masks, self._cut_at, noise)
        sentiment, completeness = self._forward(_cut(utterances, self._cut_at), views, view)
        shares = [np.where(lengths[m] == 0, np.float32(1), masks.realised_rates(m)) for m in MODALITIES]
        notes = [sum((self._cut_note(m, int(lengths[m][i])) for m in MODALITIES), ()) for i in range(len(utterances))]
        missing, simulated = np.stack(shares, axis=1), None
        if utterances.simulated_text is not None and self.opened.model.reads_simulated_text:
            simulated = utterances.simulated_text.lengths > 0
            # Noise disturbs words and erases none.
            erased = missing[:, 0] * (view.protocol != "noise")
            said = self._say_text(utterances, erased, simulated)
            notes = [(*note, *each) for note, each in zip(notes, said, strict=True)]
        return Columns(sentiment, completeness, missing, notes, simulated)

    def _say_text(
        self, utterances: Utterances, erased: NDArray[np.float32], simulated: NDArray[np.bool_]
    ) -> list[tuple[str, ...]]:
        """Of each utterance whose text counts as missing, what is read instead. erased: the share of its words."""
        num_ends = 0 if utterances.text_dim else 2
        # As a number of words, which a share in float32 is only near.
        erasable = np.maximum(utterances.text.lengths - num_ends, 0)
        is_missing = np.rint(erased * erasable) >= self.opened.model.text_missing_share * erasable - 1e-9
        why = "" if self._learned else "; it is made of sound, by `lnln simulate`"
        read = {True: "no text, so simulated text is read", False: f"no text, and no simulated text either{why}"}
        return [(read[bool(has)],) if gone else () for gone, has in zip(is_missing, simulated, strict=True)]

    @cached_property
    def _learned(self) -> bool:
        """Whether the model brings what simulates text of audio features."""
        return simulator_of(self.opened) is not None

    def _forward(
        self, utterances: Utterances, views: Views, view: ViewSpec
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """(N,) sentiment and, where the model estimates it, completeness; in batches of similar length."""
        import torch

        from lnln.batches import EvaluationBatches

        batches = EvaluationBatches(
            utterances, views, [view], self._spec.unknown_id, batch_size=BATCH_SIZE, device=self.device
        )
        sentiment, completeness = np.empty(len(utterances), np.float32), np.empty(len(utterances), np.float32)
        is_estimated = True
        with torch.inference_mode():
            for batch in batches:
                output = self._model(batch.inputs)
                sentiment[batch.utterance] = output.sentiment.float().cpu().numpy()
                if output.completeness is None:
                    is_estimated = False
                else:
                    completeness[batch.utterance] = output.completeness.float().cpu().numpy()
        wrong = np.flatnonzero(~np.isfinite(sentiment))
        if len(wrong):
            raise RefusedError(
                f"{self.opened.reference} has no finite answer to {utterances.utterance_id[wrong[0]]!r}; train it again"
            )
        return sentiment, completeness if is_estimated else None

    def _tokenize(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        path = self.opened.folder / "tokenizer.json"
        if not path.is_file():
            raise RefusedError(
                f"{self.opened.reference} has no tokenizer.json, so it reads no sentences; give it a feature shard"
            )
        return wordpiece.encode([_plain(text)[:MAX_CHARACTERS] for text in texts], path.read_bytes())

    def _cut_note(self, modality: Modality, length: int) -> tuple[str, ...]:
        limit = self._limits[modality]
        if length <= limit or not self._is_read[modality]:
            return ()
        return (f"{modality} cut from {length} to {limit} steps, the longest of its training",)

    def _check_extractors(self, data: bytes, name: str) -> None:
        """Imported shards do not say what made them; their dimensions have to do."""
        made_by = read_extractors(data, name=name)
        if made_by is None or not self._made_by:
            return
        reads = modalities_read(self.opened)
        given, trained = ({m: made for m, made in each.items() if m in reads} for each in (made_by, self._made_by))
        if (difference := find_difference(given, trained)) is not None:
            raise RefusedError(
                f"{name} has {difference.modality} made by {difference.first}, {self.opened.reference} was trained on "
                f"{difference.modality} made by {difference.second}; extract the clips with what it was trained with"
            )

    def _dims(self) -> dict[Modality, int]:
        """Of the modalities that the model reads; of others nothing is asked. 0 for text that is token ids."""
        spec = self._spec
        dims: dict[Modality, int] = {"text": spec.text_dim, "audio": spec.audio_dim, "vision": spec.vision_dim}
        return {modality: dims[modality] for modality in modalities_read(self.opened)}

    def _check(self, utterances: Utterances) -> None:
        spec = self._spec
        for modality, dim in self._dims().items():
            frames = utterances.sequences(modality)
            got = frames.values.shape[1] if frames.values.ndim == 2 else 0  # ids have none
            if got != dim:
                raise RefusedError(
                    f"{self.opened.reference} takes {modality} of {dim} dimensions, got {got}; "
                    f"use the extractor it was trained with"
                )
            is_finite = np.isfinite(frames.values)
            wrong = np.flatnonzero(~is_finite.all(axis=tuple(range(1, is_finite.ndim))))
            if len(wrong):
                row = int(np.searchsorted(frames.offsets, wrong[0], side="right")) - 1
                raise RefusedError(
                    f"utterance {utterances.utterance_id[row]!r} has {modality} values that are not finite; "
                    f"import it with `lnln import`, which replaces them"
                )
        ids, size = utterances.text.values, spec.vocabulary_size
        if not spec.text_dim and len(ids) and not (ids.min() >= 0 and ids.max() < size):
            raise RefusedError(
                f"{self.opened.reference} knows text ids 0 to {size - 1}, got {ids.min()} to {ids.max()}; "
                f"the text was split by another tokenizer"
            )


def predict(store: Store, model: str, inputs: Sequence[str], device: str | None = None) -> list[dict[str, Any]]:
    """Predictions for `inputs`, in order, as JSON values: a name in .parquet is a feature shard, all else a sentence.

    Each is `Prediction.to_dict()` with `input`, the sentence; None for a row of a shard, which `utterance_id` names.
    device: as Predictor's.
    """
    if not inputs:
        raise RefusedError("nothing to predict: give sentences or feature shards (.parquet)")
    return [row for rows in answer(Predictor.open(store, model, device), inputs) for row in rows]


def predict_lines(store: Store, model: str, lines: BinaryIO, device: str | None = None) -> list[dict[str, Any]]:
    """What `predict` returns, for a stream of UTF-8 with one sentence a line; blank lines are passed over.

    `utterance_id` is the line's number, from 1. A line is a sentence whatever it looks like. RefusedError for a stream
    without a sentence, one of more than MAX_LINES lines, and a line of more bytes than MAX_CHARACTERS.
    """
    sentences: list[str] = []
    while line := lines.readline(MAX_CHARACTERS + 1):
        if len(line) > MAX_CHARACTERS:
            raise RefusedError(
                f"line {len(sentences) + 1} is longer than {MAX_CHARACTERS:,} bytes; give one sentence a line"
            )
        if len(sentences) == MAX_LINES:
            raise RefusedError(
                f"more than {MAX_LINES:,} lines; split them, or make feature shards of them, for `lnln predict --out`"
            )
        sentences.append(line.decode("utf-8", "replace").strip())
    chosen = [(number, text) for number, text in enumerate(sentences, start=1) if text]
    if not chosen:
        raise RefusedError("nothing to predict: no sentence came in; give one a line")
    made = Predictor.open(store, model, device).predict_texts([text for _, text in chosen])
    return [
        {"input": text, **prediction.to_dict(), "utterance_id": f"line {number}"}
        for (number, text), prediction in zip(chosen, made, strict=True)
    ]


def answer(predictor: Predictor, inputs: Sequence[str]) -> list[list[dict[str, Any]]]:
    """What `predict` returns, apart for each input."""
    sentences = [text for text in inputs if not is_shard(text)]
    from_sentences = iter(predictor.predict_texts(sentences) if sentences else [])
    answers: list[list[dict[str, Any]]] = []
    for text in inputs:
        if is_shard(text):
            answers.append([{"input": None, **made.to_dict()} for made in predictor.predict_shard(Path(text))])
        else:
            answers.append([{"input": _plain(text), **next(from_sentences).to_dict()}])
    return answers


def describe(sentiment: float, label_range: Sequence[float]) -> str:
    """`sentiment` in words: MOSI_WORDS, or SIMS_WORDS where labels lie within [-1, 1]."""
    words = SIMS_WORDS if is_sims(label_range) else MOSI_WORDS
    return next(word for end, word in words if sentiment <= end)


def is_shard(text: str) -> bool:
    return text.endswith(".parquet")


def _plain(text: str) -> str:
    """`text` as Unicode: what a terminal could not decode comes as lone surrogates, which nothing can encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _no_frames(num: int, dim: int) -> Ragged:
    return Ragged.from_lengths(np.empty((0, dim), np.float32), [0] * num)


def choose_device(wanted: str | None = None) -> torch.device:
    """The device called `wanted`; without it the accelerator if there is one. RefusedError where it cannot be used."""
    import torch

    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise RefusedError(f"cannot compute on device {wanted!r} ({reason}); name another, or none") from error
    return device


def check_corpus(opened: OpenedModel, manifest: FeatureManifest) -> None:
    """RefusedError where the features of a corpus are not what the model takes, before any shard of it is read.

    Of a modality that the model does not read nothing is asked.
    """
    spec, tokenizer = opened.features["spec"], opened.features["tokenizer"]
    text_dim = int(spec.get("text_dim", 0))
    expected = {
        "text": _say_text(text_dim, tokenizer["name"], tokenizer["vocabulary_size"]),
        "audio": f"{spec['audio_dim']} dimensions",
        "vision": f"{spec['vision_dim']} dimensions",
    }
    found = {
        "text": _say_text(manifest.text_dim, manifest.tokenizer.name, manifest.tokenizer.vocabulary_size),
        "audio": f"{manifest.dims['audio']} dimensions",
        "vision": f"{manifest.dims['vision']} dimensions",
    }
    reads = modalities_read(opened)
    differing = [f"{m} of {expected[m]}, not {found[m]}" for m in reads if expected[m] != found[m]]
    if differing:
        raise RefusedError(
            f"{opened.reference} does not fit corpus {manifest.corpus}: it takes {'; '.join(differing)}; import or "
            "extract the corpus as that was which it was trained on"
        )
    theirs, ours = (
        {modality: made for modality, made in identity_of(extractors).items() if modality in reads}
        for extractors in (opened.features.get("extractors", {}), manifest.extractors)
    )
    # Of imported features only names are known, which differ by corpus.
    if not all("version" in made for made in (*theirs.values(), *ours.values())):
        return
    if (difference := find_difference(theirs, ours)) is not None:
        raise RefusedError(
            f"{opened.reference} was trained on {difference.modality} made by {difference.first}, corpus "
            f"{manifest.corpus} has it made by {difference.second}; extract that corpus as the model's was"
        )


class _PartViews(Views):
    """The masks of some utterances of a split, given for all their steps, and of these the first `limits`."""

    def __init__(
        self, utterances: Utterances, masks: Masks, limits: dict[Modality, int], noise: NoiseSource | None
    ) -> None:
        super().__init__(utterances, "test")  # of no consequence, where nothing is read
        self._given_noise = noise
        self._masks = replace(masks, kept={m: _first_steps(kept, limits[m]) for m, kept in masks.kept.items()})

    def masks(self, spec: ViewSpec, rows: Rows | None = None) -> Masks:
        return self._masks if rows is None else self._masks.take(rows)

    @cached_property
    def _noise_source(self) -> NoiseSource:
        if self._given_noise is None:
            raise RefusedError(
                "a view of protocol noise needs the statistics of the corpus; import the shards as a corpus and name "
                "it, or choose the protocol frame"
            )
        return self._given_noise


def _cut(utterances: Utterances, limits: dict[Modality, int]) -> Utterances:
    """The steps that the model reads: padding to one endless utterance would fill the memory."""
    return replace(
        utterances,
        text=_first_steps(utterances.text, limits["text"]),
        audio=_first_steps(utterances.audio, limits["audio"]),
        vision=_first_steps(utterances.vision, limits["vision"]),
    )


def _first_steps(sequences: Ragged, limit: int) -> Ragged:
    """Each sequence up to `limit` steps; the same object where none is longer."""
    lengths = sequences.lengths
    if lengths.max(initial=0) <= limit:
        return sequences
    place = np.arange(len(sequences.values)) - np.repeat(sequences.offsets[:-1], lengths)
    return Ragged.from_lengths(sequences.values[place < limit], np.minimum(lengths, limit))


def _say_text(text_dim: int, tokenizer: str, vocabulary_size: int) -> str:
    if text_dim:
        return f"{text_dim} dimensions"
    return f"{vocabulary_size} token ids of {tokenizer or 'an unknown vocabulary'}"
