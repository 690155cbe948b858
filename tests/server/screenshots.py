"""The pictures of the page in the README and the pages, taken in Chromium from the README's own files.

python tests/server/screenshots.py digits.twin digits.gallery digits/novel docs/pictures
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from processes import running

DESKTOP = {"viewport": {"width": 1200, "height": 760}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


def compare(page: Any, images: Path) -> None:
    left, right = sorted((images / "7").iterdir())[:2]
    for tile, one in enumerate((left, right)):
        page.locator("#place-compare input[type=file]").nth(tile).set_input_files(one)
    page.locator("#place-compare .verdict:not(.waiting)").wait_for()


def identify(page: Any, images: Path) -> None:
    page.locator("#place-identify input[type=file]").first.set_input_files(
        sorted((images / "8").iterdir())[-1]
    )
    page.locator("#place-identify .face.loaded").nth(5).wait_for()


def enrol(page: Any, images: Path) -> None:
    page.locator("#enrol-name").fill("seven")
    page.locator("#place-enrol input[type=file]").first.set_input_files(
        sorted((images / "7").iterdir())[10:14]
    )
    page.locator("#place-enrol .people .face.loaded").first.wait_for()


def search(page: Any, images: Path) -> None:
    page.locator("#place-search input[type=file]").first.set_input_files(sorted((images / "9").iterdir())[-1])
    page.locator("#place-search .face.loaded").nth(11).wait_for()


def map_(page: Any, images: Path) -> None:
    page.locator(".legend li").first.wait_for()


PLACES = {"compare": compare, "identify": identify, "enrol": enrol, "search": search, "map": map_}


def main(model: Path, gallery: Path, images: Path, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with running(model, "--gallery", gallery) as service, sync_playwright() as start:
        browser = start.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for kind, options in (("page", DESKTOP), ("phone", PHONE)):
            for name, act in PLACES.items():
                page = browser.new_context(**options).new_page()
                page.goto(f"{service.address}/#{name}")
                page.locator(f"#place-{name}").wait_for()
                act(page, images)
                page.wait_for_timeout(800)
                page.screenshot(path=into / f"{kind}-{name}.png")
                page.close()
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
