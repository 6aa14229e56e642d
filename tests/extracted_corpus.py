"""A corpus as an extraction leaves it, without clips: utterances of an import, and a manifest that tells of clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lnln.data.card import write_card
from lnln.data.manifest import Extraction, FeatureManifest, LengthSummary, SplitEntry, commit_features
from lnln.data.quarantine import Quarantined, put_quarantine
from lnln.data.schema import MODALITIES, STORED_SPLITS, Modality, Split
from lnln.data.shards import read_split, write_shard
from lnln.data.store import Store
from pipelines.clips.extract_clip import EXTRACT_VERSION
from pipelines.ingest import import_corpus
from tests.corpora import mmsa_pickle

EXTRACTORS: dict[Modality, dict[str, Any]] = {
    "text": {
        "name": "wordpiece",
        "version": 1,
        "config": {"tokenizer": "bert-base-uncased"},
        "packages": {"tokenizers": "0.22.0"},
        "vocabulary": "bert-base-uncased",
    },
    "audio": {
        "name": "tones",
        "version": 3,
        "config": {"num_mfcc": 2, "windows": [1, 2]},
        "packages": {"opensmile": "2.6.0"},
        "columns": ["mfcc_0", "mfcc_1", "zero|crossing", "C#"],
        "rate_hz": 43.06640625,
    },
    "vision": {
        "name": "drawn",
        "version": 1,
        "config": {"rate_hz": 5.0},
        "packages": {},
        "columns": ["x_9", "x_10", "x_11"],
        "rate_hz": 5.0,
    },
}
CONFIG: dict[str, Any] = {
    "clips": {"align": "none", "max_seconds": 600.0, "label_range": None},
    **{modality: {"name": made["name"], **made["config"]} for modality, made in EXTRACTORS.items()},
}
COUNTS = {
    "clips": 96,
    "clips_extracted": 66,
    "clips_quarantined": 30,
    "clips_without_text": 0,
    "clips_without_audio": 3,
    "rows_repeated": 1,
    "vision_frames": 1400,
    "vision_frames_without_face": 7,
}
LEFT_OUT = [
    Quarantined("a/notes.txt", "table", "Raw/a/notes.txt is not in label.csv"),
    *(Quarantined(f"v$_${i:02}", "decode", f"Raw/v/{i:02}.mp4 is no <b>media</b> file | at all") for i in range(29)),
]


def extracted_corpus(
    store: Store, folder: Path, corpus: str = "clips", *, unassigned: int = 4, left_out: list[Quarantined] = LEFT_OUT
) -> FeatureManifest:
    """Three splits of 40, 12 and 14 utterances; the last `unassigned` of test once more, as a split of their own."""
    imported = import_corpus(store, mmsa_pickle(folder / "source.pkl"), "imported")
    made = replace(
        imported,
        corpus=corpus,
        feature_id="e" * 12,
        source={"name": "clips", "sha256": "0" * 64, "num_bytes": 12, "published_as": None, "synthetic": False},
        extractors=EXTRACTORS,
    )
    splits: dict[Split, SplitEntry] = {}
    lengths: dict[Split, dict[Modality, LengthSummary]] = {}
    for split in STORED_SPLITS if unassigned else imported.splits:
        utterances = read_split(store, imported, "test" if split == "unassigned" else split)
        if split == "unassigned":
            utterances = utterances.rows(len(utterances) - unassigned, len(utterances))
        entry = write_shard(store, made.folder, split, utterances, EXTRACTORS)
        splits[split] = SplitEntry(len(utterances), (entry,))
        lengths[split] = {m: LengthSummary.of(utterances.sequences(m).lengths) for m in MODALITIES}
    extraction = Extraction(CONFIG, COUNTS, put_quarantine(store, made.folder, left_out), EXTRACT_VERSION)
    made = replace(made, splits=splits, lengths=lengths, extraction=extraction)
    return write_card(store, commit_features(store, made))
