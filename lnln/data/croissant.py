"""A dataset card for programs: the files and columns of a corpus as JSON-LD, by the Croissant 1.0 specification.

Every shard is a FileObject with its SHA-256; the shards of a split are a FileSet, which a RecordSet reads column by
column; clips that could not be used are a table and a RecordSet of their own. Paths are relative to the folder that
the file lies in. https://docs.mlcommons.org/croissant/docs/
"""

from __future__ import annotations

from typing import Any

from lnln.data.card_facts import SPLIT_NAMES, Column, CorpusFacts
from lnln.data.manifest import FeatureManifest, ShardEntry
from lnln.data.store import encode_json

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
PARQUET = "application/x-parquet"

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs",
            "column",
            "equivalentProperty",
            "extract",
            "field",
            "fileObject",
            "fileProperty",
            "fileSet",
            "format",
            "includes",
            "isLiveDataset",
            "jsonPath",
            "key",
            "md5",
            "parentField",
            "path",
            "recordSet",
            "references",
            "regex",
            "repeated",
            "replace",
            "samplingRate",
            "separator",
            "source",
            "subField",
            "transform",
        )
    },
}
_QUARANTINE = {
    "utterance_id": "name of the clip, or path of a file that is not listed",
    "stage": "where it failed: table, file, decode, text, audio or vision",
    "reason": "why, in one sentence",
}
_TYPES = {"string": "sc:Text", "int32": "sc:Integer", "float32": "sc:Float"}


def encode_croissant(manifest: FeatureManifest, facts: CorpusFacts, description: str, license_url: str | None) -> bytes:
    """The bytes of `croissant.json`; license_url: None where the licence is not known."""
    left_out = None if manifest.extraction is None else manifest.extraction.quarantine
    licence = {} if license_url is None else {"license": license_url}
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": manifest.corpus,
        "description": description,
        **licence,
        "identifier": manifest.feature_id,
        "distribution": [*_distribution(manifest), *([_file(manifest, left_out)] if left_out else [])],
        "recordSet": [
            *(_record_set(SPLIT_NAMES[split], entry.num_utterances, facts) for split, entry in manifest.splits.items()),
            *([_quarantine_records(manifest, left_out)] if left_out else []),
        ],
    }
    return encode_json(value)


def _distribution(manifest: FeatureManifest) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    for split, entry in manifest.splits.items():
        paths = [_name_in_folder(manifest, shard) for shard in entry.shards]
        files += [_file(manifest, shard) for shard in entry.shards]
        name = SPLIT_NAMES[split]
        files.append(
            {
                "@type": "cr:FileSet",
                "@id": f"{name}-shards",
                "name": f"{name}-shards",
                "description": f"The {len(paths)} shards of split {name}.",
                "encodingFormat": PARQUET,
                "includes": paths,
            }
        )
    return files


def _file(manifest: FeatureManifest, entry: ShardEntry) -> dict[str, Any]:
    path = _name_in_folder(manifest, entry)
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{entry.num_bytes} B",
        "encodingFormat": PARQUET,
        "sha256": entry.sha256,
    }


def _name_in_folder(manifest: FeatureManifest, entry: ShardEntry) -> str:
    return entry.path.removeprefix(f"{manifest.folder}/")


def _quarantine_records(manifest: FeatureManifest, entry: ShardEntry) -> dict[str, Any]:
    source = {"fileObject": {"@id": _name_in_folder(manifest, entry)}}
    return {
        "@type": "cr:RecordSet",
        "@id": "quarantine",
        "name": "quarantine",
        "description": f"{entry.num_rows} clips or files that are not among the utterances, one in each row.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"quarantine/{column}",
                "name": column,
                "description": meaning,
                "dataType": _TYPES["string"],
                "source": {**source, "extract": {"column": column}},
            }
            for column, meaning in _QUARANTINE.items()
        ],
    }


def _record_set(split: str, num_utterances: int, facts: CorpusFacts) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"{num_utterances} utterances, one in each row.",
        "key": {"@id": f"{split}/utterance_id"},
        "field": [_field(split, column) for column in facts.columns],
    }


def _field(split: str, column: Column) -> dict[str, Any]:
    repeated = {"repeated": True} if column.is_list else {}
    return {
        "@type": "cr:Field",
        "@id": f"{split}/{column.name}",
        "name": column.name,
        "description": column.meaning,
        "dataType": _TYPES[column.dtype],
        **repeated,
        "source": {"fileSet": {"@id": f"{split}-shards"}, "extract": {"column": column.name}},
    }
