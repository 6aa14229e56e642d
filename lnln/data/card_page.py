"""The README.md of a corpus: Hugging Face metadata on top, then what it holds, where it came from, how to read it.

The metadata names each split's shards one by one, so that `datasets.load_dataset(folder)` takes what the manifest lists
and nothing else that may lie there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from lnln.data.card_extraction import extraction_section, licence_notes
from lnln.data.card_facts import SPLIT_NAMES, Column, CorpusFacts
from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.quarantine import Quarantined
from lnln.data.schema import MODALITIES, Modality
from lnln.data.wordpiece import CHINESE, UNCASED
from lnln.markdown import code, escape, table

# Values that labels are counted around, over the range of the manifest: -3 to 3 in steps of 1, -1 to 1 of a third.
_NUM_LABEL_BINS = 7
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LANGUAGES = {UNCASED.name: "en", CHINESE.name: "zh"}

SYNTHETIC = (
    "**The corpus is synthetic**: a small grammar of sentiment phrases made by this project. It shows that the path "
    "works; it says nothing of real speech."
)
# SPLIT stands for the split that the snippets read.
_READ = """\
import json
from pathlib import Path

import numpy as np
import pandas as pd

folder = Path(".")  # where this file lies
splits = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["content"]["splits"]
shards = {
    name: [folder.joinpath(*shard["path"].split("/")[-2:]) for shard in split["shards"]]
    for name, split in splits.items()
}

SPLIT = pd.concat([pd.read_parquet(shard) for shard in shards["SPLIT"]], ignore_index=True)
"""
_DUCKDB = """\
import duckdb

SPLIT_summary = duckdb.sql(
    "SELECT count(*), count(label), avg(label), max(audio_length), max(vision_length) FROM read_parquet($shards)",
    params={"shards": [str(shard) for shard in shards["SPLIT"]]},
).fetchall()[0]
"""
_DATASETS = """\
from datasets import load_dataset

corpus = load_dataset(str(folder.absolute()))
"""
_UNPACK = """\
def unpack(mask: bytes, length: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(mask, np.uint8), count=length, bitorder="little").astype(bool)
"""


def encode_card(manifest: FeatureManifest, facts: CorpusFacts, quarantine: Sequence[Quarantined] = ()) -> bytes:
    """The bytes of the card. They depend on the manifest, its files and this version, on no time or machine."""
    metadata = yaml.safe_dump(_metadata(manifest, facts), sort_keys=False, allow_unicode=True, width=120)
    parts = [
        f"---\n{metadata}---",
        f"# {escape(manifest.corpus)}",
        escape(describe(manifest)),
        *([SYNTHETIC] if manifest.source["synthetic"] else []),
        "## Splits",
        _splits(manifest, facts),
        "## Columns",
        _columns(facts),
        "## Labels",
        _labels(manifest, facts),
        "## Origin",
        _origin(manifest),
        *(
            ["## Extraction", extraction_section(manifest, manifest.extraction, quarantine)]
            if manifest.extraction is not None
            else []
        ),
        "## Cleaned",
        _cleaned(manifest),
        "## Reading it",
        _reading(manifest),
        "## Traps",
        _traps(manifest, facts),
        "## Licence",
        _licence(manifest),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def describe(manifest: FeatureManifest) -> str:
    """What it is, in one paragraph of plain text."""
    modalities = ", ".join(
        f"{modality} ({manifest.dims[modality]} numbers a step)" if modality in manifest.dims else "text (token ids)"
        for modality in MODALITIES
    )
    num = sum(entry.num_utterances for entry in manifest.splits.values())
    return (
        f"Features of {num} utterances of the corpus {manifest.corpus} for multimodal sentiment analysis: "
        f"{modalities}, and a label within {_range(manifest)}. Made by lnln from {manifest.source['name']}; "
        "sequences have their own lengths, padding is not stored."
    )


def license_url(manifest: FeatureManifest) -> str | None:
    """None where only who has the corpus can know."""
    return "https://spdx.org/licenses/MIT.html" if manifest.source["synthetic"] else None


def _metadata(manifest: FeatureManifest, facts: CorpusFacts) -> dict[str, Any]:
    num = sum(entry.num_utterances for entry in manifest.splits.values())
    absent = manifest.absent_modalities() if "train" in manifest.splits else ()
    has_text = "text" not in absent
    language = _LANGUAGES.get(manifest.tokenizer.name)
    download_size = sum(shard.num_bytes for entry in manifest.splits.values() for shard in entry.shards)
    splits = [
        {
            "name": SPLIT_NAMES[split],
            "num_bytes": facts.splits[split].num_bytes,
            "num_examples": entry.num_utterances,
        }
        for split, entry in manifest.splits.items()
    ]
    is_synthetic = bool(manifest.source["synthetic"])
    left_out = None if manifest.extraction is None else manifest.extraction.quarantine
    return {
        "pretty_name": manifest.corpus,
        **({"license": "mit"} if is_synthetic else {"license": "other", "license_name": "not-stated"}),
        **({"language": [language]} if language else {}),
        **({"task_categories": ["text-classification"], "task_ids": ["sentiment-scoring"]} if has_text else {}),
        "size_categories": [next((name for limit, name in _SIZES if num < limit), "n>1M")],
        "tags": [
            "lnln",
            "multimodal",
            "multimodal-sentiment-analysis",
            "missing-modality",
            *(modality for modality in MODALITIES if modality not in absent),
            *(["synthetic"] if is_synthetic else []),
        ],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {
                        "split": SPLIT_NAMES[split],
                        "path": [_name_in_folder(manifest, shard) for shard in entry.shards],
                    }
                    for split, entry in manifest.splits.items()
                ],
            },
            *([{"config_name": "quarantine", "data_files": _name_in_folder(manifest, left_out)}] if left_out else []),
        ],
        "dataset_info": {
            "config_name": "default",
            "features": [_feature(column) for column in facts.columns],
            "splits": splits,
            "download_size": download_size,
            "dataset_size": sum(entry["num_bytes"] for entry in splits),
        },
    }


def _name_in_folder(manifest: FeatureManifest, entry: ShardEntry) -> str:
    return entry.path.removeprefix(f"{manifest.folder}/")


def _feature(column: Column) -> dict[str, str]:
    return {"name": column.name, "list" if column.is_list else "dtype": column.dtype}


def _splits(manifest: FeatureManifest, facts: CorpusFacts) -> str:
    counts, lengths = [], []
    for split, entry in manifest.splits.items():
        found = facts.splits[split]
        counts.append(
            {
                "split": code(split),
                "utterances": str(entry.num_utterances),
                "labelled": str(int(np.count_nonzero(~np.isnan(found.labels)))),
                "with transcript": str(found.num_transcripts),
                "shards": str(len(entry.shards)),
                "bytes": str(sum(shard.num_bytes for shard in entry.shards)),
                "bytes decoded": str(found.num_bytes),
            }
        )
        for modality in MODALITIES:
            steps = manifest.lengths[split][modality]
            lengths.append(
                {
                    "split": code(split),
                    "modality": modality,
                    "fewest steps": str(steps.min),
                    "mean": f"{steps.mean:.1f}",
                    "most": str(steps.max),
                    "utterances without": str(steps.num_absent),
                }
            )
    absent = manifest.absent_modalities() if "train" in manifest.splits else ()
    note = (
        [f"No utterance of the training split has {' or '.join(absent)}: no model can learn from it."] if absent else []
    )
    renamed = [f"Split {code('valid')} is called {code('validation')} by `datasets` and in croissant.json."]
    return "\n\n".join([table(counts), *(renamed if "valid" in manifest.splits else []), table(lengths), *note])


def _columns(facts: CorpusFacts) -> str:
    return table(
        [
            {
                "column": code(column.name),
                "type": f"list of {column.dtype}" if column.is_list else column.dtype,
                "meaning": escape(column.meaning),
            }
            for column in facts.columns
        ]
    )


def _labels(manifest: FeatureManifest, facts: CorpusFacts) -> str:
    low, high = manifest.label_range
    centres = np.linspace(low, high, _NUM_LABEL_BINS)
    rows = []
    for split, found in facts.splits.items():
        labels = found.labels[~np.isnan(found.labels)]
        nearest = np.abs(labels[:, None] - centres).argmin(axis=1)
        counts = np.bincount(nearest, minlength=_NUM_LABEL_BINS)
        rows.append(
            {
                "split": code(split),
                **{f"{centre:.3g}": str(count) for centre, count in zip(centres, counts, strict=True)},
                "exactly 0": str(int(np.count_nonzero(labels == 0))),
                "mean": f"{labels.mean(dtype=np.float64):.3f}" if len(labels) else "–",
            }
        )
    return f"Within {escape(_range(manifest))}. Labels nearest to each value:\n\n{table(rows)}"


def _origin(manifest: FeatureManifest) -> str:
    source, tokenizer = manifest.source, manifest.tokenizer
    published = source["published_as"]
    rows = {
        "source file" if manifest.extraction is None else "clip folder": code(str(source["name"])),
        "its SHA-256": code(str(source["sha256"])),
        "its bytes": str(source["num_bytes"]),
        **(
            {
                "published by MMSA as": code(str(published)) if published else "not one of its published files",
                **{f"{modality} made by": _made_by(manifest.extractors.get(modality, {})) for modality in MODALITIES},
            }
            if manifest.extraction is None  # else a section tells more
            else {}
        ),
        "tokenizer": (
            f"{code(tokenizer.name)}, {tokenizer.vocabulary_size} tokens; [UNK] {tokenizer.unknown_id}, "
            f"[CLS] {tokenizer.cls_id}, [SEP] {tokenizer.sep_id}"
            if tokenizer.name
            else "none: text is language features"
        ),
        "feature id": code(manifest.feature_id),
        "SHA-256 of the manifest's content": code(manifest.digest()),
    }
    return table([{"what": what, "value": value} for what, value in rows.items()])


def _made_by(extractor: Mapping[str, Any]) -> str:
    name = str(extractor.get("name", "not stated"))
    rest = "".join(f", {escape(key)} {code(str(value))}" for key, value in extractor.items() if key != "name")
    return f"{code(name)}{rest}"


def _cleaned(manifest: FeatureManifest) -> str:
    counts = {modality: manifest.cleaned[modality] for modality in MODALITIES if modality in manifest.cleaned}
    if not any(any(each.values()) for each in counts.values()):
        return f"Nothing: every value {'of the source' if manifest.extraction is None else 'extracted'} was finite."
    rows = [
        {"modality": modality, "NaN set to 0": str(each["num_nan"]), "infinite set to 0": str(each["num_infinite"])}
        for modality, each in counts.items()
    ]
    return f"Values that were not finite were set to 0.\n\n{table(rows)}"


def _reading(manifest: FeatureManifest) -> str:
    framed: list[Modality] = [modality for modality in MODALITIES if modality in manifest.dims]
    split = "train" if "train" in manifest.splits else next(iter(manifest.splits))
    lines = "".join(
        f'{modality} = [np.reshape(values, (-1, {manifest.dims[modality]})) for values in {split}["{modality}"]]\n'
        for modality in framed
    )
    views = f"views/{manifest.feature_id}/"
    return "\n\n".join(
        [
            "With lnln: `lnln.data.shards.read_split(store, read_features(store, corpus), split)`, which checks every "
            "checksum. Without, by pandas:",
            f"```python\n{_READ.replace('SPLIT', split)}{lines}```",
            "By DuckDB:",
            f"```python\n{_DUCKDB.replace('SPLIT', split)}```",
            "By Hugging Face `datasets`, with splits "
            + ", ".join(SPLIT_NAMES[split] for split in manifest.splits)
            + ":",
            f"```python\n{_DATASETS}```",
            f"Views, the masks of corrupted copies, lie in {code(f'{manifest.corpus}/{views}')} of the same store, in "
            "shards of the same rows: `kept_audio` has a bit for each step of audio, set where it is kept, lowest bit "
            "first.",
            f"```python\n{_UNPACK}```",
        ]
    )


def _traps(manifest: FeatureManifest, facts: CorpusFacts) -> str:
    framed = [column for column in MODALITIES if column in manifest.dims]
    lists = ", ".join(f"`{modality}`" for modality in framed)
    made_by = "the source has them" if manifest.extraction is None else "the extractors made them"
    traps = [
        f"{lists} are flat lists: {framed[0]} of an utterance is `reshape({framed[0]}_length, "
        f"{manifest.dims[framed[0]]})`, row by row.",
        "Padding is not stored. The published models pad every utterance to one length, and some let padding take part "
        "in the result: pad to the same length to compare with them.",
        "A length of 0 is a modality that the utterance does not have; it is not a step of zeros.",
        "`label` is null, NaN in pandas, where an utterance is not labelled: leave it out of scores.",
        "Only what `manifest.json` lists is data. Other files of these folders are left over from writers that were "
        "interrupted; the names of shards say their content, not their order.",
        f"Features are as {made_by}, neither standardised nor clipped; `statistics` of the manifest has mean "
        "and standard deviation of each dimension over the training split.",
    ]
    if "text_ids" in [column.name for column in facts.columns]:
        traps.append(
            f"`text_ids` belong to the vocabulary of {code(manifest.tokenizer.name)}; the encoder of another tokenizer "
            "reads other words in them."
        )
    if any(any(counts.values()) for counts in manifest.cleaned.values()):
        traps.append("A 0 among the features may be a value that was not finite: see *Cleaned*.")
    if "unassigned" in manifest.splits:
        traps.append(
            f"Split {code('unassigned')} has the clips that no list assigns to a split: lnln predicts them, and "
            "neither trains nor scores on them, labelled or not."
        )
    if manifest.extraction is not None:
        traps.append(
            "A model takes features of the extractors, versions and config that it was trained with, and of no other: "
            "equal dimensions do not make equal meanings."
        )
    elif not manifest.source["synthetic"]:
        traps.append(
            "How the features were extracted is known only as far as *Origin* says; features of other tools do not fit "
            "a model that was trained on these."
        )
    return "\n".join(f"- {trap}" for trap in traps)


def _licence(manifest: FeatureManifest) -> str:
    if manifest.source["synthetic"]:
        return "MIT, as lnln itself."
    stated = (
        "Not stated: lnln made these files from data that somebody else published, whose terms hold for them too. Who "
        "passes them on fills in `license` above, and has to have the right to."
    )
    return " ".join([stated, *licence_notes(manifest)])


def _range(manifest: FeatureManifest) -> str:
    low, high = manifest.label_range
    return f"[{low:g}, {high:g}]"
