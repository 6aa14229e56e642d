"""The `features` flow: a corpus to feature shards, as jobs on Dask; of an MMSA pickle, or of raw clips.

From Python `features(corpus="mosi", source="unaligned_50.pkl")` or `features(corpus="mine", clips="s3://bucket/clips")`;
as deployments `prefect deployment run features/features -p corpus=mosi -p source=s3-mounted/unaligned_50.pkl` and
`prefect deployment run features/extract -p corpus=mine -p clips=s3://bucket/clips` (see `prefect.yaml`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import deployment, flow_run

from lnln.config import to_dict
from lnln.data.counts import say_counts
from lnln.data.manifest import Extraction, FeatureManifest, read_features
from lnln.data.mmsa import TextForm, TokenizerName
from lnln.data.quarantine import Quarantined, read_quarantine
from lnln.data.schema import MODALITIES
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.execute import dask_client
from pipelines.extract import extract_corpus
from pipelines.extractors.config import load_extract_config
from pipelines.flows.stage import HOUR, shown_progress, stage, tell_of_failure
from pipelines.ingest import import_corpus, import_sample
from pipelines.settings import Settings

# Rows of an artifact, which is one JSON value in Prefect's database.
MAX_QUARANTINED_SHOWN = 200


def _run_name() -> str:
    given = flow_run.parameters
    origin = "" if not given.get("clips") else " from clips"
    return f"features of {given['corpus']}{origin}"


@flow(
    name="features",
    flow_run_name=_run_name,
    timeout_seconds=24 * HOUR,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_failure],
)
def features(
    corpus: str,
    source: str | None = None,
    text: TextForm | None = None,
    tokenizer: TokenizerName | None = None,
    clips: str | None = None,
    extractors: str | None = None,
    overrides: list[str] | None = None,
    store: str | None = None,
) -> dict[str, Any]:
    """Import or extract a corpus as feature shards with a manifest. What was made before is not made again.

    Args:
        corpus: What the corpus is called in the store, such as mosi.
        source: Path of an MMSA pickle, as the worker sees it. None, and no clips: the synthetic sample corpus.
        text: Of a pickle, ids or features. None: ids, where the pickle has them.
        tokenizer: Of a pickle, what made the ids. None: what transcripts, ids or labels show.
        clips: A folder or s3://bucket/prefix of raw clips with a label.csv, as the workers see it; sample draws some.
        extractors: Of clips, a config of extractors by name or .yaml path. None: the default ones.
        overrides: Of clips, keys of that config to change, such as vision.rate_hz=5.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        Where the manifest is, its digest, the number of utterances of each split, and of clips that are in none.
    """
    _refuse_contradictions(source, clips, of_pickle=(text, tokenizer), of_clips=(extractors, overrides))
    settings = settings_of_run(store)
    there = Store(settings.store)
    if clips is not None:
        feature_id = extract_features(settings, corpus, clips, extractors, overrides or [])
    else:
        feature_id = import_features(settings, corpus, source, text, tokenizer)
    manifest = read_features(there, corpus, feature_id)
    create_table_artifact(
        key=artifact_key("features", corpus), table=_table(manifest), description=_description(settings.store, manifest)
    )
    left_out = read_quarantine(there, manifest)
    if manifest.extraction is not None:
        _show_quarantine(settings.store, manifest, manifest.extraction, left_out)
    utterances = {split: entry.num_utterances for split, entry in manifest.splits.items()}
    get_run_logger().info("%s in %s: %s, %d left out", manifest.folder, settings.store, utterances, len(left_out))
    return {
        "corpus": corpus,
        "feature_id": manifest.feature_id,
        "manifest": f"{manifest.folder}/manifest.json",
        "digest": manifest.digest(),
        "num_utterances": utterances,
        **({"num_quarantined": len(left_out)} if manifest.extraction is not None else {}),
    }


@stage("import")
def import_features(
    settings: Settings, corpus: str, source: str | None, text: TextForm | None, tokenizer: TokenizerName | None
) -> str:
    """The feature_id."""
    there = Store(settings.store)
    with (
        shown_progress(artifact_key("progress-features", corpus), f"Import of {corpus}"),
        dask_client(settings) as client,
    ):
        if source is None:
            return import_sample(there, corpus, client).feature_id
        return import_corpus(there, Path(source), corpus, client, text=text, tokenizer=tokenizer).feature_id


@stage("extract")
def extract_features(settings: Settings, corpus: str, clips: str, extractors: str | None, overrides: list[str]) -> str:
    """The feature_id."""
    chosen = load_extract_config(extractors, overrides)
    progress = shown_progress(artifact_key("progress-features", corpus), f"Extraction of {corpus}")
    with progress, dask_client(settings) as client:
        return extract_corpus(Store(settings.store), clips, corpus, chosen, client).feature_id


def settings_of_run(store: str | None) -> Settings:
    """`Settings.of_flow`; RefusedError where a deployment would write to a relative folder.

    A Prefect worker runs a deployment in a folder of its own, which it removes afterwards.
    """
    settings = Settings.of_flow(store)
    if deployment.id and "://" not in settings.store and not Path(settings.store).is_absolute():
        raise RefusedError(
            f"a deployment needs a store that outlives its run, got the relative folder {settings.store}; set the "
            "parameter store, or LNLN_STORE of the Prefect worker, to s3://bucket/prefix or an absolute path"
        )
    return settings


def artifact_key(flow_name: str, corpus: str) -> str:
    """A key of small letters, digits and dashes, which is all that Prefect takes."""
    return re.sub("[^a-z0-9]+", "-", f"{flow_name}-{corpus}".lower()).strip("-")


def _refuse_contradictions(
    source: str | None, clips: str | None, *, of_pickle: Sequence[object], of_clips: Sequence[object]
) -> None:
    """Parameters that would be ignored are a mistake."""
    if source is not None and clips is not None:
        raise RefusedError(f"features come from a pickle or from clips, got source {source} and clips {clips}")
    if source is None and any(of_pickle):
        raise RefusedError("text and tokenizer say how a pickle is read, and no source is given")
    if clips is None and any(of_clips):
        raise RefusedError("extractors and overrides say how clips are extracted, and no clips are given")


def _show_quarantine(
    store: str, manifest: FeatureManifest, extraction: Extraction, left_out: Sequence[Quarantined]
) -> None:
    """What was met and what is left out, as artifacts; of many clips that are left out, the first."""
    met = [{"what": what, "how many": number} for what, number in say_counts(extraction.counts)]
    create_table_artifact(
        key=artifact_key("extraction", manifest.corpus),
        table=met,
        description=f"What was met when the clips of **{manifest.corpus}** were extracted.",
    )
    entry = extraction.quarantine
    if entry is not None:
        create_table_artifact(
            key=artifact_key("quarantine", manifest.corpus),
            table=[to_dict(row) for row in left_out[:MAX_QUARANTINED_SHOWN]],
            description=f"{len(left_out)} clips or files that are not in corpus **{manifest.corpus}**, the first "
            f"{MAX_QUARANTINED_SHOWN} at most; all are in `{store}/{entry.path}`.",
        )


def _table(manifest: FeatureManifest) -> list[dict[str, Any]]:
    rows = []
    for split, entry in manifest.splits.items():
        row: dict[str, Any] = {"split": split, "utterances": entry.num_utterances, "shards": len(entry.shards)}
        for modality in MODALITIES:
            lengths = manifest.lengths[split][modality]
            row[f"{modality}: mean length"] = round(lengths.mean, 1)
            row[f"{modality}: longest"] = lengths.max
            row[f"{modality}: absent"] = lengths.num_absent
        rows.append(row)
    return rows


def _description(store: str, manifest: FeatureManifest) -> str:
    if manifest.source["synthetic"]:
        origin = "synthetic"
    elif manifest.extraction is not None:
        origin = "raw clips"
    else:
        origin = manifest.source["published_as"] or "not a published file"
    cleaned = sum(sum(counts.values()) for counts in manifest.cleaned.values())
    text = f"text of {manifest.text_dim} dimensions" if manifest.text_dim else f"text ids of {manifest.tokenizer.name}"
    absent = "".join(
        f" No utterance of the training split has {modality}." for modality in manifest.absent_modalities()
    )
    return (
        f"Features `{manifest.feature_id}` of corpus **{manifest.corpus}** in `{store}`, "
        f"from {manifest.source['name']} ({origin}): audio {manifest.dims['audio']} and vision "
        f"{manifest.dims['vision']} dimensions, {text}, labels from "
        f"{manifest.label_range[0]:g} to {manifest.label_range[1]:g}; {cleaned} NaN or infinite values set to 0."
        f"{absent}"
    )
