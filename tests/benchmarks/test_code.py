"""The fingerprint of the code: what changes what is computed changes it, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.results.code import PACKAGE, SOURCES, code_fingerprint


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for pattern in SOURCES:
        for path in PACKAGE.glob(pattern):
            copy = tmp_path / path.relative_to(PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    (tmp_path / "show.py").write_text("x = 1\n")
    return tmp_path


def test_wording_does_not_count(package: Path) -> None:
    before = code_fingerprint(package)
    assert before == code_fingerprint(PACKAGE)
    losses = package / "losses.py"
    text = losses.read_text()
    losses.write_text('"""Other words."""\n# A remark.\n\n' + text[text.index('"""', 3) + 3 :].replace(", ", ",  "))
    assert losses.read_text() != text and code_fingerprint(package) == before
    (package / "show.py").write_text("x = 2\n")
    assert code_fingerprint(package) == before


def test_strings_and_docstrings_are_told_apart(package: Path) -> None:
    losses = package / "losses.py"
    text = losses.read_text()
    seen = []
    for added in (
        'def f():\n    """Says this."""\n    return "a"\n',
        'def f():\n    """Says that."""\n    return "a"\n',
        'def f():\n    return "b"\n',
        'def f(x=None):\n    return "b"\n',
    ):
        losses.write_text(f"{text}\n\n{added}")
        seen.append(code_fingerprint(package))
    assert seen[0] == seen[1] and len(set(seen)) == 3


@pytest.mark.parametrize("name", ["models/lnln.py", "losses.py", "train/average.py", "metrics.py", "evaluate/run.py"])
def test_statements_count(package: Path, name: str) -> None:
    before = code_fingerprint(package)
    path = package / name
    path.write_text(path.read_text() + "\nADDED = 1\n")
    changed = code_fingerprint(package)
    assert changed != before
    path.write_text(path.read_text().replace("ADDED = 1", "ADDED = 1.0"))
    assert code_fingerprint(package) not in (before, changed)


def test_a_new_model_counts(package: Path) -> None:
    before = code_fingerprint(package)
    (package / "models" / "other.py").write_text("")
    assert code_fingerprint(package) != before
