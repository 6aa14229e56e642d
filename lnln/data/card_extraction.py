"""What a dataset card says of features that lnln extracted itself: by what, what each column means, what was met.

Columns are many (709 of OpenFace), so the page has their names in short, and `columns.csv` beside it every one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from lnln.data.counts import say_counts
from lnln.data.manifest import Extraction, FeatureManifest
from lnln.data.quarantine import Quarantined
from lnln.data.schema import MODALITIES
from lnln.markdown import code, escape, table

COLUMNS = "columns.csv"

# Rows of the quarantine table, and names or runs of names of one modality, that a page shows.
NUM_ROWS_SHOWN = 20
_NUM_NAMES_SHOWN = 60

# What the licence of a package asks of those who use features that it computed.
_LICENCES = {"opensmile": "Audio features were computed by openSMILE, whose licence allows research only."}


def encode_columns(manifest: FeatureManifest) -> bytes:
    """The bytes of columns.csv: one row for each dimension of each modality that has frames."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["modality", "dimension", "name"])
    for modality in MODALITIES:
        for dimension, name in enumerate(manifest.extractors.get(modality, {}).get("columns", ())):
            writer.writerow([modality, dimension, name])
    return out.getvalue().encode()


def extraction_section(manifest: FeatureManifest, extraction: Extraction, quarantine: Sequence[Quarantined]) -> str:
    """Markdown: the extractors, the meaning of columns, the config, the counts."""
    decoder = manifest.source.get("decoded_by")
    decoded = f", decoded by {escape(str(decoder))}," if decoder else ""
    config = yaml.safe_dump(dict(extraction.config), sort_keys=False, allow_unicode=True, width=120)
    return "\n\n".join(
        [
            f"Made of raw clips{decoded} by these extractors of lnln:",
            _extractors(manifest),
            f"Dimensions are numbered from 0; {code(COLUMNS)} has the name of each one.",
            *_names(manifest),
            "The same extraction of other clips, for a model that was trained on these: `lnln extract DIR --corpus "
            "NAME --config extraction.yaml`, with this as extraction.yaml:",
            f"```yaml\n{config}```",
            "What was met:",
            counts_table(extraction.counts),
            "### Quarantine",
            quarantine_summary(quarantine, _table_name(manifest, extraction)),
        ]
    )


def counts_table(counts: Mapping[str, int]) -> str:
    """Markdown: all that is not 0."""
    rows = [{"what": escape(what), "how many": escape(number)} for what, number in say_counts(counts)]
    return table(rows) if rows else "Nothing was counted."


def quarantine_summary(rows: Sequence[Quarantined], where: str) -> str:
    """Markdown: how many at which stage, the first of them, and `where` all are."""
    if not rows:
        return "Every clip is among the utterances."
    stages = dict.fromkeys(row.stage for row in rows)
    numbers = ", ".join(f"{sum(row.stage == stage for row in rows)} at {code(stage)}" for stage in sorted(stages))
    shown = [
        {"clip or file": code(row.utterance_id), "stage": code(row.stage), "reason": escape(row.reason)}
        for row in rows[:NUM_ROWS_SHOWN]
    ]
    hidden = f" The first {NUM_ROWS_SHOWN} of them:" if len(rows) > NUM_ROWS_SHOWN else ""
    noun = "clip or file is" if len(rows) == 1 else "clips or files are"
    return (
        f"{len(rows)} {noun} not among the utterances ({numbers}); the whole table is {code(where)}.{hidden}\n\n"
        f"{table(shown)}"
    )


def licence_notes(manifest: FeatureManifest) -> list[str]:
    """What the licences of the packages that computed the features ask for."""
    packages = {name for made in manifest.extractors.values() for name in made.get("packages", {})}
    return [note for package, note in _LICENCES.items() if package in packages]


def join_runs(names: Sequence[str]) -> list[tuple[str, str]]:
    """First and last name of each run that counts on: mfcc_1, mfcc_2, mfcc_3, zcr to (mfcc_1, mfcc_3), (zcr, zcr)."""
    runs: list[tuple[str, str]] = []
    for name in names:
        if runs and _counts_on(runs[-1][1], name):
            runs[-1] = (runs[-1][0], name)
        else:
            runs.append((name, name))
    return runs


def _counts_on(name: str, following: str) -> bool:
    """Whether they differ in their last number only, which is one higher in `following`."""
    parts = re.fullmatch(r"(.*?)([0-9]{1,9})([^0-9]*)", name)
    return parts is not None and following == f"{parts[1]}{int(parts[2]) + 1:0{len(parts[2])}d}{parts[3]}"


def _extractors(manifest: FeatureManifest) -> str:
    rows = []
    for modality in MODALITIES:
        made: Mapping[str, Any] = manifest.extractors.get(modality, {})
        dim = manifest.dims.get(modality)
        rate = made.get("rate_hz")
        rows.append(
            {
                "modality": modality,
                "extractor": code(str(made.get("name", "not stated"))),
                "version": str(made.get("version", "")),
                "numbers a step": "a token id" if dim is None else str(dim),
                "steps a second": f"{rate:g}" if rate else "–",
                "packages": ", ".join(f"{escape(name)} {escape(v)}" for name, v in made.get("packages", {}).items()),
            }
        )
    return table(rows)


def _names(manifest: FeatureManifest) -> Iterator[str]:
    for modality in MODALITIES:
        runs = join_runs(manifest.extractors.get(modality, {}).get("columns", ()))
        if runs:
            said = [code(a) if a == b else f"{code(a)} to {code(b)}" for a, b in runs[:_NUM_NAMES_SHOWN]]
            more = f", and more in {code(COLUMNS)}" if len(runs) > _NUM_NAMES_SHOWN else ""
            yield f"{modality}: {', '.join(said)}{more}."


def _table_name(manifest: FeatureManifest, extraction: Extraction) -> str:
    entry = extraction.quarantine
    return "" if entry is None else entry.path.removeprefix(f"{manifest.folder}/")
