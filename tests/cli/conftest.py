"""Run the program in this process and return its output."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from twinned.cli.main import main

from ..conftest import in_memory


class Shown(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """JSON value on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Message of a failed command, the only line on standard error."""
        assert self.code == 2, self
        assert self.out == "", "a failed command writes nothing to standard output"
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("twinned: ")
        return lines[0].removeprefix("twinned: ")


Twinned = Callable[..., Shown]


@pytest.fixture
def twinned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Twinned:
    """``twinned("verify", model, a, b)`` runs the program as from a shell."""

    def call(*arguments: object) -> Shown:
        monkeypatch.setattr(sys, "argv", ["twinned", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        shown = capsys.readouterr()
        return Shown(stop.value.code, shown.out, shown.err)

    return call


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
