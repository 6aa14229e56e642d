"""Which code made a score: a fingerprint of the sources that decide how a trained model scores.

Scores of other code are not stale by that alone, since most changes of code change no number; the page names them, and
`make results STALE=code` makes them again. Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lnln
from lnln.config import fingerprint
from lnln.data.store import Store

PACKAGE = Path(lnln.__file__).parent
# Relative to the package.
SOURCES = (
    "models/*.py",
    "losses.py",
    "corruption/*.py",
    "views.py",
    "batches.py",
    "train/loop.py",
    "train/average.py",
    "train/schedule.py",
    "metrics.py",
    "evaluate/run.py",
    "evaluate/scores.py",
    "evaluate/bootstrap.py",
)
# Stands for the code of a run that did not record it.
UNKNOWN = "unknown"


def code_fingerprint(package: Path = PACKAGE) -> str:
    """Of all SOURCES, with their names; the same under every supported Python."""
    found = [list(package.glob(pattern)) for pattern in SOURCES]
    assert all(found), "every pattern names a file"
    return fingerprint({path.relative_to(package).as_posix(): _digest(path) for paths in found for path in paths})


def record_code(store: Store, folder: str, code: str, record: str = "run.json") -> str:
    """Note in the `folder` of a run that `code` works on it; returns all that did so far, with + between.

    A run may be continued, and a finished one scored, by later code than it was begun with. record: the file that is
    there once it was begun.
    """
    is_begun = store.exists(f"{folder}/{record}")

    def add(content: bytes | None) -> bytes:
        known = json.loads(content) if content is not None else [UNKNOWN]
        return json.dumps(_with(known if is_begun else [], code)).encode()

    return "+".join(json.loads(store.update(_path(folder), add)))


def is_made_by(store: Store, folder: str, code: str, record: str = "run.json") -> bool:
    """Whether what there is in `folder` was made by `code` alone."""
    if not store.exists(f"{folder}/{record}"):
        return True
    return store.exists(_path(folder)) and store.read_json(_path(folder)) == [code]


def _path(folder: str) -> str:
    return f"{folder}/code.json"


def _with(codes: Iterable[str], code: str) -> list[str]:
    return sorted({*codes, code})


def _digest(path: Path) -> str:
    return hashlib.sha256(repr(_content(ast.parse(path.read_text(encoding="utf-8")))).encode()).hexdigest()


def _content(value: Any) -> Any:
    """A syntax tree as plain values, without docstrings.

    Empty fields are left out, as a later Python has more of them; its `ast.unparse` writes strings otherwise too.
    """
    if isinstance(value, list):
        return [_content(entry) for entry in value if not _is_docstring(entry)]
    if not isinstance(value, ast.AST):
        return value
    fields = {name: _content(entry) for name, entry in ast.iter_fields(value)}
    return type(value).__name__, sorted((name, entry) for name, entry in fields.items() if entry not in (None, []))


def _is_docstring(value: Any) -> bool:
    """Also a string that stands below a field: no statement that is a string does anything."""
    return isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant) and isinstance(value.value.value, str)
