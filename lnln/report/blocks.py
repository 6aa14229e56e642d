"""The parts that a report is written in, and their two forms: HTML and Markdown say the same in the same order.

    blocks = [Heading("Ten missing rates"), Prose("Means over seeds."), Shown("ten_rates_mae", table)]
    to_html(blocks), to_markdown(blocks)

Text is plain wherever it comes from: nothing in it becomes markup. Drawings are in HTML alone; what they show stands in
a table beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lnln import markdown
from lnln.report import markup, tables
from lnln.report.tables import Table


@dataclass(frozen=True)
class Heading:
    """level: 2 for a section, 3 and 4 below."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Prose:
    """A paragraph; `lead` is its beginning, said louder."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a reader should take away, the most important paragraph first. about: of what, where there are several."""

    paragraphs: tuple[Prose, ...]
    about: str = ""


@dataclass(frozen=True)
class Bullets:
    items: tuple[str, ...]


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, to be copied."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Links:
    """Files beside the page, by their names, which are ours."""

    before: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """A table; name: of its files, unique in a report."""

    name: str
    table: Table


@dataclass(frozen=True)
class Drawing:
    """svg: as `lnln.report.svg.Plot` writes it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Charts:
    """Drawings side by side; legend: their common one, HTML already."""

    drawings: tuple[Drawing, ...]
    legend: str = ""
    is_large: bool = False


@dataclass(frozen=True)
class Words:
    """A sentence in stretches, end to end, those that were erased struck out; `before` says what it is."""

    before: str
    stretches: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Chosen:
    """Parts by their titles, of which a page shows one at a time and Markdown all; label: what is chosen."""

    label: str
    about: str
    parts: tuple[tuple[str, tuple[Block, ...]], ...]


Block = Heading | Prose | Verdict | Bullets | Commands | Links | Shown | Charts | Words | Chosen


def to_html(blocks: Iterable[Block]) -> str:
    """The body below the title of a page."""
    return "\n".join(map(_html, blocks))


def to_markdown(blocks: Iterable[Block]) -> str:
    """The same without drawings; ends with a newline."""
    parts = [part for part in map(_markdown, blocks) if part]
    return "\n\n".join(parts) + "\n"


def shown_tables(blocks: Iterable[Block]) -> dict[str, Table]:
    """Every table by its name."""
    found: dict[str, Table] = {}
    for block in blocks:
        inner = {block.name: block.table} if isinstance(block, Shown) else {}
        if isinstance(block, Chosen):
            inner = shown_tables(each for _, part in block.parts for each in part)
        assert not set(inner) & set(found), set(inner) & set(found)
        found |= inner
    return found


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{markup.escape(text)}</h{level}>"
        case Prose():
            return _paragraph(block)
        case Verdict(paragraphs, about):
            label = markup.escape(f"Verdict: {about}" if about else "Verdict")
            return f'<section class="verdict" aria-label="{label}">{"".join(map(_paragraph, paragraphs))}</section>'
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{markup.escape(item)}</li>' for item in items)}</ul>"
        case Commands(lines):
            label = 'role="region" tabindex="0" aria-label="Commands"'
            shown = "\n".join(map(markup.escape, lines))
            return f"<pre {label}><code>{shown}</code></pre>"
        case Links(before, names):
            links = ", ".join(f'<a href="{markup.escape(name)}">{markup.escape(name)}</a>' for name in names)
            return f"<p>{markup.escape(before)} {links}.</p>"
        case Shown(_, table):
            return tables.to_html(table, is_filterable=len(table.rows) >= markup.MANY)
        case Chosen(label, about, parts):
            if len(parts) == 1:
                return to_html(parts[0][1])
            return markup.chooser(label, about, {title: to_html(part) for title, part in parts})
        case Charts(drawings, legend, is_large):
            figures = "".join(markup.figure(drawing.svg, drawing.caption) for drawing in drawings)
            return f'{legend}<div class="charts{" large" if is_large else ""}">{figures}</div>'
        case Words(before, stretches):
            said = "".join(
                _stretch(words, f"<del>{markup.escape(words)}</del>" if is_erased else markup.escape(words))
                for words, is_erased in stretches
            )
            return f"<p>{markup.escape(before)} {said}</p>"


def _paragraph(block: Prose) -> str:
    lead = f"<strong>{markup.escape(block.lead)}</strong> " if block.lead else ""
    return f"<p>{lead}{markup.escape(block.text)}</p>"


def _stretch(words: str, written: str) -> str:
    """`written` between the blanks that `words` begins and ends with; the blanks alone where there is nothing else."""
    if not markup.one_line(words):
        return " " if words else ""
    return f"{' ' if words[0].isspace() else ''}{written}{' ' if words[-1].isspace() else ''}"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {markdown.escape(text)}"
        case Prose():
            return _prose(block)
        case Verdict(paragraphs, _):
            return "\n\n".join(map(_prose, paragraphs))
        case Bullets(items):
            return "\n".join(f"- {markdown.escape(item)}" for item in items)
        case Commands(lines):
            return fenced(lines)
        case Links(before, names):
            return f"{markdown.escape(before)} {', '.join(f'[{markdown.escape(name)}]({name})' for name in names)}."
        case Shown(_, table):
            return tables.to_markdown(table).rstrip("\n")
        case Chosen(_, _, parts):
            return to_markdown(each for _, part in parts for each in part).rstrip("\n")
        case Charts():
            return ""
        case Words(before, stretches):
            said = "".join(
                _stretch(words, f"~~{_inline(words)}~~" if is_erased else _inline(words))
                for words, is_erased in stretches
            )
            return f"{markdown.escape(before)} {said}"


def _prose(block: Prose) -> str:
    lead = f"**{markdown.escape(block.lead)}** " if block.lead else ""
    return f"{lead}{markdown.escape(block.text)}"


def _inline(words: str) -> str:
    """Markdown in the middle of a line, where a lone sign is no list."""
    return markdown.escape(f"x{markup.one_line(words)}")[1:]


def fenced(lines: Sequence[str]) -> str:
    """`lines` as a block of code in Markdown, whatever they hold; each stays one line."""
    plain = [markup.one_line(line) for line in lines]
    fence = "`" * (3 + max((len(run) for line in plain for run in re.findall("`+", line)), default=0))
    return "\n".join([fence, *plain, fence])
