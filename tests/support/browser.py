"""Pages in a real Chromium: what they ask for, complain of and look like, and what axe finds in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
SERIOUS = ("serious", "critical")


class Looked:
    """A page that is open, everything it asked for, and everything that went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}") or dialog.dismiss())

    def open(self, address: str | Path) -> Page:
        """Open a file, or an address."""
        self.page.goto(address.as_uri() if isinstance(address, Path) else address)
        return self.page

    @property
    def asked_elsewhere(self) -> list[str]:
        """What was asked of anything but the page's own file and its own pictures."""
        return [url for url in self.asked[1:] if not url.startswith(("blob:", "data:"))]

    def found_by_axe(self) -> list[str]:
        """What axe calls serious or critical: rule, and where."""
        # the page's policy lets no script in, and axe is one: DevTools' protocol, which evaluates, is not asked
        self.page.evaluate(Axe().axe_script)
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]

    @property
    def width(self) -> int:
        """How wide the page's contents are, in pixels."""
        return self.page.evaluate("document.documentElement.scrollWidth")


@contextmanager
def chromium(**options: Any) -> Iterator[Looked]:
    """A page of a new browser, of Playwright's options (`viewport`, `color_scheme`, `has_touch`)."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield Looked(browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options}))
        browser.close()
