"""Markdown from values: text that came from outside shows as it is and never becomes markup."""

from __future__ import annotations

import re
from collections.abc import Sequence


def escape(text: str) -> str:
    """`text` on one line, with every character that Markdown or HTML would read as markup made plain."""
    plain = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", plain)
    plain = re.sub(r"^([#+-])", r"\\\1", plain)
    return re.sub(r"^(\d+)(?=[.)](?:\s|$))", r"\1\\", plain)


def code(text: str) -> str:
    """`text` as inline code, whatever it holds; in a table too."""
    line = _one_line(text)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", r"\|")


def table(rows: Sequence[dict[str, str]]) -> str:
    """A table whose columns are the keys of the first row; cells are Markdown already."""
    columns = list(rows[0])
    lines = [
        "| " + " | ".join(columns) + " |",
        "| " + " | ".join(["---", *["---:"] * (len(columns) - 1)]) + " |",
        *("| " + " | ".join(row[column] for column in columns) + " |" for row in rows),
    ]
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
