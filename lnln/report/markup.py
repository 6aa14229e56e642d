"""HTML from values: text that came from outside shows as it is and never becomes markup."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence

from lnln.report.look import SCRIPT, STYLE


def escape(text: str) -> str:
    """`text` on one line, for content and for attributes in double quotes."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return html.escape(" ".join(plain.split()), quote=True)


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def table(rows: Sequence[Mapping[str, str]], caption: str, *, highlighted: Iterable[int] = ()) -> str:
    """A table of plain text whose columns are the keys of the first row; its headings sort it.

    highlighted: indices of the rows that stand out.
    """
    columns = list(rows[0])
    heads = "".join(f'<th scope="col"><button type="button">{escape(column)}</button></th>' for column in columns)
    lit = set(highlighted)
    body = "".join(
        f"{'<tr class=lit>' if index in lit else '<tr>'}{''.join(_cell(row[column]) for column in columns)}</tr>"
        for index, row in enumerate(rows)
    )
    scroll = f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
    head = f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead>"
    return f"{scroll}<table>{head}<tbody>{body}</tbody></table></div>"


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
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _cell(text: str) -> str:
    return f"{'<td class=long>' if len(text) > 40 else '<td>'}{escape(text)}</td>"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
