"""Standard output holds the result and nothing else; tables say what their cells say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import rich.console

from lnln.cli.console import Console, table

# Prints from Python and from a child process while a result is made, then the result.
NOISY = """
import subprocess, sys
from lnln.cli.console import Console
console = Console(as_json=True, quiet=sys.argv[1] == "quiet")
with console.as_progress():
    print("from Python")
    subprocess.run(["echo", "from a child"], check=True)
console.result({"text": "\\u00e9"})
"""


@pytest.mark.parametrize(("mode", "err"), [("audible", ["from Python", "from a child"]), ("quiet", [])])
def test_what_is_printed_meanwhile_stays_off_standard_output(mode: str, err: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", NOISY, mode], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"text": "é"}
    assert sorted(done.stderr.splitlines()) == sorted(err)


@pytest.mark.parametrize("quiet", [False, True])
def test_a_captured_stream_is_turned_away_too(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    with Console(quiet=quiet).as_progress():
        print("noise")
    assert capsys.readouterr() == ("", "" if quiet else "noise\n")


def test_standard_output_comes_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with pytest.raises(KeyError), console.as_progress():
        raise KeyError("x")
    console.result(None, lines=["result"])
    assert capfd.readouterr().out == "result\n"


def text_of(*arguments: object, width: int = 80, **options: bool) -> list[str]:
    console = rich.console.Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(table(*arguments, **options))  # type: ignore[arg-type]
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def test_numbers_are_right_aligned_and_words_are_not() -> None:
    rows = [["a", 1, "x", "+0.5", ""], ["b", 100, "1 or x", "-10.25", "3"]]
    header, _, first, second = text_of(["name", "num", "word", "signed", "gaps"], rows)
    assert header.index("num") + 3 == first.index("1") + 1 == second.index("100") + 3
    assert header.index("word") == first.index("x") == second.index("1 or x")
    assert header.index("signed") + 6 == first.index("+0.5") + 4
    assert header.index("gaps") + 4 == second.index("3") + 1


def test_the_first_column_is_left_aligned_and_never_broken() -> None:
    rows = [["0", "words " * 20], ["95% interval", "more words"]]
    lines = text_of(["missing rate", "text"], rows, width=50)
    assert any(line.strip().startswith("95% interval") for line in lines)
    assert any(line.startswith("  0") for line in lines)


def test_prose_in_the_first_column_is_broken_into_lines() -> None:
    sentence = " ".join(f"word{i}" for i in range(30))
    lines = text_of(["input", "sentiment"], [[sentence, "+0.50"]], width=60, is_prose=True)
    assert all(f"word{i}" in " ".join(lines) for i in range(30))


def test_cells_are_text_and_not_markup() -> None:
    assert "[bold]x[/bold]" in " ".join(text_of(["name"], [["[bold]x[/bold]"]]))


def test_a_table_may_be_empty() -> None:
    assert text_of(["one", "two"], [])
