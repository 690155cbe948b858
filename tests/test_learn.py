"""The code of the course prints the shown output; notebooks have the text of their chapters."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

LEARN = Path(__file__).parents[1] / "docs" / "learn"
FAST = ("01", "02", "03", "04", "06")  # chapters that the fast tests run
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
_MOST_BYTES = 150_000  # of a picture or notebook


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chapters", LEARN / "chapters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chapters"] = module
    spec.loader.exec_module(module)
    return module


chapters = _load()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the chapters run."""
    return tmp_path_factory.mktemp("reader")


def numbers(text: str) -> tuple[str, list[str]]:
    """Return the words of an output, without spaces, and its numbers."""
    return re.sub(r"\s+", "", _NUMBER.sub("#", text)), _NUMBER.findall(text)


def check(expected: str, found: str, within: float) -> None:
    """Compare two outputs: words exactly, numbers up to rounding or the stated tolerance."""
    (words, figures), (their_words, theirs) = numbers(expected), numbers(found)
    assert words == their_words, found
    for one, other in zip(figures, theirs, strict=True):
        decimals = len(one.partition(".")[2])
        a, b = (float(value.replace(",", "")) for value in (one, other))
        # A tolerance is a difference of fractions, and a share of larger numbers.
        assert abs(a - b) <= max(1.01 * 10**-decimals * (decimals > 0), within * max(1.0, abs(a))), found


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (not page.name.startswith(FAST)))
        for page in chapters.CHAPTERS
    ],
)
def test_chapter_prints_the_shown_output(page, place):
    todo = chapters.blocks(page)
    assert todo
    if 'load("letters.twin")' in page.read_text("utf-8") and not (place / "letters.twin").exists():
        list(chapters.run(chapters.blocks(LEARN / "07-training.md"), place))
    if not os.environ.get("TWINNED_DATA"):
        todo = [block for block in todo if not block.data]
    for block, found in zip(todo, chapters.run(todo, place), strict=True):
        if block.output:
            check(block.output, found, block.within)


@pytest.mark.parametrize("page", chapters.CHAPTERS, ids=lambda page: page.stem)
def test_chapter_has_all_sections(page):
    text = page.read_text("utf-8")
    if page.name[0].isdigit():
        exercises, answers = re.search(
            r"## Exercises\n(.*?)<details markdown=\"1\"><summary>Answers</summary>(.*?)</details>",
            text,
            re.DOTALL,
        ).groups()
        for part in (exercises, answers):
            assert re.findall(r"^(\d)\. ", part, re.MULTILINE) == ["1", "2", "3"]
        assert "## What you can now explain" in text
        assert re.search(r"(second|minute)s?\b", text)
    for picture in re.findall(r"!\[[^\]]+\]\((\S+)\)", text):
        assert 0 < (LEARN / picture).stat().st_size < _MOST_BYTES, picture


BOOKS = [*(LEARN / f"{name}.md" for name in chapters.NOTEBOOKS), *chapters.GUIDES]


@pytest.mark.parametrize("page", BOOKS, ids=lambda page: page.stem)
def test_notebook_has_the_text_of_its_page(page):
    nbformat = pytest.importorskip("nbformat")
    file = page.with_suffix(".ipynb")
    book = nbformat.read(file, as_version=4)
    nbformat.validate(book)
    assert [(cell.cell_type, cell.source) for cell in book.cells] == chapters.cells(page)
    assert all(cell.outputs for cell in book.cells if cell.cell_type == "code" and "\nprint(" in cell.source)
    assert file.stat().st_size < _MOST_BYTES
    shown = chapters.pictures(book)
    if page in chapters.GUIDES:
        assert len(shown) == len(re.findall(r"!\[[^\]]+\]\(pictures/", page.read_text("utf-8"))) > 0
    for number, png in enumerate(shown, 1):
        assert (page.parent / "pictures" / f"{page.stem}-{number}.png").read_bytes() == png


@pytest.mark.slow
@pytest.mark.parametrize("page", BOOKS, ids=lambda page: page.stem)
def test_notebook_runs(page):
    pytest.importorskip("nbclient")
    book = chapters.execute(page)
    for block, found in zip(chapters.blocks(page), chapters.printed(book), strict=True):
        check(block.output, found, block.within)


def test_differing_output_is_detected():
    check("a 0.50 b 1,000", "a  0.51 b 1,000", 0.0)
    check("a 0.50 b 1,000", "a 0.58 b 1,050", 0.1)
    for found in ("a 0.53 b 1,000", "a 0.50 c 1,000", "a 0.50 b 1,001"):
        with pytest.raises(AssertionError):
            check("a 0.50 b 1,000", found, 0.0)
