"""The page in Chromium: mouse, keyboard, small screens, and failing requests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import twinned as tw
from twinned.data.faces import models
from twinned.gallery.store import Record

from .conftest import SHAPES, png
from .processes import Running, running

playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
expect = playwright.expect
expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy

CHROMIUM = "/usr/bin/chromium"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.path.exists(CHROMIUM), reason=f"{CHROMIUM} is not installed"),
]
VERDICT = re.compile("Same|same|Cannot tell|[Dd]ifferent")
MARKUP = "<img src=x onerror=\"document.title='broken in'\">"
PHONE = {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as start:
        browser = start.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
            ],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(model_folder: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Service with four enrolled drawings of each shape except the bar."""
    folder = tmp_path_factory.mktemp("page") / "shapes.gallery"
    known = [(shape, seed) for shape in SHAPES if shape != "bar" for seed in range(4)]
    with tw.load(model_folder).gallery(folder) as gallery:
        files = [shapes / shape / f"{seed}.png" for shape, seed in known]
        gallery.add(files, [shape for shape, _ in known], progress=False)
    with running(model_folder, "--gallery", folder) as started:
        yield started


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; fail on requests to other hosts and on console errors."""
    opened: list[tuple[Any, list[str]]] = []

    def open_page(service: Running, place: str = "", **options: Any) -> Any:
        context = chromium.new_context(**options)
        page = context.new_page()
        wrong: list[str] = []
        page.on(
            "console",
            lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                wrong.append(asked.url)
                if not asked.url.startswith((service.address, f"blob:{service.address}"))
                else None
            ),
        )
        page.goto(f"{service.address}/{place}")
        opened.append((context, wrong))
        page.wrong = wrong
        return page

    yield open_page
    for context, wrong in opened:
        context.close()
        assert not wrong


def refused(page: Any, status: int) -> None:
    """Ignore an expected error response, which Chromium logs in its console."""
    page.wait_for_timeout(50)
    page.wrong[:] = [one for one in page.wrong if f"status of {status}" not in one]


def stopped(service: Running) -> None:
    """Stop a service in order, so that it deletes its temporary gallery."""
    service.process.terminate()
    service.process.wait(30)


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": data}


def drawn(shape: str, seed: int = 0) -> dict[str, Any]:
    return file(f"{shape}-{seed}.png", png(shape, seed))


def give(page: Any, place: str, *files: dict[str, Any], tile: int = 0) -> None:
    page.locator(f"#place-{place} input[type=file]").nth(tile).set_input_files(list(files))


# ---- Compare


def test_compare_shows_verdict_and_threshold_slider(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    verdict = page.locator("#place-compare .verdict")
    expect(verdict).to_have_text("Choose two images.")
    give(page, "compare", drawn("circle"))
    expect(verdict).to_have_text("Choose one more.")
    give(page, "compare", drawn("circle"), tile=1)
    expect(verdict).to_have_text("Same")
    expect(page.locator("#place-compare .sure")).to_contain_text("likely to be the same. Distance 0")
    slider = page.get_by_label("Threshold", exact=True)
    before = page.locator(".trade").text_content()
    slider.focus()
    page.keyboard.press("End")
    assert page.locator(".trade").text_content() != before
    give(page, "compare", drawn("circle", 1), tile=1)
    expect(verdict).to_have_text(VERDICT)
    words = verdict.text_content()
    slider.focus()
    page.keyboard.press("Home")
    # The words follow the probability, which does not depend on the threshold; the decision does.
    expect(page.locator("#place-compare .sure")).to_contain_text("is beyond your threshold 0")
    if "ifferent" not in words:
        expect(page.locator("#place-compare .sure")).to_contain_text("counts as different")
    expect(verdict).to_have_text(words)
    page.get_by_role("button", name="Back to the model's threshold").click()
    assert page.locator(".trade").text_content() == before
    page.get_by_label("Second image: remove").click()
    expect(verdict).to_have_text("Choose one more.")


@pytest.mark.parametrize(
    ("probability", "words", "same", "said"),
    [
        (0.99, "Same", True, "is within the threshold 0.500."),
        (0.85, "Probably the same", True, "is within the threshold 0.500."),
        (0.5, "Cannot tell", True, "counts as the same"),
        (0.1, "Probably different", True, "counts as the same"),
        (0.9, "Probably the same", False, "counts as different"),
    ],
)
def test_words_and_their_size_follow_the_evidence(
    visit: Callable[..., Any], service: Running, probability: float, words: str, same: bool, said: str
) -> None:
    page = visit(service)
    answer = {"same": same, "probability": probability, "verdict": words, "threshold": 0.5}
    answer["distance"] = 0.4 if same else 0.6
    page.route("**/v1/verify", lambda route: route.fulfill(json=answer))
    give(page, "compare", drawn("circle"))
    give(page, "compare", drawn("circle"), tile=1)
    verdict = page.locator("#place-compare .verdict")
    expect(verdict).to_have_text(words)
    expect(page.locator("#place-compare .sure")).to_contain_text(said)
    size = float(verdict.evaluate("one => parseFloat(getComputedStyle(one).fontSize)"))
    assert (size > 45) == (words == "Same"), size


def test_compare_takes_several_references(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    give(page, "compare", drawn("circle"), drawn("circle", 1))
    give(page, "compare", drawn("circle", 2), tile=1)
    expect(page.locator("#place-compare .verdict")).to_have_text(VERDICT)
    expect(page.locator(".reference img")).to_have_count(2)
    expect(page.get_by_role("button", name="Explain")).to_be_hidden()
    with page.expect_file_chooser() as chosen:
        page.get_by_label("First image: add more").click()
    chosen.value.set_files([drawn("circle", 3)])
    expect(page.locator(".reference img")).to_have_count(3)
    expect(page.locator("#place-compare .file-name").first).to_have_text("3 images")
    for seed in (0, 1):
        page.get_by_role("button", name=f"Remove circle-{seed}.png").click()
    expect(page.locator("#place-compare .file-name").first).to_have_text("circle-3.png")
    expect(page.get_by_role("button", name="Explain")).to_be_visible()


def test_compare_explains(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    give(page, "compare", drawn("circle"))
    give(page, "compare", drawn("circle", 1), tile=1)
    page.get_by_role("button", name="Explain").click()
    expect(page.locator(".matches image")).to_have_count(2)
    expect(page.locator(".why .note")).to_contain_text("Lines: regions that match best")
    give(page, "compare", drawn("bar"), tile=1)
    expect(page.locator(".matches")).to_have_count(0)
    expect(page.get_by_role("button", name="Explain")).to_be_visible()


def test_compare_accepts_drop_paste_and_camera(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    page.locator("#place-compare .tile").first.wait_for()
    transfer = page.evaluate_handle(
        """async () => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 40;
            const blob = await new Promise((done) => canvas.toBlob(done));
            const transfer = new DataTransfer();
            transfer.items.add(new File([blob], "dropped.png", {type: "image/png"}));
            return transfer;
        }"""
    )
    page.dispatch_event("#place-compare .tile >> nth=0", "drop", {"dataTransfer": transfer})
    expect(page.locator("#place-compare .file-name").first).to_have_text("dropped.png")
    page.evaluate(
        "files => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: files, bubbles: true}))",
        transfer,
    )
    expect(page.locator("#place-compare .verdict")).to_have_text("Same")
    page.get_by_label("Second image: remove").click()
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator("#place-compare .file-name").nth(1)).to_have_text("camera.jpg")
    expect(page.locator("#place-compare .verdict")).to_have_text(VERDICT)


def test_unusable_file_shows_an_error_in_its_tile(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    give(page, "compare", drawn("circle"))
    give(page, "compare", file("notes.png", b"no image"), tile=1)
    expect(page.locator(".tile .error").nth(1)).to_have_text(
        "notes.png: is not a supported image, or is damaged"
    )
    expect(page.locator("#place-compare .verdict")).to_have_text("One of the images cannot be used.")
    refused(page, 422)
    huge = page.evaluate_handle(
        """() => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(33 << 20)], "huge.jpg", {type: "image/jpeg"}));
            return transfer;
        }"""
    )
    page.dispatch_event("#place-compare .tile >> nth=1", "drop", {"dataTransfer": huge})
    expect(page.locator(".tile .error").nth(1)).to_contain_text("huge.jpg has 33 MB; the limit is 31.9 MB.")
    give(page, "compare", drawn("circle"), tile=1)
    expect(page.locator("#place-compare .verdict")).to_have_text("Same")
    expect(page.locator(".tile .error").nth(1)).to_be_hidden()


def test_busy_service_is_retried_and_failure_is_shown(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    page.locator("#place-compare .tile").first.wait_for()
    times: list[int] = []

    def busy(route: Any) -> None:
        times.append(1)
        if len(times) == 1:
            route.fulfill(status=503, headers={"Retry-After": "0.05"}, body="{}")
        elif len(times) == 2:
            route.continue_()
        else:
            route.abort()

    page.route("**/v1/verify", busy)
    give(page, "compare", drawn("ring"))
    give(page, "compare", drawn("ring"), tile=1)
    expect(page.locator("#place-compare .verdict")).to_have_text("Same")
    refused(page, 503)
    give(page, "compare", drawn("ring", 1), tile=1)
    expect(page.locator("#place-compare .failure")).to_contain_text("The service does not respond.")
    page.unroute("**/v1/verify")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#place-compare .verdict")).to_have_text(VERDICT)
    page.wrong[:] = [one for one in page.wrong if "ERR_FAILED" not in one]


# ---- Identify and Search


def test_identify_shows_label_and_nearest_images(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service, "#identify")
    give(page, "identify", drawn("cross", 2))
    expect(page.locator("#place-identify .verdict")).to_have_text("cross")
    expect(page.locator("#place-identify .strip li")).to_have_count(6)
    expect(page.locator("#place-identify .strip .name").first).to_have_text("cross")
    page.locator("#strict").select_option("0.001")
    give(page, "identify", drawn("bar", 55))
    expect(page.locator("#place-identify .verdict")).to_have_text("Unknown")
    expect(page.locator("#place-identify .sure")).to_contain_text("The nearest name is")
    expect(page.locator("#place-identify")).to_contain_text("Two thresholds: ")


def test_search_from_a_hit_and_back(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service, "#search")
    give(page, "search", drawn("ring", 1))
    hits = page.locator("#place-search .grid li")
    expect(hits).to_have_count(20)
    expect(hits.first.locator(".figure")).to_have_text("0")
    hits.nth(3).locator("a").click()
    expect(page.locator(".trail .step")).to_have_count(2)
    expect(hits).to_have_count(19)
    page.locator(".trail button").first.click()
    expect(hits).to_have_count(20)
    page.go_back()
    expect(hits).to_have_count(19)


# ---- Enroll


def test_enroll_list_rename_remove_and_undo(
    visit: Callable[..., Any], model_folder: Path, tmp_path: Path
) -> None:
    with running(model_folder, "--gallery", tmp_path / "new.gallery") as service:
        page = visit(service, "#identify")
        page.get_by_role("link", name="Enroll the first images").click()
        name, go = page.get_by_label("Name", exact=True), page.locator("#place-enroll button[type=submit]")
        expect(go).to_be_disabled()
        give(page, "enroll", drawn("circle"), drawn("circle", 1), file("bad.png", b"text"))
        expect(page.locator("#place-enroll")).to_contain_text("Enter a name.")
        name.fill(MARKUP)
        expect(go).to_have_text("Enroll 3 images")
        name.press("Enter")
        expect(page.locator(".queue .done")).to_have_count(2)
        expect(page.locator(".queue .failed .status")).to_have_text("is not a supported image, or is damaged")
        expect(page.locator("#place-enroll form [role=status]")).to_contain_text("2 images enrolled as <img")
        refused(page, 422)
        expect(name).to_be_empty()  # the next images need a name of their own
        page.get_by_role("button", name=f"More of {MARKUP}").click()
        expect(name).to_have_value(MARKUP)
        expect(page.locator(".people bdi.name")).to_have_text(MARKUP)
        expect(page.locator(".people .images .face img")).to_have_count(2)
        assert page.title() == "Enroll · Twinned"

        page.get_by_role("button", name=f"Rename {MARKUP}").click()
        page.locator(".rename").fill("anna")
        page.keyboard.press("Enter")
        expect(page.locator(".people bdi.name")).to_have_text("anna")
        expect(page.locator(".toast")).to_contain_text("was renamed to anna")
        page.get_by_role("button", name="Rename anna").click()
        page.locator(".rename").fill("ben")
        page.keyboard.press("Escape")
        expect(page.locator(".people bdi.name")).to_have_text("anna")

        page.get_by_role("button", name="Remove anna").click()
        expect(page.locator(".people")).to_contain_text("No image is enrolled yet")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".people bdi.name")).to_have_text("anna")
        page.locator(".images .card").first.hover()
        page.get_by_role("button", name="Remove this image").first.click()
        expect(page.locator(".people .line .note")).to_have_text("1 image")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator(".people .line .note")).to_have_text("2 images")
        page.reload()
        expect(page.locator(".people bdi.name")).to_have_text("anna")
        page.close()  # no request may be sent after the service has stopped


def test_ten_thousand_labels_with_markup(
    visit: Callable[..., Any], model_folder: Path, tmp_path: Path
) -> None:
    """Names, search and map stay usable; names are never parsed as HTML."""
    model = tw.load(model_folder)
    random = np.random.default_rng(0)
    with model.gallery(tmp_path / "many.gallery") as gallery:
        for start in range(0, 10_000, 2000):
            records = [
                Record(f"00000000-0000-4000-8000-{place:012}", f"{MARKUP} {place}", None)
                for place in range(start, start + 2000)
            ]
            vectors = random.normal(size=(2000, model.embedding_size)).astype(np.float32)
            gallery.insert(records, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    with running(model_folder, "--gallery", tmp_path / "many.gallery") as service:
        page = visit(service, "#enroll")
        rows = page.locator(".people > li")
        expect(rows).to_have_count(60)
        page.get_by_label("Find a name", exact=True).fill("> 9999")
        expect(rows).to_have_count(1)
        page.goto(f"{service.address}/#map")
        expect(page.locator(".legend button")).to_have_count(14)
        # Frame time of 10,000 dots while the map is dragged.
        frames = page.evaluate(
            """async () => {
                const canvas = document.querySelector(".canvas canvas");
                const times = [];
                for (let step = 0; step < 10; step += 1) {
                    const began = performance.now();
                    canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
                    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                    times.push(performance.now() - began);
                }
                return times.sort((a, b) => a - b);
            }"""
        )
        assert frames[5] < 250, frames
        assert page.title() == "Map · Twinned"
        page.close()  # no request may be sent after the service has stopped


# ---- Map


def test_map_opens_search_and_report(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service, "#map", viewport={"width": 1200, "height": 900})
    expect(page.locator(".legend button")).to_have_count(5)
    canvas = page.get_by_role("application")
    canvas.focus()
    page.keyboard.press("+")
    expect(page.locator(".tip")).to_be_visible()
    label = page.locator(".tip bdi").text_content()
    assert label in SHAPES
    page.keyboard.press("Enter")
    expect(page.locator("#place-search .trail .step")).to_have_count(1)
    expect(page.locator("#place-search .grid li")).to_have_count(19)
    page.go_back()
    page.keyboard.press("0")
    page.locator(".segments").get_by_text("t-SNE").click()
    expect(page.locator(".map-state")).to_contain_text("Computing t-SNE")
    expect(page.locator(".map-state")).to_be_empty(timeout=60_000)
    page.get_by_role("button", name="cross").click()
    expect(page.get_by_role("button", name="cross")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("link", name="Report").click()
    expect(page.locator(".report h2").first).to_have_text("What to do next")
    expect(page.locator(".report .lead")).to_have_text(re.compile(r"(Very good|Good|Usable|Weak): .*\."))
    expect(page.locator(".report code").last).to_contain_text("twinned evaluate MODEL IMAGES")
    expect(page.locator(".report h2", has_text="Notes")).to_be_visible()
    expect(page.locator(".report")).not_to_contain_text("[object")
    expect(page.locator(".report")).to_contain_text("equal error rate")
    expect(page.locator(".report .plot .curve")).to_have_count(2)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the model card").click()
    assert saved.value.suggested_filename == "model-card.md"


# ---- Faces


@pytest.fixture(scope="module")
def people(data_set: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of five people with one face each, and a group of three of them."""
    if not models.is_installed():
        pytest.skip("needs the extra faces")
    source, folder = data_set("orl_faces"), tmp_path_factory.mktemp("people")
    group = Image.new("RGB", (640, 480), (90, 120, 90))
    for number, place in enumerate([(20, 30), (250, 200), (480, 60)], start=1):
        group.paste(Image.open(next(source.rglob(f"s{number}/10.pgm"))).resize((138, 168)), place)
        for image in (1, 2):
            photo = Image.new("RGB", (400, 400), (120, 90, 90))
            photo.paste(Image.open(next(source.rglob(f"s{number}/{image}.pgm"))).resize((184, 224)), (80, 60))
            photo.save(folder / f"person{number}-{image}.jpg")
    group.save(folder / "group.jpg")
    Image.new("RGB", (400, 400), "gray").save(folder / "nobody.jpg")
    Image.new("RGB", (96, 96), "gray").save(folder / "plain.jpg")
    return folder


def test_faces_are_boxed_chosen_named_and_judged(visit: Callable[..., Any], people: Path) -> None:
    with running("face") as service:
        page = visit(service)
        tiles = page.locator("#place-compare input[type=file]")
        tiles.nth(0).set_input_files(people / "group.jpg")
        boxes = page.locator("#place-compare .face-box")
        expect(boxes).to_have_count(3)
        tiles.nth(1).set_input_files(people / "person2-1.jpg")
        expect(boxes).to_have_count(4)
        verdict = page.locator("#place-compare .verdict")
        seen = []
        for place in range(3):
            with page.expect_response("**/v1/verify"):
                boxes.nth(place).click()
            expect(boxes.nth(place)).to_have_attribute("aria-pressed", "true")
            expect(verdict).to_have_text(VERDICT)
            seen.append("ame" in verdict.text_content())
        assert seen.count(True) == 1  # one of the group is person 2

        page.goto(f"{service.address}/#enroll")
        page.locator("#place-enroll").get_by_role("button", name="Make a temporary gallery").click()
        page.get_by_label("Name", exact=True).fill("two")
        photographs = [people / "person2-1.jpg", people / "person2-2.jpg", people / "nobody.jpg"]
        page.locator("#place-enroll input[type=file]").set_input_files(photographs)
        expect(page.locator(".queue .failed .status")).to_contain_text("no face was found")
        words = re.compile("^(sharp|small|dark|blurred|turned)(, (dark|blurred|turned))*$")
        expect(page.locator(".queue .waiting .status").first).to_have_text(words)
        expect(page.locator(".queue .waiting button.face img")).to_have_count(2)
        refused(page, 422)
        page.get_by_role("button", name="Enroll 2 faces").click()
        expect(page.locator(".people .line .note")).to_have_text("2 images")

        page.goto(f"{service.address}/#identify")
        page.locator("#place-identify input[type=file]").set_input_files(people / "group.jpg")
        tags = page.locator("#place-identify .face-box .tag")
        expect(page.locator(".crowd button")).to_have_count(3)
        assert sorted(tags.all_text_contents()) == ["two", "unknown", "unknown"]
        expect(page.locator("#place-identify .doubt")).to_be_hidden()
        page.locator(".crowd button", has_text="two").click()
        expect(page.locator("#place-identify .verdict")).to_have_text("two")
        page.locator("#place-identify input[type=file]").set_input_files(people / "plain.jpg")
        expect(page.locator("#place-identify .doubt")).to_be_visible(timeout=30_000)
        expect(page.locator("#place-identify .verdict")).to_have_text("Unknown", timeout=30_000)
        page.wait_for_timeout(300)
        page.close()  # what it still asks for must not meet a service that is gone
        stopped(service)


# ---- who may see it, and on what


def test_a_service_without_a_gallery_makes_one(visit: Callable[..., Any], model_folder: Path) -> None:
    with running(model_folder) as service:
        page = visit(service, "#identify")
        expect(page.locator("#place-identify")).to_contain_text("deleted when the service stops")
        page.get_by_role("button", name="Make a temporary gallery").click()
        page.get_by_role("link", name="Enroll the first images").click()
        expect(page.locator("#place-enroll .banner")).to_contain_text("temporary")
        page.get_by_label("Name", exact=True).fill("circle")
        give(page, "enroll", drawn("circle"), drawn("circle", 1))
        page.get_by_role("button", name="Enroll 2 images").click()
        expect(page.locator(".people bdi.name")).to_have_text("circle")
        page.goto(f"{service.address}/#identify")
        give(page, "identify", drawn("circle"))
        expect(page.locator("#place-identify .verdict")).to_have_text("circle")
        for place in ("search", "map"):
            page.goto(f"{service.address}/#{place}")
            expect(page.locator(f"#place-{place} .banner")).to_be_visible()
        expect(page.locator(".legend button")).to_have_count(1)
        page.wait_for_timeout(400)
        page.close()  # what it still asks for must not meet a service that is gone
        stopped(service)


def test_tabs_do_not_shift(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    page.locator("#place-compare .tile").first.wait_for()
    seen = []
    for place in ("compare", "map", "report"):
        page.goto(f"{service.address}/#{place}")
        expect(page.locator(f".places a[href='#{place}']")).to_have_attribute("aria-current", "page")
        boxes = [page.locator(".places a").nth(n).bounding_box() for n in range(6)]
        seen.append([(round(box["x"], 1), round(box["width"], 1)) for box in boxes])
    assert seen[0] == seen[1] == seen[2]


def test_token_is_requested_once(visit: Callable[..., Any], model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-that-nobody-guesses\n")
    with running(model_folder, "--token-file", tmp_path / "token") as service:
        page = visit(service)
        field = page.get_by_label("Token", exact=True)
        field.fill("something-else-entirely")
        field.press("Enter")
        expect(page.locator("#token-error")).to_have_text("The token is wrong.")
        field.fill("a-token-that-nobody-guesses")
        field.press("Enter")
        expect(page.locator("#place-compare .tile").first).to_be_visible()
        refused(page, 401)
        page.reload()
        give(page, "compare", drawn("circle"))
        give(page, "compare", drawn("circle"), tile=1)
        expect(page.locator("#place-compare .verdict")).to_have_text("Same")
        page.goto(f"{service.address}/#identify")
        expect(page.locator("#place-identify")).to_contain_text("This service has no gallery.")
        page.get_by_role("button", name="Forget the token").click()
        expect(field).to_be_visible()
        refused(page, 401)
        page.close()  # no request may be sent after the service has stopped


def test_read_only_page_has_no_controls_for_changes(
    visit: Callable[..., Any], model_folder: Path, tmp_path: Path
) -> None:
    with tw.load(model_folder).gallery(tmp_path / "g.gallery") as gallery:
        gallery.add([png("ring")], "ring", progress=False)
    with running(model_folder, "--gallery", tmp_path / "g.gallery", "--read-only") as service:
        page = visit(service, "#enroll")
        expect(page.locator("#place-enroll .banner")).to_contain_text("read-only")
        expect(page.locator(".people bdi.name")).to_have_text("ring")
        page.locator(".people .face.loaded").wait_for()  # it must be loaded before the service stops
        expect(page.locator("#place-enroll form")).to_have_count(0)
        expect(page.get_by_role("button", name="Remove ring")).to_have_count(0)
        page.close()  # no request may be sent after the service has stopped


@pytest.mark.parametrize(
    "options", [PHONE, {"viewport": {"width": 320, "height": 640}}], ids=["phone", "narrow"]
)
def test_page_fits_small_screens(
    visit: Callable[..., Any], service: Running, options: dict[str, Any]
) -> None:
    page = visit(service, **options)
    give(page, "compare", drawn("circle"))
    give(page, "compare", drawn("square"), tile=1)
    expect(page.locator("#place-compare .verdict")).to_have_text(VERDICT)
    for place in ("compare", "identify", "enroll", "search", "map", "report"):
        page.goto(f"{service.address}/#{place}")
        page.locator(f"#place-{place}").wait_for()
        if place in ("identify", "search"):
            give(page, place, drawn("ring", 2))
            page.locator(f"#place-{place} .face.loaded").first.wait_for()
        page.wait_for_timeout(200)
        assert (
            page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        ), place
        nav = page.locator(".places").bounding_box()
        assert nav["y"] + nav["height"] == pytest.approx(options["viewport"]["height"], abs=1)


def test_controls_are_reachable_by_keyboard(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service)
    page.locator("#place-compare .tile").first.wait_for()
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """() => {
                    const at = document.activeElement;
                    return at.getAttribute("aria-label") || at.textContent.trim();
                }"""
            )
        )
    for wanted in (
        "Skip to the content",
        "Identify",
        "Map",
        "First image: choose a file",
        "Camera",
        "Threshold",
    ):
        assert wanted in reached, reached
    page.goto(f"{service.address}/#search")
    page.keyboard.press("Tab")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a")].filter((one) =>
            one.offsetParent && !one.ariaLabel && !one.textContent.trim() && !one.labels?.length
        ).map((one) => one.outerHTML)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_meets_wcag_aa(visit: Callable[..., Any], service: Running, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for text, in both schemes."""
    page = visit(service, color_scheme=scheme)
    names = ["ground", "panel", "raised", "ink", "muted", "same", "different", "same-soft", "different-soft",
             "far", "frr", "accent", "on-accent", "error", "error-soft"]  # fmt: skip
    colors = page.evaluate(
        """(names) => {
            const style = getComputedStyle(document.documentElement);
            return Object.fromEntries(names.map((one) => [one, style.getPropertyValue("--" + one).trim()]));
        }""",
        names,
    )

    def luminance(name: str) -> float:
        channels = np.array([int(colors[name][i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for words, ground in (
        *(("ink", g) for g in ("ground", "panel", "raised")),
        *(("muted", g) for g in ("ground", "panel", "raised")),
        *((c, "panel") for c in ("same", "different", "far", "frr", "error", "accent")),
        ("same", "same-soft"),
        ("different", "different-soft"),
        ("error", "error-soft"),
        ("on-accent", "accent"),
    ):
        light, dark = sorted((luminance(words), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (words, ground)


def test_theme_is_kept_after_reload(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service, color_scheme="light")
    page.get_by_role("button", name="Switch between light and dark").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_api_documentation_fits_a_phone(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service, "docs", **PHONE)
    page.locator(".operation td").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    narrow = page.evaluate(
        """() => [...document.querySelectorAll(".operation td")]
            .filter((one) => one.textContent.trim() && one.offsetHeight > 160)
            .map((one) => one.textContent)"""
    )
    assert narrow == []


def test_api_documentation_lists_operations(visit: Callable[..., Any], service: Running) -> None:
    page = visit(service, "docs")
    expect(page.locator(".operation").first).to_contain_text("/v1/verify")
    listed = page.locator(".operation h2").all_text_contents()
    for wanted in (
        "POST/v1/embed",
        "POST/v1/classify",
        "PATCH/v1/gallery/{id}",
        "DELETE/v1/gallery",
        "GET/healthz",
    ):
        assert wanted in listed
