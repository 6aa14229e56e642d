"""Size and SHA-256: what every manifest, checkpoint and catalog states of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 1 << 20


def read_digest(stream: BinaryIO) -> tuple[int, str]:
    """(number of bytes, SHA-256 in hexadecimal) of what is left in `stream`."""
    digest, num_bytes = hashlib.sha256(), 0
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
        num_bytes += len(piece)
    return num_bytes, digest.hexdigest()


def digest_file(path: Path) -> tuple[int, str]:
    """`read_digest` of the file at `path`."""
    with path.open("rb") as stream:
        return read_digest(stream)
