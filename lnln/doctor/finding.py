"""What the doctor says of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

Level = Literal["fine", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """`fine`, `note` (works, but worth knowing) or `wrong`.

    text: what was found. expected: what should have been. mend: a command, or what to set. Both stand where something
    is wrong.
    """

    topic: str
    level: Level
    text: str
    expected: str = ""
    mend: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        expected = f"expected {self.expected}, found " if self.expected else ""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.topic}: {expected}{self.text}{mend}"


def wrong(topic: str, text: str, *, expected: str, mend: str) -> Finding:
    return Finding(topic, "wrong", text, expected, mend)


def without_password(address: str) -> str:
    """`address` as it may be shown: what lies before an `@` in it may be a password."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}"))
