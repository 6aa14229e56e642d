"""Sentiment of sentences and of utterances in feature shards, with what was missing and how sure the model can be.

    predictor = Predictor.open(store, "mosi-lnln@best")        # or a run, or a pulled folder
    predictor.predict_texts(["not bad at all"])
    predictor.predict_shard(Path("clips.parquet"))

A sentence is an utterance without audio and vision, and the prediction says so. Raw clips are predicted by
`pipelines/clips/predict.py`, which extracts their features first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.config import from_dict
from lnln.data import wordpiece
from lnln.data.extractors import find_difference, identity_of
from lnln.data.schema import MODALITIES, FeatureSpec, Modality, Ragged, Utterances
from lnln.data.shards import decode_shard, read_extractors
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.metrics import is_sims
from lnln.model_store.opened import OpenedModel, open_model

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


@dataclass(frozen=True)
class Prediction:
    """What the model says of one utterance.

    sentiment: in the units of the corpus's labels. label_text: the same in words. completeness: the model's estimate of
    1 - missing rate of text, None where it makes none. missing: modalities that the utterance lacks. notes: what was
    done to the input.
    label: the known one, where there is one.
    """

    utterance_id: str
    text: str | None
    sentiment: float
    label_text: str
    completeness: float | None
    missing: tuple[Modality, ...]
    notes: tuple[str, ...] = ()
    label: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {**asdict(self), "missing": list(self.missing), "notes": list(self.notes)}


class Predictor:
    """A model ready to predict. Make it with `open`, or from an OpenedModel."""

    def __init__(self, opened: OpenedModel) -> None:
        self.opened = opened
        self.label_range: tuple[float, float] = tuple(opened.features["label_range"])
        self._spec = from_dict(FeatureSpec, opened.features["spec"], where="features.json spec.")
        self._model = opened.load().eval()
        # Most steps of each modality; any number of one that the model does not read.
        limits: dict[str, int] = self._model.limits  # type: ignore[assignment]
        self._limits: dict[Modality, int] = {m: limits.get(m, sys.maxsize) for m in MODALITIES}
        # Of what made the features, what has to be equal; empty in folders that do not say.
        self._made_by = identity_of(opened.features.get("extractors", {}))

    @classmethod
    def open(cls, store: Store, reference: str) -> Predictor:
        """RefusedError for an unknown reference or a damaged file, as `open_model`."""
        return cls(open_model(store, reference))

    def predict_texts(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per sentence, in order. RefusedError for an empty one, and for a model without a tokenizer.

        A sentence longer than the model takes ends early, and its prediction says so.
        """
        rows, notes = [], []
        for number, ids in enumerate(self._tokenize(texts), start=1):
            if len(ids) <= 2:
                raise RefusedError(f"sentence {number} is empty, so there is nothing to predict from; leave it out")
            limit = self._limits["text"]
            notes.append(_cut_note("text", len(ids), limit))
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
        self._check_extractors(data, path)
        dims: dict[Modality, int] = {"audio": self._spec.audio_dim, "vision": self._spec.vision_dim}
        if self._spec.text_dim:
            dims["text"] = self._spec.text_dim
        return self.predict_utterances(decode_shard(data, dims, name=str(path)))

    def predict_utterances(self, utterances: Utterances) -> list[Prediction]:
        """One prediction per utterance, in order. RefusedError for other dims, foreign ids and values not finite."""
        if not len(utterances):
            return []
        self._check(utterances)
        sentiment, completeness = self._forward(utterances)
        lengths = utterances.lengths()
        return [
            Prediction(
                utterance_id=utterances.utterance_id[i],
                text=utterances.raw_text[i],
                sentiment=float(sentiment[i]),
                label_text=describe(float(sentiment[i]), self.label_range),
                completeness=None if completeness is None else float(completeness[i]),
                missing=tuple(m for m in MODALITIES if lengths[m][i] == 0),
                notes=sum((_cut_note(m, int(lengths[m][i]), self._limits[m]) for m in MODALITIES), ()),
                label=None if np.isnan(utterances.label[i]) else float(utterances.label[i]),
            )
            for i in range(len(utterances))
        ]

    def _forward(self, utterances: Utterances) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """(N,) sentiment and, where the model estimates it, completeness; in batches of similar length."""
        import torch

        from lnln.batches import to_inputs

        sentiment, completeness = np.empty(len(utterances), np.float32), np.empty(len(utterances), np.float32)
        is_estimated = True
        steps = np.stack([utterances.lengths()[modality] for modality in MODALITIES]).sum(axis=0)
        order = np.argsort(steps, kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_SIZE):
                rows = order[start : start + BATCH_SIZE]
                output = self._model(to_inputs(utterances.take(rows), self._limits))
                sentiment[rows] = output.sentiment.float().numpy()
                if output.completeness is None:
                    is_estimated = False
                else:
                    completeness[rows] = output.completeness.float().numpy()
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

    def _check_extractors(self, data: bytes, path: Path) -> None:
        """Imported shards do not say what made them; their dimensions have to do."""
        made_by = read_extractors(data, name=str(path))
        if made_by is None or not self._made_by:
            return
        if (difference := find_difference(made_by, self._made_by)) is not None:
            raise RefusedError(
                f"{path} has {difference.modality} made by {difference.first}, {self.opened.reference} was trained on "
                f"{difference.modality} made by {difference.second}; extract the clips with what it was trained with"
            )

    def _check(self, utterances: Utterances) -> None:
        spec = self._spec
        dims: dict[Modality, int] = {"text": spec.text_dim, "audio": spec.audio_dim, "vision": spec.vision_dim}
        for modality, dim in dims.items():
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


def predict(store: Store, model: str, inputs: Sequence[str]) -> list[dict[str, Any]]:
    """Predictions for `inputs`, in order, as JSON values: a name in .parquet is a feature shard, all else a sentence.

    Each is `Prediction.to_dict()` with `input`, the sentence; None for a row of a shard, which `utterance_id` names.
    """
    if not inputs:
        raise RefusedError("nothing to predict: give sentences or feature shards (.parquet)")
    return [row for rows in answer(Predictor.open(store, model), inputs) for row in rows]


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


def _cut_note(modality: Modality, length: int, limit: int) -> tuple[str, ...]:
    return (f"{modality} cut from {length} to {limit} steps, the longest of its training",) if length > limit else ()


def _no_frames(num: int, dim: int) -> Ragged:
    return Ragged.from_lengths(np.empty((0, dim), np.float32), [0] * num)
