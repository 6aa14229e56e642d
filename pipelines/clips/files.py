"""The files of listed clips: weighed before anything is made of them, and read when it is.

clips, unreadable = weigh(source, table, client)        # as jobs: every file is read once
raw = read_clip(source, clips[0])                       # refused where a file is not what was weighed
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnln.data.digest import read_digest
from lnln.data.quarantine import Quarantined
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from pipelines.clips.extract_clip import RawClip, plain_reason
from pipelines.clips.table import ClipRow, ClipTable
from pipelines.execute import run
from pipelines.plan import Job, Plan
from pipelines.steps import step_done

if TYPE_CHECKING:
    from distributed import Client

# Of one job: a second or so of reading.
CLIPS_PER_JOB = 256


@dataclass(frozen=True)
class WeighedFile:
    """path: below the clip folder."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class WeighedClip:
    """A listed clip, and what its files weigh; in the order of `row.files`."""

    row: ClipRow
    files: tuple[WeighedFile, ...]

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def weigh(source: Store, table: ClipTable, client: Client | None) -> tuple[list[WeighedClip], list[Quarantined]]:
    """Every clip of `table` with the SHA-256 of its files, in order; and those that may not be read."""
    groups = [table.rows[first : first + CLIPS_PER_JOB] for first in range(0, len(table.rows), CLIPS_PER_JOB)]
    jobs = [
        Job(f"files {number}", weigh_files, {"source": source, "rows": group}, num_steps=len(group))
        for number, group in enumerate(groups)
    ]
    weighed = [clip for group in run(Plan("weigh clips", tuple(jobs)), client) for clip in group]
    clips = [clip for clip in weighed if isinstance(clip, WeighedClip)]
    return clips, [clip for clip in weighed if isinstance(clip, Quarantined)]


def weigh_files(source: Store, rows: Sequence[ClipRow]) -> list[WeighedClip | Quarantined]:
    """Each clip with the SHA-256 of its files, or why one of them cannot be read."""
    weighed: list[WeighedClip | Quarantined] = []
    for row in rows:
        try:
            weighed.append(WeighedClip(row, tuple(_weigh(source, file.path) for file in row.files)))
        except _ForbiddenError as error:
            weighed.append(Quarantined(row.utterance_id, "file", str(error)))
        step_done()
    return weighed


def read_clip(source: Store, clip: WeighedClip) -> RawClip:
    """The clip with the bytes of its files; RefusedError where one is not what was weighed."""
    row = clip.row
    files = tuple((file.path, _read(source, file)) for file in clip.files)
    return RawClip(row.utterance_id, row.text, files, row.words, row.label, row.modality_labels)


class _ForbiddenError(Exception):
    """One file that may not be read, where others may."""


def _weigh(source: Store, path: str) -> WeighedFile:
    try:
        with source.open(path) as stream:
            return WeighedFile(path, *read_digest(stream))
    except FileNotFoundError:
        raise _changed(source, path) from None
    except StoreFailedError as error:
        # In a bucket it is all of them that may not be read: credentials have run out.
        if "://" not in source.url and isinstance(error.__cause__, PermissionError):
            raise _ForbiddenError(plain_reason(f"{path} cannot be read: {error.__cause__.strerror}")) from error
        raise


def _read(source: Store, file: WeighedFile) -> bytes:
    try:
        data = source.read(file.path)
    except FileNotFoundError:
        raise _changed(source, file.path) from None
    if (len(data), hashlib.sha256(data).hexdigest()) != (file.num_bytes, file.sha256):
        raise _changed(source, file.path)
    return data


def _changed(source: Store, path: str) -> RefusedError:
    return RefusedError(
        f"{source.url}/{path} was there when the extraction began, and has changed or gone, or this worker cannot see "
        "it; run the same command again once all workers see the same clips"
    )
