"""The list of a folder of clips: what `label.csv` says of each, and which file is meant.

    table = read_clip_table(Store("./clips"), ClipConfig())        # or Store("s3://bucket/prefix")
    table.rows[0].utterance_id, table.rows[0].files                # what can be tried
    table.problems                                                 # what cannot, and why

    label.csv      video_id, clip_id, text, label; annotation, mode; of CH-SIMS also label_T, label_A, label_V
    words.csv      optional: video_id, clip_id, word, start, end (seconds); read where features are aligned to words
    Raw/<video_id>/<clip_id>.<any ending>

The layout of MMSA-FET. A mistake in one row costs that clip, one in the whole file is refused; no clip disappears
unsaid. Names are compared in one Unicode form (NFC), since file systems change it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from lnln.data.quarantine import Quarantined
from lnln.data.schema import Modality, Split
from lnln.data.store import Store, StoredFile
from lnln.errors import RefusedError
from pipelines.clips.label_csv import CsvRow, parse_label, parse_mode, plain_name, read_csv
from pipelines.clips.word_times import Word, read_words
from pipelines.extractors.base import ClipError
from pipelines.extractors.config import ClipConfig

LABELS, RAW = "label.csv", "Raw"
# No clip of the lengths that are extracted has more; nor should a file above that be read into memory.
MAX_FILE_BYTES = 2 << 30
# CH-SIMS labels each modality by itself; the column says which.
MODALITY_LABELS: Mapping[str, Modality] = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
# Labels are means of a few annotators: a rounding above the end of the scale is no mistake.
_LABEL_TOLERANCE = 1e-4
# How files end that clips lie in, those with a picture first. Beside such a file, one of another ending is not taken.
_PICTURE = ("mp4", "mkv", "mov", "avi", "webm", "flv", "m4v", "mpg", "mpeg", "wmv", "ts", "mts", "3gp", "ogv")
_SOUND = ("wav", "flac", "mp3", "m4a", "aac", "ogg", "opus", "wma", "aif", "aiff")
MEDIA_ENDINGS = (*_PICTURE, *_SOUND)
_NO_CLIPS = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class ClipRow:
    """One clip as it is listed. label: None where there is none. files: those it may be, the likeliest first, as paths
    below the clip folder. words: what is said when, where the features are aligned to it."""

    utterance_id: str
    text: str | None
    label: float | None
    modality_labels: Mapping[Modality, float | None]
    split: Split
    files: tuple[StoredFile, ...]
    words: tuple[Word, ...] = ()


# One label of so many may lie outside a scale and be a mistake.
_MISTAKES = 20


@dataclass(frozen=True)
class ClipTable:
    """rows: the clips that can be tried, in the order of the list. problems: of the rest. unlisted: files of no clip.
    counts: as the manifest has them. labelled_modalities: those that the list has a column for."""

    rows: tuple[ClipRow, ...]
    problems: tuple[Quarantined, ...]
    unlisted: tuple[Quarantined, ...]
    counts: Mapping[str, int]
    label_range: tuple[float, float]
    labelled_modalities: tuple[Modality, ...]


def read_clip_table(source: Store, config: ClipConfig) -> ClipTable:
    """The clips listed in `source`, and what is wrong with them; nothing is written and no clip is read.

    RefusedError where there is no label.csv, or it is no CSV in UTF-8, lacks a column or lists nothing; where there
    are no files in Raw; where words.csv is wanted and missing.
    """
    _, listed = read_csv(source, LABELS, ("video_id", "clip_id", "text", "label"))
    files = _find_files(source)
    words = read_words(source) if config.align == "words" else None
    labelled = tuple(m for column, m in MODALITY_LABELS.items() if any(row[column] for row in listed))
    label_range = _label_range(config, listed, ["label", *MODALITY_LABELS] if labelled else [])

    by_name: dict[str, list[CsvRow]] = defaultdict(list)
    for listed_row in listed:
        by_name[listed_row.utterance_id].append(listed_row)
    rows: list[ClipRow] = []
    problems: list[Quarantined] = []
    counts = Counter(clips=len(by_name), rows_repeated=0, clips_with_several_files=0, files_beside_clips=0)
    for name, same in by_name.items():
        counts["rows_repeated"] += sum(same[0].first_difference(other) is None for other in same[1:])
        try:
            row, num_beside = _row(same, files, label_range, labelled)
            row = row if words is None else replace(row, words=words.of(name))
        except ClipError as error:
            problems.append(Quarantined(name, error.stage, error.reason))
            continue
        counts["clips_with_several_files"] += len(row.files) > 1
        counts["files_beside_clips"] += num_beside
        rows.append(row)
    unlisted = [Quarantined(path, "table", f"not in {LABELS}") for path in _unlisted(files, by_name)]
    counts["files_unlisted"] = len(unlisted)
    if words is not None:
        counts["word_rows_of_unlisted_clips"] = words.num_rows_but_of(by_name)
    return ClipTable(tuple(rows), tuple(problems), tuple(unlisted), dict(counts), label_range, labelled)


def _row(
    same: Sequence[CsvRow],
    files: Mapping[str, Sequence[StoredFile]],
    label_range: tuple[float, float],
    labelled: Sequence[Modality],
) -> tuple[ClipRow, int]:
    """The clip that the rows `same` list, and how many files beside it are none. ClipError where it cannot be used."""
    first = same[0]
    for listed in same:
        listed.require_whole()
    video_id, clip_id = plain_name(first, "video_id"), plain_name(first, "clip_id")
    for other in same[1:]:
        if (column := first.first_difference(other)) is not None:
            raise ClipError("table", f"listed in lines {first.line} and {other.line} with another {column}")
    split = parse_mode(first["mode"])
    label = _label(first, "label", label_range)
    by_column = {modality: column for column, modality in MODALITY_LABELS.items()}
    own = {modality: _label(first, by_column[modality], label_range) for modality in labelled}
    found = files.get(first.utterance_id, ())
    if not found:
        raise ClipError("file", f"there is no {RAW}/{video_id}/{clip_id}.*")
    chosen = sorted((file for file in found if _rank(file) < len(MEDIA_ENDINGS)), key=_rank) or found
    candidates = tuple(file for file in chosen if 0 < file.num_bytes <= MAX_FILE_BYTES)
    if not candidates:
        size = chosen[0].num_bytes
        fault = "is empty" if not size else f"has {size:,} bytes; cut it into clips of {MAX_FILE_BYTES:,} at most"
        raise ClipError("file", f"{chosen[0].path} {fault}")
    row = ClipRow(first.utterance_id, first["text"] or None, label, own, split, candidates)
    return row, len(found) - len(candidates)


def _rank(file: StoredFile) -> int:
    """The place of its ending among those that clips have; behind them all for any other."""
    ending = file.path.rpartition(".")[2].lower()
    return MEDIA_ENDINGS.index(ending) if ending in MEDIA_ENDINGS else len(MEDIA_ENDINGS)


def _label(row: CsvRow, column: str, label_range: tuple[float, float]) -> float | None:
    label, (low, high) = parse_label(row[column], column), label_range
    if label is not None and not low - _LABEL_TOLERANCE <= label <= high + _LABEL_TOLERANCE:
        scale = f"expected {low:g} to {high:g}; clips.label_range states another scale"
        raise ClipError("table", f"{column} is {label:g}, {scale}")
    return label


def _label_range(config: ClipConfig, listed: Sequence[CsvRow], columns: Sequence[str]) -> tuple[float, float]:
    """As stated; else CH-SIMS's where modalities have labels of their own and nearly all in `columns` lie there, which
    those of a list of CMU-MOSI's with these columns do not; else CMU-MOSI's."""
    if config.label_range is not None:
        low, high = config.label_range
        return low, high
    labels = [label for row in listed for column in columns if (label := _number(row[column])) is not None]
    num_outside = sum(abs(label) > 1 + _LABEL_TOLERANCE for label in labels)
    return (-1.0, 1.0) if labels and _MISTAKES * num_outside <= len(labels) else (-3.0, 3.0)


def _number(field: str) -> float | None:
    try:
        return parse_label(field, "label")
    except ClipError:  # said where the row is read
        return None


def _find_files(source: Store) -> dict[str, list[StoredFile]]:
    """Files of Raw by the utterance_id that they would have, sorted; paths below the clip folder.

    Those that no clip can be in are by their path.
    """
    files: dict[str, list[StoredFile]] = defaultdict(list)
    listed = Store(f"{source.url}/{RAW}").list_files(follow_links=True)
    for file in sorted(listed, key=lambda file: file.path):
        *folders, name = file.path.split("/")
        if any(part.startswith(".") for part in (*folders, name)) or name.lower() in _NO_CLIPS:
            continue
        stem, _, ending = name.rpartition(".")
        can_be_a_clip = len(folders) == 1 and "\\" not in name and printable(name) == name
        key = _normal(f"{folders[0]}$_${stem or ending}") if can_be_a_clip else file.path
        files[key].append(StoredFile(f"{RAW}/{file.path}", file.num_bytes, file.modified))
    if not files:
        raise RefusedError(
            f"no files in {source.url}/{RAW}; clips lie in {RAW}/<video_id>/<clip_id>.mp4 beside {LABELS}"
        )
    return dict(files)


def _unlisted(files: Mapping[str, Sequence[StoredFile]], listed: Container[str]) -> list[str]:
    """Paths of the files that no listed clip is called like, as text that can be stored."""
    return sorted(printable(file.path) for key, found in files.items() if key not in listed for file in found)


def printable(path: str) -> str:
    """`path` with the bytes spelled out that are not UTF-8."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)
