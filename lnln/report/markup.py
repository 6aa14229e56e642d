"""HTML from values: text that came from outside shows as it is and never becomes markup."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence

from lnln.report.look import SCRIPT, STYLE

# A cell with more characters than this may break into lines.
LONG = 40
# A table of so many rows can be filtered.
MANY = 8


def one_line(text: str) -> str:
    """`text` without line breaks, control characters and marks that turn the direction of writing."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def escape(text: str) -> str:
    """`text` on one line, for content and for attributes in double quotes."""
    return html.escape(one_line(text), quote=True)


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def table(
    rows: Sequence[Mapping[str, str]],
    caption: str,
    *,
    highlighted: Iterable[int] = (),
    is_filterable: bool | None = None,
) -> str:
    """A table of plain text whose columns are the keys of the first row; its headings sort it.

    highlighted: indices of the rows that stand out. is_filterable: where it is None, a table of MANY rows is.
    """
    columns = list(rows[0])
    lit = set(highlighted)
    body = "".join(
        f"{'<tr class=lit>' if index in lit else '<tr>'}{''.join(_cell(row[column]) for column in columns)}</tr>"
        for index, row in enumerate(rows)
    )
    return sortable(columns, body, caption, is_filterable=len(rows) >= MANY if is_filterable is None else is_filterable)


def sortable(heads: Sequence[str], body: str, caption: str, *, is_filterable: bool = False) -> str:
    """A table of rows that are HTML already; `heads` and `caption` are plain text.

    Its headings sort it. is_filterable: a field above it, made by the page's script, keeps the rows that hold a text.
    """
    buttons = "".join(f'<th scope="col"><button type="button">{escape(head)}</button></th>' for head in heads)
    scroll = f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
    head = f"<caption>{escape(caption)}</caption><thead><tr>{buttons}</tr></thead>"
    kind = " data-filter" if is_filterable else ""
    return f"{scroll}<table{kind}>{head}<tbody>{body}</tbody></table></div>"


def chooser(label: str, about: str, parts: Mapping[str, str]) -> str:
    """`parts`, HTML by title, of which the page's script shows one at a time; paper, and a page without it, shows all.

    label: what is chosen ("Metric"). about: of what, for who does not see the page; both are plain text.
    """
    inner = "".join(f'<div data-choice="{escape(title)}">{part}</div>' for title, part in parts.items())
    return f'<div data-choose="{escape(label)}" data-about="{escape(about)}">{inner}</div>'


def figure(drawing: str, caption: str, *, is_wide: bool = False) -> str:
    """caption: plain text."""
    inner = f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">{drawing}</div>'
    return f"<figure>{inner if is_wide else drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def document(title: str, body: str) -> str:
    """A whole page that asks the network for nothing; a browser is told to allow its own style and script alone."""
    policy = f"default-src 'none'; style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)}; base-uri 'none'"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _cell(text: str) -> str:
    return f"{'<td class=long>' if len(text) > LONG else '<td>'}{escape(text)}</td>"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
