"""A page in a browser that is told nothing else: what it complains of, what it asks for, who could not use it.

    with opened(chromium, path, scheme="dark") as page:
        assert violations(page) == []

A page that writes an error to the console, throws one, breaks its own policy or asks for anything but its file fails
the test that opened it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Scheme = Literal["light", "dark"]
WIDE, PHONE = (1280, 900), (360, 740)
ACTION_SECONDS = 20

# What Tab stops at, in the order of the page.
STOPS = """[...document.querySelectorAll('a[href],button,input,select,summary,[tabindex="0"]')]
.filter(each => each.checkVisibility({visibilityProperty: true}))"""


@contextmanager
def opened(
    chromium: Browser, path: Path, *, size: tuple[int, int] = WIDE, scheme: Scheme = "light", has_script: bool = True
) -> Iterator[Page]:
    """The page in the file `path`. size: of the window, in CSS pixels; PHONE is touched and has a phone's viewport."""
    context = chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        is_mobile=size == PHONE,
        has_touch=size == PHONE,
        java_script_enabled=has_script,
        offline=True,
    )
    complaints: list[str] = []
    asked: list[str] = []
    try:
        page = context.new_page()
        page.set_default_timeout(1000 * ACTION_SECONDS)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        yield page
    finally:
        context.close()
    assert complaints == [], complaints
    assert asked == [path.as_uri()], asked


def violations(page: Page, *rules: str) -> list[str]:
    """What axe-core finds wrong for people who do not see the page, or use no mouse: rule and first place of each.

    rules: those to try, all if none is named; a large page takes them a second.
    """
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    options = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    found: list[dict[str, Any]] = page.evaluate("async options => (await axe.run(options)).violations", options)
    return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in found]


def walk(page: Page, num_steps: int) -> list[tuple[int, bool]]:
    """What each of `num_steps` presses of Tab came to: its place among STOPS, and whether a reader sees where that is.

    A press that leaves the page comes to nothing.
    """
    page.evaluate(
        f"""() => {{const stops = {STOPS}; window.walked = []; document.addEventListener("focusin", event => {{
        const {{outlineStyle, outlineWidth}} = getComputedStyle(event.target);
        window.walked.push([stops.indexOf(event.target), outlineStyle !== "none" && outlineWidth !== "0px"])
        }})}}"""
    )
    for _ in range(num_steps):
        page.keyboard.press("Tab")
    return [(place, is_seen) for place, is_seen in page.evaluate("window.walked")]


def columns(page: Page, table: int) -> list[list[tuple[str, str | None]]]:
    """The cells of each column of table number `table` as it stands: text, and `data-value` where there is one."""
    rows: list[list[list[Any]]] = page.evaluate(
        """index => [...document.querySelectorAll("table")[index].tBodies[0].rows].map(row =>
        [...row.cells].map(cell => [cell.textContent, cell.dataset.value ?? null]))""",
        table,
    )
    return [[(cell[0], cell[1]) for cell in column] for column in zip(*rows, strict=True)]
