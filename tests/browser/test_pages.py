"""Every page that we write, in headless Chromium: quiet, offline, sorted and filtered by keyboard, on phones and paper.

Screenshots go to the folder of LNLN_SCREENSHOTS where that is set, else to pytest's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lnln.data.store import Store
from lnln.report import report
from lnln.report.markup import chooser, document, figure
from lnln.report.svg import Plot, curve_legend
from lnln.report.tables import Column, Table, number, text, to_html, with_best
from tests.browser.opened_page import PHONE, STOPS, Scheme, columns, opened, violations, walk
from tests.finished_run import TINY, finished_run, small_corpus
from tests.tuning.report.drawn_study import drawn_study
from tests.tuning.report.test_page import mixed
from tests.tuning.report.test_verdict import made_choice
from tuning.choice import save_choice
from tuning.record import save_study
from tuning.report import study_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow

PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 25)"}
MAE, GAIN = Column("mae", "MAE", "number", "mae"), Column("gain", "gain", "number", "mae", is_signed=True)
# The first and the last are printed alike.
VALUES = (0.9, None, 10.0, 1e-9, 0.8999)
GAINS = (-0.2, 0.1, None, -0.05, 0.0)
# Of a report, which has dozens with hundreds of headings; a step of the browser takes a tenth of a second.
MOST_TABLES = 8
# Long, and from another hand.
NAME = "LNLN_without_" + "x" * 60 + " <script>alert(1)</script>"


def tables_page(folder: Path) -> Path:
    """Every part that a page can be made of, once."""
    names = [NAME, "Text only", "b", "a", ""]
    rows = [
        {
            "system": text(name),
            "mae": number(MAE, value, value and value / 2, value and value + 1, sd=value),
            "gain": number(GAIN, gain),
        }
        for name, value, gain in zip(names, VALUES, GAINS, strict=True)
    ]
    made = with_best(
        Table("Means over ten missing rates.", (Column("system", "system"), MAE, GAIN), tuple(rows), "A note.")
    )
    many = Table(
        "Utterances at each rate, by the share of their words that is left.",
        tuple(Column(f"c{index}", f"column {index}", "number") for index in range(16)),
        tuple({f"c{index}": number(MAE, row / (index + 1)) for index in range(16)} for row in range(12)),
    )
    plot = Plot(360, 240)
    plot.axes([(0, "0"), (1, "0.9")], [(0, "0.8"), (1, "1.4")], "missing rate", "MAE")
    for index in range(13):
        ends = [(0.0, index / 13), (1.0, index / 14)]
        plot.spread(ends, [(x, y + 0.05) for x, y in ends], index)
        plot.curve(ends, ["start", "end"], index)
    plot.printed([(0, 0.2), (1, 0.9)], "printed: 1.1")
    shades = "".join(f'<td class="h{level}">{level} <small>share</small></td>' for level in range(5))
    parts = {
        "MAE": to_html(made, is_filterable=True),
        "Acc-7": f"<p>The other part.</p><table><caption>Shades.</caption><tbody><tr>{shades}</tr></tbody></table>",
    }
    body = (
        f'<header><h1>Tables</h1><p class="facts">{"feature_" * 20}</p></header>'
        f'<section class="verdict" aria-label="Verdict"><p>One <code>{"x" * 90}</code>.</p></section>'
        f"<h2>Scores</h2>{chooser('Metric', 'ten missing rates', parts)}{to_html(many, is_filterable=True)}"
        f"{curve_legend({index: f'system {index}' for index in range(13)}, ['printed, selected on test'])}"
        f'<div class="charts">{figure(plot.svg("MAE over the missing rate."), "MAE over the missing rate.")}</div>'
        f'<p>I <del>really</del> liked <a href="scores.csv">it</a>.</p><pre>lnln report {"y" * 200}</pre>'
        "<details><summary>More</summary><p>Folded.</p></details>"
    )
    path = folder / "index.html"
    path.write_text(document("Tables", body))
    return path


def study_page(folder: Path) -> Path:
    study = drawn_study(24, state=mixed, seeds=(1, 2), seed_noise=0.02)
    store = Store(folder / "store")
    save_study(store, study)
    save_choice(store, made_choice(study, 1, "trial 1 is better than the configured parameters: so and so"))
    return study_report(store, study.study_id, folder / "report", num_resamples=2)


def model_page(folder: Path) -> Path:
    """Two seeds of a model and one of another."""
    store = Store(folder / "store")
    manifest = small_corpus(store, folder)
    names = [finished_run(store, manifest, seed=seed) for seed in (1, 2)]
    names.append(finished_run(store, manifest, model={**TINY["model"], "name": "text_only"}))
    return report(store, names, folder / "report")


PAGES: dict[str, Callable[[Path], Path]] = {"tables": tables_page, "study": study_page, "model": model_page}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Callable[[str], Path]]:
    """The page of each kind, made when it is first asked for; after the browser, so that nothing is made in vain."""
    paths: dict[str, Path] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LNLN_CACHE", str(tmp_path_factory.mktemp("cache")))

        def make(kind: str) -> Path:
            if kind not in paths:
                paths[kind] = PAGES[kind](tmp_path_factory.mktemp(kind))
            return paths[kind]

        yield make


@pytest.fixture(params=PAGES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(kind: str, made: Callable[[str], Path]) -> Path:
    return made(kind)


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("LNLN_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('<img src="http://127.0.0.1:9/x.png" alt="">', "x.png"),
        ('<p onclick="x()" style="color:red">x</p>', "Content Security Policy"),
        ("<script>alert(1)</script>", "Content Security Policy"),
    ],
)
def test_a_page_that_asks_for_more_is_noticed(chromium: Browser, tmp_path: Path, body: str, expected: str) -> None:
    (tmp_path / "index.html").write_text(document("x", body))
    with pytest.raises(AssertionError, match=expected), opened(chromium, tmp_path / "index.html"):
        pass


def test_a_page_that_some_cannot_use_is_noticed(chromium: Browser, tmp_path: Path) -> None:
    body = '<h1>x</h1><input><p class="pale">too pale</p><button></button>'
    (tmp_path / "index.html").write_text(document("x", body))
    with opened(chromium, tmp_path / "index.html") as page:
        page.evaluate("document.querySelector('.pale').style.color = '#999'")
        found = {each.partition(":")[0] for each in violations(page)}
    assert found >= {"label", "button-name", "color-contrast"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it(chromium: Browser, kind: str, path: Path, scheme: Scheme, screenshots: Path) -> None:
    with opened(chromium, path, scheme=scheme) as page:
        assert violations(page, *(["color-contrast"] if scheme == "dark" else [])) == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == PAPER[scheme]
        picture = screenshots / f"{kind}-{scheme}.png"
        page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000


def test_a_phone_scrolls_it_in_one_direction(chromium: Browser, kind: str, path: Path, screenshots: Path) -> None:
    with opened(chromium, path, size=PHONE) as page:
        widths = "[document.documentElement.scrollWidth, innerWidth, visualViewport.scale]"
        assert page.evaluate(widths) == [PHONE[0], PHONE[0], 1]
        page.mouse.wheel(500, 0)
        assert page.evaluate("scrollX") == 0
        beyond = page.evaluate(
            f"""[...document.querySelectorAll("h1,h2,h3,p,li,figure,.choose,input,select,caption")].filter(each =>
            each.checkVisibility() && each.getBoundingClientRect().right > {PHONE[0]}).map(each => each.outerHTML)"""
        )
        assert beyond == [], "what is read must not lie beyond the edge"
        assert violations(page) == []
        page.screenshot(path=screenshots / f"{kind}-phone.png", full_page=True)


def test_tab_walks_through_it_in_order_shows_where_it_is_and_leaves(chromium: Browser, path: Path) -> None:
    with opened(chromium, path) as page:
        num_stops = page.evaluate(f"{STOPS}.length")
        assert num_stops >= 5
        assert walk(page, num_stops + 1) == [(place, True) for place in range(num_stops)]
        assert page.evaluate(f"{STOPS}.indexOf(document.activeElement)") == -1


def number_of(cell: tuple[str, str | None]) -> float | None:
    found = re.match(r"\s*([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", (cell[1] or cell[0]).replace("\u2212", "-"))
    return float(found[1]) if found else None


def require_sorted(column: list[tuple[str, str | None]], sign: int) -> None:
    """Numbers by size, then words, then what is empty."""
    values = [number_of(cell) for cell in column]
    numbers = [sign * value for value in values if value is not None]
    assert numbers == sorted(numbers)
    kinds = [0 if value is not None else 1 if cell[0] else 2 for value, cell in zip(values, column, strict=True)]
    assert kinds == sorted(kinds)


def test_headings_sort_by_mouse_and_by_keyboard(chromium: Browser, path: Path) -> None:
    with opened(chromium, path) as page:
        num_sorted = 0
        for index in range(min(page.locator("table").count(), MOST_TABLES)):
            table = page.locator("table").nth(index)
            heads = table.locator("th button")
            if not heads.count() or not heads.first.is_visible():
                continue
            before = sorted(zip(*columns(page, index), strict=True), key=str)
            for place in sorted({0, heads.count() - 1}):
                heads.nth(place).click()
                require_sorted(columns(page, index)[place], 1)
                heads.nth(place).press("Enter" if place % 2 else "Space")
                require_sorted(columns(page, index)[place], -1)
                num_sorted += 1
            assert table.locator("th[aria-sort]").count() == 1, "sorted by one column"
            assert table.locator("th").nth(heads.count() - 1).get_attribute("aria-sort") == "descending"
            after = sorted(zip(*columns(page, index), strict=True), key=str)
            assert after == before, "a row was lost or torn apart"
        assert num_sorted >= 3


def test_values_sort_as_they_are_and_not_as_they_are_printed(chromium: Browser, made: Callable[[str], Path]) -> None:
    with opened(chromium, made("tables")) as page:
        page.get_by_role("button", name="MAE", exact=True).click()
        assert [cell[1] for cell in columns(page, 0)[1]] == ["1e-09", "0.8999", "0.9", "10.0", None]
        page.get_by_role("button", name="gain", exact=True).click()
        assert [cell[0] for cell in columns(page, 0)[2]] == ["-0.200", "-0.050", "0.000", "+0.100", ""]
        page.get_by_role("button", name="system", exact=True).click()
        assert [cell[0] for cell in columns(page, 0)[0]] == ["a", "b", NAME, "Text only", ""]


def shown_rows(page: Page, caption: str) -> int:
    return page.get_by_role("region", name=caption).locator("tbody tr:visible").count()


def test_a_filter_keeps_the_rows_with_all_words_and_says_how_many(
    chromium: Browser, made: Callable[[str], Path]
) -> None:
    caption = "Means over ten missing rates."
    with opened(chromium, made("tables")) as page:
        field = page.get_by_role("searchbox", name=f"Filter rows: {caption}")
        status = page.locator(".choose", has=field).get_by_role("status")
        assert status.get_attribute("aria-live") == "polite" and status.inner_text() == "5 rows"
        field.focus()
        page.keyboard.type("ONLY  text")
        assert status.inner_text() == "1 of 5 rows" and shown_rows(page, caption) == 1
        assert page.get_by_role("row", name="Text only").is_visible()
        # What is hidden is sorted too, and stays hidden.
        page.get_by_role("button", name="MAE", exact=True).click()
        assert shown_rows(page, caption) == 1
        field.fill("only b")
        assert status.inner_text() == "0 of 5 rows", "each word is in a row, no row has both"
        field.fill("<script>alert(1)")
        assert status.inner_text() == "1 of 5 rows"
        field.fill("nobody .* [")
        assert status.inner_text() == "0 of 5 rows" and shown_rows(page, caption) == 0
        field.fill("  ")
        assert status.inner_text() == "5 rows" and shown_rows(page, caption) == 5
        assert shown_rows(page, "Utterances at each rate") == 12, "each table has a filter of its own"


def test_a_choice_shows_one_part_paper_and_no_script_show_all(chromium: Browser, made: Callable[[str], Path]) -> None:
    path = made("tables")
    other = "The other part."
    with opened(chromium, path) as page:
        select = page.get_by_role("combobox", name="Metric: ten missing rates")
        assert page.get_by_text(other).is_hidden() and shown_rows(page, "Means over ten") == 5
        select.focus()
        page.keyboard.press("ArrowDown")
        assert page.get_by_text(other).is_visible() and shown_rows(page, "Means over ten") == 0
        page.emulate_media(media="print")
        assert page.get_by_text(other).is_visible() and shown_rows(page, "Means over ten") == 5
        assert select.is_hidden() and page.get_by_role("searchbox").count() == 0
        assert page.get_by_text("Folded.").bounding_box()["height"] > 0  # type: ignore[index]
    with opened(chromium, path, has_script=False) as page:
        assert page.get_by_text(other).is_visible() and page.locator("tbody tr:visible").count() == 5 + 1 + 12
        assert page.locator("input,select").count() == 0, "a field that does nothing"


def test_it_prints_dark_on_white_and_whole(chromium: Browser, path: Path) -> None:
    with opened(chromium, path, scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        style = "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
        assert page.evaluate(style) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
        assert page.locator(".wide").evaluate_all(
            "all => all.every(each => getComputedStyle(each).overflowX === 'visible')"
        )
        printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1
