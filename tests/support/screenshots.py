"""The pictures of docs/exploring.md, from the miniature's results: `python tests/support/screenshots.py`.

Run `make demo` and `make explore` before.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from browser import chromium
from PIL import Image
from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "results" / "miniature" / "report"
OUT = ROOT / "docs" / "exploring"
COLOURS = 96


def keep(name: str, picture: bytes) -> None:
    """Write a picture with few colours, which is a small file."""
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(OUT / f"{name}.png", optimize=True)


def bound(page: Page, score: str, side: str, value: float) -> None:
    """Type a bound."""
    page.fill(f'[data-score="{score}"] input[aria-label^={side}]', str(value))
    page.keyboard.press("Enter")


def region(page: Page, first: str, last: str | None = None) -> bytes:
    """The page from the top of one element to the bottom of another, whatever stays in place above it left out."""
    page.evaluate("() => document.getElementById('status')?.style.setProperty('position', 'static')")
    page.evaluate("() => document.querySelector('nav')?.style.setProperty('position', 'static')")
    boxes: list[Any] = [page.locator(one).first.bounding_box() for one in (first, last or first)]
    top, bottom = boxes[0]["y"], boxes[1]["y"] + boxes[1]["height"]
    scrolled = page.evaluate("() => window.scrollY")
    clip = {"x": 0, "y": top + scrolled - 8, "width": page.viewport_size["width"], "height": bottom - top + 20}
    return page.screenshot(clip=clip, full_page=True)


def shoot_explorer() -> None:
    """The pool; a bound with its sheet; two scores; captions written anew; the telephone."""
    with chromium(viewport={"width": 1000, "height": 860}) as looked:
        page = looked.open(REPORT / "explorer.html")
        page.wait_for_function("() => document.documentElement.dataset.ready")
        keep("pool", page.screenshot())
        bound(page, "image_text_similarity", "lower", 0.28)
        page.wait_for_timeout(600)
        keep("sheet", region(page, "#sheets"))
        bound(page, "image_text_matching", "lower", 0.5)
        bound(page, "phrase_grounding", "lower", 0.5)
        page.select_option("#up", label="image_text_matching")
        page.wait_for_timeout(400)
        keep("bounds", region(page, "#status", '[data-score="phrase_grounding"]'))
        page.click("input[value=rank]")
        page.wait_for_timeout(400)
        keep("scatter", region(page, "#scatter"))
        keep("yaml", region(page, "#yaml"))
        page.click("input[value=value]")
        page.select_option("#open", "better")
        page.select_option("#beside", "weak")
        page.select_option("#by", label="image_text_similarity")
        page.select_option("#which", "min")
        page.wait_for_timeout(600)
        keep("rewritten", region(page, "#sheets"))
    with chromium(viewport={"width": 360, "height": 740}, color_scheme="dark") as looked:
        page = looked.open(REPORT / "explorer.html")
        page.wait_for_function("() => document.documentElement.dataset.ready")
        bound(page, "image_text_similarity", "lower", 0.28)
        page.locator("#status").scroll_into_view_if_needed()
        page.evaluate("() => window.scrollTo(0, 560)")
        page.wait_for_timeout(400)
        keep("telephone", page.screenshot())


def shoot_page() -> None:
    """The dataset graph and the sheets of filters."""
    with chromium(viewport={"width": 1000, "height": 860}) as looked:
        pages = (REPORT / "index.html", REPORT / "so_far" / "index.html")
        page = looked.open(next(path for path in pages if path.exists()))
        keep("graph", region(page, "#datasets > h2", "#datasets .scroll"))
        keep("sheets", region(page, "#examples > h2", "#examples .grid.wide > div:nth-child(4)"))


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    shoot_explorer()
    shoot_page()
    print(*(f"{path.name} {path.stat().st_size // 1000} kB" for path in sorted(OUT.iterdir())), sep="\n")
