"""The CSV files of a clip folder: rows by column, and what a field means.

    header, rows = read_csv(store, "label.csv", required=("video_id", "clip_id"))
    parse_label(rows[0]["label"], "label")

UTF-8 with or without a byte order mark; blanks around values count for nothing; names in one Unicode form.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from lnln.data.schema import STORED_SPLITS, Split
from lnln.data.store import Store
from lnln.errors import RefusedError
from pipelines.extractors.base import ClipError

# What the column `mode` calls a split, beside its name.
_MODES: dict[str, Split] = {
    "": "unassigned",
    "nan": "unassigned",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    **{split: split for split in STORED_SPLITS},
}
# Columns by their name in small letters.
_COLUMNS = {
    column.lower(): column
    for column in (
        *("video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"),
        *("word", "start", "end"),
    )
}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)


@dataclass(frozen=True)
class CsvRow:
    """One row of a CSV file; `row["label"]` is its field in that column, "" where it has none. line: its last one."""

    header: tuple[str, ...]
    fields: tuple[str, ...]
    line: int

    def __getitem__(self, column: str) -> str:
        index = self.header.index(column) if column in self.header else len(self.fields)
        return self.fields[index] if index < len(self.fields) else ""

    @property
    def utterance_id(self) -> str:
        """As MMSA names an utterance."""
        return f"{self['video_id']}$_${self['clip_id']}"

    def require_whole(self) -> None:
        """ClipError where it has not as many fields as the file has columns."""
        if len(self.fields) != len(self.header):
            counted = f"{len(self.fields)} fields for {len(self.header)} columns"
            raise ClipError("table", f"line {self.line} has {counted}; a text with commas stands in quotation marks")

    def first_difference(self, other: CsvRow) -> str | None:
        """The first column in which `other`, of the same file, says something else; `annotation` aside."""
        columns = (column for column in self.header if column != "annotation")
        return next((column for column in columns if self[column] != other[column]), None)


def read_csv(source: Store, path: str, required: Sequence[str]) -> tuple[tuple[str, ...], list[CsvRow]]:
    """(header, rows) of `path`; rows without any value are left out, others may have too few fields or too many.

    RefusedError where it is missing, no CSV in UTF-8, lacks a column, names one twice, or has no rows.
    """
    where = f"{source.url}/{path}"
    try:
        text = source.read(path).decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(tuple(_plain(field) for field in fields), reader.line_num) for fields in reader]
    except FileNotFoundError:
        raise RefusedError(
            f"there is no {where}; a folder of clips has one with columns {', '.join(required)}"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RefusedError(f"{where}, line {line} is not UTF-8; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise RefusedError(
            f"{where}, line {reader.line_num} is no CSV: {error}; quotation marks come in pairs"
        ) from error
    rows = [(fields, line) for fields, line in rows if any(fields)]
    header = tuple(_COLUMNS.get(column.lower(), column) for column in rows[0][0]) if rows else ()
    missing = [column for column in required if column not in header]
    if missing:
        there = ", ".join(header[:10]) or "nothing"
        raise RefusedError(
            f"{where} has no column {', '.join(missing)}, its first line has {there}; expected {', '.join(required)} "
            "with commas between, and fields left blank where there is nothing to say"
        )
    named = [column for column in header if column]
    if twice := next((column for column in named if named.count(column) > 1), None):
        raise RefusedError(f"{where} has column {twice} twice; leave one out")
    if len(rows) == 1:
        raise RefusedError(f"{where} lists nothing below its first line; give each clip a row")
    return header, [CsvRow(header, fields, line) for fields, line in rows[1:]]


def plain_name(row: CsvRow, column: str) -> str:
    """The value of `column`, which is part of a path; ClipError where it is none or would lead elsewhere."""
    name = row[column]
    if not name or name in (".", "..") or name.startswith(".") or re.search(r"[/\\\0]", name):
        raise ClipError("table", f"{column} must be the name of a file or folder, got {name!r}")
    return name


def parse_label(field: str, column: str) -> float | None:
    """A label, None where there is none ("" or "nan"); ClipError where it is no number."""
    if field.lower() in ("", "nan"):
        return None
    if not _NUMBER.fullmatch(field):
        raise ClipError("table", f"{column} must be a number or blank, got {field[:40]!r}")
    return float(field)


def parse_mode(field: str) -> Split:
    """The split that a field of column `mode` says; ClipError where it says none of them."""
    split = _MODES.get(field.lower())
    if split is None:
        raise ClipError("table", f"mode must be train, valid, test or blank, got {field[:40]!r}")
    return split


def _plain(field: str) -> str:
    return sys.intern(unicodedata.normalize("NFC", field.strip()))
