"""The HTML report: complete, self-contained and escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import twinned as tw
from twinned.data.datasets import ImageSet
from twinned.data.images import pixels_sha256
from twinned.data.preprocessing import read_image
from twinned.evaluation.results import Evaluation, number
from twinned.metrics.few_shot import OneShot
from twinned.utils.notes import Note
from twinned.visualization.report import figures, provenance
from twinned.visualization.report.html import Html, inline, join, one_in, tag
from twinned.visualization.report.report import render, write_report

HOSTILE = '<script>alert("$x$")</script>&amp;'


VOID = {"img", "meta", "path", "use", "rect", "stop", "br", "circle", "line"}


class Outline(HTMLParser):
    """Collect open tags, addresses and ids of a page; fail on wrongly closed tags."""

    def __init__(self, page):
        super().__init__()
        self.open, self.addresses, self.ids, self.words, self.scripts = [], [], [], [], 0
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attributes):
        self.scripts += name == "script"
        self.addresses += [value for key, value in attributes if key in ("src", "href", "xlink:href")]
        self.ids += [value for key, value in attributes if key == "id"]
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.handle_starttag(name, attributes)
        if name not in VOID:
            self.open.pop()

    def handle_endtag(self, name):
        if name not in VOID:
            assert self.open.pop() == name

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def model(color_model):
    return tw.load(color_model)


def image_set(tmp_path, classes=9, each=4, name="class {}"):
    """Write noisy images of one color per class."""
    random = np.random.default_rng(0)
    images, labels = [], []
    for k in range(classes):
        color = random.integers(40, 216, 3)
        for n in range(each):
            pixels = (color + random.normal(0, 25, 3) + random.normal(0, 5, (32, 32, 3))).clip(0, 255)
            file = tmp_path / f"{k}-{n}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            images.append(str(file))
            labels.append(name.format(k))
    none = np.full(len(labels), "")
    return ImageSet(images, np.array(labels), none, np.zeros(len(labels), bool), none)


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    data = image_set(tmp_path_factory.mktemp("data"), name="class {} " + HOSTILE)
    return model.evaluate(data, ways=5, progress=False)


@pytest.fixture(scope="module")
def page(model, found):
    return render(model, found, data=f"some/{HOSTILE}")


def text(page):
    return " ".join(" ".join(Outline(page).words).split())


def without_pictures(model, found):
    return text(join([*figures.glance(model, found), *provenance.provenance(model, found, "x")]))


def test_report_loads_nothing_and_runs_no_scripts(page):
    outline = Outline(page)
    assert outline.open == []
    assert outline.scripts == 0
    assert outline.addresses
    assert all(address.startswith(("data:image/", "#")) for address in outline.addresses)
    assert "http" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_report_escapes_external_text(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert HOSTILE in text(page)  # displayed as the original name


def test_report_ids_are_unique_and_resolved(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    used = {a[1:] for a in outline.addresses if a.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(outline.ids)


def test_figures_use_the_colors_of_the_page(page):
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(pictures) == 4
    for picture in pictures:
        assert "var(--ink)" in picture
        assert not re.search(r"#(1a2029|0072b2|ffffff)", picture)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_report_has_the_figures_and_sections(model, found, page):
    shown = text(page)
    v = found.verification
    assert number(v.eer) in shown
    assert f"{one_in(v.far)} of the different pairs" in shown
    assert f"{found.one_shot.ways}-way 1-shot accuracy" in shown
    for title in (
        "Verification",
        "Metrics",
        "Most confident errors",
        "Hardest classes",
        "Data and model",
    ):
        assert title in shown
    assert model.encoder_sha256 in shown
    assert "f" * 64 in shown  # hash of the training data
    assert "seed 7" in shown
    assert "FPIR: unknown identified" in shown


def test_unsupported_rates_are_marked(found, page):
    shown = text(page)
    impostors = found.verification.n_impostor
    assert impostors < 3000
    assert "not supported: 300,000 impostors are needed" in shown
    rows = {row.split("<td>")[0]: row for row in re.findall(r'<th scope="row">(.*?)</tr>', page)}
    for far, row in found.verification.tar_at_far.items():
        line = next(line for head, line in rows.items() if head.startswith(f"TAR at FAR {far:g}</th>"))
        assert ('class="mark">not supported' in line) == (not row.supported)


def test_errors_are_shown_as_image_pairs(found, page):
    pairs = re.findall(r'<details class="pair">(.*?)</details>', page)
    assert pairs
    for pair in pairs:
        assert pair.count("data:image/jpeg") == 2
        assert len(re.findall(r"<code>[^<]+</code>", pair)) == 2  # names of the files


def test_report_starts_with_advice(page):
    assert page.index("What to do next") < page.index("<h2>Verification")
    assert re.search(r'<ol class="next"><li>(Very good|Good|Usable|Weak): ', page)
    assert "lower is better" in page


def test_report_states_images_seen_in_training(model, found, tmp_path):
    import json

    from twinned.inference import model_folder
    from twinned.utils.files import write_text

    folder = tmp_path / "leaky.twin"
    model_folder.copy(model.folder, folder)
    training = json.loads((folder / "training.json").read_text())
    hashes = [pixels_sha256(read_image(image, model.spec)) for image in found.data.images]
    for known, expected in (
        (["0" * 64], "None of the 36 images was in training"),
        (hashes[:3], "3 of the 36 images were in training."),
    ):
        write_text(folder / "training.json", json.dumps(training | {"images": known}))
        model_folder.write(folder, model_folder.read(folder))
        leaky = tw.load(folder)
        labels = np.array(["old" if n % 2 else "held" for n in range(36)])
        data = ImageSet(found.data.images, labels, labels, np.zeros(36, bool), labels)
        shown = without_pictures(leaky, leaky.evaluate(data, ways=2, progress=False))
        assert expected in shown
        assert "classes seen in training 1 of 2, by name: old" in shown
        assert "chosen on 1 class with the same names" in shown
    assert "cannot be ruled out" in without_pictures(model, found)  # the model has no hashes


def test_report_tolerates_missing_image_files(model, tmp_path):
    data = image_set(tmp_path)
    found = model.evaluate(data, ways=2, progress=False)
    for file in tmp_path.iterdir():
        file.unlink()
    assert "file not found" in text(join(provenance.worst_pairs(model, found)))


def test_report_of_a_protocol_without_pairs(model):
    one_shot = OneShot(20, 1, 400, 0.9, (0.87, 0.93))
    found = Evaluation(
        None, one_shot, None, "omniglot-runs", [Note("x", "a note <b>")], {"runs": [0.85, 0.95]}
    )
    shown = text(render(model, found, data="all_runs"))
    assert "2 runs from 0.8500 to 0.9500" in shown
    assert "400 queries" in shown
    assert "a note <b>" in shown
    assert "Verification" not in shown


def test_report_of_forgeries_and_pair_lists(model, tmp_path):
    data = image_set(tmp_path)
    forgery = np.arange(36) % 4 == 3
    forged = ImageSet(data.images, data.labels, data.groups, forgery, data.split)
    page = render(model, model.evaluate(forged, ways=2, progress=False), data="x")
    shown = text(page)
    assert "skilled forgeries" in shown
    assert "random impostors" in shown
    assert "Of the pairs of two different classes, without forgeries, it accepts" in shown
    assert "standard deviations" in shown
    assert 'scope="row">FPIR' not in page  # no open-set figures with forgeries

    rows = [f"{n}-0.png,{n}-1.png,1\n{n}-0.png,{(n + 1) % 9}-1.png,0\n" for n in range(9)]
    (tmp_path / "pairs.csv").write_text("left,right,same\n" + "".join(rows))
    found = model.evaluate(tmp_path / "pairs.csv", progress=False)
    shown = text(render(model, found, data="pairs.csv"))
    assert "Most confident errors" in shown
    assert "The hardest classes" not in shown


def test_report_is_replaced_atomically(model, found, tmp_path):
    file = tmp_path / "report.html"
    file.write_text("old")
    write_report(model, found, file, data="digits")
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<title>colors.twin on digits</title>" in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_html_is_escaped_by_construction():
    assert join(["<", Html("<br>"), None, 3]) == "&lt;<br>3"
    assert tag("p", "a & b", title='"x"', hidden=None) == '<p title="&quot;x&quot;">a &amp; b</p>'


def test_inline_svg_has_no_addresses_and_unique_ids():
    drawn = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="9pt" viewBox="0 0 9 9" xmlns="http://w3">'
        '<metadata>http://x</metadata><g id="a" style="fill: #0072b2"/><use xlink:href="#a"/></svg>'
    )
    expected = '<svg viewBox="0 0 9 9" role="img" aria-label="roc"><g id="roc-a" style="fill: var(--blue)"/>'
    assert inline(drawn, "roc") == expected + '<use href="#roc-a"/></svg>'


@pytest.mark.parametrize(
    ("rate", "words", "fraction"),
    [
        (0.0, "0.0000", "none"),
        (0.00012, "0.00012", "1 in 8,333"),
        (0.0251, "0.0251", "1 in 40"),
        (0.5, "0.5000", "0.5000"),
        (1.0, "1.0000", "all"),
    ],
)
def test_rates_are_formatted(rate, words, fraction):
    assert number(rate) == words
    assert one_in(rate) == fraction
