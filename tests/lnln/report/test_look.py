"""The look: every text can be read in each scheme, every line seen, and the script stays within its page."""

from __future__ import annotations

import re

import pytest

from lnln.report.look import SCRIPT, STYLE

Colour = tuple[float, float, float]
TEXT, GRAPHICS = 4.5, 3.0


def declarations(block: str) -> dict[str, str]:
    return dict(part.strip().split(":", 1) for part in block.split(";") if ":" in part)


def schemes() -> dict[str, dict[str, str]]:
    """The variables of each: light, dark (over light) and print (over either)."""
    blocks = [declarations(block) for block in re.findall(r":root\{(.*?)\}", STYLE, re.S)]
    assert len(blocks) == 3, "light, dark, print"
    light, dark, paper = ({name: value for name, value in block.items() if name[:2] == "--"} for block in blocks)
    return {"light": light, "dark": light | dark, "print": light | paper, "print of dark": light | dark | paper}


SCHEMES = schemes()
# What holds for both schemes; rules of paper come last and take colours away only.
RULES = [
    (selector.strip(), declarations(block))
    for selector, block in re.findall(r"([^{}]+)\{([^{}]*)\}", STYLE[: STYLE.index("@media print")])
    if not selector.strip().startswith((":root", "@"))
]


def colour(value: str, scheme: dict[str, str]) -> Colour:
    """red, green and blue from 0 to 1 of a literal, a variable, or a mix of two of these."""
    value = value.strip()
    if value.startswith("color-mix(in srgb,"):
        first, second = value.removeprefix("color-mix(in srgb,").removesuffix(")").split(",")
        name, share = first.rsplit(" ", 1)
        part = float(share.removesuffix("%")) / 100
        mixed = zip(colour(name, scheme), colour(second, scheme), strict=True)
        red, green, blue = (part * a + (1 - part) * b for a, b in mixed)
        return red, green, blue
    if value.startswith("var("):
        return colour(scheme[value[4:-1]], scheme)
    assert re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})", value), value
    digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
    red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def contrast(a: Colour, b: Colour) -> float:
    """WCAG 2.2's: from 1 to 21."""
    low, high = sorted(_luminance(each) for each in (a, b))
    return (high + 0.05) / (low + 0.05)


def _luminance(of: Colour) -> float:
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in of)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_contrast_is_the_standards() -> None:
    black, white = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert contrast(black, white) == contrast(white, black) == pytest.approx(21)
    assert contrast(colour("#767676", {}), white) == pytest.approx(4.54, abs=0.005)  # the greyest text WCAG allows
    assert colour("color-mix(in srgb,#000 25%,var(--x))", {"--x": "#fff"}) == pytest.approx((0.75, 0.75, 0.75))


@pytest.mark.parametrize("name", SCHEMES)
def test_all_text_can_be_read(name: str) -> None:
    scheme = SCHEMES[name]
    inks = {("body", "var(--ink)")} | {
        (selector, found["fill"] if "text" in selector else found["color"])
        for selector, found in RULES
        if "color" in found or ("svg text" in selector and "fill" in found)
    }
    checked = 0
    for selector, value in inks - {pair for pair in inks if pair[1] == "inherit"}:
        own = [found["background"] for rule, found in RULES if rule == selector and "background" in found]
        for background in own or ["var(--paper)", "var(--raised)"]:
            found = contrast(colour(value, scheme), colour(background, scheme))
            assert found >= TEXT, f"{selector}: {value} on {background} has {found:.2f}"
            checked += 1
    assert checked >= 12
    backgrounds = {found["background"] for _, found in RULES if "background" in found}
    assert len(backgrounds) >= 7, "paper, raised, five shades"
    for background in backgrounds:
        assert contrast(colour("var(--ink)", scheme), colour(background, scheme)) >= TEXT, background


@pytest.mark.parametrize("name", SCHEMES)
def test_numbers_on_the_shades_of_a_drawing_can_be_read(name: str) -> None:
    scheme = SCHEMES[name]
    shades = {
        selector: float(found["fill-opacity"]) for selector, found in RULES if re.fullmatch(r"\.l[1-6]", selector)
    }
    assert len(shades) == 6
    for selector, share in shades.items():
        shade = f"color-mix(in srgb,var(--main) {100 * share}%,var(--paper))"
        assert contrast(colour("var(--ink)", scheme), colour(shade, scheme)) >= TEXT, selector


@pytest.mark.parametrize("name", SCHEMES)
def test_all_lines_and_marks_can_be_seen(name: str) -> None:
    scheme = SCHEMES[name]
    kinds = [found["--kind"] for selector, found in RULES if "--kind" in found]
    assert len(set(kinds)) == 6, "six looks of curves, no two of one colour"
    for value in [*kinds, "var(--muted)"]:
        for background in ("var(--paper)", "var(--raised)"):
            assert contrast(colour(value, scheme), colour(background, scheme)) >= GRAPHICS, (value, background)


def test_every_variable_has_a_value_in_each_scheme() -> None:
    used = set(re.findall(r"var\((--[a-z]+)\)", STYLE)) - {"--kind"}
    for name, scheme in SCHEMES.items():
        assert used == set(scheme), name
    assert set(SCHEMES["light"]) == set(re.findall(r"(--[a-z]+):", STYLE.split("@media print")[1])), "print sets all"


def test_style_and_script_ask_for_nothing() -> None:
    for text in (STYLE, SCRIPT):
        assert not re.search(r"url\(|@import|https?:|//", text)
        assert "</" not in text, "it would end its own element"
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|Function|setAttribute\(.style", SCRIPT
    )
    assert not re.search(r"fetch|XMLHttp|import|localStorage|sessionStorage|cookie|WebSocket", SCRIPT)
