"""A headless Chromium for the tests of pages: Debian's, driven by Playwright, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

START_SECONDS = 60


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One that lives as long as the tests; each page has a context of its own."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine; `make chromium` installs it (Debian, root)")
    for package in ("playwright.sync_api", "axe_playwright_python"):
        pytest.importorskip(package, reason=f"no {package.partition('.')[0]}; pip install -e '.[dev]'")
    from playwright.sync_api import sync_playwright

    # Its sandbox needs another user than root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments, timeout=1000 * START_SECONDS)
        try:
            yield browser
        finally:
            browser.close()
