"""A model on another corpus than its own: what has to be equal, and what is said of all that is not.

    manifest = features_for(store, opened, "mosei")                        # refused where the model cannot read it
    transfer = transfer_to(store, opened, manifest, "test", labels)        # None on its own features
    transfer.trained_on, transfer.carries_over                             # ("mosi", ("carries over: ...", ...))

Widths, vocabulary and label range have to be equal, and so have extractors that are known in full: those of lnln. What
remains, extractors known by name alone, the scale of the frames, lengths and the distribution of labels, changes what a
score means; it is stated with both values and stands in the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnln.config import ModelConfig
from lnln.data.extractors import find_difference, identity_of
from lnln.data.manifest import FeatureManifest, read_features
from lnln.data.schema import Modality, Split
from lnln.data.shards import read_labels
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.model_store.opened import OpenedModel, modalities_read

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Transfer:
    """trained_on: what a model was trained on, in words. carries_over: sentences on what of it holds elsewhere.

    train_labels: of its training split, None where that is not in the store.
    """

    trained_on: str
    carries_over: tuple[str, ...]
    train_labels: Values | None


def features_for(store: Store, opened: OpenedModel, corpus: str | None) -> FeatureManifest:
    """The features to score on: those the model was trained on, or the current ones of `corpus` if it can read them.

    Of a modality that the model does not read nothing is asked. RefusedError, with both values, for other widths, token
    ids or labels, and where lnln extracted both corpora, and not alike: they can be extracted alike.
    """
    features, own = opened.features, str(opened.features.get("corpus", ""))
    if corpus is None and not own:
        raise RefusedError(f"{opened.reference} does not say its corpus; name one with --corpus")
    manifest = read_features(store, corpus or own, str(features["feature_id"]) if corpus is None else None)
    reads = modalities_read(opened)
    spec, tokenizer, label_range = features["spec"], features["tokenizer"], features["label_range"]
    pairs: dict[str, tuple[object, object]] = {
        f"{modality} dim": (spec[f"{modality}_dim"], manifest.dims[modality])
        for modality in reads
        if modality != "text"
    }
    if "text" in reads:
        pairs["text dim"] = spec.get("text_dim", 0), manifest.text_dim
        pairs["tokenizer"] = (
            _say_tokenizer(tokenizer["name"], tokenizer["vocabulary_size"]),
            _say_tokenizer(manifest.tokenizer.name, manifest.tokenizer.vocabulary_size),
        )
    pairs["label range"] = _say_range(label_range), _say_range(manifest.label_range)
    differing = [f"{what} {one}, not {other}" for what, (one, other) in pairs.items() if one != other]
    if differing:
        raise RefusedError(
            f"model {opened.reference} (trained on {own}) does not fit corpus {manifest.corpus}: "
            f"it takes {'; '.join(differing)}; evaluate it on a corpus with the same features"
        )
    _check_extractors(opened, manifest, reads)
    return manifest


def transfer_to(
    store: Store, opened: OpenedModel, manifest: FeatureManifest, split: Split, labels: Values
) -> Transfer | None:
    """What is to be said of `opened` on `manifest`, which fits it; None where it was trained on these features.

    labels: of `split`, NaN where unlabelled.
    """
    features, own = opened.features, str(opened.features.get("corpus", "")) or "an unnamed corpus"
    if own == manifest.corpus and features.get("feature_id") == manifest.feature_id:
        return None
    trained_on = own if own != manifest.corpus else f"{own}, features {features.get('feature_id')}"
    theirs = _own_manifest(store, opened)
    train_labels = None if theirs is None or "train" not in theirs.splits else read_labels(store, theirs, "train")
    model = opened.model
    used = [modality for modality in modalities_read(opened) if modality in model.modalities]
    shared = [f"the label range {_say_range(manifest.label_range)}"]
    if "text" in used and not manifest.text_dim:
        shared.insert(0, f"the vocabulary {manifest.tokenizer.name or 'of the token ids'}")
    said = [f"carries over: the weights, {' and '.join(shared)}"]
    said += [_say_extractors(features, manifest, modality) for modality in used]
    said.append(_say_scale(model, theirs, manifest, [m for m in used if manifest.lengths[split][m].max > 0]))
    said.append(_say_lengths(model, features["spec"], manifest, split, used))
    said += [
        f"{modality} is absent from every utterance of {manifest.corpus}, and was there in training"
        for modality in used
        if manifest.lengths[split][modality].max == 0 and modality not in features.get("absent_modalities", ())
    ]
    mine = "their labels are not in this store" if train_labels is None else say_labels(train_labels)
    said.append(f"labels: {own} train {mine}; {manifest.corpus} {split} {say_labels(labels)}")
    base = manifest.corpus if "train" in manifest.splits else own
    said.append(f"baselines: what they predict is from the training labels of {base}")
    return Transfer(trained_on, tuple(sentence for sentence in said if sentence), train_labels)


def say_labels(labels: Sequence[float] | Values) -> str:
    """Mean, deviation and share of negative, zero and positive ones of the labels that are not NaN."""
    values = np.asarray(labels, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return "has no label"
    shares = [100 * float(np.mean(sign)) for sign in (values < 0, values == 0, values > 0)]
    return (
        f"mean {values.mean():+.2f}, sd {values.std():.2f}, {shares[0]:.0f}% negative, {shares[1]:.0f}% zero, "
        f"{shares[2]:.0f}% positive"
    )


def _own_manifest(store: Store, opened: OpenedModel) -> FeatureManifest | None:
    """The features that the model was trained on, where this store has them."""
    try:
        return read_features(store, str(opened.features["corpus"]), str(opened.features["feature_id"]))
    except StoreFailedError:
        raise
    except (RefusedError, KeyError):
        return None


def _check_extractors(opened: OpenedModel, manifest: FeatureManifest, reads: Sequence[Modality]) -> None:
    """RefusedError where lnln extracted both corpora, and not alike. Of imported features only their names are known,
    which differ by corpus."""
    theirs, ours = (
        {modality: made for modality, made in identity_of(extractors).items() if modality in reads}
        for extractors in (opened.features.get("extractors", {}), manifest.extractors)
    )
    if not all("version" in made for made in (*theirs.values(), *ours.values())):
        return
    if (difference := find_difference(theirs, ours)) is not None:
        raise RefusedError(
            f"model {opened.reference} was trained on {difference.modality} made by {difference.first}, corpus "
            f"{manifest.corpus} has it made by {difference.second}; extract that corpus as the model's was"
        )


def _say_extractors(features: Mapping[str, Any], manifest: FeatureManifest, modality: Modality) -> str:
    """ "" where both are known in full, and so equal, or are the ids of one vocabulary."""
    theirs = features.get("extractors", {}).get(modality, {})
    ours = manifest.extractors.get(modality, {})
    if modality == "text" and not manifest.text_dim:
        return ""
    if "version" in theirs and "version" in ours and theirs.get("name") == ours.get("name"):
        return ""
    names = [str(made.get("name", "nobody says what")) for made in (theirs, ours)]
    return f"{modality}: made by {names[0]} for training, here by {names[1]}, known by name alone"


def _say_scale(
    model: ModelConfig, theirs: FeatureManifest | None, manifest: FeatureManifest, used: Sequence[Modality]
) -> str:
    framed = [modality for modality in used if modality in manifest.dims]
    if not framed:
        return ""
    how = "standardised by the training split of the model's corpus" if model.standardize else "not standardised"
    parts = []
    for modality in framed:
        one = {} if theirs is None else theirs.statistics.get(modality, {})
        other = manifest.statistics.get(modality, {})
        if not one or not other:
            parts.append(f"{modality} of unknown scale")
            continue
        mean, std = (np.array(one[key], np.float64) for key in ("mean", "std"))
        varies = std > 1e-6 * np.abs(mean).clip(1e-6)
        if not varies.any():
            parts.append(f"{modality} that does not vary in training")
            continue
        shift = np.abs(np.array(other["mean"]) - mean)[varies] / std[varies]
        ratio = np.array(other["std"])[varies] / std[varies]
        parts.append(
            f"{modality} with means up to {shift.max():.2g} deviations away (median {np.median(shift):.2g}) and "
            f"deviations {ratio.min():.2g} to {ratio.max():.2g} times as large"
        )
    return f"scale: frames are {how}; here {'; '.join(parts)}"


def _say_lengths(
    model: ModelConfig, spec: Mapping[str, Any], manifest: FeatureManifest, split: Split, used: Sequence[Modality]
) -> str:
    cut = []
    for modality in used:
        limit = int(getattr(model, f"max_{modality}_length") or spec[f"{modality}_length"])
        longest = manifest.lengths[split][modality].max
        if longest > limit:
            cut.append(f"{modality} after {limit} steps (the longest has {longest})")
    return f"lengths: the model cuts {', '.join(cut)}" if cut else ""


def _say_tokenizer(name: str, vocabulary_size: int) -> str:
    return f"{name} ({vocabulary_size} ids)"


def _say_range(label_range: Sequence[float]) -> str:
    return "{:g} to {:g}".format(*label_range)
