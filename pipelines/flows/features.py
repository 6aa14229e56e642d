"""The `features` flow: a corpus to feature shards, as jobs on Dask.

From Python `features(corpus="mosi", source="unaligned_50.pkl")`; as a deployment `prefect deployment run
features/features -p corpus=mosi -p source=s3-mounted/unaligned_50.pkl` (see `prefect.yaml`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import deployment

from lnln.data.manifest import FeatureManifest
from lnln.data.schema import MODALITIES
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.execute import dask_client
from pipelines.ingest import import_corpus, import_sample
from pipelines.settings import Settings


@flow(name="features", flow_run_name="features of {corpus}")
def features(corpus: str, source: str | None = None, store: str | None = None) -> dict[str, Any]:
    """Import a corpus as feature shards with a manifest. A source imported before is not imported again.

    Args:
        corpus: What the corpus is called in the store, such as mosi.
        source: Path of an MMSA pickle, as the worker sees it. None: the synthetic sample corpus.
        store: A folder or s3://bucket/prefix. None: LNLN_STORE of the worker's environment, else ./store.

    Returns:
        Where the manifest is, its digest, and the number of utterances of each split.
    """
    settings = settings_of_run(store)
    there = Store(settings.store)
    with dask_client(settings) as client:
        if source is None:
            manifest = import_sample(there, corpus, client)
        else:
            manifest = import_corpus(there, Path(source), corpus, client)
    create_table_artifact(
        key=artifact_key("features", corpus), table=_table(manifest), description=_description(settings.store, manifest)
    )
    utterances = {split: entry.num_utterances for split, entry in manifest.splits.items()}
    get_run_logger().info("%s in %s: %s", manifest.folder, settings.store, utterances)
    return {
        "corpus": corpus,
        "feature_id": manifest.feature_id,
        "manifest": f"{manifest.folder}/manifest.json",
        "digest": manifest.digest(),
        "num_utterances": utterances,
    }


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
    origin = "synthetic" if manifest.source["synthetic"] else manifest.source["published_as"] or "not a published file"
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
