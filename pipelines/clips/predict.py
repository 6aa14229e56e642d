"""Predictions for raw clips: features are extracted as those were that the model was trained on, then predicted.

    rows, left_out = predict(store, "mine-lnln@best", ["clip.mp4", "a sentence"], transcripts=["what is said"])

A model says in its features.json how its features were extracted. What this installation would make otherwise is
refused, both sides said; a package of another version than at training is a note in the prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lnln.data.counts import say_frames
from lnln.data.extractors import find_difference, identity_of
from lnln.data.quarantine import Quarantined
from lnln.data.schema import MODALITIES, Modality
from lnln.data.store import Store
from lnln.errors import RefusedError
from lnln.predict import Prediction, Predictor, answer, is_shard
from pipelines.clips.extract_clip import EXTRACT_VERSION, RawClip
from pipelines.clips.extract_rows import Limits, describe, extract_rows
from pipelines.clips.table import MAX_FILE_BYTES, MEDIA_ENDINGS, printable
from pipelines.extractors.config import ExtractConfig

# Of what is counted in every clip, what a user should hear of.
_NOTES = {
    "clips_without_text": "no transcript",
    "clips_without_audio": "no sound track",
    "clips_without_vision": "no picture",
    "clips_truncated": "the file is truncated or damaged",
}
_NOT_SAID = ("clips_extracted", "clips_without_label")


def predict(
    store: Store,
    model: str,
    inputs: Sequence[str],
    transcripts: Sequence[str] = (),
    limits: Limits | None = None,
    device: str | None = None,
) -> tuple[list[dict[str, Any]], list[Quarantined]]:
    """What `lnln.predict.predict` returns, where inputs may be clips too: files that do not end in .parquet.

    transcripts: one for each clip, in order ("" where a clip has none), or none at all. device: as Predictor's. The
    second result has the clips that could not be used. RefusedError where no clip could be, or the model's features
    cannot be made of clips here.
    """
    clips = [text for text in inputs if is_clip(text)]
    said = _transcripts(clips, transcripts)
    _refuse_absent_files(inputs)
    if not inputs:
        raise RefusedError("nothing to predict: give clips, sentences or feature shards (.parquet)")
    predictor = Predictor.open(store, model, device)
    made, left_out = predict_clips(predictor, clips, said, limits) if clips else ([], [])
    if clips and len(left_out) == len(clips) == len(inputs):
        raise RefusedError("; ".join(f"{row.utterance_id}, stage {row.stage}: {row.reason}" for row in left_out))
    of_clips = iter(made)
    others = iter(answer(predictor, [text for text in inputs if not is_clip(text)]))
    rows: list[dict[str, Any]] = []
    for text in inputs:
        if not is_clip(text):
            rows += next(others)
        elif (prediction := next(of_clips)) is not None:
            rows.append({"input": printable(text), **prediction.to_dict()})
    return rows, left_out


def predict_clips(
    predictor: Predictor, paths: Sequence[str], transcripts: Sequence[str | None], limits: Limits | None = None
) -> tuple[list[Prediction | None], list[Quarantined]]:
    """A prediction for each clip, None for those of the second result. RefusedError as `predict`."""
    limits = Limits() if limits is None else limits
    config = extraction_of(predictor)
    made_here = describe(config, limits)
    package_notes = (*_compare(predictor, made_here.records), *_decoder_note(predictor, made_here.decoder))
    names: list[str] = []
    for path in paths:
        name = printable(path)
        while name in names:
            name = f"{name} again"
        names.append(name)
    made = extract_rows(config, _read(names, paths, transcripts), limits)
    predictions: dict[str, Prediction] = {}
    if made.utterances is not None:
        for prediction in predictor.predict_utterances(made.utterances):
            notes = (*clip_notes(made.counts[prediction.utterance_id]), *prediction.notes, *package_notes)
            predictions[prediction.utterance_id] = replace(prediction, notes=notes)
    return [predictions.get(name) for name in names], list(made.quarantine)


def is_clip(text: str) -> bool:
    """Whether an input is a raw clip: a file, and no feature shard."""
    try:
        return not is_shard(text) and Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or with a character that none has
        return False


def extraction_of(predictor: Predictor) -> ExtractConfig:
    """How the features of the model were extracted. RefusedError where they were imported, or cannot be made here."""
    reference, features = predictor.opened.reference, predictor.opened.features
    stored = features.get("extraction")
    if stored is None:
        raise RefusedError(
            f"{reference} was trained on features that were imported ({_names(features)}), which no extractor here "
            "makes of clips; give it sentences, or shards of features that were made as those were"
        )
    if (version := features.get("extraction_version")) != EXTRACT_VERSION:
        raise RefusedError(
            f"{reference} was trained on clips that were read the way of version {version}, this installation reads "
            f"them the way of version {EXTRACT_VERSION}; use the version of lnln that it was trained with"
        )
    try:
        config = ExtractConfig.from_values(stored)
    except RefusedError as error:
        raise RefusedError(
            f"{reference} was trained on features of extractors that this installation does not have "
            f"({_names(features)}): {error}; use the version of lnln that it was trained with"
        ) from error
    if config.clips.align != "none":
        raise RefusedError(
            f"{reference} was trained on features aligned to {config.clips.align}, and a clip alone does not say when "
            "they are spoken; extract it from a folder with words.csv, and predict the feature shard"
        )
    return config


def clip_notes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """What was met in one clip, in words."""
    met = [name for name in sorted(counts) if name.startswith("clips_") and counts[name] and name not in _NOT_SAID]
    of_clip = [_NOTES.get(name) or _say(name.removeprefix("clips_")) for name in met]
    return (*of_clip, *say_frames(counts))


def _say(met: str) -> str:
    words = met.replace("_", " ")
    return f"no {words.removeprefix('without ')}" if words.startswith("without ") else words.removeprefix("with ")


def _compare(predictor: Predictor, here: Mapping[Modality, Mapping[str, Any]]) -> tuple[str, ...]:
    """Notes on packages of other versions. RefusedError where the model's features are made otherwise here."""
    reference, stored = predictor.opened.reference, predictor.opened.features["extractors"]
    mend = "use the version of lnln, and the weights and programs, that it was trained with"
    if (difference := find_difference(_without_knobs(stored), _without_knobs(here))) is not None:
        raise RefusedError(
            f"{reference} was trained on {difference.modality} made by {difference.first}, this installation has "
            f"{difference.second}; {mend}"
        )
    notes = []
    for modality in MODALITIES:
        theirs, ours = stored[modality], here[modality]
        for key in ("columns", "rate_hz", "vocabulary"):
            if theirs.get(key) != ours.get(key):
                raise RefusedError(
                    f"{reference} was trained on {modality} by {theirs['name']} with {key} {_short(theirs.get(key))}, "
                    f"this installation makes it with {key} {_short(ours.get(key))}; {mend}"
                )
        for package, version in theirs.get("packages", {}).items():
            found = ours.get("packages", {}).get(package)
            if found != version:
                notes.append(f"{package} is {found} here and was {version} at training")
    return tuple(dict.fromkeys(notes))


def _decoder_note(predictor: Predictor, here: str) -> tuple[str, ...]:
    stored = predictor.opened.features.get("decoded_by")
    return () if stored == here else (f"clips are decoded by {here} here and were by {stored} at training",)


def _without_knobs(records: Mapping[Modality, Mapping[str, Any]]) -> dict[Modality, dict[str, Any]]:
    """What extractors must have in common besides their knobs, which come from the model. A knob that came after the
    model is at its default, which does as was done before, or the version would be another."""
    identity = identity_of(records)
    return {m: {key: value for key, value in made.items() if key != "config"} for m, made in identity.items()}


def _read(names: Sequence[str], paths: Sequence[str], transcripts: Sequence[str | None]) -> Iterator[RawClip]:
    """The clips, one after the other; RefusedError where one cannot be read."""
    for name, path, text in zip(names, paths, transcripts, strict=True):
        try:
            num_bytes = Path(path).stat().st_size
            if num_bytes > MAX_FILE_BYTES:
                raise RefusedError(f"{path} has {num_bytes:,} bytes; cut it into clips of {MAX_FILE_BYTES:,} at most")
            data = Path(path).read_bytes()
        except OSError as error:
            raise RefusedError(f"cannot read {path}: {error.strerror or error}") from error
        yield RawClip(name, text, ((Path(path).name, data),))


def _transcripts(clips: Sequence[str], transcripts: Sequence[str]) -> list[str | None]:
    """One for each clip."""
    if transcripts and not clips:
        raise RefusedError("a transcript belongs to a clip, and no clip is given; give the sentence alone")
    if transcripts and len(transcripts) != len(clips):
        raise RefusedError(
            f"{len(clips)} clips and {len(transcripts)} transcripts: give --transcript once for each clip, in order "
            "('' where a clip has none), or not at all"
        )
    plain = [text.encode("utf-8", "replace").decode() for text in transcripts] or [""] * len(clips)
    return [text if text.strip() else None for text in plain]


def _refuse_absent_files(inputs: Sequence[str]) -> None:
    """A name of a clip that is not there would be taken for a sentence, and folders and patterns are for many."""
    for text in inputs:
        if _is_folder(text) or (is_shard(text) and "*" in text and not _exists(text)):
            raise RefusedError(
                f"{text} may mean many feature shards, whose predictions go to files: say where by --out FOLDER"
            )
        ending = text.rpartition(".")[2].lower()
        is_media_name = ending in MEDIA_ENDINGS and "." in text
        is_path = text.startswith(("/", "./", "../", "~")) or ("/" in text and _exists(text.partition("/")[0]))
        if not any(map(str.isspace, text)) and not is_clip(text) and not is_shard(text) and (is_media_name or is_path):
            raise RefusedError(f"there is no clip {text}; give the path of a file on this machine, or a sentence")


def _is_folder(text: str) -> bool:
    """Whether it is a path to a folder, and no sentence of one word that happens to be the name of one."""
    try:
        return ("/" in text or is_shard(text)) and Path(text).is_dir()
    except (OSError, ValueError):
        return False


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def _names(features: Mapping[str, Any]) -> str:
    """Of the extractors, with versions where they have some."""
    made_by = features.get("extractors", {})
    said = [
        f"{modality} {made_by[modality].get('name')}"
        + (f" version {made_by[modality]['version']}" if "version" in made_by[modality] else "")
        for modality in MODALITIES
        if modality in made_by
    ]
    return ", ".join(said) or "it does not say which"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"
