"""A linear map from audio features to text features, learned from the training split: no download, any corpus.

What is learned is what the text encoder that a model would have says of the transcript, or the language features that
the corpus has, averaged over equal windows of the text; from what, `lnln/data/regressor.py` says. Simulations of
training utterances are by maps that have not seen the utterance, nor any other of its video: so they are as good as
those of test, and no model learns to trust them more than it should.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.regressor import Regressor, design, load_regressor, window_means
from lnln.data.schema import Modality, Split, Utterances
from lnln.data.shards import read_shard
from lnln.data.simulated_shards import read_simulated_shard
from lnln.data.simulated_text import SimulatorFile, put_simulator_file, read_simulator_file
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError
from pipelines.simulators.base import CorpusText
from pipelines.simulators.ridge import Moments, Path, best_penalty
from pipelines.simulators.texts import encode, encoder_record, load_encoder, require_vocabulary

# What the maps of the folds are called, and who is in which.
FOLDS, FOLD_WEIGHTS = "folds.json", "folds.safetensors"
# Utterances whose rows are held at a time.
_CHUNK = 128

Array = NDArray[np.float64]
# Of each split, its shards of features and of targets.
ShardPairs = Mapping[Split, Sequence[tuple[ShardEntry, ShardEntry]]]


@dataclass(frozen=True)
class Config:
    # Whose features are simulated: as `model.text_encoder` of the models that will read them. Of no account where the
    # corpus has language features.
    text_encoder: str = "minilm"
    # Steps of simulated text of each utterance that has audio.
    num_steps: int = 8
    # Parts of the training split that are each simulated by a map of the others.
    num_folds: int = 5

    def __post_init__(self) -> None:
        if not self.text_encoder.strip():
            raise RefusedError("text_encoder must be a Hugging Face name or a folder, got an empty one")
        if not 1 <= self.num_steps <= 512:
            raise RefusedError(f"num_steps must be from 1 to 512, got {self.num_steps}")
        if not 2 <= self.num_folds <= 100:
            raise RefusedError(f"num_folds must be from 2 to 100, got {self.num_folds}")


VERSION = 1
PACKAGES = ("numpy", "torch", "transformers")
HEARS_CLIPS = False


class Simulator:
    """A `Teacher`."""

    def __init__(self, config: Config, text: CorpusText) -> None:
        """RefusedError where the encoder is not at hand, or is for another vocabulary."""
        self._num_steps = config.num_steps
        self._encoder = None
        self.models: Mapping[str, Mapping[str, Any]] = {}
        self.knobs: Mapping[str, Any] = {}
        if text.text_dim:
            self.dim, self.knobs = text.text_dim, {"text_encoder": ""}
            return
        require_vocabulary(config.text_encoder, text.tokenizer)
        loaded = load_encoder(config.text_encoder, "text_encoder")
        self._encoder, self.dim = loaded.model, loaded.model.dim
        self.models = {"text_encoder": encoder_record(loaded)}
        self.knobs = {"text_encoder": self.models["text_encoder"]["name"]}

    def targets(self, utterances: Utterances) -> list[NDArray[np.float32]]:
        """(num_steps, dim) of each utterance; no steps where it has no text."""
        texts = [utterances.text[row] for row in range(len(utterances))]
        features = texts if self._encoder is None else encode(self._encoder, texts)
        return [window_means(each, self._num_steps).astype(np.float32) for each in features]


def learn(
    store: Store, features: FeatureManifest, folder: str, config: Config, shards: ShardPairs, dim: int
) -> dict[str, Any]:
    """Fit the maps and write them under `folder`: `files` by name, and `quality`.

    shards: of train, and of valid where there is one. RefusedError where fewer than two training utterances have both
    audio and text.
    """
    mean, std = (np.array(features.statistics["audio"][key], np.float32) for key in ("mean", "std"))

    def rows(split: Split) -> Iterator[tuple[list[str], Array, Array]]:
        """A few utterances with audio and text at a time: their ids, and (n, steps, F) and (n, steps, D)."""
        for ids, frames, targets in _examples(store, shards.get(split, ()), features.dims, dim):
            inputs = [design(each, config.num_steps, mean, std) for each in frames]
            for first in range(0, len(ids), _CHUNK):
                part = slice(first, first + _CHUNK)
                yield ids[part], np.stack(inputs[part]), np.stack(targets[part]).astype(np.float64)

    fold_of = assign_folds([name for ids, _, _ in rows("train") for name in ids], config.num_folds)
    num_folds = 1 + max(fold_of.values())
    zero = lambda: Moments.zero(4 * len(mean), dim)  # noqa: E731
    folds, valid = [zero() for _ in range(num_folds)], zero()
    for ids, x, y in rows("train"):
        own = np.array([fold_of[group_of(name, fold_of)] for name in ids])
        for fold in np.unique(own):
            chosen = own == fold
            folds[fold] = folds[fold].plus(_flat(x[chosen]), _flat(y[chosen]))
    for _, x, y in rows("valid"):
        valid = valid.plus(_flat(x), _flat(y))

    everything = sum(folds[1:], folds[0])
    whole = Path.of(everything)
    held_out = [Path.of(everything - fold) for fold in folds]
    # Of a small validation split alone it would be chance: with MOSI's 21 clips of all modalities it chose 10, with
    # which the folds were predicted worse than by their mean.
    unseen = list(zip(held_out, folds, strict=True))
    penalty = best_penalty([*unseen, (whole, valid)] if valid.num_rows else unseen)

    def regressor(path: Path) -> Regressor:
        weights, intercept = (values.astype(np.float32) for values in path.solve(penalty))
        return Regressor(config.num_steps, mean, std, weights, intercept)

    final, by_fold = regressor(whole), [regressor(path) for path in held_out]
    constant = everything.y / everything.num_rows

    def judge(split: Split, map_of: Callable[[str], Regressor]) -> dict[str, Any]:
        judged = _Judged(dim)
        for ids, x, y in rows(split):
            for name, inputs, targets in zip(ids, x, y, strict=True):
                chosen = map_of(name)
                judged.add(inputs @ chosen.weights.astype(np.float64) + chosen.intercept, constant, targets)
        return judged.result()

    quality: dict[str, Any] = {"penalty": penalty, "num_folds": num_folds}
    quality["train"] = judge("train", lambda name: by_fold[fold_of[group_of(name, fold_of)]])
    if valid.num_rows:
        quality["valid"] = judge("valid", lambda name: final)
    contents = {**final.files(), **_fold_files(by_fold, fold_of)}
    return {
        "files": {name: put_simulator_file(store, folder, name, data) for name, data in sorted(contents.items())},
        "quality": quality,
    }


@dataclass(frozen=True)
class Learned:
    """What was learned, read back. final: of all of train. by_fold: each of train without one fold. fold_of: by group,
    the fold that it is in."""

    final: Regressor
    by_fold: tuple[Regressor, ...]
    fold_of: Mapping[str, int]

    @classmethod
    def read(cls, store: Store, files: Mapping[str, SimulatorFile]) -> Learned:
        data = {name: read_simulator_file(store, file) for name, file in files.items()}
        final = load_regressor(data)

        folds, tensors = json.loads(data[FOLDS]), load(data[FOLD_WEIGHTS])
        by_fold = tuple(
            Regressor(
                final.num_steps, final.frame_mean, final.frame_std, tensors[f"weights.{i}"], tensors[f"intercept.{i}"]
            )
            for i in range(folds["num_folds"])
        )
        return cls(final, by_fold, folds["fold_of"])

    def simulate(self, utterance_id: str, split: Split, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of a training utterance by the map that has not seen it; of one that none has seen, by the one of all."""
        group = group_of(utterance_id, self.fold_of)
        chosen = self.by_fold[self.fold_of[group]] if split == "train" and group in self.fold_of else self.final
        return chosen.simulate(audio)


def assign_folds(utterance_ids: Sequence[str], num_folds: int) -> dict[str, int]:
    """The fold of each video, in folds of about equal size; of each utterance where all are of one video.

    RefusedError where there are fewer than two utterances.
    """
    if len(utterance_ids) < 2:
        raise RefusedError(
            f"{len(utterance_ids)} utterances of the training split have both audio and text, and a map from one to "
            "the other is learned from two or more; import or extract a corpus that has both"
        )
    sizes: dict[str, int] = defaultdict(int)
    for name in utterance_ids:
        sizes[video_of(name)] += 1
    if len(sizes) == 1:
        sizes = dict.fromkeys(utterance_ids, 1)
    filled = [0] * min(num_folds, len(sizes))
    fold_of = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        fold_of[group] = filled.index(min(filled))
        filled[fold_of[group]] += sizes[group]
    return fold_of


def video_of(utterance_id: str) -> str:
    """The video of `video$_$clip` and `video[clip]`; of another form of id, the id."""
    if "$_$" in utterance_id:
        return utterance_id.rpartition("$_$")[0]
    match = re.fullmatch(r"(.+)\[[^\[\]]*\]", utterance_id)
    return match[1] if match else utterance_id


def group_of(utterance_id: str, fold_of: Mapping[str, int]) -> str:
    """What `assign_folds` has put the utterance into a fold by: its video, or itself."""
    return utterance_id if utterance_id in fold_of else video_of(utterance_id)


def _examples(
    store: Store, shards: Sequence[tuple[ShardEntry, ShardEntry]], dims: Mapping[Modality, int], dim: int
) -> Iterator[tuple[list[str], list[NDArray[np.float32]], list[NDArray[np.float32]]]]:
    """Shard by shard, the utterances that have audio and text: ids, frames and targets."""
    for features, targets in shards:
        utterances, taught = read_shard(store, features, dims), read_simulated_shard(store, targets, dim)
        assert utterances.utterance_id == taught.utterance_id
        has_both = (utterances.audio.lengths > 0) & (taught.steps.lengths > 0)
        if rows := np.flatnonzero(has_both).tolist():
            ids = [utterances.utterance_id[row] for row in rows]
            yield ids, [utterances.audio[row] for row in rows], [taught.steps[row] for row in rows]


def _flat(values: Array) -> Array:
    return values.reshape(-1, values.shape[-1])


def _fold_files(by_fold: Sequence[Regressor], fold_of: Mapping[str, int]) -> dict[str, bytes]:
    tensors = {}
    for number, each in enumerate(by_fold):
        tensors[f"weights.{number}"], tensors[f"intercept.{number}"] = each.weights, each.intercept
    described = {"num_folds": len(by_fold), "fold_of": dict(fold_of)}
    return {FOLDS: encode_json(described), FOLD_WEIGHTS: save(tensors)}


class _Judged:
    """How near simulated steps are to the text's, beside the training split's mean step in place of all of them."""

    def __init__(self, dim: int) -> None:
        self._num_utterances = self._num_steps = 0
        self._sum, self._squares = np.zeros(dim), 0.0
        self._errors, self._cosines = np.zeros(2), np.zeros(2)

    def add(self, simulated: Array, constant: Array, targets: Array) -> None:
        self._num_utterances += 1
        self._num_steps += len(targets)
        self._sum += targets.sum(axis=0)
        self._squares += float(np.square(targets).sum())
        for place, said in enumerate((simulated, np.broadcast_to(constant, targets.shape))):
            self._errors[place] += np.square(targets - said).sum()
            norms = np.linalg.norm(said, axis=1) * np.linalg.norm(targets, axis=1)
            self._cosines[place] += ((said * targets).sum(axis=1) / np.where(norms > 0, norms, 1)).sum()

    def result(self) -> dict[str, Any]:
        """num_utterances; of both, `r2` (None where all targets are equal) and the mean `cosine` of a step."""
        spread = self._squares - float(self._sum @ self._sum) / self._num_steps
        is_spread = spread > 1e-9 * self._squares
        scores = [
            {
                "r2": round(1 - float(error) / spread, 6) if is_spread else None,
                "cosine": round(float(cosine) / self._num_steps, 6),
            }
            for error, cosine in zip(self._errors, self._cosines, strict=True)
        ]
        return {"num_utterances": self._num_utterances, "simulated": scores[0], "mean_step": scores[1]}
