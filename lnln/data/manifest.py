"""Manifests: what a set of shards holds, which files it consists of, and what made them.

A manifest is written last, by conditional create, and readers take only what it lists: shards without one do not
exist for them. It carries its own SHA-256 and no time, so the same job writes the same bytes.

    <corpus>/features/<feature_id>/manifest.json      FeatureManifest
    <corpus>/features/current.json                    the feature_id in use
    <corpus>/views/<feature_id>/<view_id>/manifest.json   ViewManifest
    <corpus>/views/<feature_id>/index.json            the view_ids that are whole
    corpora.json                                      the corpora of the store
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lnln.data.name_list import add_name, read_names
from lnln.data.schema import MODALITIES, STORED_SPLITS, FeatureSpec, Modality, Split
from lnln.data.store import Store, encode_json
from lnln.errors import RefusedError, StoreFailedError

# Raised when the meaning of a manifest or the layout of a shard changes.
FORMAT = 1
# Folders of the store that are not corpora.
_RESERVED = ("runs", "studies", "models", "reports", "baselines")


@dataclass(frozen=True)
class ShardEntry:
    """One Parquet file: where it lies under the store, and what it must weigh."""

    path: str
    num_rows: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitEntry:
    """The shards of one split, in corpus order."""

    num_utterances: int
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True)
class Tokenizer:
    """What made the text ids. `name` is a Hugging Face name; the ids are those of its special tokens."""

    name: str
    vocabulary_size: int
    pad_id: int
    unknown_id: int
    cls_id: int
    sep_id: int


# Stands where text is language features, which no vocabulary belongs to.
NO_TOKENIZER = Tokenizer("", vocabulary_size=0, pad_id=0, unknown_id=0, cls_id=0, sep_id=0)


@dataclass(frozen=True)
class LengthSummary:
    """Steps of one modality over the utterances of one split; `num_absent` of them have none."""

    min: int
    mean: float
    max: int
    num_absent: int

    @classmethod
    def of(cls, lengths: NDArray[np.integer[Any]]) -> LengthSummary:
        assert len(lengths), "a split has utterances"
        return cls(int(lengths.min()), round(float(lengths.mean()), 6), int(lengths.max()), int((lengths == 0).sum()))


@dataclass(frozen=True)
class Extraction:
    """How features were made of raw clips. config: every knob, as `pipelines.extractors.config` has them.

    counts: what was met on the way, by name (`clips`, `clips_without_audio`, `vision_frames_without_face`, ...).
    quarantine: the Parquet table of clips that are not among the utterances (utterance_id, stage, reason); None where
    all are. version: of the way from clips to features, extractors aside; raised when clips would give other features.
    """

    config: Mapping[str, Any]
    counts: Mapping[str, int]
    quarantine: ShardEntry | None
    version: int


@dataclass(frozen=True)
class FeatureManifest:
    """The features of one corpus.

    source: name, sha256, num_bytes, published_as (or None), synthetic. extractors: by modality, at least `name`.
    tokenizer: NO_TOKENIZER where text is language features. dims: of audio and vision, and of text where that is
    features. lengths: by split, then modality. statistics: by the modalities of `dims`, `mean` and `std` (one number
    per dimension) over the frames of the training split. cleaned: by the same, `num_nan` and `num_infinite` values
    that were set to 0. extraction: None where the features were imported.
    """

    corpus: str
    feature_id: str
    source: Mapping[str, Any]
    extractors: Mapping[Modality, Mapping[str, Any]]
    tokenizer: Tokenizer
    dims: Mapping[Modality, int]
    lengths: Mapping[Split, Mapping[Modality, LengthSummary]]
    label_range: tuple[float, float]
    statistics: Mapping[Modality, Mapping[str, list[float]]]
    cleaned: Mapping[Modality, Mapping[str, int]]
    splits: Mapping[Split, SplitEntry]
    extraction: Extraction | None = None

    @property
    def folder(self) -> str:
        return feature_folder(self.corpus, self.feature_id)

    @property
    def text_dim(self) -> int:
        """Width of the language features; 0 where text is token ids."""
        return self.dims.get("text", 0)

    def absent_modalities(self) -> tuple[Modality, ...]:
        """The modalities that no utterance of the training split has, so that no model can learn from them.

        Of a corpus without a training split, those that no utterance has.
        """
        looked_at = [self.lengths["train"]] if "train" in self.lengths else list(self.lengths.values())
        return tuple(m for m in MODALITIES if all(lengths[m].max == 0 for lengths in looked_at))

    def spec(self) -> FeatureSpec:
        """What a model must know of these features to be built. RefusedError where no split is for training."""
        if "train" not in self.lengths:
            raise RefusedError(
                f"corpus {self.corpus!r} has no split 'train' to learn from, it has {', '.join(self.splits)}; "
                "say in the column `mode` of its label.csv which clips are for training, and extract it again"
            )
        longest = self.lengths["train"]
        return FeatureSpec(
            audio_dim=self.dims["audio"],
            vision_dim=self.dims["vision"],
            text_length=longest["text"].max,
            audio_length=longest["audio"].max,
            vision_length=longest["vision"].max,
            vocabulary_size=self.tokenizer.vocabulary_size,
            unknown_id=self.tokenizer.unknown_id,
            label_range=self.label_range,
            text_dim=self.text_dim,
            tokenizer=self.tokenizer.name,
        )

    def digest(self) -> str:
        """SHA-256 of the content, as it stands in the file."""
        return _digest(_content(self))


@dataclass(frozen=True)
class ViewManifest:
    """One view of the features `feature_id`. realised_rates: by split and modality, the share that was erased."""

    corpus: str
    feature_id: str
    view_id: str
    spec: Mapping[str, Any]
    realised_rates: Mapping[Split, Mapping[Modality, float]]
    splits: Mapping[Split, SplitEntry]

    @property
    def folder(self) -> str:
        return view_folder(self.corpus, self.feature_id, self.view_id)

    def digest(self) -> str:
        """SHA-256 of the content, as it stands in the file."""
        return _digest(_content(self))


def check_corpus_name(corpus: str) -> str:
    """`corpus` itself, if it can be a folder of the store; RefusedError if not."""
    if not _is_corpus_name(corpus):
        raise RefusedError(
            f"a corpus is named by up to 64 letters, digits, '.', '_' and '-', and not {', '.join(_RESERVED)}; "
            f"got {corpus!r}"
        )
    return corpus


def _is_corpus_name(name: str) -> bool:
    is_plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) is not None
    return is_plain and name not in (*_RESERVED, "corpora.json")


def feature_folder(corpus: str, feature_id: str) -> str:
    return f"{check_corpus_name(corpus)}/features/{feature_id}"


def view_folder(corpus: str, feature_id: str, view_id: str) -> str:
    return f"{check_corpus_name(corpus)}/views/{feature_id}/{view_id}"


def commit_features(store: Store, manifest: FeatureManifest, *, anew: bool = False) -> FeatureManifest:
    """Make the features of `manifest` exist, and the ones in use for the corpus. Its shards must be written before.

    Returns the manifest in force: that of an earlier commit of the same feature_id, where there was one. anew: this
    one, since what the earlier one names was found damaged, and the shards have been written again.
    """
    committed = _commit(store, manifest, FeatureManifest, anew)
    current = encode_json({"feature_id": committed.feature_id})
    store.update(f"{manifest.corpus}/features/current.json", lambda _: current)
    add_name(store, "corpora.json", manifest.corpus)
    return committed


def read_features(store: Store, corpus: str, feature_id: str | None = None) -> FeatureManifest:
    """The features of `corpus`: those in use, or those of `feature_id`.

    RefusedError where the corpus or the feature_id is unknown, or the manifest is damaged.
    """
    check_corpus_name(corpus)
    chosen = _current_features(store, corpus) if feature_id is None else feature_id
    manifest = _read(store, f"{feature_folder(corpus, chosen)}/manifest.json", FeatureManifest)
    if manifest is None:
        named_by = f", which {corpus}/features/current.json names" if feature_id is None else ""
        raise RefusedError(
            f"store {store.url} holds no features {chosen} of corpus {corpus!r}{named_by}; "
            f"run `lnln import PICKLE --corpus {corpus}`"
        )
    return manifest


def commit_view(store: Store, manifest: ViewManifest, *, anew: bool = False) -> ViewManifest:
    """Make a view exist. Its shards must be written before. anew and result as `commit_features`."""
    committed = _commit(store, manifest, ViewManifest, anew)
    add_name(store, f"{manifest.corpus}/views/{manifest.feature_id}/index.json", manifest.view_id)
    return committed


def read_view(store: Store, corpus: str, feature_id: str, view_id: str) -> ViewManifest | None:
    """The view, or None where it was not made; RefusedError where its manifest is damaged."""
    return _read(store, f"{view_folder(corpus, feature_id, view_id)}/manifest.json", ViewManifest)


def list_corpora(store: Store) -> list[str]:
    """The corpora of the store, by name; RefusedError where the list of them is damaged."""
    names = read_names(store, "corpora.json")
    if wrong := [name for name in names if not _is_corpus_name(name)]:
        raise RefusedError(f"{store.url}/corpora.json lists {wrong[0]!r}, which can be no corpus; restore it")
    return names


def list_views(store: Store, corpus: str, feature_id: str) -> list[str]:
    """The ids of the views that exist for these features, sorted."""
    return read_names(store, f"{check_corpus_name(corpus)}/views/{feature_id}/index.json")


ManifestT = TypeVar("ManifestT", FeatureManifest, ViewManifest)


def _current_features(store: Store, corpus: str) -> str:
    path = f"{corpus}/features/current.json"
    try:
        current = store.read_json(path)
    except FileNotFoundError:
        known = list_corpora(store)
        if corpus in known:
            raise RefusedError(
                f"{store.url}/corpora.json lists corpus {corpus!r}, but {path} is not there; import the corpus again "
                "or restore the one or the other"
            ) from None
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise RefusedError(
            f"store {store.url} holds no corpus {corpus!r} ({there}); run `lnln import PICKLE --corpus {corpus}`"
        ) from None
    feature_id = current.get("feature_id") if isinstance(current, dict) else None
    if not isinstance(feature_id, str) or not re.fullmatch(r"[A-Za-z0-9]+", feature_id):
        raise RefusedError(f"{store.url}/{path} must hold a feature_id; import the corpus again")
    return feature_id


def _commit(store: Store, manifest: ManifestT, cls: type[ManifestT], anew: bool) -> ManifestT:
    path = f"{manifest.folder}/manifest.json"
    data = _encode(manifest)
    if store.create(path, data):
        return manifest
    # An earlier commit stands, since its shards do; unless it is damaged, which a new one mends.
    try:
        earlier = _read(store, path, cls)
    except StoreFailedError:  # which says nothing of the manifest
        raise
    except RefusedError:
        earlier = None
    if earlier is None or (anew and _encode(earlier) != data):
        store.write(path, data)
        return manifest
    return earlier


def _encode(manifest: FeatureManifest | ViewManifest) -> bytes:
    content = _content(manifest)
    return encode_json({"content": content, "sha256": _digest(content)})


def _content(manifest: FeatureManifest | ViewManifest) -> dict[str, Any]:
    # Through JSON, so that what is hashed is what a reader gets: lists for tuples, floats as they are written.
    values = asdict(manifest)
    if values.get("extraction", ...) is None:  # as before there were any: what is the same keeps its digest
        del values["extraction"]
    content: dict[str, Any] = json.loads(encode_json({"format": FORMAT, **values}))
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(encode_json(content)).hexdigest()


def _read(store: Store, path: str, cls: type[ManifestT]) -> ManifestT | None:
    try:
        value = store.read_json(path)
    except FileNotFoundError:
        return None
    where = f"{store.url}/{path}"
    content = value.get("content") if isinstance(value, dict) else None
    if not isinstance(content, dict) or value.get("sha256") != _digest(content):
        raise RefusedError(f"{where} is damaged: its content does not have the SHA-256 it states; make it again")
    if content.get("format") != FORMAT:
        raise RefusedError(f"{where} has format {content.get('format')}, this version reads {FORMAT}; make it again")
    try:
        manifest = _decode(content, cls)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(f"{where} is no {cls.__name__}: {type(error).__name__} {error}; make it again") from error
    if f"{manifest.folder}/manifest.json" != path:
        raise RefusedError(f"{where} belongs to {manifest.folder}; it was copied to the wrong place")
    return manifest


def _decode(content: dict[str, Any], cls: type[ManifestT]) -> ManifestT:
    values = {key: value for key, value in content.items() if key != "format"}
    values["splits"] = {
        split: _decode_split(values["splits"][split]) for split in STORED_SPLITS if split in values["splits"]
    }
    if cls is FeatureManifest:
        values["tokenizer"] = Tokenizer(**values["tokenizer"])
        values["label_range"] = tuple(values["label_range"])
        values["dims"] = {modality: values["dims"][modality] for modality in MODALITIES if modality in values["dims"]}
        values["lengths"] = {
            split: {modality: LengthSummary(**by_modality[modality]) for modality in MODALITIES}
            for split, by_modality in values["lengths"].items()
        }
        if "extraction" in values:
            values["extraction"] = _decode_extraction(values["extraction"])
    return cls(**values)


def _decode_extraction(value: dict[str, Any]) -> Extraction:
    quarantine = value["quarantine"]
    return Extraction(**{**value, "quarantine": None if quarantine is None else ShardEntry(**quarantine)})


def _decode_split(value: dict[str, Any]) -> SplitEntry:
    return SplitEntry(value["num_utterances"], tuple(ShardEntry(**shard) for shard in value["shards"]))
