"""Folders for tests of the program."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import in_memory


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    yield from in_memory(tmp_path)


@pytest.fixture
def place(tmp_path: Path, glyphs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with unusable data: no images, too few, broken files."""
    monkeypatch.chdir(tmp_path)
    image = glyphs / "glyph00" / "0.png"
    Path("empty").mkdir()
    for folder, names in {
        "flat": ["0.png", "1.png"],
        "one_class": ["a/0.png", "a/1.png"],
        "single": ["a/0.png", "b/0.png", "c/0.png"],
        "broken": ["a/0.png", "a/1.png", "b/0.png", "b/1.png"],
    }.items():
        for name in names:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder == "broken":
                path.write_bytes(b"broken")
            else:
                shutil.copy(image, path)
    Path("image.png").write_bytes(image.read_bytes())
    Path("cut.png").write_bytes(image.read_bytes()[:60])
    Path("zero.png").write_bytes(b"")
    Path("text.png").write_text("no image")
    Path("list.csv").write_text("a,b\n1,2\n")
    return tmp_path
