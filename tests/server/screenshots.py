"""Take screenshots of the page for README and docs in Chromium, from the files of the demo.

twinned demo && cd demo
python ../tests/server/screenshots.py letters.twin letters.gallery letters/new pictures [PLACE ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image

DESKTOP = {"viewport": {"width": 1200, "height": 800}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
KINDS = {"page": DESKTOP, "dark": DESKTOP | {"color_scheme": "dark"}, "phone": PHONE}


def compare(page: Any, images: Path) -> None:
    left, right = sorted((images / "armenian-capital-ben").iterdir())[:2]
    for tile, one in enumerate((left, right)):
        page.locator("#place-compare input[type=file]").nth(tile).set_input_files(one)
    page.locator("#place-compare .verdict:not(.waiting)").wait_for()
    page.get_by_role("button", name="Explain").click()
    page.locator(".matches").wait_for()
    page.evaluate("scrollTo(0, 0)")


def identify(page: Any, images: Path) -> None:
    page.locator("#strict").select_option("0.1")
    page.locator("#place-identify input[type=file]").first.set_input_files(
        sorted((images / "georgian-don").iterdir())[-2]
    )
    page.locator("#place-identify .face.loaded").nth(5).wait_for()


def enroll(page: Any, images: Path) -> None:
    page.locator("#enroll-name").fill("Ben")
    page.locator("#place-enroll input[type=file]").first.set_input_files(
        sorted((images / "armenian-capital-ben").iterdir())[-4:]
    )
    page.locator("#place-enroll .people .face.loaded").first.wait_for()


def search(page: Any, images: Path) -> None:
    page.locator("#place-search input[type=file]").first.set_input_files(
        sorted((images / "georgian-don").iterdir())[-1]
    )
    page.locator("#place-search .face.loaded").nth(11).wait_for()


def map_(page: Any, images: Path) -> None:
    page.locator(".legend li").first.wait_for()
    page.get_by_role("application").focus()
    page.keyboard.press("+")  # shows the image in the middle
    page.keyboard.press("-")
    page.locator(".tip .face.loaded").wait_for()
    page.wait_for_timeout(1500)  # thumbnails
    page.evaluate("document.activeElement.blur()")


def report(page: Any, images: Path) -> None:
    page.locator(".report .lead").wait_for()


PLACES = {
    "compare": compare,
    "identify": identify,
    "enroll": enroll,
    "search": search,
    "map": map_,
    "report": report,
}


def main(model: Path, gallery: Path, images: Path, into: Path, *places: str) -> None:
    # Imported here, since pytest collects doctests of this file, possibly without playwright.
    from playwright.sync_api import sync_playwright
    from processes import running

    into.mkdir(parents=True, exist_ok=True)
    with running(model, "--gallery", gallery) as service, sync_playwright() as start:
        browser = start.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        for kind, options in KINDS.items():
            for name in places or PLACES:
                page = browser.new_context(**options).new_page()
                page.goto(f"{service.address}/#{name}")
                page.locator(f"#place-{name}").wait_for()
                PLACES[name](page, images)
                page.wait_for_timeout(800)
                picture = into / f"{kind}-{name}.png"
                page.screenshot(path=picture, full_page=name == "compare" and kind != "phone")
                Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)
                page.close()
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]), *sys.argv[5:])
