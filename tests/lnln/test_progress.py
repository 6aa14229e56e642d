"""Lines and bars go to standard error, bars to terminals only, and one switch silences both."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from lnln import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _audible() -> Iterator[None]:
    yield
    progress.be_quiet(False)


def test_a_line_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    progress.line("epoch  1 [of] 40")
    progress.line("two\nlines")
    assert capsys.readouterr() == ("", "epoch  1 [of] 40\ntwo lines\n")


def test_a_bar_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with progress.bar("work", 2) as advance:
        advance()
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar("work [bold]", 2) as advance:
        advance()
        advance()
    assert "work [bold]" in terminal.getvalue() and "2/2" in terminal.getvalue()


def test_a_bar_of_nothing_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress.bar("work", 0):
        pass
    assert terminal.getvalue() == ""


def test_quiet_silences_both_until_it_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress.be_quiet()
    progress.line("unheard")
    with progress.bar("unseen", 1) as advance:
        advance()
    assert terminal.getvalue() == ""
    progress.be_quiet(False)
    progress.line("heard")
    assert terminal.getvalue() == "heard\n"


def test_a_failure_inside_a_bar_gets_out() -> None:
    with pytest.raises(KeyError), progress.bar("work", 1):
        raise KeyError("x")
