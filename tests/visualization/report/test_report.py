"""The report: whole, self-contained, honest, and safe to open."""

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
    """Open tags, addresses and ids of a page; fails on a tag that is closed in the wrong place."""

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
    """Noisy plain colours, a class a colour, as files."""
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


def test_nothing_is_fetched_and_nothing_runs(page):
    outline = Outline(page)
    assert outline.open == []
    assert outline.scripts == 0
    assert outline.addresses
    assert all(address.startswith(("data:image/", "#")) for address in outline.addresses)
    assert "http" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_text_from_outside_is_escaped(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert HOSTILE in text(page)  # what the reader sees is the name itself


def test_ids_are_unique_and_what_is_used_is_there(page):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    used = {a[1:] for a in outline.addresses if a.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(outline.ids)


def test_pictures_take_the_colours_of_the_page(page):
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(pictures) == 4
    for picture in pictures:
        assert "var(--ink)" in picture
        assert not re.search(r"#(1a2029|0072b2|ffffff)", picture)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_it_says_what_was_found(model, found, page):
    said = text(page)
    v = found.verification
    assert number(v.eer) in said
    assert f"{one_in(v.far)} of the different pairs" in said
    assert f"{found.one_shot.ways}-way 1-shot accuracy" in said
    for title in (
        "Verification",
        "Metrics",
        "Most confident errors",
        "Hardest classes",
        "Data and model",
    ):
        assert title in said
    assert model.encoder_sha256 in said
    assert "f" * 64 in said  # of the training data
    assert "seed 7" in said
    assert "FPIR: unknown identified" in said


def test_rates_without_enough_comparisons_are_marked(found, page):
    said = text(page)
    impostors = found.verification.n_impostor
    assert impostors < 3000
    assert "not supported: 300,000 impostors are needed" in said
    rows = {row.split("<td>")[0]: row for row in re.findall(r'<th scope="row">(.*?)</tr>', page)}
    for far, row in found.verification.tar_at_far.items():
        line = next(line for head, line in rows.items() if head.startswith(f"TAR at FAR {far:g}</th>"))
        assert ('class="mark">not supported' in line) == (not row.supported)


def test_mistakes_are_shown_as_pairs_of_images(found, page):
    pairs = re.findall(r'<details class="pair">(.*?)</details>', page)
    assert pairs
    for pair in pairs:
        assert pair.count("data:image/jpeg") == 2
        assert len(re.findall(r"<code>[^<]+</code>", pair)) == 2  # names of the files


def test_the_report_says_what_to_do_next(page):
    assert page.index("What to do next") < page.index("<h2>Verification")
    assert re.search(r'<ol class="next"><li>(Very good|Good|Usable|Weak): ', page)
    assert "lower is better" in page


def test_a_clean_test_says_so_and_a_leak_stands_on_top(model, found, tmp_path):
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
        said = without_pictures(leaky, leaky.evaluate(data, ways=2, progress=False))
        assert expected in said
        assert "classes seen in training 1 of 2, by name: old" in said
        assert "chosen on 1 classes with the same names" in said
    assert "cannot be ruled out" in without_pictures(model, found)  # this model recorded no hash


def test_an_image_that_has_gone_since_does_no_harm(model, tmp_path):
    data = image_set(tmp_path)
    found = model.evaluate(data, ways=2, progress=False)
    for file in tmp_path.iterdir():
        file.unlink()
    assert "file not found" in text(join(provenance.worst_pairs(model, found)))


def test_a_protocol_without_pairs_has_a_report_too(model):
    one_shot = OneShot(20, 1, 400, 0.9, (0.87, 0.93))
    found = Evaluation(
        None, one_shot, None, "omniglot-runs", [Note("x", "a note <b>")], {"runs": [0.85, 0.95]}
    )
    said = text(render(model, found, data="all_runs"))
    assert "2 runs from 0.8500 to 0.9500" in said
    assert "400 queries" in said
    assert "a note <b>" in said
    assert "Verification" not in said


def test_pairs_and_forgeries(model, tmp_path):
    data = image_set(tmp_path)
    forgery = np.arange(36) % 4 == 3
    forged = ImageSet(data.images, data.labels, data.groups, forgery, data.split)
    page = render(model, model.evaluate(forged, ways=2, progress=False), data="x")
    said = text(page)
    assert "skilled forgeries" in said
    assert "random impostors" in said
    assert "Of the pairs of two different classes, without forgeries, it accepts" in said
    assert "standard deviations" in said
    assert 'scope="row">FPIR' not in page  # a forgery is neither unknown nor enrolled

    rows = [f"{n}-0.png,{n}-1.png,1\n{n}-0.png,{(n + 1) % 9}-1.png,0\n" for n in range(9)]
    (tmp_path / "pairs.csv").write_text("left,right,same\n" + "".join(rows))
    found = model.evaluate(tmp_path / "pairs.csv", progress=False)
    said = text(render(model, found, data="pairs.csv"))
    assert "Most confident errors" in said
    assert "The hardest classes" not in said


def test_writing_replaces_the_file_whole(model, found, tmp_path):
    file = tmp_path / "report.html"
    file.write_text("old")
    write_report(model, found, file, data="digits")
    page = file.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<title>colors.twin on digits</title>" in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_text_is_escaped_by_construction():
    assert join(["<", Html("<br>"), None, 3]) == "&lt;<br>3"
    assert tag("p", "a & b", title='"x"', hidden=None) == '<p title="&quot;x&quot;">a &amp; b</p>'


def test_an_svg_loses_its_addresses_and_shares_no_id():
    drawn = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="9pt" viewBox="0 0 9 9" xmlns="http://w3">'
        '<metadata>http://x</metadata><g id="a" style="fill: #0072b2"/><use xlink:href="#a"/></svg>'
    )
    expected = '<svg viewBox="0 0 9 9" role="img" aria-label="roc"><g id="roc-a" style="fill: var(--blue)"/>'
    assert inline(drawn, "roc") == expected + '<use href="#roc-a"/></svg>'


@pytest.mark.parametrize(
    ("rate", "words", "told"),
    [
        (0.0, "0.0000", "none"),
        (0.00012, "0.00012", "1 in 8,333"),
        (0.0251, "0.0251", "1 in 40"),
        (0.5, "0.5000", "0.5000"),
        (1.0, "1.0000", "all"),
    ],
)
def test_rates_in_words(rate, words, told):
    assert number(rate) == words
    assert one_in(rate) == told
