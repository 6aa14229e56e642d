from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from lnln.data.digest import digest_file, read_digest


@pytest.mark.parametrize("num_bytes", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_size_and_sha256(tmp_path: Path, num_bytes: int) -> None:
    data = bytes(number % 251 for number in range(num_bytes))
    path = tmp_path / "file"
    path.write_bytes(data)
    assert read_digest(io.BytesIO(data)) == digest_file(path) == (num_bytes, hashlib.sha256(data).hexdigest())


def test_only_what_is_left_counts() -> None:
    stream = io.BytesIO(b"abc")
    stream.read(1)
    assert read_digest(stream) == (2, hashlib.sha256(b"bc").hexdigest())
